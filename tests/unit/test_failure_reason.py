# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a task failed, in one line."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.failure_reason import FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.failures import UNKNOWN

failure_reason = FilterModule().filters()["failure_reason"]

COMMAND = {
    "failed": True,
    "msg": "non-zero return code",
    "stderr_lines": ["e1", "e2"],
    "stdout_lines": ["o1", "o2", "o3"],
    "stderr": "e1\ne2",
}
LOOP = {
    "failed": True,
    "msg": "One or more items failed",
    "results": [{"failed": False, "msg": "fine"}, {**COMMAND, "patch": "b.patch"}, {"failed": True}],
}
APT = {
    "failed": True,
    "msg": "non-zero return code",
    "stderr": "I: x\nE: no key \nW: y",
    "stderr_lines": ["I: x", "E: no key ", "W: y"],
}

# the result, options, the reason
CASES = {
    "a module's message": ({"msg": "no such host"}, {}, "no such host"),
    "a message that is no text": ({"msg": ["a"]}, {}, "['a']"),
    "the last lines of a command": (COMMAND, {}, "e2 / o1 / o2 / o3"),
    "a command that wrote nothing": ({**COMMAND, "stderr_lines": [], "stdout_lines": []}, {}, "non-zero return code"),
    "a module that also wrote": ({**COMMAND, "msg": "checksum differs"}, {}, "checksum differs"),
    "words that hide": ({"msg": "\x1b[2Jfine\u202e" + "x" * 2000}, {}, "\\x1b[2Jfine\\u202e" + "x" * 981 + " …"),
    "no message": ({"failed": True}, {}, UNKNOWN),
    "the first item that failed": (LOOP, {"item": "patch"}, "b.patch: e2 / o1 / o2 / o3"),
    "the item is not asked for": (LOOP, {}, "e2 / o1 / o2 / o3"),
    "a url": ({"msg": "404", "url": "http://m/x"}, {"item": "patch"}, "http://m/x: 404"),
    "a loop in which none failed": ({"msg": "m", "results": [{"changed": True}]}, {}, "m"),
    "an empty loop": ({"msg": "m", "results": []}, {}, "m"),
    "the first line of a kind": (APT, {"line": "(E|W): "}, "E: no key"),
    "none of that kind": (APT, {"line": "Error: "}, "I: x E: no key W: y"),
    "nothing on stderr": ({"msg": "m", "stderr": "", "stderr_lines": []}, {"line": "E"}, "m"),
    "nothing at all": ({}, {"line": "E"}, "no reason given"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason(case: str) -> None:
    result, options, reason = CASES[case]
    assert failure_reason(result, **options) == reason
