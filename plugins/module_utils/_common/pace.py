# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast others give and take. A limit between two bytes is none for who moves one now and then."""

from __future__ import annotations

import io
import time
from typing import Any

# The seconds to wait for somebody for whom nobody else waits, and the bytes that are moved in each of them.
SLOWEST = 600.0, 1 << 14


class Late(Exception):
    """Somebody gives, takes or answers too slowly."""


class Pace:
    """How much somebody moved while it was waited for."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._moved = 0

    def add(self, seconds: float, size: int, most: float, rate: int) -> None:
        """Note so many bytes after so many seconds of waiting. Raise Late where `most` seconds were waited, and less
        than `rate` bytes were moved in each of them.
        """
        self._waited += seconds
        self._moved += size
        if self._waited < most:
            return
        if self._moved < self._waited * rate:
            raise Late(f"less than {rate >> 10} KiB/s in {self._waited:.0f} s of waiting for it")
        self._waited, self._moved = 0.0, 0


def slowest(silence: float) -> tuple[float, int]:
    """Return SLOWEST for somebody who may be silent for so many seconds."""
    return max(SLOWEST[0], silence), SLOWEST[1]


class Paced(io.RawIOBase):
    """What somebody gives, unbuffered. It is judged once `limit` is set: the seconds and the rate of a Pace."""

    def __init__(self, raw: io.RawIOBase, limit: tuple[float, int] | None = None) -> None:
        self._raw = raw
        self._pace = Pace()
        self.limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        start = time.monotonic()
        size = self._raw.readinto(buffer)
        if self.limit and size:  # the end is not late
            self._pace.add(time.monotonic() - start, size, *self.limit)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
