# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images as streams of bytes, as `docker load` and the tools of OCI read them."""

from __future__ import annotations

import json
import tarfile
from typing import Any, Collection, Iterable, Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part, sha256
from ansible_collections.nested.kata.plugins.module_utils._image.reference import full_name

BLOCK = 512
END = bytes(2 * BLOCK)
OCI = "application/vnd.oci.image"
COMPRESSIONS = ("gzip", "zstd")  # of layers: those that OCI has media types for
BLOBS = "blobs/sha256/"
MANIFEST = "manifest.json"  # of Docker: the list of images
INDEX = "index.json"  # of OCI


def blob_path(digest: str) -> str:
    return BLOBS + digest.rpartition(":")[2]


def header(path: str, size: int) -> bytes:
    """Return a tar member's header, without time or owner, so that the same image gives the same bytes."""
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
    """An archive of one image for a daemon, or of several for a file, in which each layer is written once. `below`: the
    directory in it that it begins with.
    """

    def __init__(self, leave_out: Collection[str] = (), below: str = "") -> None:
        self._leave_out = leave_out
        self._below = below
        self._sizes: dict[str, int] = {}
        self._kinds: dict[str, str] = {}
        self._images: list[tuple[Manifest, tuple[str, ...]]] = []

    @property
    def layers(self) -> int:
        """The number of layers that were written."""
        return len(self._sizes)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, as classic daemons give them: the digests of their configurations."""
        return tuple(sha256(manifest.config) for manifest, dummy in self._images)

    def _path(self, digest: str) -> str:
        return self._below + blob_path(digest)

    def image(self, parts: Iterable[Part], names: Sequence[str]) -> Iterator[bytes]:
        """Yield the members of an image. One that breaks off counts for nothing."""
        wanted: Blob | None = None
        sizes: dict[str, int] = {}
        kinds: dict[str, str] = {}
        for part in parts:
            if isinstance(part, Blob):
                if wanted:
                    yield padding(wanted.size)
                known = part.digest in self._leave_out or part.digest in self._sizes or part.digest in sizes
                wanted = None if known else part
                if wanted:
                    sizes[part.digest] = part.size
                    yield header(self._path(part.digest), part.size)
            elif isinstance(part, Manifest):
                if wanted:
                    yield padding(wanted.size)
                self._sizes.update(sizes)
                self._kinds.update(kinds)
                self._images.append((part, tuple(names)))
                yield small_member(self._path(sha256(part.config)), part.config)
            elif wanted:
                kinds.setdefault(wanted.digest, compression_of(part, COMPRESSIONS))
                yield part

    def end(self, oci: bool = False) -> Iterator[bytes]:
        """Yield the last members: the list of images for daemons, and for a file the index for the tools of OCI."""
        yield small_member(
            MANIFEST,
            document(
                [
                    {
                        "Config": self._path(sha256(manifest.config)),
                        "RepoTags": list(names),
                        "Layers": [self._path(layer) for layer in manifest.layers],
                    }
                    for manifest, names in self._images
                ]
            ),
        )
        if oci:
            yield from self._index()
        yield END

    def _media_type(self, layer: str) -> str:
        kind = self._kinds.get(layer)
        return f"{OCI}.layer.v1.tar+{kind}" if kind else f"{OCI}.layer.v1.tar"

    def _index(self) -> Iterator[bytes]:
        entries = []
        for manifest, names in self._images:
            layers = [
                {"mediaType": self._media_type(layer), "digest": layer, "size": self._sizes[layer]}
                for layer in manifest.layers
            ]
            config = {
                "mediaType": f"{OCI}.config.v1+json",
                "digest": sha256(manifest.config),
                "size": len(manifest.config),
            }
            kind = f"{OCI}.manifest.v1+json"
            data = document({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers})
            yield small_member(blob_path(sha256(data)), data)
            for name in names:
                entries.append(
                    {
                        "mediaType": kind,
                        "digest": sha256(data),
                        "size": len(data),
                        "annotations": {
                            "io.containerd.image.name": full_name(name),
                            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                        },
                    }
                )
        yield small_member(
            INDEX, document({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries})
        )
        yield small_member("oci-layout", document({"imageLayoutVersion": "1.0.0"}))
