# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: container_plan
short_description: Decide whether a container is made, kept, left as it is or made again
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Compares an existing container with the wanted one, option by option, by its label C(nested.kata.arguments), which
    has what it was made from. In a container of an earlier release the label is a hash. Where that differs, what Docker
    reports of the container is compared.
  - The order of values does not count, nor does the notation of sizes. Two images are the same where they give the same
    to a container, whenever they were built.
  - Pure computation on the control node.
options:
  _input:
    description: The wanted container, as the role C(internal_machine) takes it.
    type: dict
    required: true
  there:
    description: What P(nested.kata.containers_found#filter) found for its name.
    type: dict
    required: true
  image:
    description: Its image, as C(docker image inspect) reports it, or an empty dictionary where it does not exist yet.
    type: dict
    required: true
  recreate:
    description: Which container that differs is made again.
    type: str
    choices: [never, stopped, always]
    required: true
"""

EXAMPLES = r"""
- name: Decide
  ansible.builtin.set_fact:
    plan: "{{ wanted | nested.kata.container_plan(there=found[wanted.name], image=image, recreate='stopped') }}"
"""

RETURN = r"""
_value:
  description:
    - C(action) is V(create), V(keep), V(leave) (it differs, and is left as it is) or V(recreate).
    - C(differences) has for each option that differs what the container has and what it would have, C(lines) the same
      to read.
    - C(label) is the label for a new container.
    - C(restore) tells whether it has the name of a container that was replaced, C(leftover) whether there is one that
      never took its place, C(pending) whether the container that it replaced is still there.
  type: dict
  sample:
    action: leave
    differences: [{item: memory, is: [4 GiB], would_be: [8 GiB]}]
    lines: ["memory: 4 GiB -> 8 GiB"]
    label: nested.kata.arguments={}
    restore: false
    leftover: false
    pending: false
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.containers import (
    LABEL,
    NEW,
    OLD,
    Found,
    Inspected,
    action,
    differences,
    record,
)


def container_plan(
    wanted: Mapping[str, Any], there: Mapping[str, Any], image: Inspected, recreate: str
) -> dict[str, Any]:
    """Return what becomes of a container, and why."""
    name, known = wanted["name"], Found(**there)
    replaced, pending = name + OLD in known.names, {name, name + OLD} <= set(known.names)
    listed = differences(known.container, wanted, image) if known.exists else []
    return {
        "action": action(known, listed, pending, recreate),
        "differences": [{"item": one.item, "is": one.has, "would_be": one.wants} for one in listed],
        "lines": [str(one) for one in listed],
        "label": f"{LABEL}={json.dumps(record(wanted, image), sort_keys=True)}",
        "restore": replaced and not pending,
        "leftover": name + NEW in known.names,
        "pending": pending,
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"container_plan": container_plan}
