# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What disk_image reads and copies without a loop device and without root."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.nested.kata.plugins.module_utils._disk import machine
from ansible_collections.nested.kata.plugins.module_utils._disk.machine import copy_data, first_data, leftovers

M = 1024**2
G = 1024**3


def test_the_first_byte_that_is_not_zero_is_found_and_holes_are_none(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert first_data(str(file)) is None
    os.truncate(file, 8 * G)
    assert first_data(str(file)) is None
    with file.open("r+b") as stream:
        stream.write(bytes(3 * M))
        assert first_data(str(file)) is None
        stream.seek(8 * G - 1)
        stream.write(b"x")
    assert first_data(str(file)) == 8 * G - 1
    with file.open("r+b") as stream:
        stream.seek(2 * M + 5)
        stream.write(b"y")
    assert first_data(str(file)) == 2 * M + 5


@pytest.mark.parametrize(
    "parts",
    [{}, {0: M}, {8 * G - M: M}, {0: 5, M: 3 * M, 4 * G: 100, 8 * G - 1: 1}],
    ids=["a hole", "start", "end", "parts"],
)
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_where_extents_cannot_be_shared_what_is_no_hole_is_copied(parts, code, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(machine.fcntl, "ioctl", refuse)
    monkeypatch.setattr(machine, "PIECE", 1 << 20)
    with (tmp_path / "golden").open("w+b") as golden, (tmp_path / "clone").open("w+b") as clone:
        golden.truncate(8 * G)
        for at, length in parts.items():
            os.pwrite(golden.fileno(), os.urandom(length), at)
        copy_data(golden.fileno(), clone.fileno())
        assert os.fstat(clone.fileno()).st_size == 8 * G
        assert os.fstat(clone.fileno()).st_blocks * 512 <= sum(parts.values()) + M
        for at, length in parts.items():
            assert os.pread(clone.fileno(), length, at) == os.pread(golden.fileno(), length, at)


def test_another_error_of_sharing_is_an_error(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(machine.fcntl, "ioctl", fail)
    with (
        (tmp_path / "golden").open("w+b") as golden,
        (tmp_path / "clone").open("w+b") as clone,
        pytest.raises(OSError, match="Input/output error"),
    ):
        copy_data(golden.fileno(), clone.fileno())


def test_what_killed_runs_left_is_found_and_what_running_ones_use_is_not(tmp_path, monkeypatch):
    (tmp_path / ".nested-kata-new-abc").touch()
    (tmp_path / ".nested-kata-new-directory").mkdir()
    (tmp_path / "kata.img").touch()
    listed = os.listdir
    names = [".nested-kata-4194305-loop3", f".nested-kata-{os.getpid()}-loop4", "loop5", ".nested-kata-x-loop3"]
    monkeypatch.setattr(machine.os, "listdir", lambda path: names if path == "/dev" else listed(path))
    assert leftovers(str(tmp_path)) == (f"{tmp_path}/.nested-kata-new-abc", "/dev/.nested-kata-4194305-loop3")
