# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: name_servers
short_description: List the name servers that other machines reach too
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the addresses of the name servers in lines of C(resolv.conf), without those that mean the machine itself, in
    any spelling, and without IPv6 addresses of a link.
  - Pure computation on the control node.
options:
  _input:
    description: Lines of C(resolv.conf), or addresses.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show which name servers serve containers too
  ansible.builtin.debug:
    msg: "{{ ['nameserver 127.0.0.53', 'nameserver 192.0.2.1'] | nested.kata.name_servers }}"
"""

RETURN = r"""
_value:
  description: The addresses, each once.
  type: list
  elements: str
  sample: [192.0.2.1]
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.plugin_utils.firewall import name_servers


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"name_servers": name_servers}
