# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: failure_reason
short_description: Return the reason why a task failed, in one line
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the result of a task that failed, C(ansible_failed_result) in a C(rescue). Of a loop the first item that
    failed counts.
  - What may hide in it, as escape sequences do, is made visible, and it is cut where it is very long.
  - The reason is the message of a module or, of a command, the last lines of its output.
  - Pure computation on the control node.
options:
  _input:
    description: The result.
    type: dict
    required: true
  item:
    description:
      - The variable of the loop. The reason then begins with its value where the result has it, and otherwise with the
        result's C(url).
      - When empty, the reason is all that is returned.
    type: str
    default: ""
  line:
    description:
      - A regular expression. The reason is then the first line on stderr that begins with a match, else all of stderr,
        else the message of the module.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Try
  block:
    - name: Apply patches
      ansible.builtin.command:
        argv: [patch, --input, "{{ patch }}"]
      loop: [a.patch, b.patch]
      loop_control:
        loop_var: patch
  rescue:
    - name: Report the reason
      ansible.builtin.fail:
        msg: "The tree was not patched: {{ ansible_failed_result | nested.kata.failure_reason(item='patch') }}"
"""

RETURN = r"""
_value:
  description: The reason.
  type: str
  sample: "b.patch: patching file Makefile / Hunk #1 FAILED at 1."
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.plugin_utils.failures import failure_reason


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"failure_reason": failure_reason}
