# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes in bytes: parsed from options, and written exactly, roughly or as progress."""

from __future__ import annotations

import re

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

BLOCK = 4096
MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}{suffix}": 1024**power for power, letter in enumerate("KMGTP", 1) for suffix in ("", "IB")},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTP", 1)},
}


def parse_size(text: str, option: str = "size") -> int:
    """Return the bytes that a size like 10G means, rounded up to a whole block."""
    match = re.fullmatch(r"([0-9]+)\s*([A-Za-z]*)", text.strip())
    unit = UNITS.get(match.group(2).upper()) if match else None
    size = int(match.group(1)) * unit if match and unit else 0
    if not 0 < size < 2**63 - BLOCK:
        raise Refused(
            f"{option}: {text!r} is not a valid size: write it like 10G, 512M or 20GiB (powers of 1024), 20GB (powers"
            " of 1000), or as a number of bytes"
        )
    return -(-size // BLOCK) * BLOCK


def exact(size: int) -> str:
    """Return a number of bytes in the largest binary unit that shows it exactly."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return f"{size} bytes"


def about(size: int) -> str:
    """Return a rounded number of bytes for people: 75.2 GiB, 512 MiB."""
    if size < GIBIBYTE:
        return f"{size // MEBIBYTE} MiB"
    return f"{size / GIBIBYTE:.1f}".replace(".0", "") + " GiB"


def amount(done: int, total: int | None = None) -> str:
    """Return how much of a total is done: "61 of 145 MiB, 42 %"; of an unknown total, how much is done."""
    if not total:
        return f"{done // MEBIBYTE} MiB"
    return f"{done // MEBIBYTE} of {max(total, done) // MEBIBYTE} MiB, {percent(done, total)} %"


def percent(done: int, total: int) -> int:
    """Return whole percents. Work under way is never at 100 of them, also where the total was an estimate."""
    return min(99, 100 * done // total)
