# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: web_reach
short_description: List what the firewall must let through for an environment
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the proxy servers and mirrors in what P(nested.kata.level_environment#lookup) returned, as entries of the
    variables C(kata_instance_allow) and C(kata_proxy_allow), so that they are reached wherever they are.
  - One that has a name in place of an address is left out. Where it is in a range that may not be reached, an entry
    with its address is needed.
  - Pure computation on the control node.
options:
  _input:
    description: The environment.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is let through
  ansible.builtin.debug:
    msg: "{{ lookup('nested.kata.level_environment') | nested.kata.web_reach }}"
"""

RETURN = r"""
_value:
  description: The entries, each once.
  type: list
  elements: dict
  sample: [{network: 192.0.2.10, ports: ["3128"], protocol: tcp}]
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.plugin_utils.web import reaches


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"web_reach": reaches}
