# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: instance_sockets
short_description: List the sockets that a Kata host has for its instances
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Finds the instances that are reached from a Kata host, on itself and in its proxies, by what
    P(nested.kata.way#filter) returns for them.
  - The group of each is the variable C(kata_instance_group) of the instance in the inventory, never one of its facts.
  - Fails where two instances would have the same socket, and where a group cannot have its name.
  - Pure computation on the control node.
options:
  _input:
    description: Names of instances in the inventory.
    type: list
    elements: str
    required: true
  host:
    description: Name of the Kata host.
    type: str
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show who may use the instances of this host
  ansible.builtin.debug:
    msg: "{{ groups.kata_instances | nested.kata.instance_sockets(inventory_hostname, hostvars) }}"
"""

RETURN = r"""
_value:
  description: The sockets, sorted by C(name). C(hops) are the containers that lead to the instance, outermost first.
  type: list
  elements: dict
  sample: [{"name": "kata", "hops": ["kata-in-docker", "kata"], "group": "nested-kata-kata"}]
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.plugin_utils.sockets import Invalid, sockets_of
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars


def instance_sockets(instances: Iterable[str], host: str, hostvars: Hostvars) -> list[dict[str, Any]]:
    """Return the sockets, or raise AnsibleFilterError."""
    try:
        return sockets_of(instances, host, hostvars)
    except Invalid as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"instance_sockets": instance_sockets}
