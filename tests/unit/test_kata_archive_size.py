# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive says how many bytes it unpacks to."""

from __future__ import annotations

import lzma
import time

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kata.archive_size import (
    space_needed,
    xz_content,
    zstd_content,
)

# After the magic: a descriptor, with a window or as a single segment, a dictionary's id, a size of 1, 2, 4 or 8 bytes
# (RFC 8878, 3.1.1.1).
FRAMES = {
    "one byte": ("20 ff", 255),
    "two bytes, from 256 on": ("60 00 01", 512),
    "four bytes": ("a0 00 00 00 80", 2 << 30),
    "eight bytes after a window and a dictionary": ("c3 70 01 02 03 04 00 00 00 c0 00 00 00 00", 3 << 30),
    "none, as of a pipe": ("04 70", None),
}


@pytest.mark.parametrize("case", FRAMES)
def test_the_size_of_the_content_is_read_from_the_header_of_a_zstd_frame(case: str) -> None:
    fields, size = FRAMES[case]
    assert zstd_content(b"\x28\xb5\x2f\xfd" + bytes.fromhex(fields) + bytes(20)) == size


def test_a_zstd_frame_that_is_cut_off_tells_no_size() -> None:
    assert zstd_content(b"\x28\xb5\x2f\xfd\xa0") is None


def test_a_zstd_frame_that_is_skipped_tells_no_size() -> None:
    assert zstd_content(b"\x50\x2a\x4d\x18" + bytes.fromhex("a0 00 00 00 80") + bytes(20)) is None


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000, 20_000_000])
def test_the_size_of_the_content_is_read_from_the_index_of_an_xz_file(size: int) -> None:
    assert xz_content(lzma.compress(bytes(size), preset=0)[-1000:]) == size


def with_index(index: bytes) -> bytes:
    """Return the end of an xz file that has this index, whose length is a multiple of four."""
    return b"\0" + index + bytes(4) + (len(index) // 4).to_bytes(4, "little") + b"\0\0YZ"


NO_SIZES = {
    "a number without end": with_index(b"\xff" * ((1 << 20) - 1)),
    "more records than there are": with_index(b"\xff" * 8 + b"\x7f" + bytes(1 << 10)),
    "nothing": b"",
    "no xz file": bytes(100),
    "an index that is longer than what is there": lzma.compress(b"x")[-14:],
    "only the footer's magic": b"YZ",
}


@pytest.mark.parametrize("case", NO_SIZES)
def test_an_xz_file_whose_index_cannot_be_read_tells_no_size(case: str) -> None:
    began = time.process_time()
    assert xz_content(NO_SIZES[case]) is None
    assert time.process_time() - began < 1


def test_an_archive_that_tells_no_size_is_taken_for_a_usual_one() -> None:
    stream = b"\x28\xb5\x2f\xfd\x04\x70" + bytes(20)
    assert space_needed(1000, stream, b"") == 3000
    xz = lzma.compress(bytes(5000))
    assert space_needed(len(xz), xz[:18], xz) == 5000
