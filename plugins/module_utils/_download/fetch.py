# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The download of a file from the first of several URLs that serves it, resumed where it was cut off."""

from __future__ import annotations

import http.client
import os
import time
from dataclasses import dataclass
from io import FileIO
from typing import Any, Callable
from urllib.error import HTTPError

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import SSLValidationError, open_url
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown
from ansible_collections.nested.kata.plugins.module_utils._download.answer import Answer, is_complete, read_answer
from ansible_collections.nested.kata.plugins.module_utils._download.options import PART, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Fetch

PIECE = 1 << 18
TRANSIENT = (408, 425, 429)  # answers of the 400s that may change in a moment


class Failed(Exception):
    """A URL did not serve the file. `final`: it never will."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class Wrong(Exception):
    """The downloaded file is not the wanted one."""


@dataclass
class Received:
    """How a file was received."""

    path: str
    url: str | None = None
    """The URL that served it, without its password."""
    bytes_received: int = 0
    resumed_from: int = 0
    signed_by: str | None = None


def name_of(path: str) -> str:
    """Return the name of a file, also of one that is not complete yet."""
    name = os.path.basename(path)
    return name[: -len(PART)] if name.endswith(PART) else name


def fetch(step: Fetch, file: FileIO, wanted: Wanted, verify: Callable[[], str | None], progress: Progress) -> Received:
    """Get the file from the first URL that serves it, verify it, and return how it was received."""
    failures: dict[str, Failed] = {}
    received = Received(step.path, resumed_from=file.seek(0, os.SEEK_END))
    farthest = received.resumed_from
    idle = 0
    while True:
        for url in step.urls:
            if url in failures and failures[url].final:
                continue
            try:
                receive(url, file, wanted.timeout, received, progress)
                received.signed_by = verify_or_restart(url, file, wanted.timeout, received, verify, progress)
                received.url = shown(url)
                return received
            except Wrong as wrong:
                restart(file, received)
                failures[url] = Failed(str(wrong), final=True)
            except Failed as failed:
                failures[url] = failed
        size = file.seek(0, os.SEEK_END)
        idle = 0 if size > farthest else idle + 1
        farthest = max(farthest, size)
        if idle > wanted.retries or all(failures[url].final for url in step.urls):
            raise Refused(
                f"urls: {step.path} could not be downloaded: "
                + "; ".join(f"{shown(url)}: {failure}" for url, failure in failures.items())
            )
        time.sleep(min(2**idle, 10) if idle else 0)


def verify_or_restart(
    url: str, file: FileIO, timeout: int, received: Received, verify: Callable[[], str | None], progress: Progress
) -> str | None:
    """Verify the file. The part that an earlier run left may be of another file, so a resumed download that fails is
    repeated from the start.
    """
    try:
        return verify()
    except Wrong:
        if not received.resumed_from:
            raise
    restart(file, received)
    receive(url, file, timeout, received, progress)
    return verify()


def receive(url: str, file: FileIO, timeout: int, received: Received, progress: Progress) -> None:
    """Get the missing part from one URL, or raise Failed."""
    offset = file.seek(0, os.SEEK_END)
    try:
        answer = request(url, offset, timeout)
    except HTTPError as error:
        if error.code == 416 and offset:
            if is_complete(headers_of(error), offset):
                return
            answer = None
        else:
            raise Failed(reason_of(error), final=400 <= error.code < 500 and error.code not in TRANSIENT) from error
    except SSLValidationError as error:
        raise Failed(reason_of(error), final=True) from error
    except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
        raise Failed(reason_of(error)) from error
    if answer:
        with answer:
            begin = read_answer(getattr(answer, "status", None), headers_of(answer), offset)
            if begin:
                store(answer, begin, file, url, received, progress)
                return
        if not offset:
            raise Failed("it answers with a part of the file that was not requested", final=True)
    # It has no such part, or served another one: get all of the file.
    restart(file, received)
    receive(url, file, timeout, received, progress)


def restart(file: FileIO, received: Received) -> None:
    file.truncate(0)
    received.resumed_from = 0


def request(url: str, offset: int, timeout: int) -> Any:
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
    return open_url(url, headers=headers, timeout=timeout, http_agent="nested.kata", decompress=False)


def headers_of(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def store(answer: Any, begin: Answer, file: FileIO, url: str, received: Received, progress: Progress) -> None:
    """Write the answer to its place in the file, or raise Failed where it ends too early."""
    if begin.offset == 0:
        received.resumed_from = 0
    file.truncate(begin.offset)
    size = file.seek(begin.offset)
    if begin.total is not None:
        disk = os.statvfs(file.fileno())
        free = disk.f_bavail * disk.f_frsize
        if begin.total - size > free:
            raise Refused(
                f"path: {shown(url)} has {amount(begin.total)}, and {os.path.dirname(received.path)} has {amount(free)}"
                " free: make room there, or choose another path"
            )
    while True:
        try:
            piece = answer.read(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{reason_of(error)} after {size} bytes") from error
        if not piece:
            break
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
        size += len(piece)
        received.bytes_received += len(piece)
        progress.say(f"{name_of(received.path)} {amount(size, begin.total)}")
    if begin.total is not None and size < begin.total:
        raise Failed(f"the connection was cut after {size} of {begin.total} bytes")


def reason_of(error: BaseException) -> str:
    """Return the reason in an error of a connection, in one line."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(getattr(reason, "strerror", None) or reason or type(error).__name__).split())
