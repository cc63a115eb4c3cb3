#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Find out whether a machine can run Kata Containers
version_added: 0.1.0
description:
  - Checks what Kata Containers needs of a machine and returns a finding for each requirement, with what was found, what
    is needed, and what to do where the two differ.
  - Never changes anything. It does not fail because of what it finds; see RV(ok).
extends_documentation_fragment:
  - nested.kata.attributes.info_module
options:
  target:
    description:
      - Where Kata runs.
    type: str
    default: host
    choices:
      host: The machine's own Docker, which must be new enough for Kata.
      proxy: A container with a Docker of its own. The machine's Docker need only be able to start it (20.10 or newer).
  runtime:
    description:
      - Name of a runtime that must be registered in this machine's Docker already.
      - Without it, Docker's runtimes are not checked and there is no finding V(docker_runtime).
    type: str
  runtimes:
    description:
      - Names of runtimes that will be registered in this machine's Docker. With O(target=host), existing runtimes of
        these names must be managed by nested.kata. Such a runtime is recognised by a C(runtimeType) or C(path) below
        C(/var/lib/nested-kata).
    type: list
    elements: str
    default: []
  kata_version:
    description:
      - The wanted version of Kata, such as V(4.1.0). With O(target=host) it is compared with that of Docker.
      - Without it only the version of Docker is checked.
    type: str
  space:
    description:
      - Files and directories that take room. Those on the same file system count together, and those that exist already
        need no more room.
      - Without any there is no finding V(space).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The file or directory that will be made. It need not exist, nor the directories above it.
          - A path that does not begin with C(/) is below Docker's data directory, which is C(/var/lib/docker) where
            Docker does not report another one.
        type: str
        required: true
      size:
        description: How large it will be, with a unit as in V(20G), V(512M) or V(20GiB) (powers of 1024), V(20GB)
          (powers of 1000), or in bytes.
        type: str
        required: true
      purpose:
        description: Short description for messages, a word or two.
        type: str
        required: true
      sparse:
        description: Whether it begins small and grows with its use. Too little room for it is a warning, not an error,
          see O(overcommit).
        type: bool
        default: false
      creates:
        description: A path. Where it exists, no more room is needed. As with O(space[].path), it may be relative.
        type: str
  overcommit:
    description:
      - Overcommit factor. Warn where the parts with O(space[].sparse) could together grow by more than this multiple of
        the free space.
      - With V(1) there is a warning as soon as they could fill the file system.
    type: float
    default: 1
  disks:
    description:
      - The directory for disk images. RV(findings) report whether its file system has reflink. It need not exist.
      - As with O(space[].path), it may be relative. Without it there is no finding V(reflink).
    type: str
  memory:
    description:
      - The memory of each instance, with a unit as in V(4g). They count together, each with the 32 MiB more that Kata
        gives a VM (C(overhead_memory)).
      - Without any, there is no finding V(memory), and C(/dev/shm) may be of any size.
    type: list
    elements: str
    default: []
  now:
    description:
      - The time by the control node's clock, in seconds since 1970, taken just before the call, as in the examples.
      - Without it there is no finding V(time).
    type: float
  containers:
    description:
      - Names for containers that will be made in this machine's Docker. A container of such a name without a label that
        begins with C(nested.kata.) is not managed by nested.kata.
      - Without any of O(containers), O(networks) and O(volumes) there is no finding V(names).
    type: list
    elements: str
    default: []
  networks:
    description: Names for networks, as O(containers).
    type: list
    elements: str
    default: []
  volumes:
    description: Names for volumes, as O(containers).
    type: list
    elements: str
    default: []
  reachable:
    description:
      - Resources that must be reached from this machine. All are tried at the same time. Without any there is no
        finding V(reachable).
    type: list
    elements: dict
    default: []
    suboptions:
      urls:
        description:
          - Places of which one is enough. URLs of http and https are requested with HEAD, and with GET for one byte
            where that fails. Any answer counts but the status 404, 410, and 500 or above, so that a registry may ask
            for a login.
          - A C(file:) URL or a path must be a file on this machine.
        aliases: [url]
        type: list
        elements: str
        required: true
      purpose:
        description: Short description for messages, a word or two.
        type: str
        required: true
      required:
        description: Whether it is an error that it cannot be reached. It is a warning otherwise.
        type: bool
        default: true
      creates:
        description: A path. Where it exists, nothing is requested. As with O(space[].path), it may be relative.
        type: str
      image:
        description: The reference of an image. Where this machine's Docker has it, nothing is requested.
        type: str
  timeout:
    description: How long to wait for the answers of O(reachable), in seconds.
    type: float
    default: 5
  ignore:
    description:
      - Ids of findings that do not count against RV(ok). Where they would be errors, they are warnings instead.
      - One of V(architecture), V(cpu_virtualization), V(kernel), V(cgroup), V(kvm), V(vhost_vsock), V(vhost_net),
        V(tun), V(loop), V(docker_daemon), V(docker_version), V(docker_config), V(docker_runtime), V(names), V(space),
        V(reflink), V(memory), V(shm), V(time), V(reachable).
    type: list
    elements: str
    default: []
