# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases in real archives: unpacked, refused, interrupted at any moment, in use and removed."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_runner import answer, run_module, started, wait_until
from hostile_tars import ABSOLUTE, GOOD, HEADERS, MEMBERS, directory, file, link, symlink, tar

RUST_SHIM, QEMU = "runtime-rs/bin/containerd-shim-kata-v2", "bin/qemu-system-x86_64"
VMLINUX = b"\x7fELF" + bytes(100_000) + b"Linux version 6.18.35 (root@x) (gcc) #1 SMP\0" + bytes(50_000)
SHARE = "opt/kata/share/kata-containers"
RELEASE = (
    *GOOD[:3],
    file("opt/kata/VERSION", b"4.1.0\n"),
    file(f"opt/kata/{RUST_SHIM}", b"shim", mode=0o755),
    file(f"opt/kata/{QEMU}", b"qemu", mode=0o4777),
    file("opt/kata/libexec/virtiofsd", b"virtiofsd", mode=0o775, mtime=1_700_000_000),
    directory(SHARE),
    file(f"{SHARE}/vmlinux-6.18.35-202", VMLINUX),
    symlink(f"{SHARE}/vmlinux.container", "vmlinux-6.18.35-202"),
    file(f"{SHARE}/kata-ubuntu.img", bytes(200_000)),
    symlink(f"{SHARE}/kata-containers.img", f"/{SHARE}/kata-ubuntu.img"),
    link("opt/kata/libexec/again", "opt/kata/libexec/virtiofsd"),
)
TABLES = "share/defaults/kata-containers"


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-q", "-1", "-c", *options], input=data, capture_output=True, check=True).stdout


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


PACK = {"zstd": zstd, "xz": xz}


