# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: taken_names
short_description: Find containers whose name in the inventory belongs to another host
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - A role adds containers to the inventory. Under a name that the inventory has already, the container would get the
    variables of that host, secrets among them, and the host would be reached in the container.
  - A name is free where no host has it, or where that host is the same container by P(nested.kata.way#filter), and no
    other container of the play is to get it.
  - Pure computation on the control node.
options:
  _input:
    description: Names of the hosts of the play that add containers.
    type: list
    elements: str
    required: true
  host:
    description: The host whose containers are checked.
    type: str
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
  variable:
    description: "The variable where each host notes its containers: the name of each, with its name as a host."
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse a name that another host has
  ansible.builtin.fail:
    msg: "{{ taken | join(', ') }}"
  when: taken | length > 0
  vars:
    taken: "{{ ansible_play_hosts | nested.kata.taken_names(inventory_hostname, hostvars, 'kata_instance_names') }}"
"""

RETURN = r"""
_value:
  description: For each container whose name is taken what it is called and whose name it is.
  type: list
  elements: str
  sample: ["db would be db.c in the inventory, as is another host"]
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, Way, way


def taken_names(hosts: Iterable[str], host: str, hostvars: Hostvars, variable: str) -> list[str]:
    """Return what is wrong with the names of a host's containers."""
    wanted: dict[str, list[Way]] = {}
    for via in hosts:
        for container, name in hostvars[via].get(variable, {}).items():
            wanted.setdefault(name, []).append(Way(via, (container,)))
    found = []
    for name, ways in wanted.items():
        for mine in (one for one in ways if one.via == host):
            others = [f"{one.hops[0]} on {one.via}" for one in ways if one != mine]
            if name in hostvars and way(name, hostvars) != mine:
                others.append("another host")
            if others:
                found.append(f"{mine.hops[0]} would be {name} in the inventory, as is {' and '.join(others)}")
    return found


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"taken_names": taken_names}
