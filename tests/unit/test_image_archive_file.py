# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that an archive is written to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._image import archive_file
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import (
    SUFFIXES,
    Unwritable,
    Writing,
    listed,
    opened,
)
from builders import COMPRESS
from image_builder import layer, made, oci


def written(path: Path, content: bytes) -> Writing:
    """Return a new file with this content that is not at its path yet."""
    writing = Writing(str(path))
    writing.start()
    writing.begin()
    writing.write(content)
    writing.complete()
    return writing


ARCHIVE = oci({"a:1": [made([layer(b"only")])]})
PACKAGES = {"gzip": "gzip", "zstd": "zstd", "xz": "xz-utils", "bzip2": "bzip2"}


@pytest.mark.parametrize("kind", COMPRESS)
def test_an_archive_is_read_whatever_its_compression_and_its_suffix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(COMPRESS[kind](ARCHIVE))
    with opened(str(path)) as content:
        assert content.read() == ARCHIVE
    assert [packed.label.names for packed in listed(str(path)).images] == [("a:1",)]


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_command_that_is_not_there_is_named(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(COMPRESS[kind](ARCHIVE))
    monkeypatch.setenv("PATH", "/nowhere")
    why = rf"there is no command {kind} here: install it \(Debian package {PACKAGES[kind]}\)"
    with pytest.raises(Damaged, match=f"it is compressed with {kind}, and {why}"):
        listed(str(path))
    suffix = next(suffix for suffix, by in SUFFIXES.items() if by == kind)
    writing = Writing(str(tmp_path / f"new{suffix}"))
    writing.start()
    with pytest.raises(Unwritable, match=f"{why}, or choose another suffix"):
        writing.begin()
    writing.give_up()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_chooses_the_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.tar{suffix}"
    written(path, ARCHIVE).finish()
    assert path.read_bytes() != ARCHIVE
    with opened(str(path)) as content:
        assert content.read() == ARCHIVE


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    writing = Writing(str(tmp_path / "full.tar"))
    writing._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(Unwritable, match="No space left on device"):
        writing.write(b"x")
    writing._file.close()


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "another user's file"])
def test_what_somebody_put_in_the_place_of_the_new_file_is_refused(tmp_path: Path, kind: str) -> None:
    precious, beside = tmp_path / "precious", tmp_path / ".new.tar.part"
    precious.write_bytes(b"precious")
    if kind == "link":
        beside.symlink_to(precious)
    elif kind == "directory":
        beside.mkdir()
    elif kind == "pipe":
        os.mkfifo(beside)
    else:
        beside.write_bytes(b"left")
        os.chown(beside, 12345, 12345)
    with pytest.raises(Unwritable, match="which no task of user 0 has left: remove it"):
        written(tmp_path / "new.tar", b"new")
    assert precious.read_bytes() == b"precious"
    assert os.path.lexists(beside)


def test_another_name_of_a_file_in_the_place_of_the_new_file_does_not_cost_that_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    os.link(tmp_path / "precious", tmp_path / ".new.tar.part")
    written(tmp_path / "new.tar", b"new").finish()
    assert [(tmp_path / name).read_bytes() for name in ("precious", "new.tar")] == [b"precious", b"new"]
    assert (tmp_path / "new.tar").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_complete_while_another_task_begins_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.tar"
    first, lock = written(path, b"first"), fcntl.flock

    def at_the_worst_moment(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(archive_file.fcntl, "flock", lock)
        first.finish()
        lock(descriptor, operation)

    second = Writing(str(path))
    monkeypatch.setattr(archive_file.fcntl, "flock", at_the_worst_moment)
    second.start()
    second.begin()
    second.write(b"second")
    second.complete()
    assert path.read_bytes() == b"first"
    with pytest.raises(Unwritable, match="another task has written it since this one began: run this one again"):
        second.finish()
    second.give_up()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["new.tar"]


def test_a_new_file_that_is_taken_for_a_leftover_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def removed_before(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(archive_file.fcntl, "flock", lock)
        (tmp_path / ".new.tar.part").unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(archive_file.fcntl, "flock", removed_before)
    written(tmp_path / "new.tar", b"new").finish()
    assert (tmp_path / "new.tar").read_bytes() == b"new"