@dataclass
class Place:
    """A directory with an archive in it, where a release is to be."""

    directory: Path

    @property
    def archive(self) -> Path:
        return self.directory / "archive"

    @property
    def parent(self) -> Path:
        return self.directory / "kata"

    @property
    def path(self) -> Path:
        return self.parent / "4.1.0"

    def put(self, archive: bytes) -> None:
        self.archive.write_bytes(archive)

    def options(self, **more: object) -> dict:
        present = more.get("state") != "absent"
        given = (
            {"archive": str(self.archive), "sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest()}
            if present
            else {}
        )
        return {"path": str(self.path), **given, **more}

    def run(self, **more: object) -> dict:
        with started("kata_release", self.options(**more)) as running:
            return answer(running, 120)

    def remove(self, **more: object) -> dict:
        return self.run(state="absent", **more)

    def everything(self) -> dict[str, object]:
        """Return what there is, so that any change shows."""
        return {
            str(each.relative_to(self.directory)): (each.lstat().st_mode, each.lstat().st_mtime_ns, each.lstat().st_ino)
            for each in self.directory.rglob("*")
        }

    def staging(self) -> list[str]:
        return [name for name in os.listdir(self.parent) if name != "4.1.0"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "kata").mkdir()
    return Place(tmp_path)


@pytest.fixture
def installed(place: Place) -> Place:
    place.put(zstd(tar(*RELEASE)))
    assert not place.run()["failed"]
    return place


# --- unpacked ---


@pytest.mark.parametrize("kind", PACK)
def test_a_release_arrives_in_four_runs(place: Place, kind: str) -> None:
    place.put(PACK[kind](tar(*RELEASE)))
    options = place.options(version="4.1.0")
    before = place.everything()

    checked = run_module("kata_release", options, check=True)
    assert (checked["failed"], checked["changed"], checked["steps"]) == (
        False,
        True,
        [f"unpack {place.archive} into {place.path}"],
    )
    assert (checked["version"], checked["sha256"], checked["bytes"], set(checked["contents"].values())) == (
        "4.1.0",
        options["sha256"],
        None,
        {None},
    )
    assert place.everything() == before

    real = run_module("kata_release", options)
    assert (real["failed"], real["changed"], real["msg"]) == (False, True, f"there is no {place.path} yet")
    assert (real["path"], real["version"], real["sha256"], real["files"]) == (
        str(place.path),
        "4.1.0",
        options["sha256"],
        7,
    )
    assert real["bytes"] == sum(len(data) for dummy, data in RELEASE)
    assert real["contents"] == {
        "shim": f"{place.path}/{RUST_SHIM}",
        "shim_kind": "rust",
        "qemu": f"{place.path}/{QEMU}",
        "virtiofsd": f"{place.path}/libexec/virtiofsd",
        "cloud_hypervisor": None,
        "kernel": f"{place.path}/share/kata-containers/vmlinux-6.18.35-202",
        "kernel_release": "6.18.35",
        "image": f"{place.path}/share/kata-containers/kata-containers.img",
        "initrd": None,
        "configuration": None,
    }
    assert (real["diff"]["before"], real["diff"]["after"]["files"]) == ({}, 7)
    assert os.listdir(place.parent) == ["4.1.0"]
    for info, data in RELEASE:
        if info.isreg():
            assert (place.path / info.name[len("opt/kata/") :]).read_bytes() == data

    before = place.everything()
    place.archive.unlink()
    for check in (False, True):
        again = run_module("kata_release", options, check=check)
        assert (again["failed"], again["changed"], again["steps"], again["msg"]) == (
            False,
            False,
            [],
            f"{place.path} holds this release",
        )
        assert {key: again[key] for key in ("contents", "bytes", "files", "version")} == {
            key: real[key] for key in ("contents", "bytes", "files", "version")
        }
    before.pop("archive")
    assert place.everything() == before


def test_what_is_unpacked_has_safe_modes_relative_links_and_its_times(installed: Place) -> None:
    modes = {
        name: stat.S_IMODE((installed.path / name).stat().st_mode)
        for name in (".", QEMU, "libexec/virtiofsd", "libexec", "VERSION", ".nested-kata.json")
    }
    assert modes == {
        ".": 0o755,
        QEMU: 0o755,
        "libexec/virtiofsd": 0o755,
        "libexec": 0o755,
        "VERSION": 0o644,
        ".nested-kata.json": 0o644,
    }
    assert os.readlink(installed.path / "share/kata-containers/kata-containers.img") == "kata-ubuntu.img"
    assert (installed.path / "libexec/virtiofsd").stat().st_mtime == 1_700_000_000
    assert (installed.path / "libexec/again").samefile(installed.path / "libexec/virtiofsd")
    assert {each.lstat().st_uid for each in installed.path.rglob("*")} == {os.geteuid()}


def test_an_archive_that_tar_makes_of_a_go_release_is_unpacked(place: Place) -> None:
    kata = place.directory / "root" / "opt" / "kata"
    for name in (
        "bin/containerd-shim-kata-v2",
        "bin/qemu-system-aarch64",
        "bin/cloud-hypervisor",
        f"{TABLES}/configuration-qemu.toml",
        "share/a/b/c",
    ):
        (kata / name).parent.mkdir(parents=True, exist_ok=True)
        (kata / name).write_bytes(os.urandom(100_000))
    (kata / ("long" * 50)).symlink_to("share/" + "long" * 40)
    subprocess.run(["tar", "--zstd", "-cf", place.archive, "-C", place.directory / "root", "."], check=True)
    result = place.run()
    assert not result["failed"], result["msg"]
    assert (result["version"], result["contents"]["shim"], result["contents"]["shim_kind"]) == (
        None,
        f"{place.path}/bin/containerd-shim-kata-v2",
        "go",
    )
    assert result["contents"]["configuration"] == f"{place.path}/{TABLES}/configuration-qemu.toml"
    assert (result["contents"]["qemu"], result["contents"]["kernel_release"]) == (
        f"{place.path}/bin/qemu-system-aarch64",
        None,
    )
    same = ["diff", "--recursive", "--no-dereference", "--exclude=.nested-kata.json", kata, place.path]
    assert subprocess.run(same, capture_output=True, check=False).returncode == 0


def test_versions_lie_beside_each_other(installed: Place) -> None:
    result = installed.run(path=str(installed.parent / "4.0.0"))
    assert (result["failed"], result["changed"]) == (False, True)
    assert sorted(os.listdir(installed.parent)) == ["4.0.0", "4.1.0"]


def test_check_mode_needs_nothing_that_a_task_before_would_have_brought(place: Place) -> None:
    options = {"path": str(place.directory / "none" / "4.1.0"), "archive": "/nowhere/kata.tar.zst", "sha256": "ab" * 32}
    result = run_module("kata_release", options, check=True)
    assert (result["failed"], result["changed"], set(result["contents"].values())) == (False, True, {None})


# --- refused ---


@pytest.mark.parametrize("case", [*MEMBERS, *HEADERS])
def test_a_hostile_archive_is_refused_and_leaves_nothing(place: Place, case: str) -> None:
    if case in MEMBERS:
        entries, words = MEMBERS[case]
        content = tar(*GOOD, *entries)
    else:
        make, words = HEADERS[case]
        content = make()
    # Both ways to uncompress, in turn.
    place.put(PACK[random.Random(case).choice(sorted(PACK))](content))
    before = place.everything()
    result = place.run()
    assert result["failed"]
    assert result["msg"].startswith(f"archive: {place.archive}: ")
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert not place.path.exists()
    after = place.everything()
    # The directory that the staging was in has another time, and nothing else.
    assert {name: state for name, state in after.items() if name != "kata"} == {
        name: state for name, state in before.items() if name != "kata"
    }
    assert not os.path.lexists(ABSOLUTE)


CONTENT = tar(*RELEASE, file("opt/kata/noise", random.Random(3).randbytes(500_000)))
SPOILT = {
    "a truncated zstd archive": (lambda: zstd(CONTENT)[:-20_000], "archive: {}: zstd: Read error (39) : premature end"),
    "a zstd archive that was changed": (
        lambda: spoilt(zstd(CONTENT, "--check")),
        "archive: {}: zstd: Decoding error (36) : ",
    ),
    "a truncated xz archive": (lambda: xz(CONTENT)[:-20_000], "archive: {}: xz: Unexpected end of input"),
    "an xz archive that was changed": (lambda: spoilt(xz(CONTENT)), "archive: {}: xz: Compressed data is corrupt"),
    "another compression": (
        lambda: b"\x1f\x8b\x08" + bytes(500),
        "archive: {} is neither a .tar.zst nor a .tar.xz file (it begins with b'\\x1f",
    ),
    "a web page": (
        lambda: b"<html>please log in</html>",
        "archive: {} is neither a .tar.zst nor a .tar.xz file (it begins with b'<html>pl')",
    ),
    "an empty file": (lambda: b"", "archive: {} is neither a .tar.zst nor a .tar.xz file (it begins with b'')"),
}


def spoilt(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 20]) + data[middle + 20 :]


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_no_whole_archive_is_one_clear_error(place: Place, case: str) -> None:
    make, words = SPOILT[case]
    place.put(make())
    result = place.run()
    assert result["failed"]
    assert result["msg"].startswith(words.format(place.archive))
    assert "\n" not in result["msg"]
    assert os.listdir(place.parent) == []


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-20_000], spoilt, lambda data: data + b"x"], ids=["truncated", "changed", "longer"]
)
def test_an_archive_that_is_not_the_one_asked_for_is_told_by_its_digest(
    place: Place, kind: str, spoil: Callable[[bytes], bytes]
) -> None:
    place.put(PACK[kind](CONTENT))
    wanted = place.options()["sha256"]
    place.put(spoil(place.archive.read_bytes()))
    result = place.run(sha256=wanted)
    found = hashlib.sha256(place.archive.read_bytes()).hexdigest()
    words = (
        f"of {place.archive.stat().st_size} bytes, has the SHA-256 {found}, not {wanted}: get it again, or correct"
        " sha256"
    )
    assert (result["failed"], result["msg"]) == (True, f"sha256: {place.archive}, {words}")
    assert os.listdir(place.parent) == []


