# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kata_failure
short_description: Say why a Kata container did not start
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes what C(docker run) wrote on stderr and the daemon's log since, and returns Docker's own words, the lines of
    the log that are of the shim, QEMU, virtiofsd or the agent and tell of trouble, and what is probably behind it.
  - Pure computation on the control node.
options:
  _input:
    description: What C(docker run) wrote on stderr.
    type: str
    required: true
  log:
    description: Log of dockerd, containerd and Kata since the container was started.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Say why it did not start
  ansible.builtin.debug:
    msg: "{{ (ran.stderr | nested.kata.kata_failure(journal.stdout)).cause }}"
"""

RETURN = r"""
_value:
  description: C(error) in one line, C(cause) (empty where nothing fits) and C(lines).
  type: dict
  sample:
    error: "failed to create task for container: open /dev/vhost-vsock: no such file or directory: unknown"
    cause: "/dev/vhost-vsock is missing: load the module vhost_vsock, and in a proxy name the device in
      kata_proxy_devices"
    lines: []
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.kata_failure import explain


def kata_failure(stderr: str, log: str = "") -> dict[str, Any]:
    """Return what is known of the failure as a dictionary."""
    why = asdict(explain(stderr, log))
    return {**why, "lines": list(why["lines"])}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"kata_failure": kata_failure}
