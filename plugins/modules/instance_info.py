#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: instance_info
short_description: Show the proxies and instances of a host, whether they run, and what they say of themselves
version_added: 0.1.0
description:
  - Lists the containers on a host that are proxies or instances by their labels, also those that are in no inventory,
    and asks each that runs for its kernel, its memory and its Docker.
  - One that is stopped, broken or foreign, or gives no answer, is an entry like the others, and does not fail the
    module. What they say is untrusted, is limited in size and time, and has no control characters.
extends_documentation_fragment:
  - nested.kata.attributes.info_module
options:
  timeout:
    description: How long each of them may take to answer, in seconds.
    type: int
    default: 30
requirements:
  - the command docker on the host, and root or a member of its group
seealso:
  - module: nested.kata.disk_image_info
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Look at the instances of a target
  nested.kata.instance_info:
  register: found

- name: Show those that do not run as they should
  ansible.builtin.debug:
    msg: "{{ found.levels | rejectattr('state', 'eq', 'running') | map(attribute='name') }}"
"""

RETURN = r"""
error:
  description: Why Docker on the host does not answer. Otherwise empty.
  returned: success
  type: str
  sample: ""
levels:
  description: The proxies, then the instances, by their names.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the container.
      returned: success
      type: str
      sample: kata
    kind:
      description: V(proxy) or V(instance).
      returned: success
      type: str
      sample: instance
    state:
      description:
        - V(running), V(stopped), V(broken), where it runs and its Docker does not give a useful answer, V(silent),
          where it gives no answer at all, or V(foreign), where a container has the label of an instance but is none,
          such as one of an image that was made of an instance. What is foreign is not asked.
      returned: success
      type: str
      sample: running
    reason:
      description: Why it is broken or silent.
      returned: success
      type: str
      sample: ""
    runtime:
      description: The runtime that started it, as the host's Docker reports it.
      returned: success
      type: str
      sample: kata
    started:
      description: When it was last started, in UTC.
      returned: success
      type: str
      sample: "2026-11-30T12:00:00.123456789Z"
    exit_status:
      description: Its exit status, V(null) while it runs.
      returned: success
      type: int
      sample: 137
    kernel:
      description: Release of its kernel.
      returned: success
      type: str
      sample: 6.12.104-docker
    version:
      description: Version of its Docker.
      returned: success
      type: str
      sample: 26.1.5
    driver:
      description: Storage driver of its Docker.
      returned: success
      type: str
      sample: btrfs
    running:
      description: How many containers run in it.
      returned: success
      type: int
      sample: 3
    memory:
      description:
        - Bytes of memory. C(size) is what it was given, V(0) without a limit. C(used) is what its guest uses, as it
          says itself. C(held) is what the processes of its VM hold of the host's memory, V(null) where it is none.
      returned: success
      type: dict
      sample: {size: 4294967296, used: 734003200, held: 1610612736}
    disk:
      description: Bytes of the file system at C(/var/lib/docker), as the guest says itself, V(null) where it does not.
      returned: success
      type: int
      sample: 21474836480
    disk_wanted:
      description: Bytes that the file system is to have, V(null) where it fills its disk.
      returned: success
      type: int
      sample: 21474836480
    ends:
      description:
        - How the instance ended by itself the last times, oldest first. C(at) is when, in UTC, C(reason) why, C(status)
          its exit status, and C(lines) the last lines that it wrote.
      returned: success
      type: list
      elements: dict
      sample: [{at: "2026-11-30T12:00:00+00:00", reason: it ended (exit status 137), status: 137, lines: []}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._host.instances import look


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 30}}, supports_check_mode=True)

    def work() -> dict[str, Any]:
        return {"changed": False, **look(module.get_bin_path("docker"), module.params["timeout"])}

    finish(module, work, "this machine")


if __name__ == "__main__":
    main()