@pytest.mark.parametrize("kind", PACK)
def test_the_digest_is_that_of_the_whole_file_though_an_early_member_is_refused(place: Place, kind: str) -> None:
    place.put(PACK[kind](tar(*GOOD, file("../x"), file("opt/kata/noise", random.Random(4).randbytes(9_000_000)))))
    result = place.run(sha256="ab" * 32)
    found = hashlib.sha256(place.archive.read_bytes()).hexdigest()
    assert result["failed"]
    assert f" of {place.archive.stat().st_size} bytes, has the SHA-256 {found}, not {'ab' * 32}: " in result["msg"]
    assert os.listdir(place.parent) == []


def test_a_version_that_the_archive_does_not_have_is_refused(place: Place) -> None:
    place.put(xz(tar(*RELEASE)))
    result = place.run(version="4.1.1")
    assert (
        result["msg"]
        == f"version: {place.archive} has the version 4.1.0 in its file VERSION, not 4.1.1: correct version or archive"
    )
    assert os.listdir(place.parent) == []


BAD = {
    "no archive": (
        {"archive": "/nowhere/kata"},
        "archive: /nowhere/kata: No such file or directory: put the archive there",
    ),
    "no archive named": ({"archive": None}, "archive: the release is not there yet: name the archive to unpack"),
    "a directory as archive": ({"archive": "/etc"}, "archive: /etc is not a regular file"),
    "a device as archive": ({"archive": "/dev/zero"}, "archive: /dev/zero is not a regular file"),
    "no directory for it": ({"path": "/nowhere/kata"}, "path: there is no directory /nowhere: make it"),
    "no digest": ({"sha256": None}, "sha256: None is not 64 hexadecimal digits: give the SHA-256 of the archive"),
    "half a digest": ({"sha256": "abcd"}, "sha256: 'abcd' is not 64 hexadecimal digits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(place: Place, case: str) -> None:
    options, words = BAD[case]
    place.put(xz(tar(*RELEASE)))
    before = place.everything()
    result = place.run(**options)
    assert result["failed"]
    assert result["msg"].startswith(words)
    assert place.everything() == before


def test_an_archive_that_is_a_pipe_is_not_waited_for(place: Place) -> None:
    os.mkfifo(place.directory / "pipe")
    place.put(b"")
    assert place.run(archive=str(place.directory / "pipe"))["msg"].startswith(
        f"archive: {place.directory}/pipe is not a regular file"
    )


@pytest.mark.parametrize(("kind", "package"), [("zstd", "zstd"), ("xz", "xz-utils")])
def test_a_missing_command_is_told_before_anything_is_written(place: Place, kind: str, package: str) -> None:
    place.put(PACK[kind](tar(*RELEASE)))
    before = place.everything()
    for check in (False, True):
        with started("kata_release", {**place.options(), "_ansible_check_mode": check}, PATH="/nowhere") as running:
            result = answer(running, 120)
        words = f"is compressed by {kind}, and there is no command {kind}: install it (Debian package {package})"
        assert (result["failed"], result["msg"]) == (True, f"archive: {place.archive} {words}")
    assert place.everything() == before


STRANGERS = {
    "a file": (lambda path: path.write_bytes(b"precious"), "is a file, which this module did not make"),
    "a symlink": (lambda path: path.symlink_to("/etc"), "is a symlink, which this module did not make"),
    "a directory": (
        lambda path: path.mkdir(),
        "is a directory without .nested-kata.json, which this module did not make",
    ),
    "a record of something else": (
        lambda path: (path.mkdir(), (path / ".nested-kata.json").write_text("{}")),
        "is a directory whose .nested-kata.json cannot be read (it has no SHA-256)",
    ),
}


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("case", STRANGERS)
def test_what_somebody_else_put_there_is_neither_replaced_nor_removed(place: Place, case: str, state: str) -> None:
    make, words = STRANGERS[case]
    place.put(xz(tar(*RELEASE)))
    make(place.path)
    before = place.everything()
    result = place.run(state=state)
    assert result["failed"]
    assert result["msg"].startswith(f"path: {place.path} {words}")
    assert place.everything() == before


def test_another_release_is_not_replaced(installed: Place) -> None:
    before = installed.options()["sha256"]
    installed.put(zstd(CONTENT))
    files = {name: state for name, state in installed.everything().items() if name != "archive"}
    result = installed.run()
    assert result["failed"]
    assert result["msg"].startswith(
        f"path: {installed.path} holds the release with the SHA-256 {before}, not {installed.options()['sha256']}: give"
        " the new release a directory of its own"
    )
    assert {name: state for name, state in installed.everything().items() if name != "archive"} == files


# --- a disk that is too small ---


@pytest.fixture
def small(place: Place) -> Iterator[Place]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place.parent], check=True)
    yield place
    subprocess.run(["umount", place.parent], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", PACK)
def test_a_disk_that_is_too_small_is_told_before_it_is_full(small: Place, tmp_path: Path, kind: str) -> None:
    content = tar(*RELEASE, file("opt/kata/zeros", bytes(20 << 20)))
    small.put(zstd(content, f"--stream-size={len(content)}") if kind == "zstd" else xz(content))
    before = small.everything()
    result = small.run()
    assert result["failed"]
    assert result["msg"].startswith(
        f"path: {small.archive} unpacks to about 20 MiB, and {small.parent} has 4 MiB free: make room there"
    )
    assert small.everything() == before


@pytest.mark.root
def test_a_disk_that_runs_full_is_told_and_emptied_again(small: Place) -> None:
    small.put(zstd(tar(*RELEASE, file("opt/kata/zeros", bytes(20 << 20)))))  # from a pipe, without its size
    result = small.run()
    assert (result["failed"], result["msg"]) == (
        True,
        f"path: no space left in {small.parent} (4 MiB free now): make room there, or choose another path",
    )
    assert os.listdir(small.parent) == []


# --- interrupted ---


@pytest.fixture(scope="module")
def large() -> bytes:
    """An archive that takes a moment: 80 MB of noise in 400 files."""
    dice = random.Random(11)
    return zstd(
        tar(
            *RELEASE, *(file(f"opt/kata/noise/{number % 7}/{number}", dice.randbytes(200_000)) for number in range(400))
        )
    )


def size_of(directory: Path) -> int:
    """Return how many files lie in a directory that may vanish."""
    return sum(len(files) for dummy, dummy_directories, files in os.walk(directory))


def is_whole(place: Place) -> bool:
    record = json.loads((place.path / ".nested-kata.json").read_text(encoding="utf-8"))
    files = [
        each
        for each in place.path.rglob("*")
        if each.is_file() and not each.is_symlink() and each.name not in (".nested-kata.json", "again")
    ]
    return (len(files) + 1, sum(each.stat().st_size for each in files)) == (record["files"], record["bytes"])


# A run is killed when the staging directory has so many files; "" is right after the start of it, and the last ones are
# about the end.
MOMENTS = {"it begins": 0, "the first file": 1, "a tenth": 40, "half": 200, "almost all": 395, "the record": 408}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_leaves_no_release_and_the_next_one_none_of_its_traces(
    place: Place, large: bytes, moment: str
) -> None:
    place.put(large)
    with started("kata_release", place.options()) as running:
        wait_until(
            lambda: (place.staging() and size_of(place.parent) >= MOMENTS[moment]) or running.poll() is not None,
            moment,
            pause=0.001,
        )
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert place.path.exists() is False or (moment == "the record" and is_whole(place))
    result = place.run()
    assert not result["failed"], result["msg"]
    assert is_whole(place)
    assert os.listdir(place.parent) == ["4.1.0"]


def test_a_kill_at_any_time_leaves_nothing_or_all(place: Place, large: bytes) -> None:
    place.put(large)
    dice, ends = random.Random(5), set()
    began = time.monotonic()
    assert not place.run()["failed"]
    whole_run = time.monotonic() - began
    for _dummy in range(15):
        if place.path.exists():
            assert not place.remove()["failed"]
        with started("kata_release", place.options()) as running:
            time.sleep(dice.uniform(0.2, 1.1) * whole_run)
            running.kill()
        assert not place.path.exists() or is_whole(place)
        ends.add((place.path.exists(), bool(place.staging())))
    assert (False, True) in ends, "no kill came in the middle of it"
    assert not place.run()["failed"]
    assert is_whole(place)
    assert os.listdir(place.parent) == ["4.1.0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_takes_everything_back(place: Place, large: bytes, number: signal.Signals) -> None:
    place.put(large)
    with started("kata_release", place.options()) as running:
        wait_until(lambda: bool(place.staging()) and size_of(place.parent) >= 20, "20 files", pause=0.001)
        running.send_signal(number)
        result = answer(running, 120)
    assert (result["failed"], result["msg"]) == (
        True,
        f"path: the work on {place.path} was interrupted; the next run starts again",
    )
    assert os.listdir(place.parent) == []


def test_two_runs_at_once_unpack_once(place: Place, large: bytes, tmp_path: Path) -> None:
    place.put(large)
    with started("kata_release", place.options()) as first:
        wait_until(lambda: bool(place.staging()) and size_of(place.parent) >= 20, "20 files", pause=0.001)
        first.send_signal(signal.SIGSTOP)
        staging = place.staging()
        line = tmp_path / "line"
        with started("kata_release", place.options(), NESTED_KATA_PROGRESS=str(line)) as second:
            wait_until(lambda: line.exists() or second.poll() is not None, "the second run to wait", pause=0.001)
            assert line.read_text(encoding="utf-8") == f"4.1.0: waiting for another run in {place.parent}"
            # It has seen the other's staging directory, and leaves it alone.
            assert place.staging() == staging
            first.send_signal(signal.SIGCONT)
            results = [answer(first, 120), answer(second, 120)]
    assert [(result["failed"], result["changed"]) for result in results] == [(False, True), (False, False)]
    assert results[0]["contents"] == results[1]["contents"]
    assert is_whole(place)
    assert os.listdir(place.parent) == ["4.1.0"]


def test_the_progress_is_told_while_it_runs(place: Place, large: bytes, tmp_path: Path) -> None:
    place.put(large)
    line = tmp_path / "line"
    with started("kata_release", place.options(), NESTED_KATA_PROGRESS=str(line)) as running:
        wait_until(lambda: line.exists() or running.poll() is not None, "a line", pause=0.001)
        said = line.read_text(encoding="utf-8")
        answer(running, 120)
    assert said.startswith("4.1.0 ")
    assert said.endswith(" %")
    assert f" of {len(large) >> 20} MiB, " in said
    assert not line.exists()


# --- removed ---


def test_a_release_is_removed_in_four_runs(installed: Place) -> None:
    options = installed.options(state="absent")
    before = installed.everything()
    checked = run_module("kata_release", options, check=True)
    assert (checked["failed"], checked["changed"], checked["steps"], checked["in_use"]) == (
        False,
        True,
        [f"remove {installed.path}"],
        [],
    )
    assert installed.everything() == before
    real = run_module("kata_release", options)
    assert (real["failed"], real["changed"], real["version"], real["diff"]["after"]) == (False, True, None, {})
    assert os.listdir(installed.parent) == []
    for check in (False, True):
        again = run_module("kata_release", options, check=check)
        assert (again["failed"], again["changed"], again["msg"]) == (False, False, f"there is no {installed.path}")


@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_an_interrupted_run_left_is_removed_by_the_next_one(installed: Place, state: str) -> None:
    left = installed.parent / ".4.1.0.nested-kata-abcdefgh"
    shutil.copytree(installed.path, left, symlinks=True)
    others = [installed.parent / ".4.1.0-rc1.nested-kata-abcdefgh", installed.parent / ".4.1.0.backup"]
    for other in others:
        other.mkdir()
    checked = run_module("kata_release", installed.options(state=state), check=True)
    assert checked["steps"][0] == f"remove what an interrupted run left: {left}"
    assert left.exists()
    assert installed.run(state=state)["changed"]
    assert not left.exists()
    assert all(other.exists() for other in others)
    assert installed.path.exists() is (state == "present")
    assert not installed.run(state=state)["changed"]


def test_a_removal_that_is_killed_at_any_time_leaves_the_release_whole_or_absent(place: Place, large: bytes) -> None:
    place.put(large)
    dice = random.Random(8)
    for _dummy in range(8):
        assert not place.run()["failed"]
        with started("kata_release", place.options(state="absent")) as running:
            wait_until(lambda: bool(place.staging()) or running.poll() is not None, "the removal to begin", pause=0.001)
            time.sleep(dice.uniform(0, 0.01))
            running.kill()
        assert not place.path.exists() or is_whole(place)
        assert not place.remove()["failed"]
        assert os.listdir(place.parent) == []


def used_by(place: Place, how: str) -> subprocess.Popen:
    """Start a process that uses the release, and wait until it does."""
    program = {
        "exe": [str(place.path / "bin" / "python"), "-I", "-c", "print(1, flush=True); import time; time.sleep(60)"],
        "fd": ["open(path, 'rb')"],
        "cwd": ["os.chdir(os.path.dirname(path))"],
        "map": ["mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ)", "os.closerange(3, 100)"],
    }[how]
    if how != "exe":
        held = "; ".join(
            [
                "import mmap, os, sys, time",
                "path = sys.argv[1]",
                f"held = {program[0]}",
                *program[1:],
                "print(1, flush=True)",
                "time.sleep(60)",
            ]
        )
        program = [sys.executable, "-c", held, str(place.path / QEMU)]
    running = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "1\n"
    return running


@pytest.mark.parametrize("how", ["exe", "fd", "cwd", "map"])
def test_a_release_that_is_in_use_stays_until_nothing_runs_on_it(place: Place, how: str) -> None:
    place.put(
        zstd(
            tar(*RELEASE, file("opt/kata/bin/python", Path(os.path.realpath(sys.executable)).read_bytes(), mode=0o755))
        )
    )
    assert not place.run()["failed"]
    files = place.everything()
    with used_by(place, how) as running:
        try:
            command = Path(f"/proc/{running.pid}/comm").read_text(encoding="utf-8").strip()
            refused = place.remove()
            assert (refused["failed"], refused["msg"]) == (
                True,
                (
                    f"path: {place.path} is in use by {running.pid} {command}: stop these processes, or keep it until"
                    " they end (if_in_use: keep)"
                ),
            )
            kept = place.remove(if_in_use="keep")
            assert (kept["failed"], kept["changed"], kept["in_use"]) == (
                False,
                False,
                [{"pid": running.pid, "command": command}],
            )
            assert (
                kept["msg"] == f"{place.path} is in use by {running.pid} {command}, and stays until nothing runs on it"
            )
            assert place.everything() == files
        finally:
            running.kill()
    gone = place.remove(if_in_use="keep")
    assert (gone["failed"], gone["changed"], gone["in_use"]) == (False, True, [])
    assert os.listdir(place.parent) == []


@pytest.mark.root
def test_a_process_in_a_container_that_knows_the_release_by_another_path_is_seen(
    installed: Place, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = 'mount --bind "$1" "$2" && exec 3<"$2/VERSION" && umount --lazy "$2" && echo 1 && exec sleep 60'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", installed.path, elsewhere]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "1\n"
            result = installed.remove()
        finally:
            running.kill()
    assert result["failed"]
    assert f"is in use by {running.pid} s" in result["msg"]


@pytest.mark.root
def test_what_is_mounted_below_a_release_is_not_deleted_with_it(installed: Place) -> None:
    mount = installed.path / "share" / "data"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
    try:
        (mount / "precious").write_bytes(b"alive")
        result = installed.remove()
        alive = (mount / "precious").read_bytes()
    finally:
        subprocess.run(["umount", mount], check=True)
    assert (result["failed"], result["msg"]) == (True, f"path: something is mounted on {mount}: unmount it first")
    assert alive == b"alive"
    assert not installed.remove()["failed"]
