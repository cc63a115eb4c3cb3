#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: disk_image_info
short_description: Show how large disk images are, what they take, and whether they may fill the disk that they are on
version_added: 0.1.0
description:
  - Looks at files as M(nested.kata.disk_image) makes them, their apparent and their real size, their content, and
    whether they are attached.
  - Warns where sparse images may grow by more than there is room for. When a disk is full, writes in all guests on it
    fail.
  - Starts no other program and changes nothing.
extends_documentation_fragment:
  - nested.kata.attributes.info_module
options:
  paths:
    description:
      - Files, and directories, which stand for the files in them whose names end in C(.img). Absolute paths.
      - A path that does not exist is left out.
    type: list
    elements: str
    required: true
  overcommit:
    description:
      - Overcommit factor. Warn where the images on a file system could together grow by more than this multiple of its
        free space.
      - With V(1) there is a warning as soon as they could fill it; an image that is not sparse and shares nothing
        cannot grow.
    type: float
    default: 1
requirements:
  - root, to read images and loop devices
seealso:
  - module: nested.kata.disk_image
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Look at the disks of all instances, which may grow by twice the free space
  nested.kata.disk_image_info:
    paths: [/var/lib/nested-kata/disks, /var/lib/nested-kata/golden]
    overcommit: 2
  register: disks

- name: Show what each takes
  ansible.builtin.debug:
    msg: "{{ item.path }}: {{ item.allocated | human_readable }} of {{ item.size | human_readable }}"
  loop: "{{ disks.images }}"
"""

RETURN = r"""
images:
  description: The images, in the order of O(paths), those of a directory by their names.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      returned: success
      type: str
      sample: /var/lib/nested-kata/disks/kata.img
    size:
      description: Bytes that the file appears to have.
      returned: success
      type: int
      sample: 21474836480
    allocated:
      description: Bytes that the file takes on the disk that it is on, including those that it shares.
      returned: success
      type: int
      sample: 402653184
    shared:
      description: Bytes of these that are shared with other files, as between a clone and its golden image (reflink).
      returned: success
      type: int
      sample: 335544320
    growth:
      description: Bytes that it may take beyond those it takes now, in the worst case. V(0) for a sealed image.
      returned: success
      type: int
      sample: 21407727616
    sealed:
      description: Whether nobody may write to it, so that others can be cloned from it.
      returned: success
      type: bool
      sample: false
    fstype:
      description: The file system in it, V(null) where it is not btrfs, ext4 or xfs.
      returned: success
      type: str
      sample: btrfs
    uuid:
      description: UUID of the file system.
      returned: success
      type: str
      sample: 7d57472b-5630-4e76-9191-1ca5e456a9da
    label:
      description: Label of the file system, V(null) where it has none.
      returned: success
      type: str
      sample: kata
    attached:
      description: Whether one loop device holds it as M(nested.kata.disk_image) attaches it, all of it and writable.
      returned: success
      type: bool
      sample: true
    device:
      description: The loop device that holds the file, V(null) where it is not attached.
      returned: success
      type: str
      sample: /dev/loop3
file_systems:
  description: The file systems that the images are in.
  returned: success
  type: list
  elements: dict
  contains:
    mount:
      description: Where it is mounted.
      returned: success
      type: str
      sample: /var
    fstype:
      description: Its type.
      returned: success
      type: str
      sample: xfs
    size:
      description: Its size in bytes.
      returned: success
      type: int
      sample: 214748364800
    free:
      description: Its free space in bytes.
      returned: success
      type: int
      sample: 53687091200
    growth:
      description: Bytes that its images may take beyond those they take now.
      returned: success
      type: int
      sample: 42949672960
    overcommitted:
      description: Whether that is more than O(overcommit) allows.
      returned: success
      type: bool
      sample: false
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._common.overcommit import parse_overcommit
from ansible_collections.nested.kata.plugins.module_utils._disk.usage import report, warning


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "required": True},
            "overcommit": {"type": "float", "default": 1},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        most = parse_overcommit(module.params["overcommit"])
        result, tight = report(module.params["paths"], most)
        for room in tight:
            module.warn(warning(room))
        return {"changed": False, **result}

    finish(module, work, "paths")


if __name__ == "__main__":
    main()
