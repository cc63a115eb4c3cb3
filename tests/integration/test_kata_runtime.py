# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role kata_runtime on a dockerd of its own. The shim of the release is the stand-in: it runs on this machine's
kernel, and says so.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from ansible_runner import MARK, play, wait_until
from docker_in_docker import configure_without, docker, has_runtime, load, nested_daemon, within
from kata_archive import Release, make_release

pytestmark = [pytest.mark.docker, pytest.mark.root]

NAME = f"t-kata-runtime-{MARK}"
BASE = "debian:trixie-slim"
LIB, ETC = "/var/lib/nested-kata/kata", "/etc/nested-kata/kata"
OLD, NEW = "4.1.0", "4.1.1"
CONFIG = {
    "storage-driver": "overlay2",
    "bridge": "none",
    "iptables": False,
    "ip6tables": False,
    "labels": ["site=here"],
}

# All that the role could write, and the archive of it after the first run.
WRITTEN = ("/etc/nested-kata", "/var/lib/nested-kata", "/etc/docker", "/etc/modules-load.d")
KEPT = "/root/kept.tar"

inside = partial(within, NAME)


def state() -> str:
    """All that the role could write, and what Docker knows: what a refused or a second run must leave as it is."""
    files = inside("sh", "-c", f"find {' '.join(WRITTEN)} -printf '%p %y %s %m %T@ %l\\n' 2>/dev/null | sort; true")
    return files + docker("info", "--format", "{{json .Runtimes}}", hops=[NAME])


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    directory = tmp_path_factory.mktemp("releases")
    return {version: make_release(directory, version) for version in (OLD, NEW)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with an inventory and a playbook for a daemon that holds the base image."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "hosts.yml").write_text(
        json.dumps(
            {
                "all": {
                    "hosts": {
                        "daemon": {
                            "ansible_connection": "nested.kata.nested",
                            "ansible_nested_hops": [NAME],
                            "ansible_python_interpreter": "/usr/bin/python3",
                            "docker_engine_log": "/var/log/dockerd.log",
                        }
                    }
                }
            }
        )
    )
    (directory / "play.yml").write_text(
        json.dumps([{"name": "Kata", "hosts": "all", "gather_facts": True, "roles": ["nested.kata.kata_runtime"]}])
    )
    with nested_daemon(NAME, network=False):
        load(BASE, NAME)
        yield directory


def clear() -> None:
    """Take away every runtime, release and container of an earlier test."""
    inside(
        "sh",
        "-c",
        f"docker ps --all --quiet | xargs --no-run-if-empty docker rm --force; rm -rf {LIB} {ETC} /run/nested-kata",
    )
    configure_without(NAME, "kata", json.dumps(CONFIG))


@pytest.fixture(autouse=True)
def nothing(site: Path) -> None:
    clear()


@dataclass
class FirstRun:
    """What the first run of the role did, after one in check mode."""

    foreseen: int  # how many tasks check mode said would change something
    left_alone: bool  # whether check mode changed nothing
    changed: int


@pytest.fixture(scope="module")
def first_run(site: Path, releases: dict[str, Release]) -> FirstRun:
    """Install the old release, and keep what that wrote for the tests that begin with it."""
    clear()
    before = state()
    foreseen = good(play_role(site, of(releases[OLD]), "--check"))
    left_alone = state() == before
    changed = good(play_role(site, of(releases[OLD])))
    inside("sh", "-c", f"tar -cf {KEPT} --ignore-failed-read {' '.join(WRITTEN)} /run/nested-kata")
    return FirstRun(foreseen, left_alone, changed)


@pytest.fixture
def installed(nothing: None, first_run: FirstRun) -> FirstRun:
    """The old release, as the first run of the role left it."""
    inside("sh", "-ec", f"tar -xf {KEPT} -C /; kill -HUP $(cat /run/docker.pid)")
    wait_until(lambda: has_runtime(NAME, "kata"), "the runtime kata")
    return first_run


def play_role(site: Path, variables: dict, *arguments: str) -> subprocess.CompletedProcess[str]:
    return play(
        site / "play.yml",
        "-i",
        str(site / "hosts.yml"),
        "-e",
        json.dumps({"kata_runtime_kernel": "stock", **variables}),
        *arguments,
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )


def of(release: Release, **more: object) -> dict:
    return {
        "kata_runtime_version": release.version,
        "kata_runtime_archive": str(release.archive),
        "kata_runtime_sha256": release.sha256,
        **more,
    }


