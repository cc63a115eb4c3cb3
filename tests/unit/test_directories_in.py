# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which directories are directly in another one."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.directories_in import directories_in

DIRECTORY, FILE = {"type": "directory"}, {"type": "file"}
NAMES = {"4.1.0": DIRECTORY, "4.0.0": DIRECTORY, ".new": DIRECTORY, "archive": FILE, "link": {"type": "link"}}


@pytest.mark.parametrize("path", ["/srv/kata", "/srv/kata/", "/srv/c++/(1)/[a-z]/kata", "//srv/kata"])
def test_those_that_are_directly_in_it_and_not_hidden_are_named(path: str) -> None:
    files = {path: DIRECTORY, **{f"{path}/{name}": found for name, found in NAMES.items()}}
    files |= {f"{path}/4.1.0/deeper": DIRECTORY, f"{path}-other/5.0.0": DIRECTORY, "/srv": DIRECTORY}
    assert directories_in(files, path) == ["4.0.0", "4.1.0"]
    assert directories_in({}, path) == []
