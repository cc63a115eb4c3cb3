# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that are unpacked while they are verified: read once, each member judged before it is written, written below
one directory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tarfile
from io import BufferedReader
from typing import BinaryIO, Callable, ContextManager, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    HEAD,
    compression_of,
    through_command,
)
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.tar import Content, check_end, members
from ansible_collections.nested.kata.plugins.module_utils._kata.archive_size import FORMATS
from ansible_collections.nested.kata.plugins.module_utils._kata.members import (
    Judge,
    MakeDirectory,
    MakeLink,
    MakeSymlink,
    Member,
    Parts,
    Piece,
    WriteFile,
)

KINDS = {
    tarfile.REGTYPE: "a file",
    tarfile.AREGTYPE: "a file",
    tarfile.DIRTYPE: "a directory",
    tarfile.SYMTYPE: "a symlink",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
}


class Archive:
    """A compressed archive that is read once, for its digest and for its content."""

    def __init__(self, file: BufferedReader, report: Callable[[int], None]) -> None:
        self._file, self._report = file, report
        self._digest = hashlib.sha256()
        self._pieces = self._read()

    def content(self) -> ContextManager[BufferedReader]:
        """Return the content of the archive as a file that can be read from its beginning to its end."""
        return through_command(self._pieces, compression_of(self._file.peek(HEAD), FORMATS))

    def _read(self) -> Iterator[bytes]:
        for piece in iter(lambda: self._file.read(PIECE), b""):
            self._digest.update(piece)
            self._report(len(piece))
            yield piece

    def digest(self) -> str:
        """Return the SHA-256 of the whole file, even if its content could not be read."""
        for _dummy in self._pieces:  # what the command did not take
            pass
        return self._digest.hexdigest()


def member_of(header: tarfile.TarInfo) -> Member:
    kind = KINDS.get(header.type, f"of the unknown type {header.type!r}")
    return Member(header.name, kind, header.size, header.mode, header.mtime, header.linkname)


def unpack(file: BinaryIO, judge: Judge, root: int) -> None:
    """Write the members of an archive below a directory, given by its descriptor."""
    content = Content(file)
    for header in members(content):
        for piece in judge.pieces(member_of(header)):
            write(piece, content, root)
    check_end(file)


# --- below one directory, whatever the names are ---


def write(piece: Piece, content: Content, root: int) -> None:
    """Carry out one step. Nothing existing is followed or overwritten, but a directory may get another mode."""
    name = name_of(piece.parts[-1])
    with directory(root, piece.parts[:-1]) as parent:
        _make(piece, name, parent, content, root)


@functools.singledispatch
def _make(piece: Piece, name: bytes, parent: int, content: Content, root: int) -> None:
    raise NotImplementedError(piece)


@_make.register(MakeDirectory)
def _make_directory(piece: MakeDirectory, name: bytes, parent: int, content: Content, root: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    with directory(parent, piece.parts[-1:]) as made:
        os.fchmod(made, piece.mode)


@_make.register(MakeSymlink)
def _make_symlink(piece: MakeSymlink, name: bytes, parent: int, content: Content, root: int) -> None:
    os.symlink(piece.target.encode(), name, dir_fd=parent)


@_make.register(MakeLink)
def _make_link(piece: MakeLink, name: bytes, parent: int, content: Content, root: int) -> None:
    with directory(root, piece.existing[:-1]) as other:
        os.link(name_of(piece.existing[-1]), name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)


@_make.register(WriteFile)
def _write_file(piece: WriteFile, name: bytes, parent: int, content: Content, root: int) -> None:
    descriptor = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
    )
    try:
        for data in content.pieces(piece.size):
            part = memoryview(data)
            while part:
                part = part[os.write(descriptor, part) :]
        os.fchmod(descriptor, piece.mode)
        os.utime(descriptor, (piece.mtime, piece.mtime))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def directory(root: int, parts: Parts) -> Iterator[int]:
    """Yield a descriptor of a directory below another one, to which no symlink leads."""
    descriptor = os.dup(root)
    try:
        for part in parts:
            above = descriptor
            descriptor = os.open(
                name_of(part), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above
            )
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def name_of(part: str) -> bytes:
    """Return one name, which leads to an entry of a directory and nowhere else."""
    if part in ("", ".", "..") or "/" in part:
        raise ValueError(f"{part!r} is not a name in a directory")
    return part.encode()
