# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images, read as streams in every layout that docker save, podman, skopeo and buildx write, and never held
as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import posixpath
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterable, Iterator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common import untrusted
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.tar import TRAILER, Content, members
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import BLOBS, INDEX, MANIFEST, blob_path
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    Blob,
    Manifest,
    Part,
    chain_ids,
    sha256,
)
from ansible_collections.nested.kata.plugins.module_utils._image.reference import parse_reference

# Limits, far above what real archives have: some KiB for a document, and a hundred layers for an image.
SMALL = 1 << 22  # bytes that a JSON document in an archive may have
MOST_BYTES = 1 << 26  # of all its documents
MOST_READ = 1 << 28  # of its documents, when those that are named several times are read as often
MOST_DOCUMENTS = 1 << 14
MOST_MEMBERS = 1 << 16
MOST_IMAGES = 1 << 12
MOST_ENTRIES = 1 << 16  # of its indexes, each as often as it is named
MOST_LAYERS = 1 << 16  # of all its images
LONGEST_NAME = 1 << 10  # characters
DEEPEST_INDEX = 4  # an index for a name, with one for platforms in it, is 2
MOST_LINKS = 8  # from one member to the next
LARGEST_LEGACY = 1 << 16  # bytes of the description of a layer before Docker 25, which is compared with each layer


class Stream(io.RawIOBase):
    """A file that is read once, made of pieces of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def drain(self) -> None:
        """Read the rest: the error that broke the archive off may be at its end."""
        left = TRAILER
        for piece in itertools.chain([self._rest], self._pieces):
            left -= len(piece)
            if left < 0:
                raise Damaged("it has more data after its end")
        self._rest = memoryview(b"")


class Reading:
    """The members of an archive: layers are passed on, JSON documents kept, links noted."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.layers = self.entries = 0  # of all images, and of all indexes
        self._bytes = self._read = 0  # of documents

    def members(self, file: BinaryIO) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Yield path, size and bytes of each member that is not a JSON document."""
        content = Content(file)
        for number, member in enumerate(members(content), 1):
            limit("members", number, MOST_MEMBERS)
            if max(len(member.name), len(member.linkname)) > LONGEST_NAME:
                raise Damaged(f"a name in it has more than {LONGEST_NAME} characters")
            path = posixpath.normpath(member.name)
            if member.issym() or member.islnk():
                self.links[path] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(path) if member.issym() else "", member.linkname)
                )
            if not member.isfile():
                continue
            head = b"".join(content.pieces(min(1, member.size))) if member.size <= SMALL else b""
            rest = content.pieces(member.size - len(head))
            self.sizes[path] = member.size
            if head in (b"{", b"["):
                self._bytes += member.size
                limit("bytes of JSON", self._bytes, MOST_BYTES)
                limit("JSON documents", len(self.documents) + 1, MOST_DOCUMENTS)
                self.documents[path] = b"".join((head, *rest))
            else:
                yield path, member.size, itertools.chain([head] if head else [], rest)

    def target(self, path: str) -> str:
        """Return the member that a path leads to: older daemons write a layer that occurs again as a link."""
        path = posixpath.normpath(path)
        for _dummy in range(MOST_LINKS):
            path = self.links.get(path, path)
        return path

    def document(self, path: str) -> bytes:
        """Return the bytes of a document, over which its digest is computed."""
        try:
            data = self.documents[posixpath.normpath(path)]
        except KeyError as error:
            raise Damaged(f"{path} is missing in it: it is not an archive of images, or ends too early") from error
        self._read += len(data)
        limit("bytes of JSON that are named again and again", self._read, MOST_READ)
        return data

    def json(self, path: str) -> Any:
        return parsed(path, self.document(path))

    def parts(self, file: BinaryIO, layer_of: Callable[[str], str | None]) -> Iterator[Part]:
        """Yield each layer for which `layer_of` returns a digest."""
        for path, size, pieces in self.members(file):
            digest = layer_of(path)
            if digest:
                yield Blob(digest, size)
                yield from pieces


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
        yield from reading.parts(io.BufferedReader(stream, PIECE), layer_of)
    except Damaged:
        stream.drain()
        raise
    stream.drain()
    entries = reading.json(MANIFEST)
    with metadata():
        if len(entries) != 1:
            raise Damaged(f"it sent {len(entries)} images instead of one")
        paths = [reading.target(path) for path in entries[0]["Layers"]]
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


@dataclass(frozen=True)
class Packed:
    """One image in an archive file."""

    names: tuple[str, ...]
    image: Image
    config: bytes
    layers: tuple[tuple[str, str], ...]  # path and digest of each layer's blob, base first


def packed(reading: Reading) -> tuple[Packed, ...]:
    """Return the images in an archive that was read to its end."""
    with metadata():
        return tuple(_found(reading))


def _found(reading: Reading) -> list[Packed]:
    found: list[Packed] = []
    if MANIFEST in reading.documents:
        for number, entry in enumerate(reading.json(MANIFEST), 1):
            limit("images", number, MOST_IMAGES)
            config, names = entry["Config"], entry.get("RepoTags") or ()
            paths = [reading.target(path) for path in entry.get("Layers") or ()]
            found.append(_packed(reading, names, config, [(path, _named(path)) for path in paths]))
    names_of: dict[str, set[str]] = {}
    for packed_image in found:
        names_of.setdefault(packed_image.image.id, set()).update(packed_image.names)
    if INDEX in reading.documents:
        for number, (names, manifest) in enumerate(_manifests(reading, reading.json(INDEX), (), ()), 1):
            limit("images", number, MOST_IMAGES)
            layers = [(blob_path(layer["digest"]), layer["digest"]) for layer in manifest["layers"]]
            image = _packed(reading, names, blob_path(manifest["config"]["digest"]), layers)
            known = names_of.get(image.image.id)
            if known is None or not known.issuperset(image.names):
                names_of.setdefault(image.image.id, set()).update(image.names)
                found.append(image)
    if not found and MANIFEST not in reading.documents:
        raise Damaged(f"it has neither {MANIFEST} nor {INDEX}: it is not an archive of images, or ends too early")
    return found


def _manifests(
    reading: Reading, index: Mapping[str, Any], names: tuple[str, ...], way: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the names and manifests of an index and of the indexes in it. Platforms that the archive does not hold are
    skipped. `way`: the indexes that lead to this one.
    """
    if len(way) > DEEPEST_INDEX:
        raise Damaged(f"its indexes are more than {DEEPEST_INDEX} deep")
    for entry in index.get("manifests") or ():
        reading.entries += 1
        limit("entries in its indexes", reading.entries, MOST_ENTRIES)
        annotations = entry.get("annotations") or {}
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or ""
        path = blob_path(entry["digest"])
        if (
            path not in reading.documents or (entry.get("platform") or {}).get("os") == "unknown"
        ):  # unknown: buildx's attestations
            continue
        if path in way:
            raise Damaged(f"{path} in it is an index that names itself")
        manifest = reading.json(path)
        here = (name,) if name else names
        if "manifests" in manifest:
            yield from _manifests(reading, manifest, here, (*way, path))
        elif blob_path(manifest["config"]["digest"]) in reading.documents:
            yield here, manifest


