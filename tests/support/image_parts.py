# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as series of parts, and as archives in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import Reading
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import Packing
from ansible_collections.nested.kata.plugins.module_utils._image.contents import Contents, contents
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part
from image_builder import Made, digest


def cut(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """Yield the data in pieces."""
    return (data[at : at + size] for at in range(0, len(data), size))


def layers_in(parts: Iterable[Part]) -> tuple[dict[str, bytes], Manifest]:
    """Return the bytes of each layer by its digest, and the manifest, which must come last."""
    found: dict[str, bytes] = {}
    now = manifest = None
    for part in parts:
        assert manifest is None
        if isinstance(part, Blob):
            now = part.digest
            found[now] = b""
        elif isinstance(part, Manifest):
            manifest = part
        else:
            found[now] += part
    return found, manifest


def parts_of(image: Made) -> Iterator[Part]:
    """Yield the parts of an image."""
    for content in dict.fromkeys(image.layers):
        yield Blob(digest(content), len(content))
        yield from cut(content)
    yield Manifest(image.config, image.diff_ids)


def pack(image: Made, leave_out: Iterable[str] = (), names: Iterable[str] = ("a:1",), *, as_oci: bool = False) -> bytes:
    """Return the archive of an image."""
    packing = Packing(set(leave_out))
    return b"".join([*packing.image(parts_of(image), list(names)), *packing.end(as_oci)])


def listed(data: bytes) -> Contents:
    """Return what is in an archive."""
    reading = Reading()
    list(reading.members(io.BytesIO(data)))
    return contents(reading)
