# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits for the output of commands that a tenant controls, who may write without end."""

from __future__ import annotations

from typing import Iterable

# Descriptors 3 and 4 are the caller's stdout and stderr, 5 takes the exit status past both limits, and 6 takes the
# command's stdout past the limit of its stderr.
SCRIPT = (
    'exec 3>&1 4>&2; pass=$1; out=$2; err=$3; shift 3; s=$({ { { "$@" 3>&- 4>&- 5>&-; echo $? >&5; } 2>&1 >&6 6>&- '
    '| $pass -c "$err" >&4; } 6>&1 | $pass -c "$out" >&3; } 5>&1); exit "$s"'
)


def limited(command: Iterable[str], out: int, err: int, at_once: bool = False) -> list[str]:
    """Return the command that runs another one, passes on so many bytes of its stdout and of its stderr, and ends with
    its exit status. The other one fails by SIGPIPE when it goes on writing.

    `at_once`: pass everything on as it comes, such as a prompt, for which `stdbuf` is needed.
    """
    return ["sh", "-c", SCRIPT, "sh", "stdbuf -o0 head" if at_once else "head", str(out), str(err), *command]
