#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kata_release
short_description: Unpack a release of Kata Containers into a directory of its own, verified and all at once
version_added: 0.1.0
description:
  - Unpacks the archive of a release, as the project publishes it, and strips its C(opt/kata/). So several versions can
    be installed side by side, and nothing is in C(/opt).
  - The archive is read once. It is unpacked into a directory beside O(path) while its SHA-256 is computed. The
    directory is renamed only when the digest is correct, every member was valid and all is on the disk. Whatever
    interrupts it, O(path) is either missing or complete.
  - Whatever the archive holds, nothing is written outside of that directory. Refused are absolute names and names with
    C(..), members outside of C(opt/kata), symlinks and hard links that lead out of it, members that are below a symlink
    or replace an earlier member, devices, named pipes, sparse files and unknown types, names with characters that
    cannot be printed, and more than 20 GiB or 200000 members.
  - An existing release with the same O(sha256) is left alone. Neither the archive nor large files are read then.
  - While it runs, it shows its progress every few seconds.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - The O(archive) and the directory that O(path) is in may be missing, since another task may bring them. An
        existing archive is checked, but not read as a whole.
  diff_mode:
    details:
      - Shows what is recorded of the release, before and after. In check mode only its digest is known.
options:
  path:
    description:
      - The directory of this release. Its parent directory must exist.
      - A directory that this module did not make is refused, and so is a directory with another release in it. Give a
        new version a directory of its own.
    type: path
    required: true
  archive:
    description:
      - The archive, a C(.tar.zst) or C(.tar.xz) file on the target. The format is detected from the content.
      - Needed only where the release is not in O(path) yet.
    type: path
  sha256:
    description:
      - The SHA-256 of the archive, 64 hexadecimal digits. Required with O(state=present).
    type: str
  version:
    description:
      - The version of the release. Where the archive has a file C(opt/kata/VERSION), as the archives of Kata have, the
        file must state the same version.
      - The default is the version in that file.
    type: str
  state:
    description:
      - V(absent) removes the release, if this module put it there. It is renamed before it is deleted, and a deletion
        that was interrupted is finished by the next run with the same O(path).
    type: str
    choices: [present, absent]
    default: present
  if_in_use:
    description:
      - What O(state=absent) does while a process uses the release, that is, has its program, a mapped file, an open
        file, its working or its root directory there, as the shim, QEMU and virtiofsd of a VM do.
      - V(fail) refuses, V(keep) leaves the release and is not an error. So an upgrade can leave the old release until
        no process uses it.
      - Only root sees the processes of all users.
    type: str
    choices: [fail, keep]
    default: fail
requirements:
  - C(zstd) (Debian package zstd), for C(.tar.zst), or C(xz) (xz-utils), for C(.tar.xz)
notes:
  - All unpacked files belong to the user that the module runs as. The write permission of group and others is removed
    from their modes, and so are set-user-ID, set-group-ID and sticky bits. Extended attributes and capabilities are not
    restored.
  - Symlinks become relative, also those to C(/opt/kata), so that the release does not depend on its location.
  - Until it is complete the release is in a directory C(.NAME.nested-kata-XXXXXXXX) beside O(path). If a run is killed,
    the next run with the same O(path) removes that directory.
  - Runs in the same parent directory wait for each other.
  - The variable C(nested_kata_progress_seconds) sets how often progress is shown, 5 by default; 0 shows none.
seealso:
  - module: nested.kata.download
  - module: ansible.builtin.unarchive
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Unpack Kata 4.1.0
  nested.kata.kata_release:
    archive: /var/lib/nested-kata/kata/kata-static-4.1.0-amd64.tar.zst
    sha256: 3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96
    version: 4.1.0
    path: /var/lib/nested-kata/kata/4.1.0
  register: kata

- name: Show which kernel its guests run
  ansible.builtin.debug:
    msg: "{{ kata.contents.kernel }} is Linux {{ kata.contents.kernel_release }}"

