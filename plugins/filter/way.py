# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: way
short_description: Find out how a host is reached, without its own facts
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Reads what the inventory, C(add_host) and C(set_fact) say about C(ansible_nested_via) and C(ansible_nested_hops).
    What a module in the container returned as a fact has no effect, whatever C(inject_facts_as_vars) is.
  - Pure computation on the control node.
options:
  _input:
    description: Name of the host.
    type: str
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show on which host each instance runs
  ansible.builtin.debug:
    msg: "{{ (item | nested.kata.way(hostvars)).via }}"
  loop: "{{ groups.kata_instances }}"
"""

RETURN = r"""
_value:
  description: C(via) is the host above, or empty; C(hops) lists the containers, outermost first.
  type: dict
  sample: {"via": "kata-in-docker.machine", "hops": ["kata"]}
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils import ways


def way(name: str, hostvars: ways.Hostvars) -> dict[str, Any]:
    """Return the way to a host."""
    found = ways.way(name, hostvars)
    return {"via": found.via, "hops": list(found.hops)}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"way": way}
