#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_config
short_description: Merge settings into Docker's daemon.json, and have the running daemon take them over
version_added: 0.1.0
description:
  - Puts settings into C(daemon.json) and leaves all others as they are, with their order and indentation.
  - Lets C(dockerd --validate) judge the new file before it takes the place of the old one, where dockerd can (Docker 23
    and newer).
  - Has the daemon reload it, which no container notices. A restart, which some settings need, is left to whoever can
    say that containers may stop; see RV(restart).
  - Waits for the event by which the daemon says that it has reloaded. Where that does not come, the old file comes
    back.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - The new file is not shown to C(dockerd --validate).
options:
  settings:
    description:
      - What the file is to say, by dockerd's names. Objects are merged, lists and single values are replaced, and
        V(null) takes a key away.
      - A runtime below C(runtimes) is replaced whole. V(null) removes it where it is ours; see O(runtimes_below).
    type: dict
    required: true
  runtimes_below:
    description:
      - Directory below which the C(runtimeType) or C(path) of a runtime lies that may be replaced or removed.
      - A runtime of a wanted name that lies elsewhere is somebody else's, and the module fails.
    type: path
    default: /var/lib/nested-kata
  path:
    description: The file. Where it is a link, what it leads to is written. Where nothing is left in it, it is removed.
    type: path
    default: /etc/docker/daemon.json
  timeout:
    description: Seconds that the daemon may take to reload the file.
    type: int
    default: 30
notes:
  - Run it as root, where dockerd runs. Its process is that of C(/run/docker.pid); where there is none, only the file is
    seen to.
  - The daemon is told by the signal SIGHUP, as C(systemctl reload docker) does, and asked with the command C(docker).
  - What it was told is noted in C(/run/nested-kata/daemon.json.read), so that a run that ended before it told the
    daemon is made good by the next one.
seealso:
  - name: dockerd
    description: What may stand in the file, and what of it the daemon takes over while it runs.
    link: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Register Kata with Docker
  nested.kata.daemon_config:
    settings:
      runtimes:
        kata:
          runtimeType: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
          options:
            ConfigPath: /etc/nested-kata/kata/kata/4.1.0/configuration.toml

- name: Take it away again
  nested.kata.daemon_config:
    settings:
      runtimes:
        kata: null

- name: Take images from a mirror
  nested.kata.daemon_config:
    settings:
      registry-mirrors: [https://mirror.example.org]
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /etc/docker/daemon.json
settings:
  description: All that the file says now, or would say in check mode.
  returned: success
  type: dict
  sample:
    runtimes:
      kata:
        runtimeType: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
steps:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [write the file, have dockerd read it]
restart:
  description: The settings that this run changed and that the running daemon only takes over when it is restarted.
  returned: success
  type: list
  elements: str
  sample: [storage-driver]
msg:
  description: Why, in a sentence.
  returned: success
  type: str
  sample: runtimes differed
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_plan import parse_options
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd import apply


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "runtimes_below": {"type": "path", "default": "/var/lib/nested-kata"},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    finish(module, lambda: apply(module, parse_options(module.params)), module.params["path"])


if __name__ == "__main__":
    main()
