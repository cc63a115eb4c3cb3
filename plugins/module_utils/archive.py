# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images as streams: read in every layout that there is, written in one, and never held as a whole. No I/O.

Between reading and writing an image is a series of parts: for each layer that comes by a Blob and then its bytes, at the end the
Manifest. So what reads need not know what is written, nor for how many.
"""
from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils.image import Image, parse_reference, split_domain

PIECE = 1 << 20
SMALL = 1 << 22  # bytes that a JSON document in an archive may have; real ones have some KiB
BLOCK = 512
END = bytes(2 * BLOCK)
BLOBS = "blobs/sha256/"
MANIFEST = "manifest.json"
INDEX = "index.json"
OCI = "application/vnd.oci.image"
COMPRESSIONS = ("gzip", "zstd")


@dataclass(frozen=True)
class Blob:
    """A layer's tar, of which the bytes follow. The digest is that of these bytes: where they are not compressed, the diffID."""

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What holds the layers together. It comes last."""

    config: bytes
    layers: Tuple[str, ...]  # digests, base first


Part = Union[Blob, bytes, Manifest]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# Which layers a daemon has


def chain_ids(layers: Sequence[str]) -> Tuple[str, ...]:
    """Return the ChainID of each layer: the digest that names it together with all below it (OCI image-spec, config.md, Layer ChainID)."""
    chains: List[str] = []
    for layer in layers:
        chains.append(sha256(f"{chains[-1]} {layer}".encode()) if chains else layer)
    return tuple(chains)


def base_held(layers: Sequence[str], held: Collection[str]) -> int:
    """Return how many layers, from the base on, a daemon has that holds these chains."""
    return next((number for number, chain in enumerate(chain_ids(layers)) if chain not in held), len(layers))


def left_out(layers: Sequence[str], base: int) -> Set[str]:
    """Return the layers that may be missing in an archive when so many are at the destination. One that comes again above is needed."""
    return set(layers[:base]) - set(layers[base:])


# Writing


def header(path: str, size: int) -> bytes:
    """Return a tar member's header. It says nothing about time or owner: the same image gives the same bytes."""
    member = tarfile.TarInfo(path)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def small_member(path: str, data: bytes) -> bytes:
    return header(path, len(data)) + data + padding(len(data))


