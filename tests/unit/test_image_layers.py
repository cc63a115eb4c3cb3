# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers a daemon has, and whether they are what their digests say."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    Blob,
    Manifest,
    base_held,
    chain_ids,
    left_out,
    verified,
)
from image_builder import digest


def test_a_chain_id_names_a_layer_with_all_below_it() -> None:
    assert chain_ids(["sha256:a", "sha256:b", "sha256:c"]) == (
        "sha256:a",
        digest(b"sha256:a sha256:b"),
        digest(f"{digest(b'sha256:a sha256:b')} sha256:c".encode()),
    )


@pytest.mark.parametrize(
    ("others", "base"),
    [
        ([], 0),
        (["abc"], 3),
        (["ab"], 2),
        (["ba", "bc"], 0),
        (["ab", "abx"], 2),
        (["abcd"], 3),
        (["x", "a"], 1),
    ],
)
def test_only_layers_from_the_base_on_are_held(others: list[str], base: int) -> None:
    held = {chain for other in others for chain in chain_ids(tuple(other))}
    assert base_held(tuple("abc"), held) == base


@pytest.mark.parametrize(("base", "left"), [(0, set()), (1, set()), (2, {"b"}), (4, {"a", "b", "c"})])
def test_a_layer_that_comes_again_above_the_base_is_not_left_out(base: int, left: set[str]) -> None:
    assert left_out(("a", "b", "a", "c"), base) == left


PARTS = [Blob(digest(b"onetwo"), 6), b"one", b"two", Blob(digest(b"three"), 5), b"three", Manifest(b"", ())]


def test_layers_that_have_their_digests_pass_unchanged() -> None:
    assert list(verified(PARTS)) == PARTS


@pytest.mark.parametrize(
    ("number", "part", "why"),
    [
        (2, b"tw", f"layer {digest(b'onetwo')[:19]} ends 1 bytes too early"),
        (2, b"owt", f"layer {digest(b'onetwo')[:19]} has another digest"),
        (4, b"eerht", f"layer {digest(b'three')[:19]} has another digest"),
    ],
)
def test_a_layer_that_does_not_have_its_digest_is_damaged(number: int, part: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        list(verified([*PARTS[:number], part, *PARTS[number + 1 :]]))


@pytest.mark.parametrize("last", [b"owt", b"two more"])
def test_nobody_gets_the_whole_of_a_layer_that_does_not_have_its_digest(last: bytes) -> None:
    passed = []
    with pytest.raises(Damaged):
        for part in verified([*PARTS[:2], last, *PARTS[3:]]):
            passed.append(part)  # what was passed on before the error counts
    assert passed == PARTS[:2]
