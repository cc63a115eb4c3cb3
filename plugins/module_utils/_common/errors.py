# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that end a module, each with a message of one line: main.py turns them into fail_json."""

from __future__ import annotations

from typing import Any, Sequence


class Refused(Exception):
    """The request cannot be met: the message names the option, what was found, and what to do. `details` go into the
    result beside it.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class CommandFailed(Exception):
    """A command ended with an error: carries the command, its exit status, the line with the reason, and all output
    where a module returns it.

    `option` is the module's option that the command is about.
    """

    def __init__(self, command: Sequence[str], status: int, line: str, output: str = "", option: str = "") -> None:
        super().__init__(f"{option}{option and ': '}{' '.join(command)} failed with exit status {status}: {line}")
        self.command = tuple(command)
        self.status = status
        self.line = line
        self.output = output


class Damaged(Exception):
    """Data such as an archive or a layer is damaged: the message describes how."""
