# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: docker_for_kata
short_description: Find the oldest Kata Containers for a version of Docker
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Compares a version of Docker with the versions of Kata Containers that the module M(nested.kata.host_check) knows.
  - Pure computation on the control node.
options:
  _input:
    description: Version of Docker.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse a Docker that is too old
  ansible.builtin.fail:
    msg: "Docker {{ (docker_version | nested.kata.docker_for_kata).oldest }} or newer is needed"
  when: (docker_version | nested.kata.docker_for_kata).kata is none
"""

RETURN = r"""
_value:
  description:
    - C(oldest) is the oldest Docker that any Kata Containers works with.
    - C(kata) is the oldest Kata Containers that works with this Docker, V(null) where there is none.
    - C(pairs) has the oldest Docker that needs each Kata Containers, and that, from the oldest to the newest.
  type: dict
  sample: {"oldest": "26", "kata": "3.30", "pairs": [["26", "3.30"], ["29.5", "3.32"]]}
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of, written
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import KATA_FOR_DOCKER, OLDEST_ON_TARGET


def docker_for_kata(docker: str) -> dict[str, str | list[list[str]] | None]:
    """Return the versions of Kata Containers that work with a version of Docker."""
    least = next((kata for since, kata in KATA_FOR_DOCKER if version_of(docker) >= since), None)
    return {
        "oldest": written(OLDEST_ON_TARGET),
        "kata": written(least) if least else None,
        "pairs": [[written(since), written(kata)] for since, kata in reversed(KATA_FOR_DOCKER)],
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"docker_for_kata": docker_for_kata}
