# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression, detected from the first bytes of a file, and undone where Python itself can."""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import BinaryIO, Collection, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
READ_BY = {"gzip": "gzip", "bzip2": "bz2", "xz": "lzma"}  # modules of Python, imported where they are needed


def compression_of(head: bytes, known: Collection[str]) -> str:
    """Return the known compression of a file that begins with these bytes, or an empty string."""
    return next((kind for magic, kind in MAGIC.items() if kind in known and head.startswith(magic)), "")


def uncompressed(file: BinaryIO, kind: str) -> Iterator[bytes]:
    """Yield what a compressed file holds, in pieces, or raise Damaged. `kind`: one of READ_BY, or empty."""
    reader = import_module(READ_BY[kind]) if kind else None
    content = reader.open(file) if reader else file
    try:
        yield from iter(lambda: content.read(PIECE), b"")
    except (EOFError, zlib.error, getattr(reader, "LZMAError", EOFError)) as error:
        raise Damaged(f"it cannot be uncompressed: {error}") from error
    except OSError as error:
        if error.errno is None:  # as gzip and bz2 report invalid data
            raise Damaged(f"it cannot be uncompressed: {error}") from error
        raise
