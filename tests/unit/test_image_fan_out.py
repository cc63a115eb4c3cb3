# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one source to many destinations at once."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import pace
from ansible_collections.nested.kata.plugins.module_utils._image import fan_out
from ansible_collections.nested.kata.plugins.module_utils._image.fan_out import DEPTH, Feed, Job, deliver
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Sent


def delivered(parts: Iterable[Part], takers: list[Callable[[Iterator[Part]], Sent]]) -> list[Job]:
    return deliver(parts, takers, lambda line: None, silence=0.1)


def numbered(count: int, told: list[int]) -> Iterator[Part]:
    for number in range(count):
        told.append(number)
        yield b"%d" % number


def everything(parts: Iterator[Part]) -> Sent:
    return Sent("", sum(len(part) for part in parts))


def test_every_destination_gets_everything_and_the_source_is_read_once() -> None:
    told: list[int] = []
    jobs = delivered(numbered(100, told), [everything] * 4)
    assert told == list(range(100))
    assert [job.sent for job in jobs] == [Sent("", 190)] * 4


def test_a_destination_that_fails_does_not_stop_the_others() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        next(parts)
        raise RuntimeError("it broke")

    jobs = delivered(numbered(100, []), [everything, broken, everything])
    assert [str(job.error) for job in jobs] == ["None", "it broke", "None"]
    assert [job.sent for job in jobs] == [Sent("", 190), None, Sent("", 190)]


def test_a_source_is_not_read_on_when_nobody_takes_anything_any_more() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        raise RuntimeError("it broke")

    told: list[int] = []
    delivered(numbered(10_000, told), [broken, broken])
    assert len(told) < 10_000


def test_a_source_that_fails_fails_for_all() -> None:
    def failing() -> Iterator[Part]:
        yield b"1"
        raise RuntimeError("the source broke")

    jobs = delivered(failing(), [everything, everything])
    assert [str(job.error) for job in jobs] == ["the source broke"] * 2


def test_a_destination_lags_behind_by_a_few_parts_only() -> None:
    go, told = threading.Event(), []

    def waiting(parts: Iterator[Part]) -> Sent:
        go.wait(10)
        return everything(parts)

    reading = threading.Thread(target=delivered, args=(numbered(100, told), [everything, waiting]))
    reading.start()
    time.sleep(0.5)
    lag = len(told)
    go.set()
    reading.join(10)
    assert DEPTH <= lag <= DEPTH + 2
    assert len(told) == 100


def test_what_is_put_for_one_who_has_left_is_dropped_at_once() -> None:
    feed = Feed(silence=0.1)
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
    deliver(parts, [lambda given: Sent("", len(list(given)))], said.append, silence=0.1)
    assert said[:2] == ["2 MiB, layer 1", "3 MiB, layer 2"]


def slow(pause: float, tell: Callable[[], None] = lambda: None) -> Callable[[Iterator[Part]], Sent]:
    """Return a destination that takes a part now and then."""

    def take(parts: Iterator[Part]) -> Sent:
        for _part in parts:
            tell()
            time.sleep(pause)
        return Sent("")

    return take


def test_a_destination_that_others_wait_for_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOLDING_UP", (0.5, 1 << 18))
    monkeypatch.setattr(pace, "SLOWEST", (60.0, 1))
    start = time.monotonic()
    jobs = delivered((bytes(1000) for _number in range(50)), [everything, slow(0.2)])
    assert time.monotonic() - start < 8  # it alone would take 10 s
    assert jobs[0].sent == Sent("", 50_000)
    assert jobs[1].sent is None
    assert re.fullmatch(r"it took less than 256 KiB/s in \d+ s of waiting for it: it was dropped", str(jobs[1].error))


def test_a_destination_that_is_fast_enough_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOLDING_UP", (0.3, 1000))
    monkeypatch.setattr(pace, "SLOWEST", (60.0, 1))
    jobs = delivered((bytes(1000) for _number in range(20)), [everything, slow(0.1)])
    assert [job.error for job in jobs] == [None, None]


def test_a_destination_that_was_fast_before_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOLDING_UP", (0.3, 1 << 18))
    monkeypatch.setattr(pace, "SLOWEST", (60.0, 1))
    taken: list[int] = []

    def stops(parts: Iterator[Part]) -> Sent:
        for part in parts:
            taken.append(len(part))
            if len(taken) > 20:
                time.sleep(60)
        return Sent("")

    jobs = delivered((bytes(1 << 20) for _number in range(100)), [everything, stops])
    assert jobs[0].sent == Sent("", 100 << 20)
    assert isinstance(jobs[1].error, pace.Late)


def test_nobody_else_waits_for_the_last_one_whose_limit_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOLDING_UP", (0.1, 1 << 30))
    monkeypatch.setattr(pace, "SLOWEST", (0.5, 1 << 14))
    parts = (bytes(1 << 13) for _number in range(20))
    assert delivered(parts, [slow(0.1)])[0].error is None
    parts = (bytes(1 << 8) for _number in range(20))
    assert isinstance(delivered(parts, [slow(0.1)])[0].error, pace.Late)


@pytest.mark.parametrize("others", [0, 1])
def test_a_destination_that_never_completes_an_image_is_dropped(monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    monkeypatch.setattr(fan_out, "COMPLETING", 0.5)
    never = threading.Event()

    def take(parts: Iterator[Part]) -> Sent:
        sent = everything(parts)
        never.wait(60)
        return sent

    jobs = delivered(numbered(10, []), [everything] * others + [take])
    assert [job.sent for job in jobs] == [Sent("", 10)] * others + [None]
    assert "did not complete it in" in str(jobs[-1].error)
    never.set()
    jobs[-1].join(10)
    assert jobs[-1].sent is None  # what it says later does not count


def test_what_a_dropped_destination_has_not_taken_ends_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOLDING_UP", (0.3, 1 << 18))
    monkeypatch.setattr(pace, "SLOWEST", (60.0, 1))
    go, caught = threading.Event(), []

    def take(parts: Iterator[Part]) -> Sent:
        next(parts)
        go.wait(60)
        try:
            return everything(parts)
        except Exception as error:
            caught.append(error)
            raise

    jobs = delivered(numbered(100, []), [everything, take])
    assert isinstance(jobs[1].error, pace.Late)
    go.set()
    jobs[1].join(10)
    assert caught == [jobs[1].error]
