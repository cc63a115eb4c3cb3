# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and boxes for people who read a terminal."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.filter.box import FilterModule as BoxFilters
from ansible_collections.nested.kata.plugins.filter.table import FilterModule as TableFilters
from ansible_collections.nested.kata.plugins.plugin_utils.table import box, render


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert render(["level", "n"], [["machine", 1], ["vm", 12345]]) == [
        "level    n",
        "-------  -----",
        "machine  1",
        "vm       12345",
    ]


def test_a_table_without_rows_has_its_head() -> None:
    assert TableFilters().filters()["table"]([], headers=["a", "bc"]) == ["a  bc", "-  --"]


def test_every_line_of_a_box_has_the_same_width_and_long_lines_are_wrapped() -> None:
    lines = box(["short", "", "  " + "word " * 40], width=50)
    assert len({len(line) for line in lines}) == 1
    assert max(len(line) for line in lines) <= 56
    assert lines[0] == lines[-1] == "#" * len(lines[0])
    assert sum(line.count("word") for line in lines) == 40
    assert all(line.startswith("##     word") for line in lines[4:-1])


def test_the_filter_draws_the_same_box() -> None:
    assert BoxFilters().filters()["box"](["a"]) == box(["a"]) == ["#######", "## a ##", "#######"]
