# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command docker, for what is asked before there is a library, or cheaper without it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, Sequence

SECONDS = 10.0  # a dockerd that hangs accepts the request and sends nothing

WARNING = re.compile(r"warning", re.IGNORECASE)  # of what the client cannot read of its own settings
# The client reports a name that nothing has in several ways. It takes names for the beginnings of ids too.
MISSING = re.compile(
    r"no such (container|image|network|volume)|network .* not found|multiple ids|is ambiguous|invalid reference format",
    re.IGNORECASE,
)


class NoAnswer(Exception):
    """Docker did not answer. Carries the message of its client."""


def run(client: str, *arguments: str, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run the client, or raise NoAnswer where it takes too long."""
    try:
        return subprocess.run(
            [client, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            timeout=seconds or SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"docker {arguments[0]} took longer than {seconds or SECONDS:g} s") from None


def ask(client: str, *arguments: str, seconds: float | None = None) -> str:
    """Return the output of the client, or raise NoAnswer with the first line of its error."""
    done = run(client, *arguments, seconds=seconds)
    if done.returncode != 0:
        raise NoAnswer((errors_of(done) or [f"docker {arguments[0]} ends with status {done.returncode}"])[0])
    return done.stdout


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of standard error that are not warnings."""
    return [line for line in done.stderr.strip().splitlines() if not WARNING.match(line)]


def inspect(client: str, kind: str, names: Sequence[str], seconds: float | None = None) -> list[dict[str, Any]]:
    """Return what Docker reports of the things with these names or ids, as far as they exist. It finds some of them by
    the beginning of their ids too.
    """
    if not names:
        return []
    done = run(client, kind, "inspect", "--", *names, seconds=seconds)
    errors = errors_of(done)
    serious = [line for line in errors if not MISSING.search(line)]
    if done.returncode != 0 and (serious or not errors):
        raise NoAnswer((serious or [f"docker {kind} inspect ends with status {done.returncode}"])[0])
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found
