# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: containers_on
short_description: Find the hosts of the inventory that are containers of a host
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the hosts that are reached by one hop from that host, without their own facts, as P(nested.kata.way#filter).
  - Pure computation on the control node.
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  host:
    description: Name of the host where the containers run.
    type: str
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Ask for the runtime of each instance
  ansible.builtin.command:
    argv: "{{ ['docker', 'inspect', '--format', '{{.HostConfig.Runtime}}', '--'] + containers }}"
  vars:
    containers: "{{ groups.kata_instances | nested.kata.containers_on(inventory_hostname, hostvars) }}"
"""

RETURN = r"""
_value:
  description: Names of the containers.
  type: list
  elements: str
  sample: [kata]
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, way


def containers_on(names: Iterable[str], host: str, hostvars: Hostvars) -> list[str]:
    """Return the containers of a host."""
    found = [way(name, hostvars) for name in names]
    return [one.hops[0] for one in found if one.via == host and len(one.hops) == 1]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"containers_on": containers_on}
