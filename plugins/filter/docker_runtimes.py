# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: docker_runtimes
short_description: Write the runtimes of Kata as entries of Docker's configuration
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the entries of C(runtimes) in C(daemon.json) for runtimes that run Kata, and V(null), which removes an
    entry, for others.
  - Pure computation on the control node.
options:
  _input:
    description: Names of the runtimes.
    type: list
    elements: str
    required: true
  shim:
    description: Path of the release's shim.
    type: str
    required: true
  home:
    description: Directory with a directory for each runtime, and in it one for each version.
    type: str
    required: true
  version:
    description: Version of the release.
    type: str
    required: true
  unwanted:
    description: Names of runtimes to remove.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Register a runtime
  nested.kata.daemon_config:
    settings:
      runtimes: "{{ ['kata'] | nested.kata.docker_runtimes(shim=release.contents.shim, home='/etc/nested-kata/kata',
        version='4.1.0') }}"
"""

RETURN = r"""
_value:
  description: The entries by name.
  type: dict
  sample:
    kata:
      runtimeType: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
      options: {"ConfigPath": /etc/nested-kata/kata/kata/4.1.0/configuration.toml}
"""

from collections.abc import Callable, Iterable


def docker_runtimes(
    names: Iterable[str], shim: str, home: str, version: str, unwanted: Iterable[str] = ()
) -> dict[str, dict[str, object] | None]:
    """Return the entries by name."""
    entries: dict[str, dict[str, object] | None] = {
        name: {"runtimeType": shim, "options": {"ConfigPath": f"{home}/{name}/{version}/configuration.toml"}}
        for name in names
    }
    return {**dict.fromkeys(unwanted), **entries}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"docker_runtimes": docker_runtimes}
