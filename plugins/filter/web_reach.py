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
  - An existing container that is not made again keeps its own environment, so what that one needs is let through too.
  - Pure computation on the control node.
options:
  _input:
    description: The environment that the container is wanted with.
    type: dict
    required: true
  there:
    description: What P(nested.kata.containers_found#filter) found for the name of the container.
    type: dict
    default: {}
  recreate:
    description: Which container that differs is made again.
    type: str
    choices: [never, stopped, always]
    default: stopped
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

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.containers import Found, may_be_made_again
from ansible_collections.nested.kata.plugins.plugin_utils.web import reaches


def web_reach(
    environment: Mapping[str, str], there: Mapping[str, Any] | None = None, recreate: str = "stopped"
) -> list[dict[str, Any]]:
    """Return the entries for an environment, and for that of a container that keeps its own."""
    known = Found(**(there or {}))
    stays = known.exists and not may_be_made_again(known, recreate)
    return reaches([environment, known.environment] if stays else [environment])


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"web_reach": web_reach}
