# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: firewall_rules
short_description: Write the firewall rules for the containers on a network of Docker
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the chains of a table of nftables (family C(inet)) that limit what containers on a bridge reach, and from
    where they are reached, for IPv4 and IPv6.
  - Replies, neighbour discovery, port 53 of the resolvers and what O(allow) names may be reached. What O(deny) names,
    every address of the machine itself, link-local and metadata addresses, and the ranges of O(networks) may not, and
    private networks only where O(private_networks) is true. Everything else may.
  - Only replies, connections to published ports and the machine itself reach the containers.
  - Pure computation on the control node.
options:
  _input:
    description: The network, as C(docker network inspect) reports it.
    type: dict
    required: true
  resolvers:
    description: Addresses of resolvers, or lines of C(resolv.conf). Those on the loopback are ignored.
    type: list
    elements: str
    default: []
  networks:
    description: All networks of the same Docker. The ranges of those that are neither this one nor managed by
      nested.kata, which have such rules themselves, may not be reached.
    type: list
    elements: dict
    default: []
  allow:
    description: What may be reached, each a dictionary with C(network) (an address or a range) and perhaps C(ports)
      (numbers, or ranges such as V(8000-8100)) and C(protocol) (V(tcp) or V(udp), by default both).
    type: list
    elements: dict
    default: []
  deny:
    description: What may not be reached, in the same form. O(allow) takes precedence.
    type: list
    elements: dict
    default: []
  private_networks:
    description: Whether private networks (RFC 1918, 6598 and 4193) may be reached.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Write the rules of a network
  ansible.builtin.copy:
    dest: /etc/nested-kata/firewall/ci.nft
    content: "{{ found.network | nested.kata.firewall_rules(private_networks=false, allow=registries) }}"
    mode: "0644"
  vars:
    registries: [{network: 10.0.0.7, ports: [5000], protocol: tcp}]
"""

RETURN = r"""
_value:
  description: The chains, without the table around them.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.plugin_utils.firewall import Invalid, rules_of


def firewall_rules(network: Mapping[str, Any], **options: Any) -> str:
    """Return the chains for a network."""
    try:
        return rules_of(network, **options)
    except Invalid as problem:
        raise AnsibleFilterError(f"nested.kata.firewall_rules: {problem}") from problem


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"firewall_rules": firewall_rules}
