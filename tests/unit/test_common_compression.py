# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compression is detected from the first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of

ALL = ("bzip2", "gzip", "xz", "zstd")
HEADS = {
    "xz": lzma.compress(b"")[:8],
    "gzip": gzip.compress(b"")[:3],
    "bzip2": bz2.compress(b"x")[:7],
    "zstd": b"\x28\xb5\x2f\xfd",
    "": b"ustar",
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_compression_is_detected_from_the_first_bytes(kind: str) -> None:
    assert compression_of(HEADS[kind], ALL) == kind


def test_an_empty_file_is_not_compressed() -> None:
    assert compression_of(b"", ALL) == ""


@pytest.mark.parametrize("kind", ALL)
def test_a_compression_that_the_caller_cannot_read_is_none(kind: str) -> None:
    assert compression_of(HEADS[kind], set(ALL) - {kind}) == ""
