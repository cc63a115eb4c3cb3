# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: size_in_bytes
short_description: Return the bytes of a size, as disk_image reads it
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns what the option O(nested.kata.disk_image#module:size) means. Unlike with
    P(ansible.builtin.human_to_bytes#filter), V(20GB) are powers of 1000, and the result is a multiple of 4096.
  - Pure computation on the control node.
options:
  _input:
    description: The size, for example V(20G).
    type: str
    required: true
  option:
    description: Name of the option that has it, for the error about one that is not valid.
    type: str
    default: size
"""

EXAMPLES = r"""
- name: Show how large it is
  ansible.builtin.debug:
    msg: "{{ '20G' | nested.kata.size_in_bytes }}"
"""

RETURN = r"""
_value:
  description: The bytes.
  type: int
  sample: 21474836480
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import parse_size


def size_in_bytes(size: str, option: str = "size") -> int:
    """Return the bytes of a size."""
    try:
        return parse_size(str(size), option)
    except Refused as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"size_in_bytes": size_in_bytes}
