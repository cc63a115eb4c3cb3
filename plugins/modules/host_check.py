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
  - Looks at what Kata Containers needs of a machine and returns a finding for each, with what was found, what is needed,
    and what to do where the two differ.
  - Never changes anything. It does not fail because of what it finds; see RV(ok).
attributes:
  check_mode:
    description: Can run in check mode and return the same as otherwise.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: none
    details:
      - There is never a difference, since nothing is changed.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
    support: full
  platform:
    description: Target machines that the module runs on.
    support: full
    platforms: linux
options:
  target:
    description:
      - What runs Kata.
    type: str
    default: host
    choices:
      host: The machine's own Docker, which must be new enough for Kata.
      proxy: A container with a Docker of its own, so that the machine's Docker may be of any version.
  runtime:
    description:
      - Name of a runtime that must be registered in this machine's Docker.
      - Without it, Docker's runtimes are not looked at and there is no finding V(docker_runtime).
    type: str
  ignore:
    description:
      - Ids of findings that do not count against RV(ok). They are returned all the same, with the severity V(warning).
      - One of V(cpu_virtualization), V(kvm), V(vhost_vsock), V(vhost_net), V(tun), V(docker_version), V(docker_runtime).
    type: list
    elements: str
    default: []
notes:
  - Run it as root, as the user who is to start Docker. The file C(/dev/kvm) is opened, and asked for its API version.
  - Docker is reached with the command C(docker), so that E(DOCKER_HOST) counts where it is set. Where it does not answer,
    there is no finding V(docker_version).
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

- name: Ask whether Kata is there already, on a machine whose kernel has vhost-net built in
  nested.kata.host_check:
    runtime: kata
    ignore:
      - vhost_net
"""

RETURN = r"""
findings:
  description: What was found, in a fixed order.
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
      description: V(error), or V(warning) where O(ignore) names it.
      returned: success
      type: str
      sample: error
    found:
      description: What the machine has.
      returned: success
      type: str
      sample: no /dev/vhost-net
    needed:
      description: What it must have.
      returned: success
      type: str
      sample: /dev/vhost-net, a character device
    remedy:
      description: What to do. Empty where it is as needed.
      returned: success
      type: str
      sample: modprobe vhost_net, and name it in /etc/modules-load.d/nested-kata.conf to have it after a reboot
ok:
  description: Whether no finding with severity V(error) is other than needed.
  returned: success
  type: bool
  sample: false
problems:
  description: A line for each finding that keeps Kata from running.
  returned: success
  type: list
  elements: str
  sample:
    - "tun: found no /dev/net/tun, needed /dev/net/tun, a character device: modprobe tun, and name it in …"
table:
  description: The findings as plain text.
  returned: success
  type: str
  sample: |-
    finding    state  found                                         needed
    kvm        ok     /dev/kvm with API version 12                  /dev/kvm with API version 12
msg:
  description: The findings in a sentence.
  returned: success
  type: str
  sample: "this machine cannot run Kata: vhost_net"
"""

import fcntl
import json
import os
import platform
import stat
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils.findings import (
    Device, Docker, Facts, Kvm, Question, UnknownFinding, cpu_flags, decide, holds_module, known, sentence, summary, table,
)

KVM_GET_API_VERSION = 0xAE00  # _IO(KVMIO, 0x00) in linux/kvm.h
DEVICES = {"vhost_vsock": "/dev/vhost-vsock", "vhost_net": "/dev/vhost-net", "tun": "/dev/net/tun"}


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def look_at_kvm(path: str) -> Kvm:
    if not os.path.exists(path):
        return Kvm(present=False)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return Kvm(present=True, api_version=fcntl.ioctl(descriptor, KVM_GET_API_VERSION))
        finally:
            os.close(descriptor)
    except OSError as error:
        return Kvm(present=True, error=error.strerror)


def look_at_device(path: str, name: str, modules_dep: str) -> Device:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = 0
    return Device(path=path, module=name, present=mode != 0, character=stat.S_ISCHR(mode), loadable=holds_module(modules_dep, name))


def look_at_docker(module: AnsibleModule) -> Docker:
    command = module.get_bin_path("docker")
    if not command:
        return Docker(error="there is no command docker")
    # `docker info` of 20.10 hides why it cannot connect when it is given a template; `docker version` says it in all versions.
    status, version, err = module.run_command([command, "version", "--format", "{{.Server.Version}}"])
    if status != 0:
        return Docker(error=(err.strip().splitlines() or [f"docker version ends with status {status}"])[0])
    runtimes = module.run_command([command, "info", "--format", "{{json .Runtimes}}"], check_rc=True)[1]
    return Docker(version=version.strip(), runtimes=tuple(json.loads(runtimes) or ()))


def look(module: AnsibleModule) -> Facts:
    kernel = platform.release()
    modules_dep = text_of(f"/lib/modules/{kernel}/modules.dep")
    return Facts(
        arch=platform.machine(),
        kernel=kernel,
        cpu_flags=cpu_flags(text_of("/proc/cpuinfo")),
        kvm=look_at_kvm("/dev/kvm"),
        devices={name: look_at_device(path, name, modules_dep) for name, path in DEVICES.items()},
        docker=look_at_docker(module),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "str", "default": "host", "choices": ["host", "proxy"]},
            "runtime": {"type": "str"},
            "ignore": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        ignored = known(module.params["ignore"])
    except UnknownFinding as error:
        module.fail_json(msg=f"ignore: {error}")
    findings = decide(look(module), Question(target=module.params["target"], runtime=module.params["runtime"]), ignored)
    stopping = [finding for finding in findings if finding.stops]
    module.exit_json(
        changed=False,
        ok=not stopping,
        findings=[asdict(finding) for finding in findings],
        problems=[sentence(finding) for finding in stopping],
        table=table(findings),
        msg=summary(findings),
    )


if __name__ == "__main__":
    main()