- name: Remove the earlier version, unless a process still uses it
  nested.kata.kata_release:
    path: /var/lib/nested-kata/kata/4.0.0
    state: absent
    if_in_use: keep
"""

RETURN = r"""
path:
  description: The directory of the release.
  returned: success
  type: str
  sample: /var/lib/nested-kata/kata/4.1.0
sha256:
  description: SHA-256 of the archive that the release comes from. V(null) where there is no release any more.
  returned: success
  type: str
  sample: 3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96
version:
  description: The version. V(null) where neither the archive nor O(version) states it, and where there is no release
    any more.
  returned: success
  type: str
  sample: 4.1.0
bytes:
  description: Bytes of all files of the release. V(null) where it does not exist, and in check mode where it would be
    unpacked.
  returned: success
  type: int
  sample: 2513600512
files:
  description: How many files the release has. V(null) as with RV(bytes).
  returned: success
  type: int
  sample: 713
seconds:
  description: How long the run took.
  returned: success
  type: float
  sample: 9.4
contents:
  description:
    - Paths of the parts of the release that others need. V(null) where the release has no such part.
    - In check mode all are V(null) where the release would be unpacked.
  returned: O(state=present)
  type: dict
  contains:
    shim:
      description: The shim for containerd and Docker, that of runtime-rs where the release has it.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
    shim_kind:
      description: V(rust) for the shim of runtime-rs, V(go) for the older one.
      type: str
      sample: rust
    qemu:
      description: QEMU for the architecture of the release.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/bin/qemu-system-x86_64
    virtiofsd:
      description: The daemon that shares directories with guests.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/libexec/virtiofsd
    cloud_hypervisor:
      description: Cloud Hypervisor.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/bin/cloud-hypervisor
    kernel:
      description: The guest kernel, to which C(vmlinux.container) leads.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/share/kata-containers/vmlinux-6.18.35-202
    kernel_release:
      description: What C(uname -r) prints in a guest with that kernel. V(null) where its file does not contain it.
      type: str
      sample: 6.18.35
    image:
      description: The guest image.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/share/kata-containers/kata-containers.img
    initrd:
      description: The guest image as an initrd.
      type: str
      sample: /var/lib/nested-kata/kata/4.1.0/share/kata-containers/kata-containers-initrd.img
    configuration:
      description: The configuration for QEMU that the release ships, for RV(contents.shim_kind).
      type: str
      sample: >-
        /var/lib/nested-kata/kata/4.1.0/share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml
in_use:
  description: The processes that use the release.
  returned: O(state=absent)
  type: list
  elements: dict
  contains:
    pid:
      description: Its id.
      type: int
      sample: 81234
    command:
      description: Its name, 15 characters at most.
      type: str
      sample: qemu-system-x86
steps:
  description: The steps that were done, in this order, or would be done.
  returned: success
  type: list
  elements: str
  sample: [unpack /tmp/kata-static-4.1.0-amd64.tar.zst into /var/lib/nested-kata/kata/4.1.0]
msg:
  description: The reason, in one line.
  returned: always
  type: str
  sample: there is no /var/lib/nested-kata/kata/4.1.0 yet
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._kata.machine import apply, interruptible
from ansible_collections.nested.kata.plugins.module_utils._kata.options import parse
from ansible_collections.nested.kata.plugins.module_utils._kata.result import result_of


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "version": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "if_in_use": {"type": "str", "choices": ["fail", "keep"], "default": "fail"},
        },
        required_if=[("state", "present", ["sha256"])],
        supports_check_mode=True,
    )
    began = time.monotonic()

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        with interruptible(wanted), Progress() as progress:
            result = result_of(wanted, *apply(wanted, module.check_mode, progress))
        return {"seconds": round(time.monotonic() - began, 1), **result}

    finish(module, work, os.path.abspath(module.params["path"]), option="path")


if __name__ == "__main__":
    main()
