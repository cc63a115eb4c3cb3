# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one source to many destinations at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from ansible_collections.nested.kata.plugins.module_utils._image.fan_out import DEPTH, Feed, deliver
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part
from ansible_collections.nested.kata.plugins.module_utils._image.locations import Sent


def numbered(count: int, told: list[int]) -> Iterator[Part]:
    for number in range(count):
        told.append(number)
        yield b"%d" % number


def everything(parts: Iterator[Part]) -> Sent:
    return Sent("", sum(len(part) for part in parts))


def test_every_destination_gets_everything_and_the_source_is_read_once() -> None:
    told: list[int] = []
    jobs = deliver(numbered(100, told), [everything] * 4, lambda line: None)
    assert told == list(range(100))
    assert [job.sent for job in jobs] == [Sent("", 190)] * 4


def test_a_destination_that_fails_does_not_stop_the_others() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        next(parts)
        raise RuntimeError("it broke")

    jobs = deliver(numbered(100, []), [everything, broken, everything], lambda line: None)
    assert [str(job.error) for job in jobs] == ["None", "it broke", "None"]
    assert [job.sent for job in jobs] == [Sent("", 190), None, Sent("", 190)]


def test_a_source_is_not_read_on_when_nobody_takes_anything_any_more() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        raise RuntimeError("it broke")

    told: list[int] = []
    deliver(numbered(10_000, told), [broken, broken], lambda line: None)
    assert len(told) < 10_000


def test_a_source_that_fails_fails_for_all() -> None:
    def failing() -> Iterator[Part]:
        yield b"1"
        raise RuntimeError("the source broke")

    jobs = deliver(failing(), [everything, everything], lambda line: None)
    assert [str(job.error) for job in jobs] == ["the source broke"] * 2


def test_a_destination_lags_behind_by_a_few_parts_only() -> None:
    go, told = threading.Event(), []

    def waiting(parts: Iterator[Part]) -> Sent:
        go.wait(10)
        return everything(parts)

    reading = threading.Thread(target=deliver, args=(numbered(100, told), [everything, waiting], lambda line: None))
    reading.start()
    time.sleep(0.5)
    lag = len(told)
    go.set()
    reading.join(10)
    assert DEPTH <= lag <= DEPTH + 2
    assert len(told) == 100


def test_what_is_put_for_one_who_has_left_is_dropped_at_once() -> None:
    feed = Feed()
    feed.left.set()
    start = time.monotonic()
    for _dummy in range(10 * DEPTH):
        feed.put(b"")
    assert time.monotonic() - start < 1


def test_how_far_it_is_is_told_while_it_goes_on() -> None:
    said: list[str] = []
    parts: Iterable[Part] = (
        part for part in [Blob("a", 2 << 20), bytes(2 << 20), Blob("b", 1 << 20), bytes(1 << 20), Manifest(b"", ())]
    )
    deliver(parts, [lambda given: Sent("", len(list(given)))], said.append)
    assert said[:2] == ["2 MiB, layer 1", "3 MiB, layer 2"]
