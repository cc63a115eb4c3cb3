# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a long task, in one line that is shown while it runs: the module's side.

A module reports it as often as it likes::

    with Progress() as progress:
        for piece in pieces:
            ...
            progress.say(f"{name} {amount(done, total)}")

It is shown when the module has an action plugin of the same name: plugins/plugin_utils/progress.py. Without one,
nothing is written.
"""

from __future__ import annotations

import os
import time

VARIABLE = "NESTED_KATA_PROGRESS"  # environment variable with the path of the file that the action plugin reads
PERIOD = 1.0  # seconds between two writes
LONGEST = 160  # characters


class Progress:
    """The line in the file. It is gone when the module ends."""

    def __init__(self) -> None:
        # Programs that the module starts, such as a compiler, must not see it.
        self._path = os.environ.pop(VARIABLE, None)
        self._written = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._path:
            for path in (self._path, self._beside):
                try:
                    os.unlink(path)
                except OSError:
                    continue

    @property
    def _beside(self) -> str:
        return f"{self._path}.new"

    def say(self, line: str) -> None:
        """Report the progress, unless it was reported a moment ago. A line that cannot be written is dropped: a task
        never fails for it.
        """
        now = time.monotonic()
        if self._path is None or now - self._written < PERIOD:
            return
        self._written = now
        try:
            # In a directory where anybody may write: the name holds a secret, and an existing file or link is never
            # followed or overwritten.
            with open(self._beside, "x", encoding="utf-8", opener=_private) as file:
                file.write(line[:LONGEST])
            os.replace(self._beside, self._path)
        except OSError:
            self._path = None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
