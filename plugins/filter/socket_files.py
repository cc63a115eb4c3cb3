# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: socket_files
short_description: List the files that make the sockets of instances
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns for each socket its unit of systemd, and the settings of the program that serves it.
  - Pure computation on the control node.
options:
  _input:
    description: Sockets, as P(nested.kata.instance_sockets#filter) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Write them
  ansible.builtin.copy:
    dest: "{{ item.path }}"
    content: "{{ item.content }}"
    mode: "{{ item.mode }}"
  loop: "{{ kata_socket_list | nested.kata.socket_files }}"
"""

RETURN = r"""
_value:
  description: The files, each with the name of its C(socket), C(path), C(mode) and C(content).
  type: list
  elements: dict
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.plugin_utils.sockets import files_of


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"socket_files": files_of}
