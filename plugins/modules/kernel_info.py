#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_info
short_description: Show the guest kernels in a directory
version_added: 0.1.0
description:
  - Lists the kernels that M(nested.kata.kernel_build) made in directories called VERSION-NAME-KEY, as the role
    P(nested.kata.guest_kernel#role) calls them, and whether all their files are as they were built.
extends_documentation_fragment:
  - nested.kata.attributes.info_module
options:
  directory:
    description: The directory above those of the kernels. Where there is none, there are no kernels.
    type: path
    required: true
  names:
    description: Names of the kernels whose files are read and compared with the record of their build.
    type: list
    elements: str
    default: []
seealso:
  - module: nested.kata.kernel_build
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Look at the kernels
  nested.kata.kernel_info:
    directory: /var/lib/nested-kata/kernels
    names: [docker]
  register: there

- name: Show those that can be booted
  ansible.builtin.debug:
    msg: "{{ there.kernels | selectattr('complete') | map(attribute='path') }}"
"""

RETURN = r"""
kernels:
  description:
    - The directories of kernels, also those that an interrupted run left. C(path) is its path, and C(mtime) when it was
      last changed, in seconds since 1970.
    - C(build) is the record of the build as M(nested.kata.kernel_build) wrote it, and C(complete) says whether each
      file has the recorded SHA-256. For others than O(names), or without a readable record, C(build) is empty and
      C(complete) false.
  returned: success
  type: list
  elements: dict
  sample:
    - path: /var/lib/nested-kata/kernels/6.12.104-docker-f88b8dc7edfb
      mtime: 1790000000.0
      build: {key: f88b8dc7edfb, release: 6.12.104-docker-f88b8dc7edfb}
      complete: true
versions:
  description: Which version of each of Debian's sources was built last, by suite and package.
  returned: success
  type: dict
  sample: {trixie/linux-source-6.12: 6.12.48-1}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._kernel.installed import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        return {"changed": False, **look(module.params["directory"], module.params["names"])}

    finish(module, work, module.params["directory"])


if __name__ == "__main__":
    main()
