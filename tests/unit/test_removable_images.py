# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role machine_image removes: what it made, and nothing that people made of it."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.removable_images import FilterModule

removable_images = FilterModule().filters()["removable_images"]

OURS = "nested-kata/machine:0123456789ab"
MADE = {"nested.kata.image": "machine", "nested.kata.finished": "yes"}
HALF = {"nested.kata.image": "machine"}
BASE = "debian:trixie-slim"


def image(number: str, tags: list[str] | None, labels: dict | None = None) -> dict:
    return {"Id": f"sha256:{number}", "RepoTags": tags, "Labels": MADE if labels is None else labels}


def container(number: str, of: str, *names: str) -> dict:
    return {
        "Id": number,
        "ImageID": f"sha256:{of}",
        "Names": [f"/{name}" for name in names or (number,)],
        "Labels": HALF,
    }


def looked(one: dict, env: list[str] | None = None, exists: bool = True) -> dict:
    found = {"Id": one["Id"], "Config": {"Env": env}} if exists else None
    return {"item": one, "exists": exists, "container": found}


def decide(containers: list[dict] = (), images: list[dict] = (), labelled: list[dict] = (), **more: object) -> tuple:
    found = removable_images(
        list(containers),
        labelled=list(labelled),
        loop_var="item",
        images=list(images),
        name="nested-kata/machine",
        **more,
    )
    return found["containers"], found["images"], {one["name"]: one["users"] for one in found["used"]}


# the images, what is removed of them
IMAGES = {
    "a machine image": ([image("1", [OURS])], [OURS]),
    "of two names only the role's": ([image("1", [OURS, "mine:1"])], [OURS]),
    "built upon a machine image": ([image("1", ["mine:1"])], []),
    "another tag of the same name": (
        [image("1", ["nested-kata/machine:latest", "nested-kata/machine:0123456789abc"])],
        [],
    ),
    "the same name in a registry": ([image("1", ["example.org/nested-kata/machine:0123456789ab"])], []),
    "the role's name without its label": ([image("1", [OURS], {})], []),
    "no tag, and not finished": (
        [image("1", None, HALF), image("2", [], HALF), image("3", ["<none>:<none>"], HALF)],
        ["sha256:1", "sha256:2", "sha256:3"],
    ),
    "no tag any more, and finished": ([image("1", None), image("2", [])], []),
    "without any label": ([{"Id": "sha256:1", "RepoTags": None, "Labels": None}], []),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images_that_are_removed(case: str) -> None:
    images, removed = IMAGES[case]
    assert decide(images=images) == ([], removed, {})


def test_an_image_that_a_container_uses_stays_and_names_its_users() -> None:
    containers = [container("c1", "1", "web", "alias"), container("c2", "1", "db"), container("c3", "9")]
    assert decide(containers, [image("1", [OURS]), image("2", None, HALF)]) == (
        [],
        ["sha256:2"],
        {OURS: ["web", "alias", "db"]},
    )


def test_a_container_of_an_interrupted_build_is_removed_and_keeps_no_image() -> None:
    build, person = container("c1", "2"), container("c2", "1")
    labelled = [looked(build, ["PATH=/bin", "NESTED_KATA_BUILD=machine"]), looked(person, ["PATH=/bin"])]
    assert decide([build, person], [image("1", [OURS]), image("2", None, HALF)], labelled) == (
        ["c1"],
        ["sha256:2"],
        {OURS: ["c2"]},
    )


def test_a_container_without_an_environment_is_somebody_s() -> None:
    one = container("c1", "1")
    assert decide([one], [image("1", [OURS])], [looked(one)]) == ([], [], {OURS: ["c1"]})


def test_a_container_that_is_gone_when_it_is_looked_at_keeps_no_image() -> None:
    one = container("c1", "2")
    assert decide([one], [image("2", None, HALF)], [looked(one, exists=False)]) == ([], ["sha256:2"], {})


# what is noted as brought, the ids of the images of that name, what is removed
BASES = [
    (f"{BASE} sha256:a", ["a"], [BASE]),
    (f"{BASE} sha256:a", ["b"], []),
    (f"{BASE} sha256:a", [], []),
    (f"{BASE} ", ["a"], []),
    ("", ["a"], []),
]


@pytest.mark.parametrize(("brought", "there", "removed"), BASES)
def test_the_base_image_goes_where_its_name_still_means_the_one_that_was_brought(
    brought: str, there: list[str], removed: list[str]
) -> None:
    assert decide(brought=brought, bases=[{"Id": f"sha256:{number}"} for number in there]) == ([], removed, {})


def test_the_base_image_stays_while_a_container_uses_it() -> None:
    assert decide([container("c1", "a", "mine")], brought=f"{BASE} sha256:a", bases=[{"Id": "sha256:a"}]) == (
        [],
        [],
        {BASE: ["mine"]},
    )
