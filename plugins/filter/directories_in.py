# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: directories_in
short_description: Choose the directories that are directly in another one
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Those whose names begin with a dot are left out.
  - Pure computation on the control node.
options:
  _input:
    description: What there is, as RV(nested.kata.host_info#module:files) has it.
    type: dict
    required: true
  path:
    description: The directory that they are in.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the versions of Kata
  ansible.builtin.debug:
    msg: "{{ host.files | nested.kata.directories_in('/var/lib/nested-kata/kata') }}"
"""

RETURN = r"""
_value:
  description: Their names, sorted.
  type: list
  elements: str
"""

import posixpath
from collections.abc import Callable, Mapping
from typing import Any


def directories_in(files: Mapping[str, Mapping[str, Any]], path: str) -> list[str]:
    """Return the names of the directories."""
    inside = [posixpath.split(posixpath.normpath(one)) for one, found in files.items() if found["type"] == "directory"]
    return sorted(name for above, name in inside if above == posixpath.normpath(path) and not name.startswith("."))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"directories_in": directories_in}