def _named(path: str) -> str:
    """Return the digest in a layer's path, or nothing."""
    stem = posixpath.basename(path)[: -len(".tar")] if path.endswith(".tar") else posixpath.basename(path)
    return f"sha256:{stem}" if len(stem) == 64 else ""


def _packed(reading: Reading, names: Sequence[str], config_path: str, layers: Sequence[tuple[str, str]]) -> Packed:
    reading.layers += len(layers)
    limit("layers", reading.layers, MOST_LAYERS)
    config = reading.document(config_path)
    image = Image.from_config(sha256(config), parsed(config_path, config))
    if not all(isinstance(digest, str) for dummy, digest in layers):
        raise TypeError("a digest is not a text")
    if len(image.layers) != len(layers):
        raise Damaged(
            f"its image {', '.join(names) or image.id} has {len(layers)} layers, but {len(image.layers)} in its"
            " configuration"
        )
    for path, _dummy in layers:
        if path not in reading.sizes:
            raise Damaged(f"{path} is missing in it: it ends too early")
    spelt = []
    for name in names:
        try:
            spelt.append(parse_reference(name))
        except Refused:
            continue  # such as a digest, which is not a name to load it by
    # Docker before 25 does not name a layer's directory by its digest: then the digest is the diffID, since Docker does
    # not compress.
    return Packed(
        tuple(spelt),
        image,
        config,
        tuple((path, digest or diff_id) for (path, digest), diff_id in zip(layers, image.layers)),
    )


def unpacked(file: BinaryIO, image: Packed) -> Iterator[Part]:
    """Yield the parts of one of the images in an archive file."""
    digests, small, reading = dict(image.layers), set(), Reading()
    for part in reading.parts(file, digests.get):
        if isinstance(part, Blob):
            small.add(part.digest)
        yield part
    for path, digest in image.layers:
        if digest not in small and path in reading.documents:  # a layer that begins like JSON
            small.add(digest)
            yield Blob(digest, len(reading.documents[path]))
            yield reading.documents[path]
        if digest not in small:
            raise Damaged(f"it ends before {path}")
    yield Manifest(image.config, tuple(digest for dummy, digest in image.layers))
