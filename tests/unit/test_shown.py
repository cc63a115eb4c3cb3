# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of others in messages of roles."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.filter.shown import FilterModule

shown = FilterModule().filters()["shown"]


def test_the_words_of_others_are_one_visible_line() -> None:
    assert shown("\x1b[2J\nno space") == "\\x1b[2J no space"
    assert shown(["btrfs"]) == "['btrfs']"
    assert len(shown("x" * 5000)) == 1000
