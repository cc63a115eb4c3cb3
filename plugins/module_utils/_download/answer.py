# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's answer to a request for a part of a file means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping


@dataclass(frozen=True)
class Answer:
    """Where the bytes that follow belong, and how many there are in all, if the server says so."""

    offset: int
    total: int | None


def read_answer(status: int | None, headers: Mapping[str, str], asked: int) -> Answer | None:
    """Return what an answer to a request for all bytes from `asked` on means, None where it cannot be trusted. Header
    names are in lower case.
    """
    length = headers.get("content-length", "")
    count = int(length) if length.isdigit() else None
    if status != 206:
        return Answer(0, count)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", "").strip())
    if not match:
        return None
    start, end = int(match[1]), int(match[2])
    total = end + 1 if match[3] == "*" else int(match[3])
    if start != asked or end < start or end + 1 != total or count not in (None, end - start + 1):
        return None
    return Answer(start, total)


def is_complete(headers: Mapping[str, str], offset: int) -> bool:
    """Tell whether a refusal of a range (416) means that there is nothing beyond it."""
    return headers.get("content-range", "").strip() == f"bytes */{offset}"
