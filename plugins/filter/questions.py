# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: questions
short_description: Ask all instances of a target the same, each about its images
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns a command for each, as P(nested.kata.asked_of#filter) does, which ends after 30 seconds or 64 KiB.
  - Pure computation on the control node.
options:
  _input:
    description: The instances, each with its C(name) and its C(images).
    type: list
    elements: dict
    required: true
  script:
    description: What a shell there does. Its arguments are the images.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Ask the instances for the ids of their images
  nested.kata.host_info:
    commands: "{{ instances | nested.kata.questions('docker image inspect --format {{.Id}} \"$@\"') }}"
"""

RETURN = r"""
_value:
  description: The commands by the names, as O(nested.kata.host_info#module:commands) takes them.
  type: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.filter.asked_of import asked_of

LIMITS = {"seconds": 30, "stdout": 1 << 16, "stderr": 1 << 12}


def questions(instances: Iterable[Mapping[str, Any]], script: str) -> dict[str, list[str]]:
    """Return the commands."""
    return {
        one["name"]: asked_of(["sh", "-c", script, "sh", *(one["images"] or [])], one["name"], **LIMITS)
        for one in instances
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"questions": questions}
