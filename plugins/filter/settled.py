# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: settled
short_description: Find out whether there is nothing to do for a container that the roles make
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Compares all that the roles make for a container, and what it answered, with what M(nested.kata.host_info) and
    M(nested.kata.disk_image_info) found. Where anything differs or is unknown, the roles handle the container.
  - Pure computation on the control node.
options:
  _input:
    description:
      - What is wanted. C(container) is the container, as the role C(internal_machine) takes it, C(found) what
        P(nested.kata.containers_found#filter) found for its name, and C(running) whether it is to run.
      - C(label) is the label of its own network, C(network) the network's name, C(rules) what may be reached from it,
        as P(nested.kata.firewall_rules#filter) takes it. C(files) are the files that it needs, as
        P(nested.kata.differing#filter) takes them, C(absent) the paths that must not exist.
      - C(units) are names of units, each with the states that they have in RV(nested.kata.host_info#module:units).
      - C(answer) is what the command of its name answers, without C(images), whose ids follow.
      - C(disk) has C(path), C(size), C(fstype) and C(link).
    type: dict
    required: true
  host:
    description: What M(nested.kata.host_info) found.
    type: dict
    required: true
  disks:
    description: What M(nested.kata.disk_image_info) found, as RV(nested.kata.disk_image_info#module:images) has it.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Say whether there is something to do
  ansible.builtin.debug:
    msg: "{{ 'nothing' if wanted | nested.kata.settled(host) else 'something' }}"
"""

RETURN = r"""
_value:
  description: Whether everything is as wanted.
  type: bool
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.settled import unsettled


def settled(wanted: Mapping[str, Any], host: Mapping[str, Any], disks: Iterable[Mapping[str, Any]] = ()) -> bool:
    """Return whether everything is as wanted."""
    return not unsettled(wanted, host, disks)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"settled": settled}