notes:
  - Run it as root, as the user who will start Docker. On C(/dev/kvm) a guest of three instructions is run within the
    module's process, with which it ends. No kernel module is loaded; devices whose driver is not loaded are not opened,
    since that loads it.
  - Docker is reached with the command C(docker), so that E(DOCKER_HOST) applies where it is set. Where it does not
    answer, there are no findings V(docker_version) and V(names).
  - Without anything in O(reachable) it takes half a second.
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Look at what this machine can do
  nested.kata.host_check:
  register: look

- name: Show it
  ansible.builtin.debug:
    msg: "{{ look.table.splitlines() }}"

- name: Ask whether Kata is there already, on a machine whose kernel has no vhost-net
  nested.kata.host_check:
    runtime: kata
    ignore:
      - vhost_net

- name: Ask whether two instances fit
  nested.kata.host_check:
    now: "{{ now().timestamp() }}"
    memory: [4g, 4g]
    disks: /var/lib/nested-kata/disks
    space:
      - path: /var/lib/nested-kata/kata/4.1.0
        creates: /var/lib/nested-kata/kata/4.1.0
        size: 4G
        purpose: Kata 4.1.0
      - path: /var/lib/nested-kata/disks/red.img
        size: 20G
        sparse: true
        purpose: disk of red
    reachable:
      - urls: [https://registry-1.docker.io/v2/]
        image: debian:trixie-slim
        purpose: base image
"""

RETURN = r"""
findings:
  description: The findings, in a fixed order.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The name of the finding, as O(ignore) takes it.
      returned: success
      type: str
      sample: vhost_net
    ok:
      description: Whether it is as needed.
      returned: success
      type: bool
      sample: false
    severity:
      description:
        - How severe it is where it is not as needed. With V(error) Kata cannot run. With V(warning) it can, but less
          well, or it is unknown whether it can, or O(ignore) names the finding.
      returned: success
      type: str
      sample: error
    ignored:
      description: Whether it would be an error without O(ignore).
      returned: success
      type: bool
      sample: false
    found:
      description: The state of the machine.
      returned: success
      type: str
      sample: no /dev/vhost-net
    needed:
      description: The state that Kata needs.
      returned: success
      type: str
      sample: /dev/vhost-net
    remedy:
      description:
        - The action to take. Where all is as needed it is a note on what the roles will do or what would be better
          still, and mostly empty.
      returned: success
      type: str
      sample: modprobe vhost_net, and name it in /etc/modules-load.d/nested-kata.conf to have it after a reboot
ok:
  description: Whether every finding with severity V(error) is as needed.
  returned: success
  type: bool
  sample: false
problems:
  description: A line for each finding that keeps Kata from running.
  returned: success
  type: list
  elements: str
  sample:
    - "tun: found no /dev/net/tun, needed /dev/net/tun: let udev make /dev/net/tun (udevadm trigger); …"
table:
  description: The findings as plain text, at most 120 columns wide.
  returned: success
  type: str
  sample: |-
    finding    state  found                                         needed
    kvm        ok     a guest ran in 3 ms                           /dev/kvm that runs a guest
msg:
  description: The findings in a sentence.
  returned: success
  type: str
  sample: "this machine cannot run Kata: vhost_net; warnings: cgroup"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._host.checks import CHECKS
from ansible_collections.nested.kata.plugins.module_utils._host.facts import look
from ansible_collections.nested.kata.plugins.module_utils._host.findings import decide, result_of
from ansible_collections.nested.kata.plugins.module_utils._host.options import parse

ARGUMENTS = {
    "target": {"type": "str", "default": "host", "choices": ["host", "proxy"]},
    "runtime": {"type": "str"},
    "runtimes": {"type": "list", "elements": "str", "default": []},
    "kata_version": {"type": "str"},
    "space": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "size": {"type": "str", "required": True},
            "purpose": {"type": "str", "required": True},
            "sparse": {"type": "bool", "default": False},
            "creates": {"type": "str"},
        },
    },
    "overcommit": {"type": "float", "default": 1},
    "disks": {"type": "str"},
    "memory": {"type": "list", "elements": "str", "default": []},
    "now": {"type": "float"},
    "containers": {"type": "list", "elements": "str", "default": []},
    "networks": {"type": "list", "elements": "str", "default": []},
    "volumes": {"type": "list", "elements": "str", "default": []},
    "reachable": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "urls": {"type": "list", "elements": "str", "required": True, "aliases": ["url"]},
            "purpose": {"type": "str", "required": True},
            "required": {"type": "bool", "default": True},
            "creates": {"type": "str"},
            "image": {"type": "str"},
        },
    },
    "timeout": {"type": "float", "default": 5},
    "ignore": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        facts = look(wanted, module.get_bin_path("docker"))
        return result_of(decide(CHECKS, facts, wanted.question, wanted.ignored))

    finish(module, work, "this machine")


if __name__ == "__main__":
    main()
