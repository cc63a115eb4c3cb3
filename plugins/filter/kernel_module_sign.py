# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kernel_module_sign
short_description: Return the path that exists when a kernel module is loaded
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - The path is the device that the module provides, where M(nested.kata.host_check) checks it, else the module's
    directory in C(/sys/module).
  - Pure computation on the control node.
options:
  _input:
    description: Name of the module.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Look for the device of vhost_vsock
  ansible.builtin.stat:
    path: "{{ 'vhost_vsock' | nested.kata.kernel_module_sign }}"
"""

RETURN = r"""
_value:
  description: The path.
  type: str
  sample: /dev/vhost-vsock
"""

from collections.abc import Callable

from ansible_collections.nested.kata.plugins.module_utils._host.facts import DEVICES

NO_SIGN = {"kvm"}  # its device comes with another module: kvm_intel or kvm_amd


def kernel_module_sign(module: str) -> str:
    """Return the path that shows that a module is loaded."""
    nodes = {brings: path for path, _driver, brings in DEVICES.values() if brings not in NO_SIGN}
    return nodes.get(module, f"/sys/module/{module}")


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"kernel_module_sign": kernel_module_sign}
