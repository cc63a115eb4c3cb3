# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision what happens to each image at one destination. Nothing is read or written here."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Mapping

from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, same, short
from ansible_collections.nested.kata.plugins.module_utils._image.reference import others_of


class Action(enum.Enum):
    """An action for an image at a destination."""

    KEEP = "leave it alone"
    TAG = "give it a name"
    SEND = "send it"


@dataclass(frozen=True)
class FoundImage:
    """The state of an image at a destination."""

    replaced: tuple[Image | None, ...]  # under each of the names that the image gets
    unnamed: Image | None = None  # under the id that it has at the source
    by_content: bool = False  # whether different ids may belong to the same image


@dataclass(frozen=True)
class Found:
    """The state of a destination."""

    images: Mapping[str, FoundImage]  # by reference
    tags: tuple[str, ...] = ()  # all names, where some may be removed
    whole: bool = False  # it is written as a whole, when one of its images differs


@dataclass(frozen=True)
class Step:
    """A step for one image."""

    reference: str
    image: Image  # as the source has it
    names: tuple[str, ...]  # those that it gets
    replaced: tuple[Image | None, ...]  # what the destination has under each of them
    action: Action
    reason: str
    there: Image | None = None  # the same image at the destination

    @property
    def id_there(self) -> str:
        """The id of the same image at the destination, where it need not be sent."""
        if self.there is None:
            raise TypeError(f"the destination does not have {self.reference}")
        return self.there.id


@dataclass(frozen=True)
class Sent:
    """The part of one image that was sent to one destination, and its id there."""

    image_id: str
    size: int = 0
    layers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan for a destination: a step for each image, and then names that are removed."""

    steps: tuple[Step, ...]
    pruned: tuple[str, ...]


def decide(names: Mapping[str, tuple[str, ...]], images: Mapping[str, Image], found: Found) -> Plan:
    """Return the plan by which the destination gets the source's images under these names."""
    steps = [
        step_for(reference, image, names[reference], found.images[reference]) for reference, image in images.items()
    ]
    if found.whole and any(step.action is not Action.KEEP for step in steps):
        steps = as_a_whole(steps)
    return Plan(tuple(steps), others_of((name for given in names.values() for name in given), found.tags))


def step_for(reference: str, image: Image, names: tuple[str, ...], found: FoundImage) -> Step:
    """Return the step after which each name leads to the image at the destination."""
    replaced = found.replaced
    right = [held for held in replaced if held is not None and same(image, held, by_content=found.by_content)]
    if len(right) == len(names):
        return Step(reference, image, names, replaced, Action.KEEP, "the destination has the same image", right[0])
    missing = [name for name, held in zip(names, replaced) if held is None]
    wrong = [held for held in replaced if held is not None and held not in right]
    why = (
        "the destination has no image of this name"
        if missing
        else f"the destination has another image of this name ({short(wrong[0].id)})"
    )
    unnamed = (
        [found.unnamed] if found.unnamed is not None and same(image, found.unnamed, by_content=found.by_content) else []
    )
    if right or unnamed:
        return Step(
            reference,
            image,
            names,
            replaced,
            Action.TAG,
            f"{why}, and the same image under another one",
            [*right, *unnamed][0],
        )
    return Step(reference, image, names, replaced, Action.SEND, why)


def as_a_whole(steps: list[Step]) -> list[Step]:
    """Return the steps that send every image, because of this image or of another one."""
    return [
        step
        if step.action is Action.SEND
        else replace(step, action=Action.SEND, reason="the archive is written as a whole")
        for step in steps
    ]
