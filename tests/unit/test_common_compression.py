# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compression is detected from the first bytes, and undone."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    READ_BY,
    compression_of,
    uncompressed,
)
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged

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


CONTENT = bytes(range(256)) * 9000  # several pieces
COMPRESS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "": bytes}


@pytest.mark.parametrize("kind", COMPRESS)
def test_what_was_compressed_comes_out_in_pieces(kind: str) -> None:
    pieces = list(uncompressed(io.BytesIO(COMPRESS[kind](CONTENT)), kind))
    assert (b"".join(pieces), len(pieces) > 1) == (CONTENT, True)


@pytest.mark.parametrize("kind", READ_BY)
@pytest.mark.parametrize("damage", ["cut", "changed", "none at all"])
def test_damaged_data_is_an_error(kind: str, damage: str) -> None:
    data = COMPRESS[kind](CONTENT)
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "changed": data[:middle] + b"\xff" * 99 + data[middle + 99 :],
        "none at all": b"x" * 99,
    }
    with pytest.raises(Damaged, match=r"^it cannot be uncompressed: ."):
        list(uncompressed(io.BytesIO(damaged[damage]), kind))


def test_a_file_that_cannot_be_read_is_no_damage() -> None:
    with open("/proc/self/mem", "rb") as file, pytest.raises(OSError, match="Input/output error"):
        list(uncompressed(file, ""))
