# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: noted
short_description: Read what was noted of hosts, without their own facts
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Reads a variable as the inventory, C(add_host) and C(set_fact) have it. What a module on a host returned as a fact
    of that name has no effect, whatever C(inject_facts_as_vars) is.
  - Pure computation on the control node.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
  variable:
    description: Name of the variable.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what each host of the play noted
  ansible.builtin.debug:
    msg: "{{ ansible_play_batch | nested.kata.noted(hostvars, 'token_of_this_run') }}"
"""

RETURN = r"""
_value:
  description: The values, in the order of the hosts. A host without the variable is left out.
  type: list
  elements: raw
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.plugin_utils.ways import noted


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"noted": noted}
