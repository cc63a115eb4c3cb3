# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon.json with which dockerd does not start is refused."""

from __future__ import annotations

import re

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import (
    NotUsable,
    settings_of,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# mine\n{}", "has a comment in line 1"),
        ('{\n  /* x */ "a": 1}', "has a comment in line 2"),
        ('{"a": 1} // x', "has a comment in line 1"),
        ('{"a": "// no comment"', "is not valid JSON in line 1"),
        ("{'a': 1}", "is not valid JSON in line 1"),
        ("[]", "holds no object"),
        ('"x"', "holds no object"),
        (
            '{"debug": 1}',
            "is nothing that dockerd starts with: debug is the number 1, and dockerd takes only true or false",
        ),
    ],
)
def test_a_daemon_json_that_dockerd_refuses_is_told_by_its_line(text: str, words: str) -> None:
    with pytest.raises(NotUsable, match=re.escape(words)):
        settings_of(text)


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_a_daemon_json_may_say_nothing(text: str) -> None:
    assert settings_of(text) == {}
