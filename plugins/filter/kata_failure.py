# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kata_failure
short_description: Explain why a Kata container did not start
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the stderr of C(docker run) and the daemon's log since, and returns Docker's own message, the lines of the log
    in which the shim, QEMU, virtiofsd or the agent report a problem, and the probable cause.
  - Pure computation on the control node.
options:
  _input:
    description: The stderr of C(docker run).
    type: str
    required: true
  log:
    description: Log of dockerd, containerd and Kata since the container was started.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show why it did not start
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
    """Return the explanation of the failure as a dictionary."""
    why = asdict(explain(stderr, log))
    return {**why, "lines": list(why["lines"])}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"kata_failure": kata_failure}
