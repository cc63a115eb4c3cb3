# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: removable_instances
short_description: Turn the instances on a target into entries that remove them
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns entries for C(kata_instance_list) with the state C(absent), for each instance that a role made, also where a
    removal was interrupted and only a part is left.
  - A container is an instance where its label is its own name and there are settings or a disk of that name. An image
    that was made from an instance hands on its labels. The names of other containers are left out.
  - An instance on the own network of another one, which is not removed while somebody is on it, comes before that one.
  - Pure computation on the control node.
options:
  _input:
    description: All containers, as M(community.docker.docker_host_info) returns them with O(ignore:verbose_output).
    type: list
    elements: dict
    required: true
  settings:
    description: The files in C(/etc/nested-kata/instances), each named after an instance.
    type: list
    elements: str
    required: true
  disks:
    description: The files in C(/var/lib/nested-kata/disks), each named after an instance.
    type: list
    elements: str
    required: true
  purge:
    description: Whether the disks are removed too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Remove all instances, and keep their disks
  ansible.builtin.include_role:
    name: nested.kata.kata_instance
  vars:
    kata_instance_list: "{{ found.containers | nested.kata.removable_instances(settings=settings, disks=disks) }}"
"""

RETURN = r"""
_value:
  description: The entries, in an order in which they can be removed.
  type: list
  elements: dict
  sample: [{"name": "web", "state": "absent", "purge": false}]
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

LABEL = "nested.kata.instance"
NETWORK = "nested-kata-"  # begins the name of an instance's own network
GOLDEN = "nested-kata-golden-"  # begins the names of the containers that make golden disks, which have no settings


def removable_instances(
    containers: Iterable[Mapping[str, Any]], settings: Iterable[str], disks: Iterable[str], purge: bool = False
) -> list[dict[str, Any]]:
    """Return an entry for each instance of which something is there."""
    known, left = ({PurePath(file).stem for file in files} for files in (settings, disks))
    there = {(one["Names"] or [""])[0].lstrip("/"): one for one in containers}
    labels = {name: (one["Labels"] or {}).get(LABEL) for name, one in there.items()}
    own = {
        name for name, label in labels.items() if label == name and (name in known | left or name.startswith(GOLDEN))
    }
    names = own | ((known | left) - set(there))
    return [{"name": name, "state": "absent", "purge": purge} for name in _guests_first(names, there)]


def _guests_first(names: Iterable[str], there: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names, each after those whose containers are on its own network, as far as that is possible."""
    waiting = sorted(names)
    on = {name: set((there.get(name, {}).get("NetworkSettings") or {}).get("Networks") or {}) for name in waiting}
    while waiting:
        alone = (one for one in waiting if not any(NETWORK + one in on[other] for other in waiting if other != one))
        first = next(alone, waiting[0])
        waiting.remove(first)
        yield first


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"removable_instances": removable_instances}
