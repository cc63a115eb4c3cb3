# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: table
short_description: Render rows as a plain text table
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description: Columns are as wide as their widest cell; a rule separates the headers from the rows.
options:
  _input:
    description: The rows, each a list of cells.
    type: list
    elements: list
    required: true
  headers:
    description: The heads of the columns.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show a table
  ansible.builtin.debug:
    msg: "{{ [['machine', '6.12'], ['instance', '6.18']] | nested.kata.table(headers=['level', 'kernel']) }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.plugin_utils.table import render


def table(rows: Iterable[Iterable[str]], headers: Iterable[str]) -> list[str]:
    """Return the lines of the table."""
    return render(list(headers), [list(row) for row in rows])


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"table": table}
