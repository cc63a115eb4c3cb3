# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kata_config
short_description: Make the drop-in for a Kata configuration
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the configuration file of a Kata release and returns the content of a file in C(config.d) beside it, with
    the paths of the release's directory and the wanted settings.
  - Fails for a key that the release's file does not name, not even in a comment, in a table that it has, and for a
    value of another type than it has there. The message names keys of similar spelling.
  - Pure computation on the control node.
options:
  _input:
    description: Text of the release's own configuration file.
    type: str
    required: true
  home:
    description: Directory of the release. Every path below C(/opt/kata) in the file is below this directory in the
      drop-in.
    type: str
    required: true
  ours:
    description:
      - Settings of this collection, by table. C(hypervisor) is the table of the one hypervisor that the file is for.
    type: dict
    default: {}
  theirs:
    description: Settings of the user, by table as in Kata's file. They take precedence.
    type: dict
    default: {}
  option:
    description: Name of the variable that O(theirs) comes from, for error messages.
    type: str
    default: kata_runtime_config
"""

EXAMPLES = r"""
- name: Write the drop-in
  ansible.builtin.copy:
    content: "{{ (shipped.content | b64decode | nested.kata.kata_config('/var/lib/nested-kata/kata/4.1.0',
      theirs=kata_runtime_config)).text }}"
    dest: /etc/nested-kata/kata/kata/4.1.0/config.d/50-nested-kata.toml
    mode: "0644"
"""

RETURN = r"""
_value:
  description:
    - C(text) is the drop-in, C(settings) the same as a dictionary, and C(files) the files that must be on the target
      for a VM to start.
    - C(kernel_params) in it always has C(cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1), unless it sets these
      itself.
  type: dict
  sample:
    text: |
      [hypervisor.qemu]
      kernel = "/var/lib/nested-kata/kernels/6.12.104-docker-f88b8dc7edfb/vmlinux"
    settings: {"hypervisor": {"qemu": {"kernel": "/var/lib/nested-kata/kernels/6.12.104-docker-f88b8dc7edfb/vmlinux"}}}
    files: [/var/lib/nested-kata/kernels/6.12.104-docker-f88b8dc7edfb/vmlinux]
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.plugin_utils.kata_config import drop_in, files, read, render
from ansible_collections.nested.kata.plugins.plugin_utils.merge import Table, merged


def kata_config(
    text: str,
    home: str,
    ours: Table | None = None,
    theirs: Table | None = None,
    option: str = "kata_runtime_config",
) -> dict[str, Any]:
    """Return the drop-in as text and as settings, and the files that it needs."""
    try:
        shipped = read(text)
        settings = drop_in(shipped, home=home, ours=ours or {}, theirs=theirs or {}, option=option)
    except Refused as refused:
        raise AnsibleFilterError(f"nested.kata.kata_config: {refused}") from refused
    return {"text": render(settings), "settings": settings, "files": files(merged(shipped.settings, settings))}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"kata_config": kata_config}
