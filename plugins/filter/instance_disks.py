# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: instance_disks
short_description: List the disks of instances as parts that take room
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the disks of instances as the option O(nested.kata.host_check#module:space) takes them. They are sparse.
  - Pure computation on the control node.
options:
  _input:
    description: The entries of C(kata_instance_list), filled in by P(nested.kata.instance_entries#filter).
    type: list
    elements: dict
    required: true
  directory:
    description: Directory of the disks.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Check whether the disks fit
  nested.kata.host_check:
    space: "{{ instances | nested.kata.instance_disks('/var/lib/nested-kata/disks') }}"
"""

RETURN = r"""
_value:
  description: The disks.
  type: list
  elements: dict
  sample: [{"path": "/var/lib/nested-kata/disks/web.img", "size": "20G", "sparse": true, "purpose": "web"}]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def instance_disks(instances: Iterable[Mapping[str, Any]], directory: str) -> list[dict[str, Any]]:
    """Return the disk of each instance."""
    return [
        {
            "path": f"{directory}/{one['name']}.img",
            "size": one["disk"].get("max_size") or one["disk"]["size"],
            "sparse": True,
            "purpose": one["name"],
        }
        for one in instances
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"instance_disks": instance_disks}
