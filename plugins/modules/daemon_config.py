#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_config
short_description: Merge settings into Docker's daemon.json, and have the running daemon reload them
version_added: 0.1.0
description:
  - Puts settings into C(daemon.json) and leaves all others as they are written, with their order, layout and spelling.
  - Checks the types of all settings, as dockerd from 20.10 to 29 does, before it writes them. A text where dockerd
    needs a number, or a number where it needs a text, is an error that names the key and what to write.
  - Refuses a key that dockerd's command line names too, since dockerd does not start with both, and names the drop-in
    for its unit that removes the flag.
  - Validates the new file with C(dockerd --validate) before it replaces the old one, where dockerd can (Docker 23 and
    newer). Of an older dockerd it learns the keys from C(dockerd --help).
  - Reads what dockerd reads, such as an empty file, V(null), and UTF-8 or UTF-16 with a byte order mark. A file that is
    changed is written in UTF-8.
  - Has the daemon reload it, which no container notices. A restart, which some settings need, is left to the user, who
    decides when containers may stop; see RV(restart).
  - Waits for the event by which the daemon reports that it has reloaded. Where that does not come, the old file is
    restored.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - The new file is not validated with C(dockerd --validate), but its types are checked.
options:
  settings:
    description:
      - The wanted settings, by dockerd's names. Objects are merged, lists and single values are replaced, and V(null)
        removes a key.
      - A runtime below C(runtimes) is replaced as a whole. V(null) removes it where it is managed by nested.kata; see
        O(runtimes_below).
    type: dict
    required: true
  runtimes_below:
    description:
      - A runtime may be replaced or removed where its C(runtimeType) or C(path) is below this directory.
      - A runtime of a wanted name that is elsewhere is not managed by nested.kata, and the module fails.
    type: path
    default: /var/lib/nested-kata
  path:
    description:
      - The file. Where it is a link, its target is written. Where nothing is left in it, it is removed.
      - A file that is a mount point, as in many containers, is written in place and never removed.
    type: path
    default: /etc/docker/daemon.json
  timeout:
    description: Seconds that the daemon may take to reload the file.
    type: int
    default: 30
notes:
  - Run it as root, where dockerd runs. Its process is that of C(/run/docker.pid); where there is none, only the file is
    changed.
  - The daemon gets the signal SIGHUP, as from C(systemctl reload docker), and is queried with the command C(docker).
  - The file that the daemon has reloaded is recorded in C(/run/nested-kata/daemon.json.read), so that a run that ended
    before the reload is completed by the next one.
seealso:
  - name: dockerd
    description: The settings that the file may have, and those that the daemon reloads while it runs.
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

- name: Remove it again
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
  description: All settings of the file now, or after the run in check mode.
  returned: success
  type: dict
  sample:
    runtimes:
      kata:
        runtimeType: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
steps:
  description: The steps that were done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [write the file, have dockerd read it]
restart:
  description: The settings that this run changed and that the running daemon reads only when it is restarted.
  returned: success
  type: list
  elements: str
  sample: [storage-driver]
msg:
  description: The reason, in a sentence.
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
