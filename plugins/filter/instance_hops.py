# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: instance_hops
short_description: Find the way from a Kata host to each of its instances
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - An instance is a container of the Kata host, or of a proxy on it. Its hops, and those of the proxy before them, are
    the way, without their own facts, as P(nested.kata.way#filter).
  - Pure computation on the control node.
options:
  _input:
    description: Names of the instances in the inventory.
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
- name: Bring an image to all instances of a Kata host
  nested.kata.image_transfer:
    images: [debian:trixie-slim]
    destinations: "{{ groups.kata_instances | nested.kata.instance_hops(inventory_hostname, hostvars) }}"
"""

RETURN = r"""
_value:
  description: The instances of that host, each as a destination of M(nested.kata.image_transfer).
  type: list
  elements: dict
  sample: [{"hops": ["kata-in-docker", "kata"]}]
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, hops_from


def instance_hops(instances: Iterable[str], host: str, hostvars: Hostvars) -> list[dict[str, list[str]]]:
    """Return the way to each instance of a host."""
    ways = [hops_from(host, name, hostvars) for name in instances]
    return [{"hops": [*hops]} for hops in ways if hops]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"instance_hops": instance_hops}
