# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: instance_entries
short_description: Fill in the defaults of the entries of kata_instance_list
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Merges each entry into the defaults. Dictionaries are merged, lists and single values are replaced.
  - An entry that does not set C(state) is C(present), and one that does not set C(purge) keeps its disk when it is
    removed.
  - Pure computation on the control node.
options:
  _input:
    description: The entries, as in C(kata_instance_list) of the role P(nested.kata.kata_instance#role).
    type: list
    elements: dict
    required: true
  defaults:
    description: The values of keys that an entry leaves out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the memory of each instance
  ansible.builtin.debug:
    msg: "{{ kata_instance_list | nested.kata.instance_entries({'memory': '4g'}) | map(attribute='memory') }}"
"""

RETURN = r"""
_value:
  description: The entries with all defaults filled in.
  type: list
  elements: dict
  sample: [{"name": "web", "memory": "4g", "state": "present", "purge": false}]
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.merge import Table, merged

ALWAYS = {"state": "present", "purge": False}


def instance_entries(entries: Iterable[Table], defaults: Table | None = None) -> list[dict[str, Any]]:
    """Return the entries with the defaults filled in."""
    return [merged(ALWAYS, defaults or {}, entry) for entry in entries]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"instance_entries": instance_entries}