def document(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


class Packing:
    """An archive in the making: of one image for a daemon, or of several for a file, where each layer is written once."""

    def __init__(self, leave_out: Collection[str] = ()) -> None:
        self._leave_out = leave_out
        self._sizes: Dict[str, int] = {}
        self._kinds: Dict[str, str] = {}
        self._images: List[Tuple[Manifest, Tuple[str, ...]]] = []

    @property
    def layers(self) -> int:
        """How many layers were written."""
        return len(self._sizes)

    @property
    def ids(self) -> Tuple[str, ...]:
        """The ids of the images, as classic daemons give them: the digests of their configurations."""
        return tuple(sha256(manifest.config) for manifest, dummy in self._images)

    def image(self, parts: Iterable[Part], names: Sequence[str]) -> Iterator[bytes]:
        """Yield the members of an image."""
        wanted: Optional[Blob] = None
        for part in parts:
            if isinstance(part, Blob):
                if wanted:
                    yield padding(wanted.size)
                wanted = None if part.digest in self._leave_out or part.digest in self._sizes else part
                if wanted:
                    self._sizes[part.digest] = part.size
                    yield header(_path(part.digest), part.size)
            elif isinstance(part, Manifest):
                if wanted:
                    yield padding(wanted.size)
                self._images.append((part, tuple(names)))
                yield small_member(_path(sha256(part.config)), part.config)
            elif wanted:
                self._kinds.setdefault(wanted.digest, compression_of(part, COMPRESSIONS))
                yield part

    def end(self, oci: bool = False) -> Iterator[bytes]:
        """Yield what comes last: the list of images, by which daemons find them, and for a file the index that OCI's tools read, too."""
        yield small_member(MANIFEST, document([
            {"Config": _path(sha256(manifest.config)), "RepoTags": list(names), "Layers": [_path(layer) for layer in manifest.layers]}
            for manifest, names in self._images
        ]))
        if oci:
            yield from self._index()
        yield END

    def _media_type(self, layer: str) -> str:
        kind = self._kinds.get(layer)
        return f"{OCI}.layer.v1.tar+{kind}" if kind else f"{OCI}.layer.v1.tar"

    def _index(self) -> Iterator[bytes]:
        entries = []
        for manifest, names in self._images:
            layers = [{"mediaType": self._media_type(layer), "digest": layer, "size": self._sizes[layer]} for layer in manifest.layers]
            config = {"mediaType": f"{OCI}.config.v1+json", "digest": sha256(manifest.config), "size": len(manifest.config)}
            kind = f"{OCI}.manifest.v1+json"
            data = document({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers})
            yield small_member(_path(sha256(data)), data)
            for name in names:
                entries.append({"mediaType": kind, "digest": sha256(data), "size": len(data), "annotations": {
                    "io.containerd.image.name": full_name(name), "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                }})
        yield small_member(INDEX, document({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}))
        yield small_member("oci-layout", document({"imageLayoutVersion": "1.0.0"}))


def _path(digest: str) -> str:
    return BLOBS + digest.rpartition(":")[2]


def full_name(reference: str) -> str:
    """Return a name with its registry, as containerd wants it."""
    domain, path = split_domain(reference)
    return f"{domain}/{path}" if "/" in reference else f"{domain}/library/{path}"


def verified(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts, and raise Damaged at the end of a layer that is not the one that its digest names."""
    blob, digest, left = None, hashlib.sha256(), 0

    def judge() -> None:
        if blob and left:
            raise Damaged(f"layer {short_digest(blob.digest)} ends {left} bytes too early")
        if blob and f"sha256:{digest.hexdigest()}" != blob.digest:
            raise Damaged(f"layer {short_digest(blob.digest)} has another digest (sha256:{digest.hexdigest()[:12]})")

    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
            left -= len(part)
        else:
            judge()
            blob, digest, left = (part, hashlib.sha256(), part.size) if isinstance(part, Blob) else (None, digest, 0)
        yield part
    judge()


def short_digest(digest: str) -> str:
    return digest[:len("sha256:") + 12]


# Reading


class Stream(io.RawIOBase):
    """Pieces of bytes as a file that can be read once."""

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
        """Read on to the end: what gives the pieces may have an error to tell there."""
        self._rest = memoryview(b"")
        for dummy in self._pieces:
            pass


def layer_bytes(file: Any, size: int) -> Iterator[bytes]:
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
    """The members of an archive as they come by: layers are passed on, JSON documents kept, links noted."""

    def __init__(self) -> None:
        self.documents: Dict[str, bytes] = {}
        self.links: Dict[str, str] = {}
        self.sizes: Dict[str, int] = {}

    def members(self, archive: tarfile.TarFile) -> Iterator[Tuple[str, int, Any]]:
        """Yield path, size and file of each member that is no JSON document."""
        try:
            for member in archive:
                archive.members.clear()  # it would keep them all
                path = posixpath.normpath(member.name)
                if member.issym() or member.islnk():
                    self.links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path) if member.issym() else "", member.linkname))
                if not member.isfile():
                    continue
                file = archive.extractfile(member)
                head = file.read(1) if member.size <= SMALL else b""
                self.sizes[path] = member.size
                if head in (b"{", b"["):
                    self.documents[path] = head + file.read()
                else:
                    yield path, member.size, _Joined(head, file)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise Damaged(f"it is no tar archive, or ends too early ({error})") from error

    def target(self, path: str) -> str:
        """Return the member that a path leads to: older daemons write a layer that comes again as a link."""
        path, seen = posixpath.normpath(path), set()
        while path in self.links and path not in seen:
            seen.add(path)
            path = self.links[path]
        return path

    def document(self, path: str) -> bytes:
        """Return a document as it is spelt, which its digest is about."""
        self.json(path)
        return self.documents[posixpath.normpath(path)]

    def json(self, path: str) -> Any:
        try:
            return json.loads(self.documents[posixpath.normpath(path)])
        except KeyError as error:
            raise Damaged(f"{path} is missing in it: it is no archive of images, or ends too early") from error
        except ValueError as error:
            raise Damaged(f"{path} in it is no JSON: {error}") from error

    def parts(self, archive: tarfile.TarFile, layer_of: Callable[[str], Optional[str]]) -> Iterator[Part]:
        """Yield each layer that `layer_of` gives a digest for."""
        for path, size, file in self.members(archive):
            digest = layer_of(path)
            if digest:
                yield Blob(digest, size)
                yield from layer_bytes(file, size)


class _Joined:
    """A file of which the first byte was read to see what it is."""

    def __init__(self, head: bytes, file: Any) -> None:
        self._head, self._file = head, file

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head + self._file.read(size - len(head))


def saved(pieces: Iterable[bytes], layers: Sequence[str]) -> Iterator[Part]:
    """Yield the parts of the one image that a daemon saved, whose layers are known: both layouts, 20.10's and that of 25 and newer."""
    stream, reading = Stream(pieces), Reading()
    chains, unknown = chain_ids(layers), []
    digests: Dict[str, str] = {}

    def layer_of(path: str) -> Optional[str]:
        if path.startswith(BLOBS):
            digests[path] = f"sha256:{posixpath.basename(path)}"
        elif posixpath.basename(path) == "layer.tar":
            told = reading.documents.get(posixpath.join(posixpath.dirname(path), "json"), b"{}")
            number = legacy_layer(posixpath.dirname(path), told, chains)
            if number is None:
                unknown.append(path)
                number = len(layers) - 1  # the topmost has a description of its own, which need not be spelt as we spell it
            if len(unknown) > 1 or not layers:
                raise Damaged(f"{path} in it is none of the image's layers")
            digests[path] = layers[number]
        return digests.get(path)

    try:
        with tarfile.open(fileobj=io.BufferedReader(stream, PIECE), mode="r|", bufsize=PIECE) as archive:
            yield from reading.parts(archive, layer_of)
    except tarfile.TarError as error:
        stream.drain()
        raise Damaged(f"what it sends is no archive ({error})") from error
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


def legacy_layer(name: str, told: bytes, chains: Sequence[str]) -> Optional[int]:
    """Return which layer lies in a directory of the layout before Docker 25, or None.

    Its name is the digest of what `json` in it says, with the layer's ChainID in it (moby 20.10, image/v1/imagev1.go, CreateID; the id
    and, below the topmost, the operating system are put in afterwards: image/tarexport/save.go). So it is known before the manifest comes.
    """
    try:
        description = json.loads(told)
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


# An archive file's images


@dataclass(frozen=True)
class Packed:
    """One image in an archive file."""

    names: Tuple[str, ...]
    image: Image
    config: bytes
    layers: Tuple[Tuple[str, str], ...]  # path and digest of each layer's blob, base first


def packed(reading: Reading) -> Tuple[Packed, ...]:
    """Return the images in an archive that was read to its end, whatever wrote it: docker save, podman, skopeo or buildx."""
    try:
        return tuple(_found(reading))
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"what it says about its images is not what OCI or Docker say ({type(error).__name__}: {error})") from error


def _found(reading: Reading) -> List[Packed]:
    found: List[Packed] = []
    if MANIFEST in reading.documents:
        for entry in reading.json(MANIFEST):
            config = reading.document(entry["Config"])
            paths = [reading.target(path) for path in entry.get("Layers") or ()]
            found.append(_packed(reading, entry.get("RepoTags") or (), config, [(path, _named(path)) for path in paths]))
    if INDEX in reading.documents:
        for names, manifest in _manifests(reading, reading.json(INDEX), ()):
            config = reading.document(_path(manifest["config"]["digest"]))
            one = _packed(reading, names, config, [(_path(layer["digest"]), layer["digest"]) for layer in manifest["layers"]])
            if (one.image.id, set(one.names)) not in [(other.image.id, set(other.names) & set(one.names)) for other in found]:
                found.append(one)
    if not found and MANIFEST not in reading.documents:
        raise Damaged(f"it has neither {MANIFEST} nor {INDEX}: it is no archive of images, or ends too early")
    return found


def _manifests(reading: Reading, index: Mapping[str, Any], names: Tuple[str, ...]) -> Iterator[Tuple[Tuple[str, ...], Mapping[str, Any]]]:
    """Yield the names and manifests of an index, of those in it included. Platforms of which the archive holds nothing are passed over."""
    for entry in index.get("manifests") or ():
        told = entry.get("annotations") or {}
        name = told.get("io.containerd.image.name") or told.get("org.opencontainers.image.ref.name") or ""
        path = _path(entry["digest"])
        if path not in reading.documents or (entry.get("platform") or {}).get("os") == "unknown":  # unknown: buildx's attestations
            continue
        one = reading.json(path)
        here = (name,) if name else names
        if "manifests" in one:
            yield from _manifests(reading, one, here)
        elif _path(one["config"]["digest"]) in reading.documents:
            yield here, one


def _named(path: str) -> str:
    """Return the digest that a layer's path tells, or nothing."""
    stem = posixpath.basename(path)[:-len(".tar")] if path.endswith(".tar") else posixpath.basename(path)
    return f"sha256:{stem}" if len(stem) == 64 else ""


def _packed(reading: Reading, names: Sequence[str], config: bytes, layers: Sequence[Tuple[str, str]]) -> Packed:
    image = Image.from_config(sha256(config), json.loads(config))
    if len(image.layers) != len(layers):
        raise Damaged(f"its image {', '.join(names) or image.id} has {len(layers)} layers, and {len(image.layers)} by its configuration")
    for path, dummy in layers:
        if path not in reading.sizes:
            raise Damaged(f"{path} is missing in it: it ends too early")
    spelt = []
    for name in names:
        try:
            spelt.append(parse_reference(name))
        except Refused:
            continue  # such as a digest, which is no name to load it by
    # Docker before 25 names a layer's directory by something else: then the digest is the diffID, since it does not compress.
    return Packed(tuple(spelt), image, config, tuple((path, digest or diff_id) for (path, digest), diff_id in zip(layers, image.layers)))


def unpacked(archive: tarfile.TarFile, one: Packed) -> Iterator[Part]:
    """Yield the parts of one of the images in an archive file."""
    digests, small, reading = dict(one.layers), set(), Reading()
    for part in reading.parts(archive, digests.get):
        if isinstance(part, Blob):
            small.add(part.digest)
        yield part
    for path, digest in one.layers:
        if digest not in small and path in reading.documents:  # a layer that begins like JSON
            small.add(digest)
            yield Blob(digest, len(reading.documents[path]))
            yield reading.documents[path]
        if digest not in small:
            raise Damaged(f"it ends before {path}")
    yield Manifest(one.config, tuple(digest for dummy, digest in one.layers))


# A layer in a daemon's own store (github.com/vbatts/tar-split): what was in the tar between the files' contents, and the files' names


@dataclass(frozen=True)
class Split:
    """A layer's tar without the contents of its files."""

    compressed: bytes

    def entries(self) -> Iterator[Tuple[bytes, bytes, int]]:
        """Yield bytes of the tar, or name and size of a file whose content comes next."""
        with gzip.GzipFile(fileobj=io.BytesIO(self.compressed)) as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["type"] == 2:
                    yield base64.b64decode(entry["payload"] or ""), b"", 0
                elif entry.get("size"):
                    yield b"", base64.b64decode(entry["name_raw"]) if entry.get("name_raw") else entry["name"].encode(), entry["size"]

    def size(self) -> int:
        return sum(len(data) + size for data, dummy, size in self.entries())
