# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release archives that tests are given in place of Kata's, without the shim in them."""

from __future__ import annotations

import io
import os
import platform
import tarfile
from pathlib import Path

import kata_archive
import pytest
import tomllib
from bzimage import release_of

KERNEL = "6.18.35"
FILES = {
    "VERSION",
    "versions.yaml",
    "bin/qemu-system-x86_64",
    "libexec/virtiofsd",
    "runtime-rs/bin/containerd-shim-kata-v2",
    *(f"share/kata-containers/{name}-{KERNEL}-202" for name in ("vmlinux", "vmlinuz", "config", "System.map")),
    "share/kata-containers/kata-containers-initrd.img",
    "share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml",
}
LINKS = {
    "share/kata-containers/vmlinux.container",
    "share/kata-containers/vmlinuz.container",
    "share/kata-containers/kata-containers.img",
    "share/defaults/kata-containers/runtime-rs/configuration.toml",
}


def a_layout(version: str = "4.1.0") -> dict:
    return kata_archive.layout(version, b"a shim", kata_archive.made_up_bzimage(KERNEL))


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def test_the_layout_has_kata_s_names() -> None:
    layout = a_layout()
    assert {name for name, what in layout.items() if isinstance(what, kata_archive.File)} >= FILES
    assert {name for name, what in layout.items() if isinstance(what, kata_archive.Link)} == LINKS


def test_each_link_leads_to_a_file_of_the_layout() -> None:
    layout = a_layout()
    for name in LINKS:
        assert isinstance(layout[str(Path(name).parent / layout[name].target)], kata_archive.File)


def test_the_archive_begins_with_the_root_and_holds_nothing_outside_opt_kata() -> None:
    # Python's tarfile takes the "/" off a directory's name.
    names = [member.name for member in members(kata_archive.packed(a_layout()))]
    assert names[:3] == [".", "./opt", "./opt/kata"]
    assert all(name.startswith("./opt/kata/") for name in names[3:])


def test_a_directory_comes_before_what_is_in_it() -> None:
    seen: set[str] = set()
    for member in members(kata_archive.packed(a_layout())):
        assert member.name == "." or os.path.dirname(member.name) in seen
        seen.add(member.name)


def test_programs_can_be_run_and_nothing_else_can() -> None:
    runnable = {
        member.name for member in members(kata_archive.packed(a_layout())) if member.isfile() and member.mode & 0o111
    }
    assert runnable == {
        f"./opt/kata/{name}"
        for name in ("bin/qemu-system-x86_64", "libexec/virtiofsd", "runtime-rs/bin/containerd-shim-kata-v2")
    }


@pytest.mark.parametrize("compression", ["zst", "xz"])
def test_the_same_input_makes_the_same_archive_and_another_version_another(compression: str) -> None:
    first, again, other = (
        kata_archive.compressed(kata_archive.packed(a_layout(version)), compression)
        for version in ("4.1.0", "4.1.0", "4.1.1")
    )
    assert first == again != other


def test_every_default_path_of_the_configuration_is_in_the_archive() -> None:
    layout = a_layout()
    qemu = tomllib.loads(kata_archive.CONFIGURATION)["hypervisor"]["qemu"]
    for key in ("path", "kernel", "image", "virtio_fs_daemon"):
        assert str(Path(qemu[key]).relative_to("/opt/kata")) in layout


def test_a_commented_key_is_a_valid_line_of_its_own() -> None:
    commented = [
        line.removeprefix("# ")
        for line in kata_archive.CONFIGURATION.splitlines()
        if line.startswith("# ") and " = " in line
    ]
    assert len(commented) > 5
    for line in commented:
        assert len(tomllib.loads(line)) == 1


def test_the_kernels_say_which_release_they_are() -> None:
    image = kata_archive.made_up_bzimage("6.12.1-site")
    assert release_of(image) == "6.12.1-site"
    assert b"Linux version 6.12.1-site " in image
    assert b"Linux version 6.12.1-site " in kata_archive.made_up_vmlinux("6.12.1-site")


@pytest.mark.parametrize("compression", ["zst", "xz"])
def test_a_release_on_disk_is_what_its_digest_and_name_say(tmp_path, monkeypatch, compression: str) -> None:
    shim = tmp_path / "shim"
    shim.write_bytes(b"a shim")
    monkeypatch.setattr(kata_archive, "standin", lambda: shim)
    made = kata_archive.make_release(tmp_path, "4.0.0", compression=compression)
    assert made.archive.name == f"kata-static-4.0.0-{kata_archive.ARCHITECTURES[platform.machine()]}.tar.{compression}"
    assert made.sha256 == kata_archive.hashlib.sha256(made.archive.read_bytes()).hexdigest()
    assert (made.version, made.kernel_release) == ("4.0.0", platform.release())


def test_a_kernel_that_is_given_is_in_the_archive_under_its_own_release(tmp_path, monkeypatch) -> None:
    shim, kernel = tmp_path / "shim", tmp_path / "bzImage"
    shim.write_bytes(b"a shim")
    kernel.write_bytes(kata_archive.made_up_bzimage("6.12.1-site"))
    monkeypatch.setattr(kata_archive, "standin", lambda: shim)
    made = kata_archive.make_release(tmp_path, kernel=kernel, compression="xz")
    assert made.kernel_release == "6.12.1-site"
    with tarfile.open(made.archive) as archive:
        assert (
            archive.extractfile("./opt/kata/share/kata-containers/vmlinuz-6.12.1-site-202").read()
            == kernel.read_bytes()
        )


def test_a_kernel_that_is_none_is_refused() -> None:
    with pytest.raises(AssertionError, match="no bzImage"):
        release_of(bytes(1024))
