#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: disk_image
short_description: Make, clone, grow and trim a file that is a file system, and attach it to a loop device with a stable
  name
version_added: 0.1.0
description:
  - Makes a sparse file with a file system in it or clones one, grows it, gives back space that it does not use any
    more, attaches it to a loop device, and gives the loop device a name that outlives its number.
  - A file that holds anything is never formatted. Only a path where nothing is, an empty file, or a file of nothing but
    zeros gets a file system; anything else is an error that reports what was found, and nothing is changed.
  - A file system is made under another name in the same directory and gets its own name only when it is complete and on
    disk. A run that is interrupted leaves no half-made image, and the next run removes its temporary files.
  - A run that finds everything as wanted starts no other program.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  diff_mode:
    details:
      - In check mode, the UUID of a new file system and the loop device of a new attachment are not known.
options:
  path:
    description:
      - The file, an absolute path. Its directory must exist.
      - Anything but a regular file, even a symlink to one, is refused.
    type: str
    required: true
  size:
    description:
      - How large the file is, with a unit. V(K), V(M), V(G) and V(T), also written V(GiB) and so on, are powers of
        1024; V(KB), V(MB), V(GB) and V(TB) are powers of 1000; without a unit it is bytes. It is rounded up to a
        multiple of 4 KiB.
      - Needed where the file has to be made. May be larger than the free space, since the file is sparse.
      - The minimum is 109M for btrfs, 8M for ext4, and 300M for xfs.
      - A btrfs grows to 256M or more, as the kernel requires.
      - A file that is smaller grows, and so do the loop device that it is attached to and, see O(resizefs), its file
        system.
      - A size smaller than the file is an error, also where the file holds nothing but zeros. Nothing ever shrinks.
    type: str
  filesystem_size:
    description:
      - How much of the file a new file system takes, written like O(size), by default all of it. Whoever mounts it can
        let it grow up to O(size) while it is in use, without a larger file or another attachment.
      - At most O(size), and at least the minimum of its kind. A file system that is there already, or comes with a
        clone, is left as it is.
      - Goes with O(resizefs=false), since it would be grown to the end of the file otherwise.
    type: str
  fstype:
    description:
      - The file system. A file that holds another one is refused, also by O(state=absent) without O(any_content).
    type: str
    choices: [btrfs, ext4, xfs]
    default: btrfs
  mkfs_options:
    description:
      - More arguments for C(mkfs.btrfs), C(mkfs.ext4) or C(mkfs.xfs), where a file system is made. An option and its
        value are separate entries.
      - Paths, and values that follow no option, are refused, since they may name another device.
    type: list
    elements: str
  allocation:
    description:
      - V(preallocated) reserves all of O(size) on the disk that the file is on (fallocate), so that the image can
        always be filled. It is refused where that much is not free. On btrfs this only holds for the first write to
        each block.
      - V(sparse) takes space as it is written, and leaves an existing file as it is, as does leaving O(allocation) out.
      - A file system in a file of either kind gives space back when it discards.
    type: str
    choices: [sparse, preallocated]
  clone_of:
    description:
      - Absolute path of a golden image, from which the image is cloned where there is none yet. It has to be sealed,
        see O(sealed).
      - On btrfs and xfs the clone shares all data with it (reflink) and takes no time and space, but for the log of an
        xfs, which each has for itself (64 MiB); elsewhere all data but holes is copied.
      - Each clone gets a UUID of its own, so that several can be mounted side by side, and O(label) where it is given.
        A O(size) larger than the golden image's makes the clone grow.
      - An image that is there already is never cloned again, also where the golden image changed or is gone since.
      - A golden image that does not exist, holds another file system, is attached, can be written to, or was not
        unmounted cleanly is an error.
    type: path
  resizefs:
    description:
      - Whether the file system grows to the end of its file. Where it is mounted on this machine that happens while it
        is in use; for ext4 that needs the capability SYS_RESOURCE. Where nobody uses it, ext4 grows as it is, and btrfs
        and xfs are mounted for that purpose, in a mount namespace of its own.
      - Where it is in use elsewhere, in a virtual machine or another mount namespace, it is left to whoever mounted it,
        as the disk unit of an instance does.
      - V(false) keeps this machine's kernel from reading what a guest wrote; O(trim) and O(sealed) do mount it too.
    type: bool
    default: true
  trim:
    description:
      - V(true) gives the space that the file system does not use any more back to the disk that the file is on. The
        image is attached, mounted in a mount namespace of its own, trimmed (C(fstrim)) and detached. Discards within a
        Kata VM do not leave it.
      - Done only where the file was written to since the last time. Remembering that needs extended attributes; without
        them it is done each time.
      - Refused while the file is attached, or open in any process. Goes with O(attached=false).
    type: bool
    default: false
  sealed:
    description:
      - V(true) makes the file a golden image. It is trimmed, which also replays the log of its file system, and nobody
        may write to it any more (mode C(0400)). From then on it is never attached, grown or trimmed.
      - V(false) lets its owner write again. Clones are images of their own and do not change with it.
      - Refused while the file is attached, or open in any process. Goes with O(attached=false).
    type: bool
  any_content:
    description:
      - V(true) detaches or removes the file whatever it holds, and reads nothing of it. It is for a file that was given
        to somebody else, such as the disk of a tenant, who may have written anything to it.
      - Goes with O(state=absent), or with O(attached=false) and no option about the content.
    type: bool
    default: false
  label:
    description:
      - Label of the file system, printable ASCII, up to 255 characters for btrfs, 16 for ext4 and 12 for xfs.
      - Where the file system is there already and has another label, that is an error.
    type: str
  uuid:
    description:
      - UUID of the file system. A new one gets a random UUID without it.
      - For a new one, that of another block device or of another image in the same directory is refused.
      - Where the file system is there already and has another UUID, that is an error.
    type: str
  attached:
    description:
      - Whether the file is attached to a loop device, with direct I/O where the file system of its directory
        supports that.
      - Without it an attachment is left as it is.
      - V(true) refuses a file that is attached more than once, read-only, in part, or only until its last user ends
        (C(mount -o loop)).
      - V(false) is refused while the loop device is in use, for example mounted in another container or open in a
        virtual machine.
    type: bool
  link:
    description:
      - Absolute path of a symlink that leads to the loop device. Loop devices get other numbers at the next boot, so
        nothing else should name them. Its directory is made where it is missing.
      - Needs O(attached), unless O(state=absent). With V(true) for O(attached) it is made or corrected, else it is
        removed.
      - A path that is anything but a symlink to a loop device is refused and left as it is.
    type: str
  owner:
    description:
      - Name or number of the user who owns the file. Default for a new file is the user that the module runs as.
    type: str
  group:
    description:
      - Name or number of the group of the file. Default for a new file is that of a new file in its directory.
    type: str
  mode:
    description:
      - Permissions of the file, in octal, best in quotes. V('0600') for a new file; without it an existing file keeps
        its own.
      - A mode that lets nobody write needs O(sealed=true).
    type: raw
  state:
    description:
      - V(absent) removes the file, if it holds a file system as in O(fstype), O(label) and O(uuid), or with
        O(any_content=true) whatever it holds. An attachment that
        nobody uses is undone before where O(link) names it or O(attached) is V(false); else an attached file is
        refused.
    type: str
    choices: [present, absent]
    default: present
