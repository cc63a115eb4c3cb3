# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images, read as streams in every layout that docker save, podman, skopeo and buildx write, and never held
as a whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import IO, Any, Callable, Iterable, Iterator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import BLOBS, INDEX, MANIFEST, blob_path
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    PIECE,
    Blob,
    Manifest,
    Part,
    chain_ids,
    sha256,
)
from ansible_collections.nested.kata.plugins.module_utils._image.reference import parse_reference

SMALL = 1 << 22  # bytes that a JSON document in an archive may have; real ones have some KiB


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
        self._rest = memoryview(b"")
        for _dummy in self._pieces:
            pass


def layer_bytes(file: _Joined, size: int) -> Iterator[bytes]:
    while size:
        try:
            piece = file.read(min(PIECE, size))
        except (tarfile.TarError, EOFError) as error:
            raise Damaged(f"it ends in the middle of a layer ({error})") from error
        if not piece:
            raise Damaged("it ends in the middle of a layer")
        size -= len(piece)
        yield piece


class Reading:
    """The members of an archive: layers are passed on, JSON documents kept, links noted."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def members(self, archive: tarfile.TarFile) -> Iterator[tuple[str, int, _Joined]]:
        """Yield path, size and file of each member that is not a JSON document."""
        try:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all; typeshed has no members
                path = posixpath.normpath(member.name)
                if member.issym() or member.islnk():
                    self.links[path] = posixpath.normpath(
                        posixpath.join(posixpath.dirname(path) if member.issym() else "", member.linkname)
                    )
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                head = file.read(1) if member.size <= SMALL else b""
                self.sizes[path] = member.size
                if head in (b"{", b"["):
                    self.documents[path] = head + file.read()
                else:
                    yield path, member.size, _Joined(head, file)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise Damaged(f"it is not a tar archive, or ends too early ({error})") from error

    def target(self, path: str) -> str:
        """Return the member that a path leads to: older daemons write a layer that occurs again as a link."""
        path, seen = posixpath.normpath(path), set()
        while path in self.links and path not in seen:
            seen.add(path)
            path = self.links[path]
        return path

    def document(self, path: str) -> bytes:
        """Return the bytes of a document, over which its digest is computed."""
        self.json(path)
        return self.documents[posixpath.normpath(path)]

    def json(self, path: str) -> Any:
        try:
            return json.loads(self.documents[posixpath.normpath(path)])
        except KeyError as error:
            raise Damaged(f"{path} is missing in it: it is not an archive of images, or ends too early") from error
        except ValueError as error:
            raise Damaged(f"{path} in it is not valid JSON: {error}") from error

    def parts(self, archive: tarfile.TarFile, layer_of: Callable[[str], str | None]) -> Iterator[Part]:
        """Yield each layer for which `layer_of` returns a digest."""
        for path, size, file in self.members(archive):
            digest = layer_of(path)
            if digest:
                yield Blob(digest, size)
                yield from layer_bytes(file, size)


class _Joined:
    """A file whose first byte was read already, to detect JSON."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._file = head, file

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head + self._file.read(size - len(head))


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
        with tarfile.open(fileobj=io.BufferedReader(stream, PIECE), mode="r|", bufsize=PIECE) as archive:
            yield from reading.parts(archive, layer_of)
    except tarfile.TarError as error:
        stream.drain()
        raise Damaged(f"it does not send an archive ({error})") from error
    except Damaged:
        stream.drain()
        raise
    stream.drain()
    entries = reading.json(MANIFEST)
    if len(entries) != 1:
        raise Damaged(f"it sent {len(entries)} images instead of one")
    entry = entries[0]
    paths = [reading.target(path) for path in entry["Layers"]]
    for path in paths:
        if path not in digests:
            raise Damaged(f"its archive ends before {path}")
    yield Manifest(reading.document(entry["Config"]), tuple(digests[path] for path in paths))


def legacy_layer(name: str, text: bytes, chains: Sequence[str]) -> int | None:
    """Return the number of the layer in a directory of the layout before Docker 25, or None.

    The directory's name is the digest of the file `json` in it, with the layer's ChainID in it (moby 20.10,
    image/v1/imagev1.go, CreateID; the id and, below the topmost, the operating system are added afterwards:
    image/tarexport/save.go). So the layer is known before the manifest is read.
    """
    try:
        description = json.loads(text)
    except ValueError:
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
    try:
        return tuple(_found(reading))
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"its metadata about images is in neither OCI's nor Docker's format ({type(error).__name__}: {error})"
        ) from error


def _found(reading: Reading) -> list[Packed]:
    found: list[Packed] = []
    if MANIFEST in reading.documents:
        for entry in reading.json(MANIFEST):
            config = reading.document(entry["Config"])
            paths = [reading.target(path) for path in entry.get("Layers") or ()]
            found.append(
                _packed(reading, entry.get("RepoTags") or (), config, [(path, _named(path)) for path in paths])
            )
    if INDEX in reading.documents:
        for names, manifest in _manifests(reading, reading.json(INDEX), ()):
            config = reading.document(blob_path(manifest["config"]["digest"]))
            image = _packed(
                reading, names, config, [(blob_path(layer["digest"]), layer["digest"]) for layer in manifest["layers"]]
            )
            if (image.image.id, set(image.names)) not in [
                (other.image.id, set(other.names) & set(image.names)) for other in found
            ]:
                found.append(image)
    if not found and MANIFEST not in reading.documents:
        raise Damaged(f"it has neither {MANIFEST} nor {INDEX}: it is not an archive of images, or ends too early")
    return found


def _manifests(
    reading: Reading, index: Mapping[str, Any], names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the names and manifests of an index and of the indexes in it. Platforms that the archive does not hold are
    skipped.
    """
    for entry in index.get("manifests") or ():
        annotations = entry.get("annotations") or {}
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or ""
        path = blob_path(entry["digest"])
        if (
            path not in reading.documents or (entry.get("platform") or {}).get("os") == "unknown"
        ):  # unknown: buildx's attestations
            continue
        manifest = reading.json(path)
        here = (name,) if name else names
        if "manifests" in manifest:
            yield from _manifests(reading, manifest, here)
        elif blob_path(manifest["config"]["digest"]) in reading.documents:
            yield here, manifest


def _named(path: str) -> str:
    """Return the digest in a layer's path, or nothing."""
    stem = posixpath.basename(path)[: -len(".tar")] if path.endswith(".tar") else posixpath.basename(path)
    return f"sha256:{stem}" if len(stem) == 64 else ""


def _packed(reading: Reading, names: Sequence[str], config: bytes, layers: Sequence[tuple[str, str]]) -> Packed:
    image = Image.from_config(sha256(config), json.loads(config))
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


def unpacked(archive: tarfile.TarFile, image: Packed) -> Iterator[Part]:
    """Yield the parts of one of the images in an archive file."""
    digests, small, reading = dict(image.layers), set(), Reading()
    for part in reading.parts(archive, digests.get):
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
