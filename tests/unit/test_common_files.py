# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import files
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    PIECE,
    alone_in,
    digest_of,
    lock_of,
    sync_directory,
    sync_file_system,
    take_turn,
)


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_is_that_of_the_whole_file_and_so_is_the_copy(tmp_path: Path, algorithm: str, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert (
        digest_of(str(tmp_path / "file"), algorithm, str(tmp_path / "copy"))
        == hashlib.new(algorithm, content).hexdigest()
    )
    assert (tmp_path / "copy").read_bytes() == content
    assert digest_of(str(tmp_path / "file"), algorithm) == hashlib.new(algorithm, content).hexdigest()


def test_a_copy_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"new")
    (tmp_path / "copy").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        digest_of(str(tmp_path / "file"), copy=str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"old"


def test_who_comes_second_waits_until_the_first_is_done(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for dummy in range(2))
    waited = []

    def waiting() -> None:
        waited.append(True)
        if len(waited) == 2:
            os.close(first)

    take_turn(first, pytest.fail)
    take_turn(second, waiting)
    assert len(waited) == 2
    third = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)
    os.close(third)


def test_only_a_directory_is_taken_for_one(tmp_path: Path) -> None:
    sync_directory(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(str(tmp_path / "file"))


def test_who_waits_for_too_long_is_told_for_what(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for dummy in range(2))
    take_turn(first, pytest.fail)
    with pytest.raises(Refused, match=rf"^{tmp_path}/file is still locked by another run after 0.3 s: see `fuser "):
        take_turn(second, lambda: None, seconds=0.3)
    os.close(first)
    os.close(second)


def test_one_is_alone_in_a_directory_until_it_leaves(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_in(str(tmp_path), pytest.fail):
        assert stat.S_IMODE(os.stat(lock_of(str(tmp_path))).st_mode) == 0o600
        other = os.open(lock_of(str(tmp_path)), os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    assert not os.path.exists(lock_of(str(tmp_path)))


def test_who_locks_the_directory_itself_holds_up_nobody(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with alone_in(str(tmp_path), pytest.fail):
        pass
    os.close(other)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    lock = Path(lock_of(str(tmp_path)))
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), alone_in(str(tmp_path), pytest.fail):
        pass
    lock.unlink()
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("made", [lambda path: path.touch(), lambda path: path.mkdir(mode=0o755)])
def test_a_place_for_locks_that_others_may_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(files, "LOCKS", str(tmp_path / "locks"))
    made(tmp_path / "locks")
    with pytest.raises(Refused, match=rf"^{tmp_path}/locks is not a directory that only the user 0 may use"):
        lock_of(str(tmp_path))


def test_of_many_that_want_a_directory_one_at_a_time_is_there(tmp_path: Path) -> None:
    inside, most = [], []

    def visit() -> None:
        for _dummy in range(5):
            with alone_in(str(tmp_path), lambda: None):
                inside.append(True)
                most.append(len(inside))
                time.sleep(0.005)
                inside.pop()

    visitors = [threading.Thread(target=visit) for _dummy in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(60)
    assert most == [1] * 20
    assert os.listdir(tmp_path) == []


def test_a_file_system_is_synced_by_any_of_its_files_and_by_nothing_else(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    sync_file_system(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(descriptor)
