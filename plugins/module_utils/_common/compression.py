# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression, detected from the first bytes of a file."""

from __future__ import annotations

from typing import Collection

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


def compression_of(head: bytes, known: Collection[str]) -> str:
    """Return the known compression of a file that begins with these bytes, or an empty string."""
    return next((kind for magic, kind in MAGIC.items() if kind in known and head.startswith(magic)), "")
