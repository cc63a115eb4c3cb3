# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Platforms in all of their spellings."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import (
    best,
    normal,
    parse_platform,
    platform_of,
    runs_on,
)

SPELLINGS = {
    "linux/amd64": ["linux/amd64", "linux/amd64/v1", "linux/x86_64", "linux/x86-64", "Linux/AMD64"],
    "linux/amd64/v3": ["linux/amd64/v3", "linux/x86_64/v3"],
    "linux/arm64": ["linux/arm64", "linux/arm64/v8", "linux/arm64/8", "linux/arm64/v8.0", "linux/aarch64"],
    "linux/arm64/v9": ["linux/arm64/v9", "linux/arm64/9", "linux/arm64/v9.0"],
    "linux/arm/v7": ["linux/arm", "linux/arm/v7", "linux/arm/7", "linux/armhf"],
    "linux/arm/v6": ["linux/arm/v6", "linux/arm/6", "linux/armel"],
    "linux/386": ["linux/386", "linux/i386"],
    "windows/amd64": ["windows/amd64"],
    "linux/riscv64": ["linux/riscv64"],
    "": [""],
}


@pytest.mark.parametrize(("one", "spelling"), [(one, spelling) for one, all_ in SPELLINGS.items() for spelling in all_])
def test_every_spelling_of_a_platform_becomes_one(one: str, spelling: str) -> None:
    assert normal(spelling) == one
    assert normal(one) == one


@pytest.mark.parametrize(
    ("platform", "wanted", "fits"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64/v9", False),
        ("linux/arm64/v9", "linux/arm64", True),
        ("linux/arm64/v9", "linux/arm64/v8", False),
        ("linux/arm64", "linux/arm", False),
        ("linux/arm64", "linux/amd64", False),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64/v1", "linux/amd64", True),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/amd64/v3", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v3", False),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("windows/amd64", "linux/amd64", False),
        ("", "linux/amd64", False),
    ],
)
def test_a_platform_without_a_variant_is_content_with_any(platform: str, wanted: str, fits: bool) -> None:
    assert runs_on(platform, wanted) is fits


@pytest.mark.parametrize(
    ("platforms", "wanted", "numbers"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64/v8", [1]),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", [1]),
        (["linux/amd64/v2", "linux/amd64/v3"], "linux/amd64", [0, 1]),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm", [2]),
        (["linux/arm/v6", "linux/arm64/v8"], "linux/arm", [0]),
        (["linux/amd64"], "linux/s390x", []),
    ],
)
def test_the_same_platform_is_better_than_one_with_a_variant(
    platforms: list[str], wanted: str, numbers: list[int]
) -> None:
    assert best(platforms, wanted) == numbers


def test_a_platform_has_the_parts_that_are_known() -> None:
    assert platform_of("linux", "arm", "v7") == "linux/arm/v7"
    assert platform_of("linux", "amd64", None) == platform_of("linux", "amd64", "") == "linux/amd64"
    assert platform_of(None, "") == ""


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "linux/x86_64"])
def test_a_platform_is_taken_as_it_is_written(text: str) -> None:
    assert parse_platform(text) == text


@pytest.mark.parametrize("text", ["", "arm64", "linux/", "linux/arm64/v8/x", "linux/arm 64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not a valid platform: write os/architecture"):
        parse_platform(text)
