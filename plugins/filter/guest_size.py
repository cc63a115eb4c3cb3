# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: guest_size
short_description: Describe the size of a virtual machine, where it is not the wanted one
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Compares the processors and the memory that the Docker in an instance reports with those that were asked for. A
    guest has whole processors, and a part of its memory is its kernel's.
  - An instance that runs on the kernel of its target is not a virtual machine, and nothing is compared.
  - Pure computation on the control node.
options:
  _input:
    description: What C(docker info) reports in the instance.
    type: dict
    required: true
  cpus:
    description: How many processors were asked for.
    type: float
    required: true
  memory:
    description: How much memory was asked for, with a unit as in V(4g).
    type: str
    required: true
  kernel:
    description: The kernel of the target.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show whether an instance has what was asked for
  ansible.builtin.debug:
    msg: "{{ info.stdout | from_json | nested.kata.guest_size(cpus=2, memory='4g', kernel=ansible_facts['kernel']) }}"
"""

RETURN = r"""
_value:
  description: What it has and what was asked for, empty where the two agree.
  type: str
  sample: 3 CPUs and 3.9 GiB of memory, where 2 CPUs and 4 GiB are wanted
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import about, parse_size

# Parts of the wanted memory: a kernel keeps some for itself, and Kata may add some for it.
LEAST = 0.85
MOST = 1.1


def guest_size(info: Mapping[str, Any], cpus: float | str, memory: str, kernel: str) -> str:
    """Return what a guest has instead of what is wanted."""
    if info.get("KernelVersion") == kernel:
        return ""
    has = [value if isinstance(value, int) else 0 for value in (info.get("NCPU"), info.get("MemTotal"))]
    wanted = [math.ceil(float(cpus)), parse_size(str(memory))]
    if has[0] == wanted[0] and LEAST * wanted[1] <= has[1] <= MOST * wanted[1]:
        return ""
    found, asked = (f"{number} CPU{'s' * (number != 1)} and {about(size)}" for number, size in (has, wanted))
    return f"{found} of memory, where {asked} are wanted"


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"guest_size": guest_size}
