# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module ends with its result, or fails with its error in one line."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish

COMMAND = ("mkfs", "a")
FAILURES = {
    "a refusal": (Refused("size: too small"), {"msg": "size: too small"}),
    "a refusal with details": (Refused("tree: why", missing=["A"]), {"msg": "tree: why", "missing": ["A"]}),
    "a command": (
        CommandFailed(COMMAND, 3, "why"),
        {"msg": "mkfs a failed with exit status 3: why", "cmd": ["mkfs", "a"], "rc": 3},
    ),
    "a command with output": (
        CommandFailed(COMMAND, 3, "why", "all\nwhy\n", option="tree"),
        {"msg": "tree: mkfs a failed with exit status 3: why", "cmd": ["mkfs", "a"], "rc": 3, "stdout": "all\nwhy\n"},
    ),
    "a file": (OSError(errno.EACCES, "Permission denied", "/etc/x"), {"msg": "path: /etc/x: Permission denied"}),
    "no file": (OSError(errno.EIO, "Input/output error"), {"msg": "path: /disks/a: Input/output error"}),
    "no number": (OSError("Not a gzipped file"), {"msg": "path: /disks/a: Not a gzipped file"}),
}


class Ended(Exception):
    """The module ended, with this result."""


class Module:
    """Stands for AnsibleModule."""

    def exit_json(self, **result: Any) -> NoReturn:
        raise Ended({"failed": False, **result})

    def fail_json(self, **result: Any) -> NoReturn:
        raise Ended({"failed": True, **result})


def ended(work: Any, **more: Any) -> dict:
    with pytest.raises(Ended) as end:
        finish(Module(), work, "/disks/a", **more)
    return end.value.args[0]


@pytest.mark.parametrize("case", FAILURES)
def test_an_error_fails_the_module_in_one_line(case: str) -> None:
    error, result = FAILURES[case]

    def work() -> NoReturn:
        raise error

    assert ended(work, option="path", log="/log") == {"failed": True, **result, "log": "/log"}


def test_a_result_ends_the_module_and_has_nothing_of_a_failure() -> None:
    assert ended(lambda: {"changed": True}, option="path", log="/log") == {"failed": False, "changed": True}


def test_an_error_that_is_none_of_these_is_a_bug_and_shows_its_traceback() -> None:
    with pytest.raises(KeyError):
        ended(lambda: {}["missing"])
