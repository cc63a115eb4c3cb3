# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of images as people write them, and as daemons list them."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._image.reference import (
    absent,
    enumerated,
    full_name,
    near,
    others_of,
    parse_reference,
    parse_references,
    parse_tags,
)
from hypothesis import given
from hypothesis import strategies as st

# What a person writes, and the one spelling that daemons list.
SPELLINGS = [
    ("debian", "debian:latest"),
    ("debian:trixie-slim", "debian:trixie-slim"),
    ("docker.io/library/debian", "debian:latest"),
    ("index.docker.io/library/debian:12", "debian:12"),
    ("library/debian:12", "debian:12"),
    ("docker.io/somebody/thing:1", "somebody/thing:1"),
    ("somebody/thing", "somebody/thing:latest"),
    ("registry:5000/a/b:tag", "registry:5000/a/b:tag"),
    ("registry:5000/a/b", "registry:5000/a/b:latest"),
    ("localhost/a", "localhost/a:latest"),
    ("[fd00::1]:5000/a:1", "[fd00::1]:5000/a:1"),
    ("Upper.example/a", "Upper.example/a:latest"),
    ("a__b/c--d.e:T_1.2-x", "a__b/c--d.e:T_1.2-x"),
    ("deadbeef", "deadbeef:latest"),
]

# What is no reference, and the words that say why.
MALFORMED = [
    ("", "'' is not a valid part of a name"),
    (":tag", "'' is not a valid part of a name"),
    ("name:", "'' is not a valid tag"),
    ("name:-x", "'-x' is not a valid tag"),
    ("name:" + "x" * 129, "is not a valid tag"),
    ("Debian", "lower case"),
    ("a//b", "'' is not a valid part of a name"),
    ("-a", "'-a' is not a valid part of a name"),
    ("a b", "'a b' is not a valid part of a name"),
    ("a\nb", "is not a valid part of a name"),
    ("regi_stry.x/a", "'regi_stry.x' is not a valid registry"),
    ("https://registry/a", "is not a valid registry"),
    ("x" * 256, "longer than 255"),
    ("a" * 64, "image id"),
    ("sha256:" + "a" * 64, "digest"),
    ("debian@sha256:" + "a" * 64, "digest"),
    ("debian:12@sha256:" + "a" * 64, "digest"),
]


@pytest.mark.parametrize(("text", "reference"), SPELLINGS)
def test_every_spelling_of_a_name_becomes_the_one_that_daemons_list(text: str, reference: str) -> None:
    assert parse_reference(text) == reference
    assert parse_reference(reference) == reference


@pytest.mark.parametrize(("text", "why"), MALFORMED)
def test_what_is_no_reference_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_reference(text)
    assert why in str(refused.value)
    assert repr(text) in str(refused.value)


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Refused:
        return
    assert parse_reference(reference) == reference


def test_an_image_that_is_named_twice_is_moved_once() -> None:
    assert parse_references(["b", "a:1", "docker.io/library/b:latest"]) == ("b:latest", "a:1")


def test_tags_are_the_names_that_an_image_gets_instead_of_its_own() -> None:
    assert parse_tags({"a": "b:2", "docker.io/c:1": ["c:1", "c"]}, ("a:latest", "c:1", "d:1")) == {
        "a:latest": ("b:2",),
        "c:1": ("c:1", "c:latest"),
        "d:1": ("d:1",),
    }


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"b": "c:1"}, "'b' is not among the images"),
        ({"a": "C"}, "'C' is not an image name"),
        ({"a": []}, "'a' has no name"),
        ({"a": "d:1"}, "'d:1' would name both a:latest and d:1"),
    ],
)
def test_tags_that_cannot_be_are_refused(tags: dict, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_tags(tags, ("a:latest", "d:1"))
    assert why in str(refused.value)


def test_other_tags_are_those_of_the_same_repositories() -> None:
    assert others_of(["a:2", "r:5/b:1"], ["a:1", "a:2", "ab:1", "r:5/b:1", "r:5/b:0", "b:0"]) == ("a:1", "r:5/b:0")


def test_other_tags_of_the_repository_are_the_nearest_names() -> None:
    tags = ["debian:trixie-slim", "debian:bookworm", "debiam:1", "nginx:latest"]
    assert near("debian:trixi-slim", tags)[0] == "debian:trixie-slim"
    assert "debian:bookworm" in near("debian:trixi-slim", tags)
    assert "nginx:latest" not in near("debian:trixi-slim", tags)


def test_a_repository_that_is_misspelt_has_near_names() -> None:
    assert near("debain:1.2.3.4", ["debian:trixie-slim", "nginx:latest"]) == ("debian:trixie-slim",)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("debain:12", "no image debain:12 (near: debian:12)"),
        ("zzz:latest", "no image zzz:latest (none of the 2 names there is near it)"),
    ],
)
def test_an_image_that_is_absent_is_told_with_its_near_names(reference: str, message: str) -> None:
    assert absent(reference, ["debian:12", "nginx:latest"]) == message


@pytest.mark.parametrize(
    ("words", "sentence"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed_as_in_a_sentence(words: list[str], sentence: str) -> None:
    assert enumerated(words) == sentence


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("debian:12", "docker.io/library/debian:12"),
        ("a/b:1", "docker.io/a/b:1"),
        ("r:5/a:1", "r:5/a:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("r.example/a:1", "r.example/a:1"),
    ],
)
def test_a_name_with_its_registry_is_what_containerd_wants(name: str, full: str) -> None:
    assert full_name(name) == full
