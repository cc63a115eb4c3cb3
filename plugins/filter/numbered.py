# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: numbered
short_description: Number files so that their names sort in the order given
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns for each file a path in a directory, with a number before the file's name. Two files of the same name get
    different ones.
  - Pure computation on the control node.
options:
  _input:
    description: Paths of the files.
    type: list
    elements: str
    required: true
  directory:
    description: Directory of the numbered files.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Copy fragments in the order in which they are merged
  ansible.builtin.copy:
    src: "{{ item.0 }}"
    dest: "{{ item.1 }}"
    mode: "0644"
  loop: "{{ fragments | zip(fragments | nested.kata.numbered('/build/config')) }}"
"""

RETURN = r"""
_value:
  description: The paths, in the order of the files.
  type: list
  elements: str
  sample: [/build/config/10-base-x86_64.config, /build/config/11-docker.config]
"""

import os.path
from collections.abc import Callable, Iterable

FIRST = 10  # so that the numbers of up to 90 files have two digits


def numbered(paths: Iterable[str], directory: str) -> list[str]:
    """Return the numbered paths."""
    return [f"{directory}/{number}-{os.path.basename(path)}" for number, path in enumerate(paths, FIRST)]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"numbered": numbered}
