# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery of an image from one source to many destinations at once. None of them holds up the others for long: it may
be a tenant's daemon, which takes a byte now and then.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Any, Callable, Generator, Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.pace import Late, Pace, slowest
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Sent

DEPTH = 4  # parts, of 2 MiB at most, by which a destination may lag behind the source
LOOK = 0.2  # seconds between two checks whether a destination that takes nothing has failed
# The seconds to wait for a destination while others wait for it too, and the bytes that it takes in each of them, or it
# is dropped.
HOLDING_UP = 60.0, 1 << 18
# The seconds that a destination may take to complete an image that it has as a whole, and the bytes that it unpacks in
# each one more.
COMPLETING, UNPACKED = 3600.0, 1 << 20


class Feed:
    """The few parts that one destination has not taken yet. `silence`: the seconds for which it may take nothing."""

    _END = object()

    def __init__(self, silence: float) -> None:
        self._parts: queue.Queue[Any] = queue.Queue(DEPTH)
        self.left = threading.Event()  # the destination takes nothing any more
        self._pace = Pace()
        self._alone = slowest(silence)

    def put(self, part: Any, others: bool = False) -> None:
        """Add a part when there is room. Raise Late where there is none for too long."""
        there = False
        while not there and not self.left.is_set():
            start = time.monotonic()
            try:
                self._parts.put(part, timeout=LOOK)
            except queue.Full:
                pass
            else:
                there = True
            size = len(part) if there and isinstance(part, bytes) else 0
            self._pace.add(time.monotonic() - start, size, *(HOLDING_UP if others else self._alone))

    def end(self, error: BaseException | None = None) -> bool:
        """Add the end when there is room, and return whether there was."""
        try:
            self._parts.put_nowait(error or self._END)
        except queue.Full:
            return False
        return True

    def cut(self, error: BaseException) -> None:
        """Put the end in place of all that was not taken."""
        while not self.end(error):
            with contextlib.suppress(queue.Empty):
                self._parts.get_nowait()

    def __iter__(self) -> Iterator[Part]:
        while True:
            part = self._parts.get()
            if part is self._END:
                return
            if isinstance(part, BaseException):
                raise part
            yield part


class Job(threading.Thread):
    """The thread in which one destination takes an image."""

    def __init__(self, take: Callable[[Iterator[Part]], Sent], silence: float) -> None:
        super().__init__(daemon=True)  # it ends with the module, also when that is interrupted
        self._take = take
        self.feed = Feed(silence)
        self.sent: Sent | None = None
        self.error: Exception | None = None
        self._ending = threading.Lock()

    def run(self) -> None:
        try:
            sent = self._take(iter(self.feed))
        except Exception as error:  # it is reported for this destination, and the others continue
            self._end(None, error)
        else:
            self._end(sent, None)

    def drop(self, error: Exception) -> None:
        """Wait for it no longer."""
        self._end(None, error)
        self.feed.cut(error)

    def _end(self, sent: Sent | None, error: Exception | None) -> None:
        with self._ending:
            if not self.feed.left.is_set():
                self.sent, self.error = sent, error
                self.feed.left.set()


def staying(jobs: Sequence[Job]) -> list[Job]:
    """Return those that take an image still."""
    return [job for job in jobs if not job.feed.left.is_set()]


def deliver(
    parts: Generator[Part, None, None],
    takers: Sequence[Callable[[Iterator[Part]], Sent]],
    say: Callable[[str], None],
    silence: float,
) -> list[Job]:
    """Read an image once and give it to all takers at the same time; return the outcome of each."""
    jobs = [Job(take, silence) for take in takers]
    for job in jobs:
        job.start()
    error: Exception | None = None
    done = layers = 0
    try:
        for part in parts:
            takers_left = staying(jobs)
            if not takers_left:
                break
            if isinstance(part, Blob):
                layers += 1
            elif not isinstance(part, Manifest):
                done += len(part)
                say(f"{amount(done)}, layer {layers}")
            for job in takers_left:
                try:
                    job.feed.put(part, others=len(takers_left) > 1)
                except Late as late:
                    job.drop(Late(f"it took {late}: it was dropped"))
    except Exception as caught:  # it ends each destination
        error = caught
    finally:
        parts.close()
    complete(jobs, error, say, COMPLETING + done / UNPACKED)
    return jobs


def complete(jobs: Sequence[Job], error: Exception | None, say: Callable[[str], None], seconds: float) -> None:
    """Wait until all have completed what they were given, but not for ever."""
    unended, end = list(jobs), time.monotonic() + seconds
    while left := staying(jobs):
        unended = [job for job in unended if not job.feed.end(error)]
        left[0].join(LOOK if unended else 1.0)
        say("")
        if time.monotonic() > end:
            for job in left:
                job.drop(Late(f"it had the whole image, and did not complete it in {seconds:.0f} s: it was dropped"))
