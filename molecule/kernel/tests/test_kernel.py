# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role guest_kernel built, looked at and booted. Each proof that a guest carries out is a test here.

Without molecule, `KERNELS=/var/lib/nested-kata/kernels pytest molecule/kernel/tests` takes all kernels in that
directory; each lies in a directory of its own, whose name says the profile: `6.12.107-docker-1a2b3c4d5e6f` as the role
has it, or `docker-6.12`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import testinfra
from bzimage import release_of
from guest.prove import PROFILES
from qemu_kernel import Report, boot, root_file_system

INVENTORY = Path(__file__).resolve().parent.parent / "inventory.yml"
DIRECTORY = Path(os.environ.get("KERNELS") or Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "kernels"))
BY_HAND = "KERNELS" in os.environ
FILES = ("vmlinux", "bzImage", "config", "System.map")

# What the profile docker brings of the profiles netsim and nested. All else of theirs must be disproved on its kernel.
BROUGHT_BY_DOCKER = {
    "vlans keep their packets",
    "vxlan tunnels",
    "a dummy link swallows packets",
    "sctp carries a message",
}


def profile_of(kernel: str) -> str:
    """Return which profile the directory of a kernel is named after."""
    return next((profile for profile in PROFILES if re.search(rf"(^|-){profile}(-|$)", kernel)), "stock")


def kernels() -> tuple[str, ...]:
    """Return the directories that there are; under molecule, also a name for each that was to be built and was not."""
    found = sorted(path.parent.name for path in DIRECTORY.glob("*/bzImage"))
    wanted = [] if BY_HAND else os.environ.get("KERNEL_PROFILES", "docker").split(",")
    return (*found, *(f"no-{profile}" for profile in wanted if profile not in map(profile_of, found)))


KERNELS = kernels()
PROVEN = [(kernel, proof) for kernel in KERNELS for proof in PROFILES[profile_of(kernel)]]
MADE_FOR_DOCKER = [kernel for kernel in KERNELS if profile_of(kernel) == "docker"]
FOREIGN = [proof for profile in ("netsim", "nested") for proof in PROFILES[profile] if proof not in PROFILES["docker"]]


def file_of(kernel: str, name: str) -> Path:
    """Return one of the files; a kernel tree's own .config stands for config."""
    path = DIRECTORY / kernel / name
    return path if path.exists() or name != "config" else path.with_name(".config")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def about(kernel: str) -> dict[str, str]:
    """Return what record.py notes of a kernel that was proven."""
    build = json.loads(file_of(kernel, "build.json").read_text())
    emulator = subprocess.run(
        ["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "linux": build["release"],
        "source": build["info"]["source"],
        "compiler": build["compiler"],
        "emulator": emulator,
    }


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that boots a kernel with the proofs of its profile, or of others, once."""
    root_file_system()  # where it cannot be made, that is tried once, and not for each proof

    @cache
    def report(kernel: str, profiles: str) -> Report:
        return boot(
            file_of(kernel, "bzImage"), profiles, tmp_path_factory.mktemp(f"{kernel}-{profiles}".replace(",", "-"))
        )

    return report


def test_there_is_a_kernel() -> None:
    assert KERNELS, f"{DIRECTORY} has no directory with a bzImage"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_files_of_a_kernel_are_what_build_json_says(kernel: str) -> None:
    assert [name for name in FILES if not file_of(kernel, name).is_file()] == []
    release = release_of(file_of(kernel, "bzImage").read_bytes())
    assert f"Linux version {release} ".encode() in file_of(kernel, "vmlinux").read_bytes()
    assert " startup_64\n" in file_of(kernel, "System.map").read_text()
    if not BY_HAND:
        build = json.loads(file_of(kernel, "build.json").read_text())
        assert build["release"] == release
        assert build["files"] == {
            name: {"sha256": digest(path), "size": path.stat().st_size}
            for name in FILES
            for path in [file_of(kernel, name)]
        }


@pytest.mark.skipif(BY_HAND, reason="there are no targets without molecule")
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_second_target_has_the_same_files(kernel: str) -> None:
    target = testinfra.get_host(f"ansible://target?force_ansible=True&ansible_inventory={INVENTORY}")
    sums = target.check_output(f"cd {DIRECTORY / kernel} && sha256sum {' '.join(FILES)}")
    assert dict(reversed(line.split()) for line in sums.splitlines()) == {
        name: digest(file_of(kernel, name)) for name in FILES
    }


@pytest.mark.skipif(BY_HAND, reason="there is no build container without molecule")
def test_where_kernels_are_compiled_the_authority_of_the_play_is_trusted() -> None:
    images = ["docker", "images", "--quiet", "--filter", "label=nested.kata.kernel-build=x86_64"]
    (image,) = subprocess.run(images, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    bundle = ["docker", "run", "--rm", "--network=none", image, "cat", "/etc/ssl/certs/ca-certificates.crt"]
    trusted = subprocess.run(bundle, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert (DIRECTORY.parent / "ca.crt").read_text() in trusted


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_boots_and_says_who_it_is(
    kernel: str, booted, record_testsuite_property: Callable[[str, object], None]
) -> None:
    report = booted(kernel, profile_of(kernel))
    assert report.complete, report.last_lines()
    assert report.release == release_of(file_of(kernel, "bzImage").read_bytes())
    assert report.config == digest(file_of(kernel, "config"))
    assert 0 < report.init < report.started
    print(
        f"{report.release}: init after {report.init:.2f} s, systemd after {report.started:.2f} s of the guest, all in"
        f" {report.seconds:.0f} s"
    )
    if not BY_HAND:
        record_testsuite_property("kernel", json.dumps({profile_of(kernel): about(kernel)}))


@pytest.mark.parametrize(("kernel", "proof"), PROVEN)
def test_proven(kernel: str, proof: str, booted) -> None:
    report = booted(kernel, profile_of(kernel))
    assert proof in report.proofs, f"the guest said nothing of it; {report.last_lines()}"
    assert report.proofs[proof].ok, report.proofs[proof].detail


@pytest.mark.parametrize("proof", FOREIGN)
@pytest.mark.parametrize("kernel", MADE_FOR_DOCKER)
def test_what_a_kernel_was_not_made_for_is_disproved(kernel: str, proof: str, booted) -> None:
    report = booted(kernel, "netsim,nested")
    assert proof in report.proofs, f"the guest said nothing of it; {report.last_lines()}"
    assert report.proofs[proof].ok is (proof in BROUGHT_BY_DOCKER), report.proofs[proof].detail
