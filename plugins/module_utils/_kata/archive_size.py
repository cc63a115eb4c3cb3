# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many bytes an archive of a release unpacks to."""

from __future__ import annotations

from typing import Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of

FORMATS = ("zstd", "xz")  # that an archive of a release may be compressed by
TAIL = 1 << 20  # bytes at the end of an archive that hold the index of any sensible xz file
FRAME = b"\x28\xb5\x2f\xfd"  # of zstd; a frame that is skipped may come first
LONGEST_NUMBER = 9  # bytes of a number in that index (xz-file-format.txt, 1.2)
USUAL_RATIO = 3  # of unpacked to packed: 2.5 GB to 925 MiB in 4.1.0


def space_needed(size: int, head: bytes, tail: bytes) -> int:
    """Return how many bytes an archive of this size unpacks to: the size that it states, or else an estimate."""
    stated = zstd_content(head) if compression_of(head, FORMATS) == "zstd" else xz_content(tail)
    return USUAL_RATIO * size if stated is None else stated


def zstd_content(head: bytes) -> int | None:
    """Return the size of the content, from a zstd frame's header (RFC 8878, 3.1.1.1)."""
    if len(head) < 18 or not head.startswith(FRAME):
        return None
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0) if width else None


def xz_content(tail: bytes) -> int | None:
    """Return the size of the content, from the index at the end of an xz file (xz-file-format.txt, 2.1.2 and 4)."""
    if tail[-2:] != b"YZ" or len(tail) < 12:
        return None
    length = 4 * (int.from_bytes(tail[-8:-4], "little") + 1)
    index = tail[-12 - length : -12]
    if len(index) < length or index[0] != 0:
        return None
    numbers = _multibyte(index[1:])
    try:
        return sum([next(numbers), next(numbers)][1] for dummy in range(next(numbers)))
    except StopIteration:
        return None


def _multibyte(data: bytes) -> Iterator[int]:
    """Return the numbers in data, seven bits a byte, up to one that is too long."""
    number = shift = 0
    for byte in data:
        if shift == 7 * LONGEST_NUMBER:
            return
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
