#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: disk_image_info
short_description: Tell how large disk images are, what they take, and whether they may fill the disk that they lie on
version_added: 0.1.0
description:
  - Looks at files as M(nested.kata.disk_image) makes them, their apparent and their real size, what is in them, and whether they are attached.
  - Warns where sparse images may grow by more than there is room for. When a disk is full, writes in all guests on it fail.
  - Starts no other program and changes nothing.
attributes:
  check_mode:
    description: Can run in check mode and return the same as otherwise.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: N/A
    details:
      - Nothing is changed.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
    support: full
  platform:
    description: Target machines that the module runs on.
    support: full
    platforms: linux
options:
  paths:
    description:
      - Files, and directories, which stand for the files in them whose names end in C(.img). Absolute paths.
      - What does not exist is left out.
    type: list
    elements: str
    required: true
  overcommit:
    description:
      - How many times what is free the images on a file system may grow by together. More is a warning.
      - With V(1) there is one as soon as they could fill it; an image that is not sparse and shares nothing cannot grow.
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
- name: Look at the disks of all instances, which may promise twice what there is
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
      description: Bytes that the file takes on the disk it lies on, those included that it shares.
      returned: success
      type: int
      sample: 402653184
    shared:
      description: Bytes of these that other files have too, as a clone and its golden image (reflink).
      returned: success
      type: int
      sample: 335544320
    growth:
      description: Bytes that it may take beyond those it takes now, in the worst case. V(0) for one that is sealed.
      returned: success
      type: int
      sample: 21407727616
    sealed:
      description: Whether nobody may write to it, so that others can be cloned from it.
      returned: success
      type: bool
      sample: false
    fstype:
      description: The file system in it, V(null) where it is none of btrfs, ext4 and xfs.
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
    device:
      description: The loop device that holds the file, V(null) where it is not attached.
      returned: success
      type: str
      sample: /dev/loop3
file_systems:
  description: The file systems that the images lie in.
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
      description: What it is.
      returned: success
      type: str
      sample: xfs
    size:
      description: Bytes that it has.
      returned: success
      type: int
      sample: 214748364800
    free:
      description: Bytes that can be written still.
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

import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils import superblock
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import about
from ansible_collections.nested.kata.plugins.module_utils.checks_resources import MORE_ROOM
from ansible_collections.nested.kata.plugins.module_utils.disk_usage import (
    Room, Usage, look, parse_overcommit, rooms_of,
)
from ansible_collections.nested.kata.plugins.module_utils.loop import loops_of


def files_at(paths: list[str]) -> list[str]:
    """Return the images that the paths stand for, each once."""
    found = []
    for path in paths:
        if not os.path.isabs(path):
            raise Refused(f"paths: {path!r} is not an absolute path")
        if os.path.isdir(path):
            found += [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".img") and not name.startswith(".")]
        elif os.path.exists(path):
            found.append(path)
    return [path for path in dict.fromkeys(found) if os.path.isfile(path)]


def describe(usage: Usage) -> dict:
    content = superblock.read(usage.path)
    loops = loops_of(usage.path)
    return {
        "path": usage.path,
        "size": usage.size,
        "allocated": usage.allocated,
        "shared": usage.shared,
        "growth": usage.growth,
        "sealed": usage.sealed,
        "fstype": content.fstype if content else None,
        "uuid": content.uuid if content else None,
        "label": content.label if content else None,
        "device": loops[0].device if loops else None,
    }


def warning(room: Room) -> str:
    many = f"the {room.images} disk images" if room.images > 1 else "the disk image"
    return (f"{platform.node()}: {many} on {room.mount.point} may grow by {about(room.growth)}, and {about(room.mount.free)} are free there. When they "
            f"fill it, writes in all their guests fail: {MORE_ROOM}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "required": True},
            "overcommit": {"type": "float", "default": 1},
        },
        supports_check_mode=True,
    )
    try:
        most = parse_overcommit(module.params["overcommit"])
        usages = [look(path) for path in files_at(module.params["paths"])]
        images = [describe(usage) for usage in usages]
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'paths'}: {error.strerror}")
    rooms = rooms_of(usages)
    for room in rooms:
        if room.is_overcommitted(most):
            module.warn(warning(room))
    module.exit_json(
        changed=False,
        images=images,
        file_systems=[
            {
                "mount": room.mount.point,
                "fstype": room.mount.fstype,
                "size": room.mount.size,
                "free": room.mount.free,
                "growth": room.growth,
                "overcommitted": room.is_overcommitted(most),
            }
            for room in rooms
        ],
    )


if __name__ == "__main__":
    main()
