# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: differing
short_description: Choose the files and directories that are not as wanted
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Compares files and directories with what M(nested.kata.host_info) found, so that a role handles only those that
    differ.
  - Pure computation on the control node.
options:
  _input:
    description: The wanted files, each with C(path), C(mode) and C(content), and directories, without C(content).
    type: list
    elements: dict
    required: true
  files:
    description: What there is, as RV(nested.kata.host_info#module:files) has it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Make the directories that are missing
  ansible.builtin.file:
    path: "{{ item.path }}"
    state: directory
    mode: "{{ item.mode }}"
  loop: "{{ [{'path': '/srv/one', 'mode': '0755'}] | nested.kata.differing(host.files) }}"
"""

RETURN = r"""
_value:
  description: Those that are missing, something else, or have another mode or content.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.settled import is_as_wanted


def differing(wanted: Iterable[Mapping[str, Any]], files: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those that differ."""
    return [one for one in wanted if not is_as_wanted(one, files)]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"differing": differing}
