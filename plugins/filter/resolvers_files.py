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
    description: The lines of the files, as C(grep --with-filename) prints them.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the best file
  ansible.builtin.debug:
    msg: "{{ read.stdout_lines | nested.kata.resolvers_files | first }}"
"""

RETURN = r"""
_value:
  description: The files, in the order of their lines. V(/etc/resolv.conf) where there is none.
  type: list
  elements: str
  sample: [/etc/resolv.conf]
"""

import re
from collections.abc import Callable, Iterable

USABLE = re.compile(r"\s*nameserver\s+(?!127\.|::1(?:\s|$))\S")


def resolvers_files(lines: Iterable[str]) -> list[str]:
    """Return the files that serve."""
    there = [(name, line) for name, _colon, line in (one.partition(":") for one in lines)]
    usable = [name for name, line in there if USABLE.match(line)]
    return list(dict.fromkeys(usable or [name for name, _line in there])) or ["/etc/resolv.conf"]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"resolvers_files": resolvers_files}
