# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make, as a process: how it is run and ended, and how its output is read."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import BinaryIO, Callable, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE, reading_end
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import percent

GRACE = 30  # seconds for make to end, and to remove incomplete files
NAMED = 3  # lines of a failed build that the message quotes


COMPILED = re.compile(r"  (?:CC|AS)(?: \[M\])? +\S")


STEP = re.compile(r"  [A-Z0-9]+(?: \[M\])? +\S")


FULL = "No space left on device"


SAYS_WHY = re.compile(
    rf"\berror: |\bError: |undefined reference to|{FULL}|\*\*\* No rule to make|\*\*\* The configuration"
    r" requires|Killed signal terminated|: not found$"
    r"|^ld(?:\.\w+)?: (?!warning)"
)


STALE = "The configuration requires explicit update"


@dataclass
class Output:
    """The relevant parts of make's output, taken line by line."""

    objects: int = 0
    reasons: list[str] = field(default_factory=list)
    """The first lines that show why it failed."""
    first_star: str = ""
    """The first line in which make reports that something failed, but not why."""
    last: str = ""
    full: bool = False
    stale: bool = False

    def take(self, line: str) -> None:
        """Take the next line."""
        if COMPILED.match(line):
            self.objects += 1
        if STEP.match(line) or not line.strip():
            return
        self.last = line.strip()
        self.full = self.full or FULL in line
        self.stale = self.stale or STALE in line
        if SAYS_WHY.search(line):
            if len(self.reasons) < 10 and self.last not in self.reasons:
                self.reasons.append(self.last)
        elif "*** " in line and not self.first_star:
            self.first_star = self.last

    @property
    def errors(self) -> list[str]:
        """The lines that show why make failed, or else the most useful line."""
        return self.reasons or [self.first_star or self.last or "make printed nothing"]

    def summary(self) -> str:
        """Return the lines that matter as one."""
        errors = self.errors
        more = f" (and {len(errors) - NAMED} more)" if len(errors) > NAMED else ""
        return "; ".join(errors[:NAMED]) + more


def under_way(version: str, objects: int, expected: int, seconds: float) -> str:
    """Return how far a build is, in words. `expected` is 0 where the number of objects is unknown."""
    share = f" of {expected} objects, {percent(objects, expected)} %" if 0 < objects <= expected else " objects"
    return f"linux {version}: {objects}{share}, {seconds:.0f} s"


def with_ccache(make_vars: Mapping[str, str], compiler: str, host_compiler: str) -> dict[str, str]:
    """Return the variables that put ccache before both compilers."""
    found = {"CC": make_vars.get("CC", compiler), "HOSTCC": make_vars.get("HOSTCC", host_compiler)}
    return {name: value if shlex.split(value)[:1] == ["ccache"] else f"ccache {value}" for name, value in found.items()}


class Interrupted(Exception):
    """The module was asked to end."""

    killed = False


class Killed(Interrupted):
    """Make did not end in time, and may have left something incomplete."""

    killed = True


def run(
    command: list[str], environment: Mapping[str, str], log: BinaryIO, lock: int, report: Callable[[Output], None]
) -> tuple[int, Output]:
    """Run make into the log and return its exit status and its output. It never outlives an exception."""
    output = Output()
    make = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=[lock],
    )
    printed = reading_end(make.stdout)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(printed, selectors.EVENT_READ)
            rest = b""
            while True:
                if selector.select(1.0):
                    piece = os.read(printed.fileno(), PIECE)
                    if not piece:
                        break
                    log.write(piece)
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        output.take(line.decode("utf-8", "replace"))
                report(output)
        output.take(rest.decode("utf-8", "replace"))
        return make.wait(), output
    except BaseException:
        end(make)
        raise
    finally:
        printed.close()


def end(make: subprocess.Popen[bytes]) -> None:
    """Let make remove incomplete files, and end all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(make.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while make.poll() is None and time.monotonic() < deadline:
        # Make must not wait for a pipe that is not read any more.
        os.set_blocking(reading_end(make.stdout).fileno(), False)
        with contextlib.suppress(BlockingIOError):
            os.read(reading_end(make.stdout).fileno(), PIECE)
        time.sleep(0.05)
    if make.poll() is None:
        os.killpg(make.pid, signal.SIGKILL)
        make.wait()
        raise Killed
