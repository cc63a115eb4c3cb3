# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers in the store of a daemon with a classic graph driver, read as `docker save` reads them, but only those that
are needed.

`docker save` writes every layer of an image to a temporary directory before it sends the first byte. A graph driver
keeps a layer as the files of a directory, and beside it, as tar-split (github.com/vbatts/tar-split), the bytes of its
tar that are not in these files. One shell, at the end of the hops, reads both. Every layer is compared with its digest
on the way: where the store differs from what is expected, the layers are read again by `docker save`.
"""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import socket
from collections import deque
from dataclasses import dataclass
from typing import Any, BinaryIO, Collection, Iterator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Exec
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    PIECE,
    Blob,
    Manifest,
    Part,
    chain_ids,
    sha256,
    verified,
)

# Where a graph driver keeps the files of a layer, by its cache-id (moby, daemon/graphdriver).
FILES = {
    "overlay2": "overlay2/{}/diff",
    "fuse-overlayfs": "fuse-overlayfs/{}/diff",
    "btrfs": "btrfs/subvolumes/{}",
    "vfs": "vfs/dir/{}",
}

# Prints the metadata of the layers, preceded by their sizes; then, repeatedly, reads a number of bytes, that many bytes
# of names, and prints these files.
SCRIPT = (
    'cd "$1" && shift && wc -c -- "$@" && cat -- "$@" && while read -r count; do head -c "$count" | xargs -0 cat -- ||'
    " exit 1; done"
)

NAMES = (
    1 << 15
)  # bytes of names that are asked for at once; two such lots are in the socket at most, which holds 200 KiB
LOTS = 2
# seconds without a byte after which the shell is ended: where a file has become shorter, it may wait for more names
QUIET = 60.0
LARGEST = 1 << 25  # bytes of the metadata of all layers of an image, which is held in memory


class Unreadable(Exception):
    """The layers cannot be read from the store."""


class Store:
    """The store of a daemon with a classic graph driver, read by a shell."""

    def __init__(self, info: Mapping[str, Any], hops: Sequence[str], quiet: float = QUIET) -> None:
        if info["Driver"] not in FILES:
            raise Unreadable(f"it keeps layers in {info['Driver']}")
        self._root, self._driver, self._quiet = info["DockerRootDir"], info["Driver"], quiet
        self._hops = tuple(hops)

    def parts(self, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        """Yield the wanted layers, base first, and the manifest of all layers."""
        chains = {layer: chain for layer, chain in zip(image.layers, chain_ids(image.layers)) if layer in wanted}
        below = f"image/{self._driver}"
        paths = [f"{below}/imagedb/content/sha256/{image.id.rpartition(':')[2]}"]
        for chain in chains.values():
            at = f"{below}/layerdb/sha256/{chain.rpartition(':')[2]}"
            paths += [f"{at}/diff", f"{at}/cache-id", f"{at}/tar-split.json.gz"]
        try:
            child = Exec(self._hops).start(
                len(self._hops), ["sh", "-c", f"export LC_ALL=C; {SCRIPT}", "sh", self._root, *paths]
            )
        except Broken as error:
            raise Unreadable(f"its files cannot be reached ({error})") from error
        try:
            child.stream.settimeout(self._quiet)
            with io.BufferedReader(child.stream.makefile("rb", buffering=0), PIECE) as answers:
                yield from self._read(child.stream, answers, image, chains, paths)
        except (OSError, EOFError, Damaged, ValueError, KeyError) as error:
            child.end()  # only then its last words are complete
            words = "" if isinstance(error, Damaged) else child.last_words()
            raise Unreadable(f"its files cannot be read ({words or error})") from error
        finally:
            child.end()

    def _read(
        self, stream: socket.socket, answers: BinaryIO, image: Image, chains: Mapping[str, str], paths: Sequence[str]
    ) -> Iterator[Part]:
        sizes = []
        for _dummy in range(len(paths) + (len(paths) > 1)):  # the last one is the total
            line = answers.readline(4096).split()
            if len(line) < 2:
                raise EOFError("they do not exist, or this user may not read them")
            sizes.append(int(line[0]))
        if sizes[-1] > LARGEST:
            raise EOFError(f"the metadata of the layers takes {sizes[-1] >> 20} MiB")
        metadata = [read(answers, size) for size in sizes[: len(paths)]]
        config = metadata.pop(0)
        if sha256(config) != image.id:
            raise Damaged("the configuration is of another image")
        layers: dict[str, tuple[str, Split]] = {}
        for number, layer in enumerate(chains):
            diff, cache_id, split = metadata[3 * number : 3 * number + 3]
            if diff.decode() != layer:
                raise Damaged(f"the store has {diff.decode()[:19]} in the place of {layer[:19]}")
            layers[layer] = (FILES[self._driver].format(cache_id.decode()), Split(split))
        del metadata
        yield from verified(self._layers(stream, answers, layers))
        yield Manifest(config, image.layers)

    @staticmethod
    def _layers(stream: socket.socket, answers: BinaryIO, layers: Mapping[str, tuple[str, Split]]) -> Iterator[Part]:
        files = Files(
            stream,
            answers,
            itertools.chain.from_iterable(names(directory, split) for directory, split in layers.values()),
        )
        for layer, (_dummy, split) in layers.items():
            yield Blob(layer, split.size())
            yield from coalesced(contents(files, split))


@dataclass(frozen=True)
class Split:
    """A layer's tar without the contents of its files, as tar-split keeps it."""

    compressed: bytes

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield bytes of the tar, or the name and size of a file whose content follows."""
        with gzip.GzipFile(fileobj=io.BytesIO(self.compressed)) as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["type"] == 2:
                    yield base64.b64decode(entry["payload"] or ""), b"", 0
                elif entry.get("size"):
                    yield (
                        b"",
                        base64.b64decode(entry["name_raw"]) if entry.get("name_raw") else entry["name"].encode(),
                        entry["size"],
                    )

    def size(self) -> int:
        return sum(len(data) + size for data, dummy, size in self.entries())


class Files:
    """The bytes of many files, one after the other. Names are sent one lot ahead, so that the shell never waits for
    them.

    The shell ends after the last names, so that a file which has become shorter is detected at once.
    """

    def __init__(self, stream: socket.socket, answers: BinaryIO, lots: Iterator[tuple[bytes, int]]) -> None:
        self._stream, self._answers, self._lots = stream, answers, lots
        self._at = self._asked = 0  # bytes that were read, and that were asked for
        self._due: deque[int] = deque()  # where each lot that was asked for ends
        self._over = False

    def read(self, size: int) -> bytes:
        while self._due and self._due[0] <= self._at:
            self._due.popleft()
        while len(self._due) < LOTS and not self._over:
            self._ask()
        self._at += size
        return read(self._answers, size)

    def _ask(self) -> None:
        lot, weight = next(self._lots, (b"", 0))
        if lot:
            self._stream.sendall(b"%d\n%b" % (len(lot), lot))
            self._asked += weight
            self._due.append(self._asked)
        else:
            self._stream.shutdown(socket.SHUT_WR)
            self._over = True


def contents(files: Files, split: Split) -> Iterator[bytes]:
    """Yield a layer's tar."""
    for data, _dummy, size in split.entries():
        if data:
            yield data
        for at in range(0, size, PIECE):
            yield files.read(min(PIECE, size - at))


def names(directory: str, split: Split) -> Iterator[tuple[bytes, int]]:
    """Yield lots of names, each ended by NUL, and the bytes that their files have together."""
    lot: list[bytes] = []
    length = weight = 0
    for _dummy, name, size in split.entries():
        if size:
            path = directory.encode() + b"/" + name + b"\0"
            if length + len(path) > NAMES and lot:
                yield b"".join(lot), weight
                lot, length, weight = [], 0, 0
            lot.append(path)
            length += len(path)
            weight += size
    if lot:
        yield b"".join(lot), weight


def coalesced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in larger pieces, since most files, and the bytes between them, are small."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) >= PIECE:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("they end too early")
    return data
