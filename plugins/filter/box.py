# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: box
short_description: Frame lines so that they cannot be missed
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description: Draws a box of hash signs around lines of text.
options:
  _input:
    description: The lines.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Warn
  ansible.builtin.debug:
    msg: "{{ ['This isolates nothing.'] | nested.kata.box }}"
"""

RETURN = r"""
_value:
  description: The lines with their frame.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.plugin_utils import table


def box(lines: Iterable[str]) -> list[str]:
    """Return the lines with their frame."""
    return table.box(list(lines))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"box": box}
