# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: removable_images
short_description: Decide which containers and images the role machine_image removes
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the containers and images of a Docker daemon and returns those that the role P(nested.kata.machine_image#role)
    made, which are machine images, leftovers of interrupted builds, and the base image that it brought, and which of
    these a container uses.
  - Containers and images that users made from a machine image inherit its label, so that the label alone does not make
    anything removable.
  - Pure computation on the control node.
options:
  _input:
    description: The containers of the daemon, all of them, as M(community.docker.docker_host_info) returns them.
    type: list
    elements: dict
    required: true
  labelled:
    description: The containers with the label C(nested.kata.image), as a loop over
      M(community.docker.docker_container_info) registers them.
    type: list
    elements: dict
    required: true
  loop_var:
    description: The variable of that loop.
    type: str
    required: true
  images:
    description: The images with the label C(nested.kata.image), as M(community.docker.docker_host_info) returns them.
    type: list
    elements: dict
    required: true
  name:
    description: Name of the machine image, without a tag.
    type: str
    required: true
  brought:
    description: Name and id of the base image that the role brought, with a blank between them. Empty where it brought
      none.
    type: str
    default: ""
  bases:
    description: The images that have that name now.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Decide which images are removed
  ansible.builtin.set_fact:
    removable: >-
      {{ daemon.containers | nested.kata.removable_images(
           labelled=looked.results, loop_var='item', images=daemon.images, name='nested-kata/machine') }}
"""

RETURN = r"""
_value:
  description:
    - C(containers) are the ids of the containers of interrupted builds.
    - C(images) are the names, or ids where they have none, of the images that no container uses. An image of which
      another name or an image built upon it remains only loses this name.
    - C(used) are the images that a container uses, each with its C(name) and the names of its C(users).
  type: dict
  sample:
    containers: []
    images: ["nested-kata/machine:0123456789ab"]
    used: [{name: "debian:trixie-slim", users: [web]}]
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LABEL = "nested.kata.image"  # the Dockerfile's first
FINISHED = "nested.kata.finished"  # and last
BUILDING = "NESTED_KATA_BUILD=machine"  # in the environment of the Dockerfile's own commands
UNTAGGED: tuple[list[str], ...] = ([], ["<none>:<none>"])

Reported = Mapping[str, Any]
"""A container or an image as Docker reports it."""


def removable_images(
    containers: Iterable[Reported],
    labelled: Sequence[Reported],
    loop_var: str,
    images: Iterable[Reported],
    name: str,
    brought: str = "",
    bases: Iterable[Reported] = (),
) -> dict[str, Any]:
    """Return the containers and images that are removed, and the images that stay since a container uses them."""
    interrupted = [
        one["container"]["Id"]
        for one in labelled
        if one["exists"] and BUILDING in (one["container"]["Config"]["Env"] or [])
    ]
    # The builder itself may remove a container while it is looked at, where its client was just interrupted.
    vanished = [one[loop_var]["Id"] for one in labelled if not one["exists"]]
    users: dict[str, list[str]] = {}
    for container in containers:
        if container["Id"] not in [*interrupted, *vanished]:
            users.setdefault(container["ImageID"], []).extend(alias.lstrip("/") for alias in container["Names"] or [])
    found = made(images, name) + brought_base(brought, bases)
    return {
        "containers": interrupted,
        "images": [reference for reference, image in found if image not in users],
        "used": [{"name": reference, "users": users[image]} for reference, image in found if image in users],
    }


def made(images: Iterable[Reported], name: str) -> list[tuple[str, str]]:
    """Return the machine images and those of unfinished builds: for each the name to remove it by, and its id."""
    tag = re.compile(rf"{re.escape(name)}:[0-9a-f]{{12}}")
    own = [one for one in images if LABEL in (one["Labels"] or {})]
    tagged = [(reference, one["Id"]) for one in own for reference in one["RepoTags"] or [] if tag.fullmatch(reference)]
    return tagged + [
        (one["Id"], one["Id"]) for one in own if (one["RepoTags"] or []) in UNTAGGED and FINISHED not in one["Labels"]
    ]


def brought_base(brought: str, bases: Iterable[Reported]) -> list[tuple[str, str]]:
    """Return the base image that the role brought, where its name still means the same image."""
    name, *ids = brought.split() or [""]
    return [(name, one["Id"]) for one in bases if one["Id"] in ids]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"removable_images": removable_images}
