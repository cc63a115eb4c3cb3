# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: removable_instances
short_description: Turn the instances of a daemon into entries that remove them
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes containers and returns for each that has the label of an instance managed by nested.kata an entry for
    C(kata_instance_list) with the state C(absent).
  - Pure computation on the control node.
options:
  _input:
    description: The containers, as M(community.docker.docker_host_info) returns them.
    type: list
    elements: dict
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
    kata_instance_list: "{{ found.containers | nested.kata.removable_instances }}"
"""

RETURN = r"""
_value:
  description: The entries.
  type: list
  elements: dict
  sample: [{"name": "web", "state": "absent", "purge": false}]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

LABEL = "nested.kata.instance"


def removable_instances(containers: Iterable[Mapping[str, Any]], purge: bool = False) -> list[dict[str, Any]]:
    """Return an entry for each instance among the containers."""
    return [
        {"name": one["Names"][0].lstrip("/"), "state": "absent", "purge": purge}
        for one in containers
        if LABEL in (one.get("Labels") or {})
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"removable_instances": removable_instances}
