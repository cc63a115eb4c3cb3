# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of an image, read from the files of a daemon with a classic graph driver. This file is also a program, which
Python runs at the end of hops: it imports nothing but the standard library.

A graph driver keeps a layer as the files of a directory, and beside it, as tar-split (github.com/vbatts/tar-split), a
record of the bytes of its tar that are not in these files. The names in the record and the files are an image's, which
may have put a symlink where the record has a directory: below the layer's directory no link is followed, no other file
system is entered, and only a regular file of the recorded size is read. All files are checked before the first byte of
any is read, and again when they are opened.
"""

from __future__ import annotations

import binascii
import gzip
import io
import json
import os
import stat
import sys
import zlib
from typing import Generator, Iterator, Sequence

# Where a graph driver keeps the files of a layer, by its cache-id (moby, daemon/graphdriver).
FILES = {
    "overlay2": "overlay2/{}/diff",
    "fuse-overlayfs": "fuse-overlayfs/{}/diff",
    "btrfs": "btrfs/subvolumes/{}",
    "vfs": "vfs/dir/{}",
}

PIECE = 1 << 20
LARGEST_CONFIG = 1 << 22  # bytes of an image's configuration; real ones have some KiB
LARGEST_RECORDS = 1 << 25  # bytes of the compressed records of all layers, which are held in memory
LARGEST_RECORD = 1 << 30  # bytes that one record may unpack to; 1 KiB is usual for a file
LARGEST_LINE = 1 << 22  # bytes of one entry of a record
DEEPEST = 128  # directories in a name: each of them is open while files in it are read

# O_NONBLOCK: a named pipe would wait for a writer.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What is raised where a store is not what it should be.
FAULTS = (OSError, EOFError, ValueError, zlib.error)


class Directory:
    """The regular files below a directory. The directories that lead to the last one stay open, since names come in
    order.
    """

    def __init__(self, descriptor: int, device: int | None = None) -> None:
        self._way = [(b"", descriptor)]
        self._device = device  # that of all files, where it must be one
        self._name: bytes | None = b""  # of the last of these directories

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave(0)

    def below(self, name: str) -> Directory:
        """Open a directory whose files are all on one file system."""
        directory, last = self._enter(name.encode())
        descriptor = os.open(last, READ | os.O_DIRECTORY, dir_fd=directory)
        return Directory(descriptor, os.fstat(descriptor).st_dev)

    def whole(self, name: str, largest: int) -> bytes:
        """Return the bytes of a file that is small."""
        directory, last = self._enter(name.encode())
        size = os.stat(last, dir_fd=directory, follow_symlinks=False).st_size
        if size > largest:
            raise ValueError(f"{name} has more than {largest} bytes")
        return b"".join(self.read(name.encode(), size))

    def check(self, name: bytes, size: int) -> int:
        """Return the inode of a regular file of that size."""
        directory, last = self._enter(name)
        return self._checked(os.stat(last, dir_fd=directory, follow_symlinks=False), name, size)

    def read(self, name: bytes, size: int) -> Iterator[bytes]:
        """Yield the bytes of a regular file of that size."""
        directory, last = self._enter(name)
        descriptor = os.open(last, READ, dir_fd=directory)
        try:
            self._checked(os.fstat(descriptor), name, size)
            while size:
                piece = os.read(descriptor, min(PIECE, size))
                if not piece:
                    raise EOFError(f"{shown(name)} has become shorter")
                size -= len(piece)
                yield piece
        finally:
            os.close(descriptor)

    def _enter(self, name: bytes) -> tuple[int, bytes]:
        """Return the open directory that a name leads to, and the last part of the name."""
        above, _slash, last = name.rpartition(b"/")
        if above != self._name or last in (b"", b".", b".."):
            *parts, last = parts_of(name)
            self._name = None
            depth = 1
            for part in parts:
                if depth < len(self._way) and self._way[depth][0] != part:
                    self._leave(depth)
                if depth == len(self._way):
                    self._way.append((part, os.open(part, READ | os.O_DIRECTORY, dir_fd=self._way[-1][1])))
                    self._one_device(os.fstat(self._way[-1][1]), name)
                depth += 1
            self._leave(depth)
            self._name = above
        return self._way[-1][1], last

    def _leave(self, depth: int) -> None:
        for _dummy, descriptor in self._way[depth:]:
            os.close(descriptor)
        del self._way[depth:]

    def _checked(self, state: os.stat_result, name: bytes, size: int) -> int:
        if not stat.S_ISREG(state.st_mode) or state.st_size != size:
            raise ValueError(f"{shown(name)} is not a regular file of {size} bytes")
        self._one_device(state, name)
        return state.st_ino

    def _one_device(self, state: os.stat_result, name: bytes) -> None:
        if self._device not in (None, state.st_dev):
            raise ValueError(f"{shown(name)} is on another file system")


def parts_of(name: bytes) -> list[bytes]:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if not parts or b".." in parts:
        raise ValueError(f"{shown(name)} does not lead down to a file")
    if len(parts) > DEEPEST:
        raise ValueError(f"{shown(name)} is too deep")
    return parts


def shown(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "replace"))


class Layer:
    """A layer: its directory, and the record of its tar."""

    def __init__(self, root: Directory, directory: str, record: bytes) -> None:
        self._root, self._directory, self._record = root, directory, record

    def size(self) -> int:
        """Return the size of the tar, or raise one of FAULTS where it cannot be made of the files that are there."""
        total = 0
        seen: set[int] = set()
        with self._root.below(self._directory) as files:
            for data, name, size in entries(self._record):
                if size:
                    inode = files.check(name, size)
                    if inode in seen:
                        raise ValueError(f"{shown(name)} is a file that it had before")
                    seen.add(inode)
                total += len(data) + size
        return total

    def tar(self) -> Iterator[bytes]:
        """Yield the tar."""
        with self._root.below(self._directory) as files:
            for data, name, size in entries(self._record):
                if size:
                    yield from files.read(name, size)
                elif data:
                    yield data


def entries(record: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield bytes of the tar, or the name and size of a file whose content follows."""
    left = LARGEST_RECORD
    with gzip.GzipFile(fileobj=io.BytesIO(record)) as lines:
        while True:
            line = lines.readline(LARGEST_LINE)
            left -= len(line)
            if len(line) == LARGEST_LINE or left < 0:
                raise ValueError(f"a layer's record has more than {LARGEST_RECORD} bytes, or {LARGEST_LINE} in a line")
            if not line:
                return
            yield parsed(line)