requirements:
  - C(blkid), and for O(trim), O(sealed) and O(resizefs) C(unshare), C(mount) and C(fstrim) (Debian packages util-linux
    and mount)
  - C(mkfs.btrfs) (btrfs-progs), C(mkfs.ext4) (e2fsprogs) or C(mkfs.xfs) (xfsprogs), where a file system has to be made,
    and other programs of these packages, where one is cloned or grown
  - Linux 5.8 or newer, and root, since every run looks whether a loop device holds the file
notes:
  - In a container, loop devices need the capabilities SYS_ADMIN and MKNOD, the device C(/dev/loop-control), and the
    device rule C(b 7:* rmw). Nodes that are missing in C(/dev) are made.
  - Runs that work in the same directory wait for each other.
  - After a boot nothing is attached. The file C(plugins/module_utils/_disk/loop.py) of this collection is also a
    program that does what V(true) for O(attached) does, without Ansible, for a unit that runs at boot.
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Make a disk for the instance and attach it
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/kata.img
    size: 20G
    attached: true
    link: /run/nested-kata/disks/kata
  register: disk

- name: Show where it is
  ansible.builtin.debug:
    msg: "{{ disk.link }} leads to {{ disk.device }}, file system {{ disk.uuid }}"

- name: Make one that its guest can let grow while it runs
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/web.img
    size: 100G
    filesystem_size: 20G
    resizefs: false

