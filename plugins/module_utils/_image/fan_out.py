# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery of an image from one source to many destinations at once."""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, Generator, Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part
from ansible_collections.nested.kata.plugins.module_utils._image.locations import Sent

DEPTH = 4  # parts, of 2 MiB at most, by which a destination may lag behind the source
LOOK = 0.2  # seconds between two checks whether a destination that takes nothing has failed


class Feed:
    """The few parts that one destination has not taken yet."""

    _END = object()

    def __init__(self) -> None:
        self._parts: queue.Queue[Any] = queue.Queue(DEPTH)
        self.left = threading.Event()  # the destination takes nothing any more

    def put(self, part: Any) -> None:
        while not self.left.is_set():
            try:
                self._parts.put(part, timeout=LOOK)
                return
            except queue.Full:
                continue

    def end(self, error: BaseException | None = None) -> None:
        self.put(error or self._END)

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

    def __init__(self, take: Callable[[Iterator[Part]], Sent]) -> None:
        super().__init__(daemon=True)  # it ends with the module, also when that is interrupted
        self._take = take
        self.feed = Feed()
        self.sent: Sent | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.sent = self._take(iter(self.feed))
        except Exception as error:  # it is reported for this destination, and the others continue
            self.error = error
        finally:
            self.feed.left.set()


def deliver(
    parts: Generator[Part, None, None], takers: Sequence[Callable[[Iterator[Part]], Sent]], say: Callable[[str], None]
) -> list[Job]:
    """Read an image once and give it to all takers at the same time; return the outcome of each."""
    jobs = [Job(take) for take in takers]
    for job in jobs:
        job.start()
    error: Exception | None = None
    done = layers = 0
    try:
        for part in parts:
            if all(job.feed.left.is_set() for job in jobs):
                break
            if isinstance(part, Blob):
                layers += 1
            elif not isinstance(part, Manifest):
                done += len(part)
                say(f"{amount(done)}, layer {layers}")
            for job in jobs:
                job.feed.put(part)
    except Exception as caught:  # it ends each destination
        error = caught
    finally:
        parts.close()
    for job in jobs:
        job.feed.end(error)
    for job in jobs:
        while job.is_alive():
            job.join(1.0)
            say("")
    return jobs
