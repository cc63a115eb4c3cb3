# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions are compared by their leading numbers."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of, written

VERSIONS = {
    "26.1.5+dfsg1": (26, 1, 5),
    "29.5": (29, 5),
    "4.1.0-rc0": (4, 1, 0),
    "6.12.1-foo": (6, 12, 1),
    "dev": (),
    "": (),
}


@pytest.mark.parametrize("text", VERSIONS)
def test_a_version_is_the_numbers_that_it_begins_with(text: str) -> None:
    assert version_of(text) == VERSIONS[text]


def test_a_version_is_written_with_dots() -> None:
    assert written((5, 0, 3)) == "5.0.3"
