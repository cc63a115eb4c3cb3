# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: resolvers_files
short_description: Choose among the files that name the resolvers of a machine
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the files with a resolver that containers can reach, which is none on the loopback. Where no file has one,
    all of them serve, since a network may come later.
  - Pure computation on the control node.
options:
  _input:
    description: The texts of the files that exist, by their paths.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the best file
  ansible.builtin.debug:
    msg: "{{ {'/etc/resolv.conf': 'nameserver 192.0.2.1'} | nested.kata.resolvers_files | first }}"
"""

RETURN = r"""
_value:
  description: The files, in their order. V(/etc/resolv.conf) where there is none.
  type: list
  elements: str
  sample: [/etc/resolv.conf]
"""

from collections.abc import Callable, Mapping

from ansible_collections.nested.kata.plugins.plugin_utils.firewall import name_servers


def resolvers_files(texts: Mapping[str, str]) -> list[str]:
    """Return the files that serve."""
    usable = [path for path, text in texts.items() if name_servers(text.splitlines())]
    return usable or list(texts) or ["/etc/resolv.conf"]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"resolvers_files": resolvers_files}
