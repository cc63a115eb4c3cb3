# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images, read as streams in every layout that the tools of Docker and OCI write, and never held as a
whole. What their documents say about images is in contents.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import Any, BinaryIO, Generator, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common import untrusted
from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    COMMANDS,
    compression_of,
    through_command,
)
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.pieces import Pieces
from ansible_collections.nested.kata.plugins.module_utils._common.tar import TRAILER, Content, members
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import BLOBS, BLOCK, MANIFEST
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    Blob,
    Manifest,
    Part,
    chain_ids,
    short_digest,
)

# Limits, far above what real archives have: some KiB for a document, and a hundred layers for an image.
SMALL = 1 << 22  # bytes that a JSON document in an archive may have
MOST_BYTES = 1 << 26  # of all its documents
MOST_READ = 1 << 28  # of its documents, when those that are named several times are read as often
MOST_DOCUMENTS = 1 << 14
MOST_MEMBERS = 1 << 16
LONGEST_NAME = 1 << 10  # characters
MOST_LINKS = 8  # from one member to the next
LARGEST_LEGACY = 1 << 16  # bytes of the description of a layer before Docker 25, which is compared with each layer
# Bytes that a layer may be uncompressed to, and how many times its size where that is more: gzip goes up to 1032 times,
# the others without end.
LARGEST_LAYER, LARGEST_RATIO = 1 << 34, 1100
BLANKS = b" \t\r\n"  # of JSON


class Stream(Pieces):
    """An archive that is read once."""

    def drain(self) -> None:
        """Read the rest: the error that broke the archive off may be at its end."""
        left = TRAILER
        for piece in itertools.chain([self.rest], self.pieces):
            left -= len(piece)
            if left < 0:
                raise Damaged("it has more data after its end")
        self.rest = memoryview(b"")


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    number: int  # its place among the members
    size: int
    kind: str  # its compression, or nothing


def numbered(file: BinaryIO) -> Iterator[tuple[int, tarfile.TarInfo, Content]]:
    """Yield each member of an archive with its number, and the content that its data is read from."""
    content = Content(file)
    for number, member in enumerate(members(content), 1):
        limit("members", number, MOST_MEMBERS)
        if max(len(member.name), len(member.linkname)) > LONGEST_NAME:
            raise Damaged(f"a name in it has more than {LONGEST_NAME} characters")
        yield number, member, content


def inside(path: str) -> str:
    """Return the one spelling of a path in an archive: no path leads out of it."""
    return posixpath.normpath("/" + path.lstrip("/"))[1:]


def is_document(head: bytes) -> bool:
    """Return whether a file begins like JSON. A tar may do so too, in the name of a file, but has zeros behind it."""
    return b"\0" not in head and head.lstrip(BLANKS)[:1] in (b"", b"{", b"[")


class Reading:
    """The members of an archive: layers are passed on, JSON documents kept, links noted."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.files: dict[str, Member] = {}
        self.links: dict[str, str] = {}
        self.layers = self.entries = 0  # of all images, and of all indexes
        self._bytes = self._read = 0  # of documents

    def members(self, file: BinaryIO) -> Iterator[tuple[str, Member, Iterator[bytes]]]:
        """Yield path and bytes of each file that is not a JSON document. Of several of one path the last one counts."""
        for number, member, content in numbered(file):
            path = inside(member.name)
            for kept in (self.documents, self.files, self.links):
                kept.pop(path, None)
            if member.issym() or member.islnk():
                self.links[path] = inside(
                    posixpath.join(posixpath.dirname(path) if member.issym() else "", member.linkname)
                )
            if not member.isfile():
                continue
            head = b"".join(content.pieces(min(BLOCK, member.size)))
            rest = content.pieces(member.size - len(head))
            self.files[path] = Member(number, member.size, compression_of(head, COMMANDS))
            if head and member.size <= SMALL and is_document(head):
                self._bytes += member.size
                limit("bytes of JSON", self._bytes, MOST_BYTES)
                limit("JSON documents", len(self.documents) + 1, MOST_DOCUMENTS)
                self.documents[path] = b"".join((head, *rest))
            else:
                yield path, self.files[path], itertools.chain([head] if head else [], rest)

    def target(self, path: str) -> str:
        """Return the member that a path leads to: older daemons write a layer that occurs again as a link."""
        path = inside(path)
        for _dummy in range(MOST_LINKS):
            path = self.links.get(path, path)
        return path

    def document(self, path: str) -> bytes:
        """Return the bytes of a document, over which its digest is computed."""
        try:
            data = self.documents[self.target(path)]
        except KeyError as error:
            raise Damaged(f"{path} is missing in it: it is not an archive of images, or ends too early") from error
        self._read += len(data)
        limit("bytes of JSON that are named again and again", self._read, MOST_READ)
        return data

    def json(self, path: str) -> Any:
        return parsed(path, self.document(path))


def limit(what: str, count: int, most: int) -> None:
    if count > most:
        raise Damaged(f"it has more than {most} {what}")


def parsed(path: str, data: bytes) -> Any:
    try:
        return untrusted.parsed(data, f"{path} in it")
    except untrusted.Unexpected as error:
        raise Damaged(str(error)) from error


@contextlib.contextmanager
def metadata() -> Iterator[None]:
    """Turn the errors of documents that are JSON, but not what they should be, into one line."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(
            f"its metadata about images is in neither OCI's nor Docker's format ({type(error).__name__}: {error})"
        ) from error


