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
    names_a_digest,
    near,
    others_of,
    parse_reference,
    parse_references,
    parse_source,
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


HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "reference", "by_digest"),
    [
        ("debian", "debian:latest", False),
        (HEX, f"sha256:{HEX}", True),
        (f"sha256:{HEX}", f"sha256:{HEX}", True),
        (f"debian@sha256:{HEX}", f"debian@sha256:{HEX}", True),
        (f"docker.io/library/debian:12@sha256:{HEX}", f"debian@sha256:{HEX}", True),
        (f"registry:5000/a/b@sha256:{HEX}", f"registry:5000/a/b@sha256:{HEX}", True),
    ],
)
def test_a_source_may_have_an_image_by_its_id_or_a_digest(text: str, reference: str, by_digest: bool) -> None:
    assert parse_source(text) == parse_source(reference) == reference
    assert names_a_digest(reference) is by_digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sha256:abc", "names a digest that is not valid"),
        ("sha512:" + "a" * 128, "names a digest that is not valid"),
        ("debian@sha256:abc", "names a digest that is not valid"),
        ("debian@" + HEX, "names a digest that is not valid"),
        ("sha256:" + "A" * 64, "names a digest that is not valid"),
        (f"@sha256:{HEX}", "'' is not a valid part of a name"),
        (f"Debian@sha256:{HEX}", "lower case"),
        ("Debian", "lower case"),
    ],
)
def test_what_leads_to_no_image_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse_source(text)


def test_an_image_that_is_named_by_its_id_gets_its_name_by_tags() -> None:
    ids = (f"sha256:{HEX}", f"debian@sha256:{HEX}")
    assert parse_tags({HEX: "a:1", f"debian:12@sha256:{HEX}": ["b:1"]}, ids) == {ids[0]: ("a:1",), ids[1]: ("b:1",)}
    with pytest.raises(Refused, match="names a digest: give the image a tag"):
        parse_tags({HEX: f"a@sha256:{HEX}"}, ids)


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


def test_the_same_repository_of_another_registry_is_near() -> None:
    tags = ["registry.example/team/shop:2", "localhost/shop:1", "nginx:latest", "a/shopping:1"]
    assert near("shop:1", tags)[:2] == ("localhost/shop:1", "registry.example/team/shop:2")
    assert near("registry.example/shop:1", ["shop:1", "x:1"]) == ("shop:1",)


PODMAN = "near: localhost/shop:1, since podman names what it builds so: name that, and in tags the name that it gets"
MANY = [f"{name}:1" for name in ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")]


@pytest.mark.parametrize(
    ("reference", "tags", "nameless", "message"),
    [
        ("debain:12", ["debian:12", "nginx:latest"], (), "no image debain:12 (near: debian:12)"),
        ("zzz:1", ["debian:12", "nginx:latest"], (), "no image zzz:1 (it has debian:12 and nginx:latest)"),
        ("zzz:1", ["debian:12"], (), "no image zzz:1 (it has debian:12)"),
        ("zzz:1", MANY, (), "no image zzz:1 (none of the 6 images there has a name near it)"),
        ("zzz:1", [], (), "no image zzz:1 (there is none with a name)"),
        ("zzz:1", [], ["sha256:0"], "no image zzz:1 (it has without a name sha256:0, to be named by id)"),
        (
            "zzz:1",
            ["debian:12"],
            ["sha256:0 (tag 3)", "sha256:1"],
            "no image zzz:1 (it has debian:12 and without a name sha256:0 (tag 3) and sha256:1, to be named by id)",
        ),
        (f"sha256:{HEX}", ["debian:12"], (), f"no image sha256:{HEX} (it has debian:12)"),
        (
            "shop:1",
            ["localhost/shop:1", "shop:2"],
            (),
            f"no image shop:1 ({PODMAN})",
        ),
    ],
)
def test_an_image_that_is_absent_is_told_with_what_is_near_it_or_there(
    reference: str, tags: list[str], nameless: list[str], message: str
) -> None:
    assert absent(reference, tags, nameless) == message


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
