# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: removable_kernels
short_description: Decide which guest kernels are removed
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the directories of kernels, and returns those to remove. Kernels that are wanted stay, and so do the newest
    others, as many as O(keep) allows.
  - Kernels of a refused name, and leftovers of interrupted runs, are removed whatever O(keep) is.
  - Pure computation on the control node.
options:
  _input:
    description: The directories, as M(nested.kata.kernel_info) returns them. The name of each is that of a kernel,
      VERSION-NAME-KEY, or that of an interrupted run.
    type: list
    elements: dict
    required: true
  wanted:
    description: Names of the directories of the kernels that are wanted.
    type: list
    elements: str
    required: true
  refused:
    description: Names of kernels that must not stay.
    type: list
    elements: str
    default: []
  keep:
    description: How many others stay.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Decide which kernels are removed
  ansible.builtin.set_fact:
    removable: "{{ found.kernels | nested.kata.removable_kernels(wanted=['6.12.104-docker-f88b8dc7edfb'], keep=2) }}"
"""

RETURN = r"""
_value:
  description: The directories to remove, the refused ones first, the others from the newest to the oldest.
  type: list
  elements: dict
  sample: [{"path": "/var/lib/nested-kata/kernels/6.12.103-docker-0123456789ab", "mtime": 1790000000.0}]
"""

import os.path
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

INTERRUPTED = ".nested-kata-"  # in the name of a directory that was to be renamed when it was whole

Directory = Mapping[str, Any]
"""A directory as kernel_info returns it."""


def removable_kernels(
    directories: Iterable[Directory], wanted: Collection[str], keep: int, refused: Iterable[str] = ()
) -> list[Directory]:
    """Return the directories to remove."""
    name = "|".join(map(re.escape, refused))
    unwelcome = re.compile(rf"[0-9.]+(-rc[0-9]+)?-({name})-[0-9a-f]{{12}}$") if name else None

    def goes(directory: Directory) -> bool:
        base = os.path.basename(directory["path"])
        return INTERRUPTED in base or bool(unwelcome and unwelcome.match(base))

    newest_first = sorted(directories, key=lambda one: one["mtime"], reverse=True)
    others = [one for one in newest_first if os.path.basename(one["path"]) not in wanted]
    return [one for one in others if goes(one)] + [one for one in others if not goes(one)][int(keep) :]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"removable_kernels": removable_kernels}