def saved(pieces: Iterable[bytes], layers: Sequence[str]) -> Iterator[Part]:
    """Yield the parts of the one image that a daemon saved, whose layers are known: both layouts, 20.10's and that of
    25 and newer.
    """
    stream, reading = Stream(pieces), Reading()
    chains, unknown = chain_ids(layers), []
    digests: dict[str, str] = {}

    def layer_of(path: str) -> str | None:
        if path.startswith(BLOBS):
            digests[path] = f"sha256:{posixpath.basename(path)}"
        elif posixpath.basename(path) == "layer.tar":
            description = reading.documents.get(posixpath.join(posixpath.dirname(path), "json"), b"{}")
            number = legacy_layer(posixpath.dirname(path), description, chains)
            if number is None:
                unknown.append(path)
                number = (
                    len(layers) - 1
                )  # the topmost has a description of its own, which may be spelt differently from ours
            if len(unknown) > 1 or not layers:
                raise Damaged(f"{path} in it is not a layer of the image")
            digests[path] = layers[number]
        return digests.get(path)

    try:
        for path, member, pieces in reading.members(io.BufferedReader(stream, PIECE)):
            digest = layer_of(path)
            if digest:
                yield Blob(digest, member.size)
                yield from pieces
    except Damaged:
        stream.drain()
        raise
    stream.drain()
    entries = reading.json(MANIFEST)
    with metadata():
        if len(entries) != 1:
            raise Damaged(f"it sent {len(entries)} images instead of one")
        paths = [reading.target(path) for path in entries[0]["Layers"] or ()]
        config = reading.document(entries[0]["Config"])
    for path in paths:
        if path not in digests:
            raise Damaged(f"its archive ends before {path}")
    yield Manifest(config, tuple(digests[path] for path in paths))


def legacy_layer(name: str, text: bytes, chains: Sequence[str]) -> int | None:
    """Return the number of the layer in a directory of the layout before Docker 25, or None.

    The directory's name is the digest of the file `json` in it, with the layer's ChainID in it (moby 20.10,
    image/v1/imagev1.go, CreateID; the id and, below the topmost, the operating system are added afterwards:
    image/tarexport/save.go). So the layer is known before the manifest is read.
    """
    try:
        description = untrusted.parsed(text) if len(text) <= LARGEST_LEGACY else None
    except untrusted.Unexpected:
        return None
    if not isinstance(description, dict):
        return None
    description.pop("id", None)
    if "parent" in description:
        description["parent"] = f"sha256:{description['parent']}"
    for number, chain in enumerate(chains):
        description["layer_id"] = chain
        for without in ((), ("os",)):
            data = {key: value for key, value in sorted(description.items()) if key not in without}
            if hashlib.sha256(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest() == name:
                return number
    return None


# Layers of archive files


class Layer(NamedTuple):
    """A layer in a file of an archive."""

    digest: str  # as it is uncompressed
    kind: str  # the file's compression, or nothing


def plain(pieces: Iterator[bytes], kind: str) -> Generator[bytes, None, None]:
    """Yield the pieces of a layer, uncompressed."""
    if not kind:
        yield from pieces
        return
    with through_command(pieces, kind) as content:
        yield from iter(lambda: content.read(PIECE), b"")


def measured(file: BinaryIO, layers: Mapping[int, Layer]) -> dict[int, int]:
    """Return the sizes, uncompressed, of the compressed layers in these members: a tar tells the size of a member
    before its data.
    """
    sizes: dict[int, int] = {}
    for number, member, content in numbered(file):
        if number not in layers or not layers[number].kind:
            continue
        most, size = max(LARGEST_LAYER, LARGEST_RATIO * member.size), 0
        with contextlib.closing(plain(content.pieces(member.size), layers[number].kind)) as pieces:
            for piece in pieces:
                size += len(piece)
                if size > most:
                    raise Damaged(
                        f"layer {short_digest(layers[number].digest)} is uncompressed to more than {most} bytes,"
                        f" from {member.size}"
                    )
        sizes[number] = size
    return sizes


def unpacked(file: BinaryIO, layers: Mapping[int, Layer], sizes: Mapping[int, int]) -> Iterator[Part]:
    """Yield the layers in these members of an archive file, uncompressed. `sizes`: those of compressed ones."""
    left = dict(layers)
    for number, member, content in numbered(file):
        layer = left.pop(number, None)
        if layer:
            yield Blob(layer.digest, sizes.get(number, member.size))
            yield from plain(content.pieces(member.size), layer.kind)
    for layer in left.values():
        raise Damaged(f"it ends before layer {short_digest(layer.digest)}")
