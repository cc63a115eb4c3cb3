# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The meaning of a server's answer to a request for a part of a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping


@dataclass(frozen=True)
class Answer:
    """The offset of the bytes that follow, and the size of the whole file, if the server reports it."""

    offset: int
    total: int | None


def read_answer(status: int | None, headers: Mapping[str, str], asked: int) -> Answer | None:
    """Return the meaning of an answer to a request for all bytes from `asked` on, None where it cannot be trusted.
    Header names are in lower case.
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
    """Return whether a refusal of a range (416) means that there is nothing beyond it."""
    return headers.get("content-range", "").strip() == f"bytes */{offset}"
