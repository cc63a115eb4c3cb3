# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: shown
short_description: Make the words of others safe to read
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns one line in which control characters, escape sequences and marks that change the direction of text are
    written out. Of a long text it returns the beginning.
  - Pure computation on the control node.
options:
  _input:
    description: What somebody else said, such as the Docker of an instance.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the message of a container
  ansible.builtin.debug:
    msg: "It says: {{ answer.stdout | nested.kata.shown }}"
"""

RETURN = r"""
_value:
  description: The text, with 1000 characters at most.
  type: str
  sample: '\x1b[2Jno space left on device'
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common import untrusted


def shown(said: Any) -> str:
    """Return the text."""
    return untrusted.shown(said)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"shown": shown}
