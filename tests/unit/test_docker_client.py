# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions that the Docker SDK's client is used with."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.client import api_version, sdk_too_old


@pytest.mark.parametrize(
    ("found", "known", "spoken"),
    [
        ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "1.45", "1.41"),
        ({"ApiVersion": "1.51", "MinAPIVersion": "1.24"}, "1.45", "1.45"),
        ({"ApiVersion": "1.9"}, "1.45", "1.9"),
        ({"ApiVersion": "1.52", "MinAPIVersion": "1.44"}, "1.41", "1.44"),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(found: dict, known: str, spoken: str) -> None:
    assert api_version(found, known) == spoken


@pytest.mark.parametrize(
    ("version", "too_old"),
    [
        ("5.0.2", True),
        ("4.99", True),
        ("", True),
        ("5.0.3", False),
        ("5.0.3+dfsg", False),
        ("7.2.0", False),
        ("7.3.0.dev1", False),
    ],
)
def test_an_sdk_is_too_old_before_5_0_3(version: str, too_old: bool) -> None:
    assert sdk_too_old(version) is too_old
