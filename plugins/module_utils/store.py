# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers out of a daemon's own store, read as `docker save` reads them, but only those that are asked for.

`docker save` writes every layer of an image to a temporary directory before it sends the first byte, whatever is needed of them. What it
writes can be had from the store: the classic graph drivers keep a layer as the files of a directory, and beside it, as tar-split, the
bytes of its tar that are not in these files. Both are read by one shell where the daemon runs, at the end of its hops. Every layer is
compared with its digest on the way, so that a store which is not what it seems costs a second try and nothing else.
"""
from __future__ import annotations

import itertools
import socket
from collections import deque
from typing import Any, BinaryIO, Collection, Deque, Dict, Iterator, List, Mapping, Sequence, Tuple

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils.archive import (
    PIECE, Blob, Manifest, Part, Split, chain_ids, sha256, verified,
)
from ansible_collections.nested.kata.plugins.module_utils.image import Image
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Exec

# Where a graph driver keeps the files of a layer, by its cache-id (moby, daemon/graphdriver).
FILES = {"overlay2": "overlay2/{}/diff", "fuse-overlayfs": "fuse-overlayfs/{}/diff", "btrfs": "btrfs/subvolumes/{}", "vfs": "vfs/dir/{}"}

# What is told about the layers, with sizes before it; then, again and again, files by their names, of which it is told how many bytes they are.
SCRIPT = 'cd "$1" && shift && wc -c -- "$@" && cat -- "$@" && while read -r count; do head -c "$count" | xargs -0 cat -- || exit 1; done'

NAMES = 1 << 15  # bytes of names that are asked for at once; two such lots are in the socket at most, which holds 200 KiB
LOTS = 2
QUIET = 60.0  # seconds without a byte after which the shell is given up: a file that is shorter than it was may have it wait for more names
LARGEST = 1 << 25  # bytes of what is told about all layers of an image, which is held in memory


class Unreadable(Exception):
    """The layers cannot be had in this way."""


class Store:
    """The store of a classic daemon, reached by a shell."""

    def __init__(self, info: Mapping[str, Any], hops: Sequence[str], quiet: float = QUIET) -> None:
        if info["Driver"] not in FILES:
            raise Unreadable(f"it keeps layers in {info['Driver']}")
        self._root, self._driver, self._quiet = info["DockerRootDir"], info["Driver"], quiet
        self._hops = tuple(hops)

    def parts(self, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        """Yield the layers that are wanted, base first, and the manifest of all."""
        chains = {layer: chain for layer, chain in zip(image.layers, chain_ids(image.layers)) if layer in wanted}
        below = f"image/{self._driver}"
        paths = [f"{below}/imagedb/content/sha256/{image.id.rpartition(':')[2]}"]
        for chain in chains.values():
            at = f"{below}/layerdb/sha256/{chain.rpartition(':')[2]}"
            paths += [f"{at}/diff", f"{at}/cache-id", f"{at}/tar-split.json.gz"]
        try:
            child = Exec(self._hops).start(len(self._hops), ["sh", "-c", f"export LC_ALL=C; {SCRIPT}", "sh", self._root, *paths])
        except Broken as error:
            raise Unreadable(f"there is no way to its files ({error})") from error
        try:
            child.stream.settimeout(self._quiet)
            with child.stream.makefile("rb", buffering=PIECE) as answers:
                yield from self._told(child.stream, answers, image, chains, paths)
        except (OSError, EOFError, Damaged, ValueError, KeyError) as error:
            child.end()  # only then all that it said is there
            said = "" if isinstance(error, Damaged) else child.last_words()
            raise Unreadable(f"its files cannot be read ({said or error})") from error
        finally:
            child.end()

    def _told(self, stream: socket.socket, answers: BinaryIO, image: Image, chains: Mapping[str, str], paths: Sequence[str]) -> Iterator[Part]:
        sizes = []
        for dummy in range(len(paths) + (len(paths) > 1)):  # the last one is the total
            line = answers.readline(4096).split()
            if len(line) < 2:
                raise EOFError("they are not there, or not for this user")
            sizes.append(int(line[0]))
        if sizes[-1] > LARGEST:
            raise EOFError(f"what is told about the layers takes {sizes[-1] >> 20} MiB")
        told = [read(answers, size) for size in sizes[:len(paths)]]
        config = told.pop(0)
        if sha256(config) != image.id:
            raise Damaged("the configuration is of another image")
        layers: Dict[str, Tuple[str, Split]] = {}
        for number, layer in enumerate(chains):
            diff, cache_id, split = told[3 * number:3 * number + 3]
            if diff.decode() != layer:
                raise Damaged(f"what is kept as {layer[:19]} is {diff.decode()[:19]}")
            layers[layer] = (FILES[self._driver].format(cache_id.decode()), Split(split))
        del told
        yield from verified(self._layers(stream, answers, layers))
        yield Manifest(config, image.layers)

    @staticmethod
    def _layers(stream: socket.socket, answers: BinaryIO, layers: Mapping[str, Tuple[str, Split]]) -> Iterator[Part]:
        files = Files(stream, answers, itertools.chain.from_iterable(names(directory, split) for directory, split in layers.values()))
        for layer, (dummy, split) in layers.items():
            yield Blob(layer, split.size())
            yield from coalesced(contents(files, split))


class Files:
    """The bytes of many files, one after the other. Names are sent ahead by a lot, so that the shell never waits for us.

    After the last names the shell ends, so that a file which is shorter than it was is seen at once then.
    """

    def __init__(self, stream: socket.socket, answers: BinaryIO, lots: Iterator[Tuple[bytes, int]]) -> None:
        self._stream, self._answers, self._lots = stream, answers, lots
        self._at = self._asked = 0  # bytes that were read, and that were asked for
        self._due: Deque[int] = deque()  # where each lot ends that is under way
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
    for data, dummy, size in split.entries():
        if data:
            yield data
        for at in range(0, size, PIECE):
            yield files.read(min(PIECE, size - at))


def names(directory: str, split: Split) -> Iterator[Tuple[bytes, int]]:
    """Yield lots of names, each ended by NUL, and how many bytes their files have together."""
    lot: List[bytes] = []
    length = weight = 0
    for dummy, name, size in split.entries():
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
    """Yield the same bytes in larger pieces: most files are small, and so is what is between them."""
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
