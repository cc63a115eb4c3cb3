# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tree's Kconfig says of symbols is read."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Answer, Menu
from ansible_collections.nested.kata.plugins.module_utils._kernel.why import parse_answers


def test_answers_are_read_by_symbol() -> None:
    text = (
        "symbol NET\ntype bool\nmenu Networking support\nvisible EXPERT [=n]\nsymbol NONE\n"
        "symbol XZ\ntype bool\ndepends NET [=y]\nselected A [=y]\nmenu \nchosen GZIP\n"
    )
    assert parse_answers(text) == {
        "NET": Answer(type="bool", menus=(Menu("Networking support", "EXPERT [=n]"),)),
        "NONE": Answer(),
        "XZ": Answer(type="bool", depends="NET [=y]", selected="A [=y]", chosen="GZIP", menus=(Menu(),)),
    }
