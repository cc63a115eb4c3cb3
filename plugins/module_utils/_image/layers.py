# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as series of parts: for each layer a Blob and then its bytes, at the end the Manifest.

A series connects what reads an image with what writes it: neither depends on the other, and one can be read for many
that write.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Collection, Iterable, Iterator, Sequence, Union

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged


@dataclass(frozen=True)
class Blob:
    """A layer's tar, of which the bytes follow. The digest is that of these bytes: where they are not compressed, the
    diffID.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The configuration and the layers that make the image. It is the last part."""

    config: bytes
    layers: tuple[str, ...]  # digests, base first


Part = Union[Blob, bytes, Manifest]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the ChainID of each layer: the digest of the layer and all layers below it (OCI image-spec, config.md,
    Layer ChainID).
    """
    chains: list[str] = []
    for layer in layers:
        chains.append(sha256(f"{chains[-1]} {layer}".encode()) if chains else layer)
    return tuple(chains)


def base_held(layers: Sequence[str], held: Collection[str]) -> int:
    """Return how many layers, from the base on, a daemon that holds these chains has."""
    return next((number for number, chain in enumerate(chain_ids(layers)) if chain not in held), len(layers))


def left_out(layers: Sequence[str], base: int) -> set[str]:
    """Return the layers that an archive may omit when so many are at the destination. A layer that occurs again above
    them is needed.
    """
    return set(layers[:base]) - set(layers[base:])


def verified(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts, and raise Damaged in the place of the last bytes of a layer that does not have its digest: so
    nobody gets the whole of it.
    """
    blob, digest, left = None, hashlib.sha256(), 0

    def check() -> None:
        if blob and left:
            early_or_late = f"ends {left} bytes too early" if left > 0 else f"has {-left} bytes more than its size"
            raise Damaged(f"layer {short_digest(blob.digest)} {early_or_late}")
        if blob and f"sha256:{digest.hexdigest()}" != blob.digest:
            raise Damaged(f"layer {short_digest(blob.digest)} has another digest (sha256:{digest.hexdigest()[:12]})")

    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
            left -= len(part)
            if left <= 0:
                check()
        else:
            check()
            blob, digest, left = (part, hashlib.sha256(), part.size) if isinstance(part, Blob) else (None, digest, 0)
        yield part
    check()


def short_digest(digest: str) -> str:
    return digest[: len("sha256:") + 12]
