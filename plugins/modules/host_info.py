#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Show the state of containers, files, units and packages on a host
version_added: 0.1.0
description:
  - Looks at containers, networks, images, volumes, files, units and packages of a machine, all in one answer, so that a
    role can skip what is as wanted.
  - Starts nothing but what O(commands) names, and changes nothing.
extends_documentation_fragment:
  - nested.kata.attributes.info_module
options:
  docker:
    description: Whether to ask Docker.
    type: bool
    default: true
  containers:
    description: Names of containers.
    type: list
    elements: str
    default: []
  images:
    description: References of images.
    type: list
    elements: str
    default: []
  volumes:
    description: Names of volumes.
    type: list
    elements: str
    default: []
  paths:
    description: Absolute paths of files and directories. With a directory comes what is directly in it.
    type: list
    elements: str
    default: []
  texts:
    description: Absolute paths of files whose content is returned, up to 1 MiB of each.
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd's units.
    type: list
    elements: str
    default: []
  packages:
    description: Names of Debian packages.
    type: list
    elements: str
    default: []
  libraries:
    description: Names of Python libraries, for the Python that runs the module.
    type: list
    elements: str
    default: []
  commands:
    description:
      - Commands by a name for each, which are lists of a program and its arguments. Up to eight run at the same time.
      - The module limits neither their time nor their output. P(nested.kata.asked_of#filter) gives commands with limits
        for containers.
    type: dict
    default: {}
notes:
  - Docker is reached with the command C(docker), so that E(DOCKER_HOST) applies where it is set.
seealso:
  - module: nested.kata.host_check
  - module: nested.kata.disk_image_info
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Look at the proxy and at what holds its network to rules
  nested.kata.host_info:
    containers: [kata-in-docker]
    paths: [/etc/nested-kata/firewall]
    units: [nested-kata-firewall.service]
  register: host

- name: Show which runtimes there are
  ansible.builtin.debug:
    msg: "{{ host.docker.error or host.docker.runtimes }}"
"""

RETURN = r"""
docker:
  description:
    - The C(version) of Docker and its C(runtimes).
    - Where Docker does not answer there is only C(error), the reason, and nothing is found of RV(containers),
      RV(networks), RV(images) and RV(volumes). Otherwise C(error) is empty.
  returned: success
  type: dict
  sample: {error: "", version: 26.1.5, runtimes: [io.containerd.runc.v2, kata, runc]}
containers:
  description: Those of O(containers) that exist, as C(docker container inspect) reports them.
  returned: success
  type: list
  elements: dict
  sample: [{Name: /kata-in-docker}]
networks:
  description: All networks, as C(docker network inspect) reports them.
  returned: success
  type: list
  elements: dict
  sample: [{Name: bridge}, {Name: kata-in-docker}]
images:
  description: Those of O(images) that exist, by the reference, as C(docker image inspect) reports them.
  returned: success
  type: dict
  sample: {"debian:trixie-slim": {Os: linux}}
volumes:
  description: Those of O(volumes) that exist, as C(docker volume inspect) reports them.
  returned: success
  type: list
  elements: dict
  sample: [{Name: kata-in-docker-data}]
files:
  description:
    - What O(paths) are, by path, as far as they exist. Links are not followed.
    - C(type) is one of V(file), V(directory), V(link), V(block), V(character), V(fifo) and V(socket). C(mode) is in
      octal, C(size) in bytes. Files of up to 16 MiB have C(sha256), links their C(target). Where what is in a directory
      may not be read, it has C(listed), which is false.
  returned: success
  type: dict
  sample: {/etc/nested-kata/firewall/kata.nft: {type: file, mode: "0644", size: 1729, sha256: 0aa1c3}}
texts:
  description: What is in those of O(texts) that can be read, by path.
  returned: success
  type: dict
  sample: {/etc/resolv.conf: "nameserver 192.0.2.1\n"}
units:
  description:
    - Of each of O(units) its states, C(load), C(active), C(sub), C(enabled) and C(reload), whether systemd has to read
      its file again. Empty where systemd does not run.
  returned: success
  type: dict
  sample: {nested-kata-firewall.service: {load: loaded, active: active, sub: running, enabled: enabled, reload: "no"}}
packages:
  description: Those of O(packages) that are installed. Empty where Debian's package manager is not there.
  returned: success
  type: list
  elements: str
  sample: [nftables]
libraries:
  description: Those of O(libraries) that Python finds.
  returned: success
  type: list
  elements: str
  sample: [docker, requests]
answers:
  description: Of each of O(commands) its exit status C(rc), and its C(stdout) and C(stderr).
  returned: success
  type: dict
  sample: {kata: {rc: 0, stdout: "btrfs\n", stderr: ""}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._host.state import look, parse


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "docker": {"type": "bool", "default": True},
            "containers": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "texts": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "libraries": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        return {"changed": False, **look(parse(module.params), module.get_bin_path("docker"))}

    finish(module, work, "this machine")


if __name__ == "__main__":
    main()
