# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line of make's output that says why it failed."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import line_that_matters

OUTPUTS = {
    "the compiler's error comes before make's": (
        "CC a.o\na.c:1: error: expected ';'\nmake[1]: *** [a.o] Error 1\n",
        "a.c:1: error: expected ';'",
    ),
    "a full disk comes before all": (
        "a.c:1: error: x\ncannot write: No space left on device\n",
        "cannot write: No space left on device",
    ),
    "make's own error": (
        "make: *** No rule to make target 'x'.  Stop.\nbye\n",
        "make: *** No rule to make target 'x'.  Stop.",
    ),
    "a missing command": (
        "sh: 1: bison: not found\nmake: *** [Makefile:1: all] Error 127\n",
        "sh: 1: bison: not found",
    ),
    "nothing": ("\n", "it printed nothing"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_the_line_that_matters_is_found(case: str) -> None:
    output, line = OUTPUTS[case]
    assert line_that_matters(output) == line
