# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar archives that others made, read once from their beginning to their end by tarfile, within limits that it does not
have.
"""

from __future__ import annotations

import io
import re
import tarfile
from typing import BinaryIO, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE

HEADERS = 1 << 13  # bytes that the headers of one member may take; real ones take up to 2 KiB
TRAILER = 1 << 24  # bytes of zeros that may follow the last member; tar writes up to 1 MiB with its largest blocks

# One record of a pax header (pax(1), "pax Extended Header"). The end of it is where its length says.
RECORD = re.compile(rb"([1-9][0-9]{0,4}) [^=\0\n]{1,300}=")
OCTAL = re.compile(rb"[0-7]*")
# Older Python searches a pax header by expressions that take the square of the length of such a run.
LONG_NUMBER = re.compile(rb"[0-9]{65}")

PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENDED = (*PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # headers with data for the next one

NO_ARCHIVE = "it is not a tar archive, or ends too early"

# What tarfile raises about headers that make no sense to it. RecursionError: a header may be preceded by any number of
# others.
FAULTS = (tarfile.TarError, ArithmeticError, EOFError, LookupError, RecursionError, ValueError)


class Content:
    """The content of an archive, as tarfile reads it: forward only, with a limit for the headers of one member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seekable = file.seekable()
        self._at = 0
        self._allowed = HEADERS
        self._follows = b""  # the type of the header whose data is read next

    def next_member(self, at: int) -> None:
        """Skip what was not read of a member, to the header of the next one."""
        if self._seekable and self._at < at:
            self._file.seek(at - self._at, io.SEEK_CUR)
            self._at = at
        for _dummy in self.pieces(at - self._at):
            pass
        self._allowed = HEADERS

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        self.read(position - self._at)

    def read(self, size: int) -> bytes:
        """Return bytes of headers."""
        if not 0 <= size <= self._allowed:
            raise Damaged(f"the headers of a member are larger than {HEADERS >> 10} KiB, or lead backwards")
        self._allowed -= size
        data = self._file.read(size)
        self._at += len(data)
        follows, self._follows = self._follows, b""
        if follows in PAX:
            check_pax(data)
        elif not follows and size == tarfile.BLOCKSIZE:
            check_header(data)
            kind = data[156:157]
            self._follows = kind if kind in EXTENDED else b""
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield that many bytes of a member's data."""
        while size > 0:
            piece = self._file.read(min(PIECE, size))
            if not piece:
                raise Damaged("it ends in the middle of a member")
            self._at += len(piece)
            size -= len(piece)
            yield piece


def check_header(block: bytes) -> None:
    """Raise Damaged where tarfile would make something else of a header in each release of Python: some take a damaged
    one for the end of the archive (TarFile.next).
    """
    if len(block) < tarfile.BLOCKSIZE:
        raise Damaged(f"{NO_ARCHIVE} ({'truncated' if block else 'empty'} header)")
    if not block.strip(b"\0"):  # the end of the archive
        return
    # Both ways to add up bytes count (pax(1), "ustar Interchange Format", chksum).
    rest = block[:148] + b" " * 8 + block[156:]
    if _number(block[148:156]) not in (sum(rest), sum(byte - (byte > 127) * 256 for byte in rest)):
        raise Damaged(f"{NO_ARCHIVE} (bad checksum)")
    kind, size = block[156:157], _number(block[124:136])
    name = block[:100].rstrip(b"\0").decode(errors="replace")
    if kind == tarfile.XGLTYPE:
        raise Damaged("it has a pax header for all members, which would be kept until its end")
    if size < 0:
        raise Damaged(f"member {name!r}: it is of size {size}")
    if kind == tarfile.GNUTYPE_SPARSE:
        raise Damaged(f"member {name!r}: it is a sparse file")


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's notation for those that are too large or negative."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\0")[0].strip(b" ")
    if not OCTAL.fullmatch(digits):
        raise Damaged(f"{NO_ARCHIVE} (invalid header)")
    return int(digits or b"0", 8)


def check_pax(data: bytes) -> None:
    at = 0
    while at < len(data) and data[at]:
        record = RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1] != ord("\n"):
            raise Damaged("a member has a pax header that is not valid")
        key, value = data[record.end(1) + 1 : record.end() - 1], data[record.end() : end - 1]
        if key.startswith(b"GNU.sparse."):
            raise Damaged("a member has a pax header by which it is a sparse file")
        if key == b"size" and not value.isdigit():
            raise Damaged(f"a member has a pax header by which it is of size {value[:40].decode(errors='replace')}")
        at = end
    if LONG_NUMBER.search(data):
        raise Damaged("a member has a pax header with a number that is too long")


def members(content: Content) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive. The data of each can be read until the next one is asked for."""
    try:
        with tarfile.TarFile(
            fileobj=content,  # type: ignore[arg-type]  # TarFile only reads and seeks
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            for header in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all; typeshed has no members
                yield header
                content.next_member(archive.offset)
    except FAULTS as error:
        raise Damaged(f"{NO_ARCHIVE} ({error})") from error


def check_end(file: BinaryIO) -> None:
    """Read what follows the last member, and raise Damaged where it is more than zeros that fill a block."""
    left = TRAILER
    for piece in iter(lambda: file.read(PIECE), b""):
        left -= len(piece)
        if left < 0 or piece.strip(b"\0"):
            raise Damaged("it has more data after its end")
