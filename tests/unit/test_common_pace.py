# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who moves a byte now and then is late; who pauses once and goes on is not."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterable

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.pace import SLOWEST, Late, Pace, Paced, slowest


def moved(steps: Iterable[tuple[float, int]], most: float = 10, rate: int = 100) -> Pace:
    pace = Pace()
    for seconds, size in steps:
        pace.add(seconds, size, most, rate)
    return pace


@pytest.mark.parametrize(
    "steps",
    [
        [(0.0, 0)] * 1000,
        [(9.9, 0), (0.1, 1000)],
        [(9.9, 1000), (9.9, 1000), (9.9, 1000)],
        [(10, 1000), (9.9, 0)],
    ],
)
def test_who_moves_enough_is_not_late(steps: list[tuple[float, int]]) -> None:
    moved(steps)


@pytest.mark.parametrize("steps", [[(1, 1)] * 10, [(10, 1 << 20), (10, 999)], [(11, 1000)]])
def test_who_moves_less_is_late_whatever_was_before(steps: list[tuple[float, int]]) -> None:
    with pytest.raises(Late, match=r"less than 0 KiB/s in 1[01] s of waiting for it"):
        moved(steps)


def test_who_may_be_silent_for_longer_is_waited_for_longer() -> None:
    assert slowest(60) == SLOWEST
    assert slowest(SLOWEST[0] + 1) == (SLOWEST[0] + 1, SLOWEST[1])


def read(limit: tuple[float, int] | None, pieces: int, pause: float) -> int:
    """Read what comes in pieces of a byte with pauses; return how much that was."""
    source, target = os.pipe()

    def write() -> None:
        with os.fdopen(target, "wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
            for _number in range(pieces):
                file.write(b"x")
                time.sleep(pause)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with io.BufferedReader(Paced(os.fdopen(source, "rb", buffering=0), limit)) as reader:
            return len(reader.read(pieces))
    finally:
        writer.join()


@pytest.mark.parametrize("limit", [None, (0.2, 1), (60.0, 1 << 30)])
def test_what_comes_is_read_whole(limit: tuple[float, int] | None) -> None:
    assert read(limit, 50, 0.01) == 50


def test_a_read_that_would_go_on_for_ever_ends() -> None:
    with pytest.raises(Late, match="less than 16 KiB/s"):
        read((0.2, 1 << 14), 50, 0.01)
