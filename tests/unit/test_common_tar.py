# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of tar archives, of files and of pipes, within limits."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import BinaryIO

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.tar import Content, check_end, check_pax, members
from hostile_tars import END, directory, entry, file, symlink, tar
from hostile_tars import members as tar_members

ARCHIVE = tar(file("a", b"x" * 1000), directory("d"), symlink("l", "a"), file("n" * 300, b"y" * 512), file("e", b""))
PAX = tar(file("a" * 300, b"x"), file("b", b"y", mtime=1.5), tar_format=tarfile.PAX_FORMAT)


class Counting(io.BytesIO):
    """A file that counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def names(source: BinaryIO) -> list[tuple[str, int]]:
    return [(member.name, member.size) for member in members(Content(source))]


@pytest.mark.parametrize("read", [True, False], ids=["read", "skipped"])
def test_members_come_in_their_order_whether_their_data_are_read_or_not(read: bool) -> None:
    content, found = Content(io.BytesIO(ARCHIVE)), []
    for member in members(content):
        found.append((member.name, b"".join(content.pieces(member.size)) if read else None))
    assert found == [
        ("a", b"x" * 1000 if read else None),
        ("d", b"" if read else None),
        ("l", b"" if read else None),
        ("n" * 300, b"y" * 512 if read else None),
        ("e", b"" if read else None),
    ]


def test_data_in_a_file_that_are_not_wanted_are_not_read() -> None:
    source = Counting(tar(file("large", bytes(10_000_000)), file("small")))
    assert names(source) == [("large", 10_000_000), ("small", 4)]
    assert source.count < 10_000


def test_data_in_a_pipe_are_skipped() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(ARCHIVE)
        process.stdin.close()
        assert [name for name, _size in names(process.stdout)] == ["a", "d", "l", "n" * 300, "e"]
        check_end(process.stdout)


def test_pax_headers_as_tar_writes_them_are_read() -> None:
    assert names(io.BytesIO(PAX)) == [("a" * 300, 1), ("b", 1)]


@pytest.mark.parametrize("seekable", [True, False])
def test_data_that_are_not_there_are_not_skipped(monkeypatch: pytest.MonkeyPatch, seekable: bool) -> None:
    monkeypatch.setattr(Counting, "seekable", lambda source: seekable)
    with pytest.raises(Damaged, match="ends too early" if seekable else "ends in the middle of a member"):
        names(Counting(tar_members(entry("large", size=1 << 62)) + bytes(100)))


@pytest.mark.parametrize(
    "records", [b"", b"\0" * 512, b"6 a=b\n", b"6 a=b\n6 c=d\n\0\0", b"5 a=\n", "8 a=\u20ac\n".encode(), b"8 a=b\n=\n"]
)
def test_pax_headers_that_are_valid_pass(records: bytes) -> None:
    check_pax(records)


@pytest.mark.parametrize(
    "records",
    [
        *(b"a", b"a=b\n", b"0 a=b\n", b"06 a=b\n", b"-6 a=b\n", b"5 a=b\n"),
        *(b"7 a=b\n", b"6 a=bc", b"5 =b\n", b"6 a=b\nx", b"4 a=\n"),
    ],
)
def test_pax_headers_that_are_not_valid_are_damaged(records: bytes) -> None:
    with pytest.raises(Damaged, match="a member has a pax header that is not valid"):
        check_pax(records)


def test_zeros_may_fill_the_last_block_and_nothing_else_may_follow() -> None:
    check_end(io.BytesIO(bytes(1 << 20)))
    for rest in (bytes(100) + b"x", END + bytes(1 << 24)):
        with pytest.raises(Damaged, match="it has more data after its end"):
            check_end(io.BytesIO(rest))
