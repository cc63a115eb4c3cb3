# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line of make's output that says why it failed, and the place in which make runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import (
    Tree,
    line_that_matters,
    workplace,
)

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


SOURCES = [
    "Makefile",
    "arch/arm64/Kconfig",
    "arch/x86/Kconfig",
    "arch/x86/include/asm/bug.h",
    "include/linux/bug.h",
    "scripts/basic/Makefile",
    "scripts/basic/fixdep.c",
    "scripts/kconfig/Makefile",
    "scripts/kconfig/conf.c",
    "scripts/kconfig/lexer.l",
    "scripts/kconfig/merge_config.sh",
    "scripts/mod/modpost.c",
]
MADE = [
    ".config",
    "arch/x86/include/generated/asm/bug.h",
    "include/config/auto.conf",
    "include/generated/autoconf.h",
    "scripts/basic/.fixdep.cmd",
    "scripts/basic/fixdep",
    "scripts/kconfig/.conf.o.cmd",
    "scripts/kconfig/conf",
    "scripts/kconfig/conf.o",
    "scripts/kconfig/lexer.lex.c",
    "scripts/kconfig/parser.tab.h",
]


@pytest.mark.parametrize("made", [[], MADE], ids=["a clean tree", "a tree in which a kernel was built"])
def test_make_finds_all_sources_and_nothing_that_was_made_of_them(tmp_path: Path, made: list[str]) -> None:
    tree = tmp_path / "a tree"
    for name in [*SOURCES, *made]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "scripts/dtc").symlink_to("../arch")
    (tmp_path / "scratch").mkdir()
    place = workplace(Tree(str(tree), "x86_64", (), "6.12"), str(tmp_path / "scratch"))
    found = {
        os.path.relpath(os.path.join(directory, name), place.sources)
        for directory, _dummy, names in os.walk(place.sources, followlinks=True)
        for name in names
    }
    assert {name for name in found if not name.startswith("scripts/dtc/")} == set(SOURCES)
    assert all((Path(place.sources) / name).samefile(tree / name) for name in found)
    assert os.listdir(place.objects) == []