def good(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many tasks changed something in a play that went well."""
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return int(re.search(r"changed=(\d+)", done.stdout).group(1))


def error(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a play failed with, as the user sees it."""
    assert done.returncode != 0, done.stdout[-4000:]
    return " ".join(done.stdout.split())


def shims() -> set[str]:
    return set(inside("sh", "-c", "readlink /proc/[0-9]*/exe | grep containerd-shim-kata; true").split())


def test_the_first_run_brings_a_runtime_that_works_the_second_does_nothing_and_check_mode_says_so(
    site: Path, releases: dict[str, Release], installed: FirstRun
) -> None:
    assert installed.foreseen > 0
    assert installed.left_alone
    assert installed.changed > 0
    assert docker("run", "--rm", "--runtime", "kata", BASE, "uname", "-r", hops=[NAME]) == platform.release()
    there = state()
    # The archive is not needed again, nor its digest where only GitHub's interface would know it.
    again = {"kata_runtime_archive": "/nowhere"}
    for arguments in (), ("--check",):
        assert good(play_role(site, of(releases[OLD], **again), *arguments)) == 0
    assert state() == there


def test_an_archive_on_the_target_is_taken_and_left_there(site: Path, releases: dict[str, Release]) -> None:
    docker("cp", str(releases[OLD].archive), f"{NAME}:/root/kata.tar.zst")
    good(
        play_role(
            site, of(releases[OLD], kata_runtime_archive="/root/kata.tar.zst", kata_runtime_archive_remote_src=True)
        )
    )
    assert inside("ls", "/root/kata.tar.zst", f"{LIB}/{OLD}/VERSION").split() == [
        "/root/kata.tar.zst",
        f"{LIB}/{OLD}/VERSION",
    ]


def test_a_container_keeps_its_version_until_it_is_started_again_and_then_the_old_one_goes(
    site: Path, releases: dict[str, Release], installed: FirstRun
) -> None:
    docker("run", "-d", "--name", "t-tenant", "--runtime", "kata", BASE, "sleep", "infinity", hops=[NAME])
    good(play_role(site, of(releases[NEW])))
    assert shims() == {f"{LIB}/{OLD}/runtime-rs/bin/containerd-shim-kata-v2"}
    assert inside("ls", LIB).split() == [OLD, NEW]
    assert docker("exec", "t-tenant", "uname", "-r", hops=[NAME]) == platform.release()
    assert good(play_role(site, of(releases[NEW]))) == 0
    docker("restart", "--time", "1", "t-tenant", hops=[NAME])
    assert shims() == {f"{LIB}/{NEW}/runtime-rs/bin/containerd-shim-kata-v2"}
    good(play_role(site, of(releases[NEW])))
    assert (inside("ls", LIB).split(), inside("ls", f"{ETC}/kata").split()) == ([NEW], [NEW])


def test_several_runtimes_stand_side_by_side_and_one_that_is_not_listed_any_more_goes(
    site: Path, releases: dict[str, Release], installed: FirstRun
) -> None:
    two = [{"name": "kata"}, {"name": "kata-big", "config": {"hypervisor": {"qemu": {"default_memory": 4096}}}}]
    good(play_role(site, of(releases[OLD], kata_runtime_list=two)))
    assert "default_memory = 4096" in inside("cat", f"{ETC}/kata-big/{OLD}/config.d/50-nested-kata.toml")
    assert "default_memory = 2048" in inside("cat", f"{ETC}/kata/{OLD}/config.d/50-nested-kata.toml")
    docker("create", "--name", "t-tenant", "--runtime", "kata-big", BASE, "true", hops=[NAME])
    assert "The container t-tenant on daemon has the runtime kata-big: remove it first" in error(
        play_role(site, of(releases[OLD]))
    )
    docker("rm", "t-tenant", hops=[NAME])
    good(play_role(site, of(releases[OLD])))
    assert inside("ls", ETC).split() == ["kata"]
    assert set(json.loads(inside("cat", "/etc/docker/daemon.json"))["runtimes"]) == {"kata"}


def test_removing_takes_away_what_was_added_and_leaves_the_rest(site: Path, installed: FirstRun) -> None:
    docker("create", "--name", "t-tenant", "--runtime", "kata", BASE, "true", hops=[NAME])
    assert "The container t-tenant on daemon has the runtime kata" in error(
        play_role(site, {"kata_runtime_state": "absent"})
    )
    docker("rm", "t-tenant", hops=[NAME])
    good(play_role(site, {"kata_runtime_state": "absent"}))
    assert json.loads(inside("cat", "/etc/docker/daemon.json")) == CONFIG
    assert inside("find", LIB, "-mindepth", "1") == ""
    assert "kata" not in inside("ls", "-A", "/etc/nested-kata")
    assert good(play_role(site, {"kata_runtime_state": "absent"})) == 0


# the variables beside those of a good run, what the user reads
BAD = [
    ({"kata_runtime_sha256": "0" * 64}, "sha256"),
    ({"kata_runtime_sha256": "123"}, "kata_runtime_sha256 is '123', which is not a SHA-256"),
    (
        {"kata_runtime_archive": "/nowhere/kata.tar.zst"},
        "There is no file /nowhere/kata.tar.zst (kata_runtime_archive) on the control node",
    ),
    (
        {"kata_runtime_version": "3.32.0"},
        "has known security holes (CVE-2026-50540): take 4.0.0 or newer, or set kata_runtime_allow_insecure",
    ),
    ({"kata_runtime_version": "latest"}, "kata_runtime_version is 'latest', which is not a version"),
    ({"kata_runtime_kernel": "netsim"}, "wants the kernel 'netsim', but {host} has none of the role guest_kernel"),
    ({"kata_runtime_list": [{"name": "runc"}]}, "kata_runtime_list has the name 'runc', which is Docker's own"),
    ({"kata_runtime_list": [{"name": "a"}, {"name": "a"}]}, "kata_runtime_list has a name more than once"),
    ({"kata_runtime_config": {"hypervisor": {"qemu": {"default_vcpu": 2}}}}, "did you mean default_vcpus"),
    (
        {"kata_runtime_config": {"hypervisor": {"qemu": {"kernel": "/nowhere/vmlinux"}}}},
        "names /nowhere/vmlinux, which is not there on {host}",
    ),
    ({"kata_runtime_config": {"hypervisor": {"qemu": {"initrd": "/x"}}}}, "has both image and initrd"),
    (
        {
            "kata_runtime_version": "4.0.7",
            "kata_runtime_archive": "",
            "kata_runtime_sha256": "",
            "kata_runtime_api": "http://127.0.0.1:9/releases",
        },
        "No SHA-256 is known for Kata Containers 4.0.7",
    ),
]


# The first one wants another release at the path where the others put theirs.
@pytest.mark.parametrize("bad", [BAD[:1], BAD[1:]], ids=["sha256", "all others"])
def test_each_bad_input_is_one_error_and_registers_nothing(
    site: Path, releases: dict[str, Release], tmp_path: Path, bad: list[tuple[dict, str]]
) -> None:
    """Several at once, as hosts of a play, since nothing may come of any."""
    daemon = json.loads((site / "hosts.yml").read_text())["all"]["hosts"]["daemon"]
    hosts = {
        f"bad{number}": {**daemon, **of(releases[OLD], kata_runtime_kernel="stock"), **case[0]}
        for number, case in enumerate(bad)
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    before = inside("cat", "/etc/docker/daemon.json")
    done = play(
        site / "play.yml",
        "-i",
        str(tmp_path / "hosts.yml"),
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    # Of a loop, each item that failed has a line.
    failed = re.split(r"^(?:fatal|failed): \[(bad\d+)\](?:: | \(item=)", done.stdout, flags=re.MULTILINE)
    said = {host: " ".join(text.split()) for host, text in zip(failed[1::2], failed[2::2], strict=True)}
    for host, (_variables, reason) in zip(hosts, bad, strict=True):
        assert reason.format(host=host) in said.get(host, ""), done.stdout[-8000:]
    assert inside("cat", "/etc/docker/daemon.json") == before
    assert not has_runtime(NAME, "kata")


def test_a_runtime_of_somebody_else_and_a_daemon_json_with_comments_are_left_alone(
    site: Path, releases: dict[str, Release]
) -> None:
    before = inside("cat", "/etc/docker/daemon.json")
    try:
        for text, reason in (
            (
                json.dumps(
                    {
                        **json.loads(before),
                        "runtimes": {"kata": {"runtimeType": "/opt/kata/bin/containerd-shim-kata-v2"}},
                    }
                ),
                "is not managed by nested.kata",
            ),
            (before.replace("{", "{ // ours\n", 1), "line 1 has a comment"),
        ):
            inside("sh", "-c", "cat >/etc/docker/daemon.json", data=text)
            assert reason in error(play_role(site, of(releases[OLD])))
            assert inside("cat", "/etc/docker/daemon.json") == text
    finally:
        inside("sh", "-c", "cat >/etc/docker/daemon.json", data=before)


def test_a_runtime_that_does_not_start_a_container_is_an_error_with_the_words_of_its_shim(
    site: Path, releases: dict[str, Release], installed: FirstRun
) -> None:
    """A file that goes between the check and the proof: another drop-in, which Kata reads after ours."""
    inside(
        "sh",
        "-c",
        f"printf '[hypervisor.qemu]\\nkernel = \"/nowhere/vmlinux\"\\n' >{ETC}/kata/{OLD}/config.d/90-site.toml; rm"
        f" {ETC}/kata/{OLD}/proven",
    )
    message = error(play_role(site, of(releases[OLD])))
    assert "The runtime kata on daemon does not work" in message
    assert "/nowhere/vmlinux is invalid" in message
    assert "the configuration names something that is not there" in message


def test_another_kernel_than_was_asked_for_is_an_error(site: Path, tmp_path: Path) -> None:
    other = make_release(tmp_path, OLD, kernel_release="6.18.35")
    message = error(play_role(site, of(other)))
    assert f"runs on kernel {platform.release()}, but 6.18.35 (kernel: stock) was requested" in message