- name: Let it grow, and leave an attachment as it is
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/kata.img
    size: 50G

- name: Give back what it does not need any more, while nobody uses it
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/kata.img
    attached: false
    link: /run/nested-kata/disks/kata
    trim: true

- name: Make a golden image of a disk that images were loaded onto
  nested.kata.disk_image:
    path: /var/lib/nested-kata/golden/web.img
    attached: false
    link: /run/nested-kata/disks/golden-web
    sealed: true

- name: Clone it, larger, for an instance
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/web1.img
    clone_of: /var/lib/nested-kata/golden/web.img
    size: 50G
    attached: true
    link: /run/nested-kata/disks/web1

- name: Detach it
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/kata.img
    attached: false
    link: /run/nested-kata/disks/kata

- name: Remove it with all that it holds
  nested.kata.disk_image:
    path: /var/lib/nested-kata/disks/kata.img
    link: /run/nested-kata/disks/kata
    state: absent
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /var/lib/nested-kata/disks/kata.img
size:
  description:
    - Bytes that the file appears to have, V(null) where it is gone.
    - In check mode, this value and those below are the ones expected after the steps.
  returned: success
  type: int
  sample: 21474836480
allocated:
  description: Bytes of space that the file takes up, including those that a clone shares. V(null) where it is gone, and
    in check mode where it would change.
  returned: success
  type: int
  sample: 402653184
filesystem_size:
  description: Bytes of its file that the file system takes, V(null) where that is not known. Smaller than RV(size)
    where it has yet to grow.
  returned: success
  type: int
  sample: 21474836480
sealed:
  description: Whether nobody may write to it, so that others can be cloned from it.
  returned: success
  type: bool
  sample: false
fstype:
  description: The file system in it, V(null) where it is gone.
  returned: success
  type: str
  sample: btrfs
uuid:
  description: UUID of the file system. In check mode V(null) where it would be made.
  returned: success
  type: str
  sample: 7d57472b-5630-4e76-9191-1ca5e456a9da
label:
  description: Label of the file system, V(null) where it has none.
  returned: success
  type: str
  sample: kata
device:
  description: The loop device, V(null) where the file is not attached, and in check mode where it would be.
  returned: success
  type: str
  sample: /dev/loop3
direct_io:
  description: Whether the loop device reads and writes the file past the page cache, V(null) where it is not attached
    or would be.
  returned: success
  type: bool
  sample: true
link:
  description: The link that leads to the loop device, V(null) where there is none.
  returned: success
  type: str
  sample: /run/nested-kata/disks/kata
diff:
  description: Size of the file and of the file system in it, its kind, UUID and label, loop device, link target, owner,
    group and mode, before and after.
  returned: success
  type: dict
steps:
  description: The steps that were done, in this order, or would be done.
  returned: success
  type: list
  elements: str
  sample:
    - make /var/lib/nested-kata/disks/kata.img, sparse, 20 GiB, with btrfs
    - attach /var/lib/nested-kata/disks/kata.img to a free loop device
    - make /run/nested-kata/disks/kata name the loop device of /var/lib/nested-kata/disks/kata.img
msg:
  description: The reason, in one line.
  returned: always
  type: str
  sample: there is no file yet; it is not attached
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._disk.machine import apply
from ansible_collections.nested.kata.plugins.module_utils._disk.options import parse
from ansible_collections.nested.kata.plugins.module_utils._disk.result import result_of


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "size": {"type": "str"},
            "filesystem_size": {"type": "str"},
            "fstype": {"type": "str", "choices": ["btrfs", "ext4", "xfs"], "default": "btrfs"},
            "mkfs_options": {"type": "list", "elements": "str"},
            "allocation": {"type": "str", "choices": ["sparse", "preallocated"]},
            "clone_of": {"type": "path"},
            "resizefs": {"type": "bool", "default": True},
            "trim": {"type": "bool", "default": False},
            "sealed": {"type": "bool"},
            "any_content": {"type": "bool", "default": False},
            "label": {"type": "str"},
            "uuid": {"type": "str"},
            "attached": {"type": "bool"},
            "link": {"type": "str"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        return result_of(wanted, *apply(wanted, module.check_mode))

    finish(module, work, module.params["path"])


if __name__ == "__main__":
    main()
