# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: docker_create_args
short_description: Write options of C(docker create) as its arguments
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Turns options into the arguments C(--OPTION VALUE), in their order.
  - Earlier releases compared containers by a hash over these arguments. Values therefore keep their type, and the same
    options always yield the same list.
  - Pure computation on the control node.
options:
  _input:
    description:
      - "Dictionaries, each with options by their names without the dashes, as in V({cap-drop: ALL, volume: [a:/a,
        b:/b]})."
      - A list repeats the option for each of its values, an empty one leaves the option out.
      - An option whose values are not adjacent is in more than one of the dictionaries.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Create a container
  ansible.builtin.command:
    argv: "{{ ['docker', 'create'] + (options | nested.kata.docker_create_args) + ['debian:trixie-slim'] }}"
  vars:
    options:
      - cap-drop: ALL
        cap-add: [NET_ADMIN, SYS_ADMIN]
        env: "POOL={{ pool }}"
"""

RETURN = r"""
_value:
  description: The arguments.
  type: list
  elements: str
  sample: [--cap-drop, ALL, --cap-add, NET_ADMIN, --cap-add, SYS_ADMIN, --env, POOL=10.213.128.0/18]
"""

from collections.abc import Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError


def docker_create_args(groups: Iterable[Mapping[str, object]]) -> list[str | int | float]:
    """Return the arguments for groups of options."""
    arguments: list[str | int | float] = []
    for group in groups:
        for name, wanted in group.items():
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not isinstance(value, (str, int, float)) or isinstance(value, bool):
                    raise AnsibleFilterError(
                        f"nested.kata.docker_create_args: {name}: {value!r} is not a valid value: write a string or a"
                        " number"
                    )
                arguments += [f"--{name}", value]
    return arguments


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"docker_create_args": docker_create_args}