def parsed(line: bytes) -> tuple[bytes, bytes, int]:
    try:
        entry = json.loads(line)
        if entry["type"] == 2:
            return binascii.a2b_base64(entry["payload"] or ""), b"", 0
        size, raw = entry.get("size") or 0, entry.get("name_raw")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"a file of the size {size!r:.20}")
        return b"", binascii.a2b_base64(raw) if raw else entry["name"].encode("utf-8", "surrogateescape"), size
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"a layer's record is not as tar-split writes it ({error})") from error


def coalesced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in larger pieces, since most files, and the bytes between them, are small."""
    buffer: list[bytes] = []
    length = 0
    for piece in pieces:
        buffer.append(piece)
        length += len(piece)
        if length >= PIECE:
            yield b"".join(buffer)
            buffer, length = [], 0
    yield b"".join(buffer)


def answer(path: str, driver: str, image: str, *chains: str) -> Generator[bytes, None, None]:
    """Yield a line with the sizes of an image's configuration and of the layers that have these ChainIDs, and then the
    bytes of all of them.
    """
    with Directory(os.open(path, READ & ~os.O_NOFOLLOW | os.O_DIRECTORY)) as root:
        config = root.whole(f"image/{driver}/imagedb/content/sha256/{image}", LARGEST_CONFIG)
        layers, left = [], LARGEST_RECORDS
        for chain in chains:
            at = f"image/{driver}/layerdb/sha256/{chain}"
            cache_id = root.whole(f"{at}/cache-id", 255).decode()
            record = root.whole(f"{at}/tar-split.json.gz", left)
            left -= len(record)
            layers.append(Layer(root, FILES[driver].format(cache_id), record))
        yield " ".join(map(str, [len(config), *(layer.size() for layer in layers)])).encode() + b"\n"
        yield config
        for layer in layers:
            yield from coalesced(layer.tar())


def main(arguments: Sequence[str]) -> int:
    try:
        with open(1, "wb", buffering=0, closefd=False) as output:
            for piece in answer(*arguments):
                rest = memoryview(piece)
                while rest:
                    rest = rest[output.write(rest) :]
    except FAULTS as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
