# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a destination has, and what happens to each image there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Found, FoundImage, decide, step_for

SOURCE = Image("sha256:" + "1" * 64, ("sha256:" + "a" * 64,), "as the source prints it", "linux/amd64")
OTHER = Image("sha256:" + "2" * 64, ("sha256:" + "b" * 64,), "another one", "linux/amd64")
SAME = replace(SOURCE, config="printed in another way")


# What the destination has under each name, under the source's id, and what follows.
DECISIONS = [
    ((None,), None, Action.SEND, "the destination has no image of this name"),
    ((SAME,), None, Action.KEEP, "the destination has the same image"),
    ((OTHER,), None, Action.SEND, "the destination has another image of this name (222222222222)"),
    ((None,), SAME, Action.TAG, "the destination has no image of this name, and the same image under another one"),
    ((None,), OTHER, Action.SEND, "the destination has no image of this name"),
    ((SAME, SAME), None, Action.KEEP, "the destination has the same image"),
    ((SAME, None), None, Action.TAG, "the destination has no image of this name, and the same image under another one"),
    (
        (SAME, OTHER),
        None,
        Action.TAG,
        "the destination has another image of this name (222222222222), and the same image under another one",
    ),
    ((OTHER, None), None, Action.SEND, "the destination has no image of this name"),
]


@pytest.mark.parametrize(("replaced", "unnamed", "action", "reason"), DECISIONS)
def test_what_a_destination_has_decides_what_it_gets(
    replaced: tuple[Image | None, ...],
    unnamed: Image | None,
    action: Action,
    reason: str,
) -> None:
    step = step_for(
        "a:1", SOURCE, tuple(f"b:{number}" for number in range(len(replaced))), FoundImage(replaced, unnamed)
    )
    assert (step.action, step.reason, step.replaced) == (action, reason, replaced)
    assert (step.there is SAME) is (action is not Action.SEND)


def test_two_ids_are_of_the_same_image_where_one_is_that_of_containerds_store() -> None:
    there = replace(SOURCE, id="sha256:" + "3" * 64)
    actions = [
        step_for("a:1", SOURCE, ("a:1",), FoundImage((there,), by_content=content)).action for content in (False, True)
    ]
    assert actions == [Action.SEND, Action.KEEP]


NAMES = {"a:1": ("a:1",), "b:1": ("b:2", "b:3")}
IMAGES = {"a:1": SOURCE, "b:1": OTHER}


@pytest.mark.parametrize(
    ("whole", "held", "actions"),
    [
        (False, (OTHER, OTHER), [Action.KEEP, Action.KEEP]),
        (False, (OTHER, None), [Action.KEEP, Action.TAG]),
        (False, (None, None), [Action.KEEP, Action.SEND]),
        (True, (OTHER, OTHER), [Action.KEEP, Action.KEEP]),
        (True, (OTHER, None), [Action.SEND, Action.SEND]),
        (True, (None, None), [Action.SEND, Action.SEND]),
    ],
)
def test_what_is_written_as_a_whole_gets_all_images_or_none(whole: bool, held: tuple, actions: list[Action]) -> None:
    plan = decide(NAMES, IMAGES, Found({"a:1": FoundImage((SAME,)), "b:1": FoundImage(held)}, whole=whole))
    assert [step.action for step in plan.steps] == actions
    assert [step.reference for step in plan.steps] == ["a:1", "b:1"]
    assert (plan.steps[0].reason == "the archive is written as a whole") is (actions[0] is Action.SEND)


def test_other_tags_of_the_names_at_the_destination_are_pruned() -> None:
    images = {"a:1": FoundImage((SAME,)), "b:1": FoundImage((OTHER, OTHER))}
    assert decide(NAMES, IMAGES, Found(images)).pruned == ()
    assert decide(NAMES, IMAGES, Found(images, ("a:1", "a:2", "b:1", "b:2", "b:3", "c:1"))).pruned == ("a:2", "b:1")
