# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: containers_found
short_description: Find containers that the roles made, with those that take their places or took them
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - A container is made again under the name NAME.nested-kata-new first. Then it takes the place of the container NAME,
    which keeps the name NAME.nested-kata-old until its successor is proven to run.
  - Where a run was interrupted in the middle of that, the container with the last name counts as the container.
  - Pure computation on the control node.
options:
  _input:
    description: What C(docker container inspect) reports of the containers with these names and with the names beside
      them. Others are ignored.
    type: list
    elements: dict
    required: true
  names:
    description: Names of the containers.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what the proxy was made from
  ansible.builtin.debug:
    msg: "{{ (host.containers | nested.kata.containers_found(['kata-in-docker']))['kata-in-docker'].made_from }}"
"""

RETURN = r"""
_value:
  description:
    - By name, what was found. C(exists) tells whether there is a container, C(running) whether it runs, C(container) is
      what Docker reports of it.
    - C(made_from) has the values of each option of C(docker create) that it was made with, as far as they are known.
    - C(environment) has the variables that it was given as its environment, which may have secrets.
    - C(names) are the names under which it, its successor and its predecessor exist, C(others) the containers that have
      such a name and belong to somebody else.
  type: dict
  sample:
    kata:
      exists: true
      running: true
      container: {Name: /kata}
      made_from: {cpus: ["2"], memory: [4g]}
      environment: {http_proxy: "http://192.0.2.10:3128"}
      names: [kata]
      others: []
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.containers import found


def containers_found(containers: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return by name what was found."""
    containers = list(containers)
    return {str(name): dict(vars(found(name, containers))) for name in names}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"containers_found": containers_found}
