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
  - Unpacks the archive of a release, as the project publishes it, and strips its C(opt/kata/). So several versions lie beside each
    other, and nothing of them lies in C(/opt).
  - The archive is read once. It is unpacked into a directory beside O(path) while its SHA-256 is taken, and only when that is right,
    every member was fine and all is on the disk, the directory is renamed. Whatever interrupts it, O(path) is not there or whole.
  - Whatever the archive holds, nothing is written outside of that directory. Refused are absolute names and those with C(..), what lies
    outside of C(opt/kata), symlinks and hard links that lead out of it, what lies below a symlink or replaces an earlier member, devices,
    named pipes, sparse files and unknown types, names with characters that cannot be printed, and more than 20 GiB or 200000 members.
  - A release that is there with the same O(sha256) is left alone. Neither the archive nor large files are read then.
  - While it runs, a person who watches sees every few seconds how far it is.
attributes:
  check_mode:
    support: full
    description: >-
      Says what would be done. What another task would have brought, the O(archive) and the directory that O(path) lies in, may be missing.
      An archive that is there is looked at, and not read as a whole.
  diff_mode:
    support: full
    description: Shows what is recorded of the release, before and after. In check mode that is only its digest.
  idempotent:
    support: full
    description: A release that is there is not unpacked again.
  platform:
    support: full
    platforms: linux
    description: Target machines that the module runs on.
options:
  path:
    description:
      - The directory of this release. The one that it lies in must exist.
      - A directory that this module did not make is refused, and so is one with another release in it. To have a new version, give it a
        directory of its own.
    type: path
    required: true
  archive:
    description:
      - The archive, a C(.tar.zst) or C(.tar.xz) file on the target. What it is is seen from its content.
      - Needed only where the release is not in O(path) yet.
    type: path
  sha256:
    description:
      - The SHA-256 of the archive, 64 hexadecimal digits. Required with O(state=present).
    type: str
  version:
    description:
      - The version of the release. Where the archive has a file C(opt/kata/VERSION), as those of Kata have, it must say the same.
      - The default is what that file says.
    type: str
  state:
    description:
      - V(absent) removes the release, if this module put it there. It is renamed before it is deleted, and a deletion that was interrupted
        is finished by the next run with the same O(path).
    type: str
    choices: [present, absent]
    default: present
  if_in_use:
    description:
      - What O(state=absent) does while a process runs on the release, that is, has its program, a mapped file, an open file, its working
        or its root directory there. A shim, QEMU and virtiofsd of a VM do.
      - V(fail) refuses, V(keep) leaves the release and is no error. So an upgrade can leave the old one until nothing runs on it.
      - Only root sees the processes of all users.
    type: str
    choices: [fail, keep]
    default: fail
requirements:
  - C(zstd) (Debian package zstd), for C(.tar.zst), or C(xz) (xz-utils), for C(.tar.xz)
notes:
  - All that is unpacked belongs to the user that the module runs as. Of the modes in the archive the write permission of group and others
    is taken away, and so are set-user-ID, set-group-ID and sticky bits. Extended attributes and capabilities are not restored.
  - Symlinks become relative, also those to C(/opt/kata), so that the release does not depend on where it lies.
  - Until it is complete the release is in a directory C(.NAME.nested-kata-XXXXXXXX) beside O(path). One that a killed run left is removed
    by the next run with the same O(path).
  - Runs in the same parent directory wait for each other.
  - How often progress is shown is up to the variable C(nested_kata_progress_seconds), 5 by default; 0 shows none.
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

- name: Say which kernel its guests run
  ansible.builtin.debug:
    msg: "{{ kata.contents.kernel }} is Linux {{ kata.contents.kernel_release }}"

- name: Remove the version before, unless something still runs on it
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
  description: SHA-256 of the archive that the release comes from. V(null) where there is none any more.
  returned: success
  type: str
  sample: 3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96
version:
  description: The version. V(null) where neither the archive nor O(version) says it, and where there is no release any more.
  returned: success
  type: str
  sample: 4.1.0
bytes:
  description: Bytes of all files of the release. V(null) where it is not there, and in check mode where it is to be unpacked.
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
    - Where the parts of the release lie that others need. V(null) where the release has no such part.
    - In check mode all are V(null) where the release is to be unpacked.
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
      description: What C(uname -r) says in a guest with that kernel. V(null) where its file does not tell.
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
      sample: /var/lib/nested-kata/kata/4.1.0/share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml
in_use:
  description: The processes that run on the release.
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
  description: What was done, in this order, or would be done.
  returned: success
  type: list
  elements: str
  sample: [unpack /tmp/kata-static-4.1.0-amd64.tar.zst into /var/lib/nested-kata/kata/4.1.0]
msg:
  description: Why, in one line.
  returned: always
  type: str
  sample: there is no /var/lib/nested-kata/kata/4.1.0 yet
"""

import contextlib
import errno
import json
import mmap
import os
import shutil
import signal
import stat
import tempfile
import time
from dataclasses import asdict
from typing import Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils import release, unpack
from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    alone_in, sync_directory, sync_file_system,
)
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount


# --- look ---

def look(wanted: release.Wanted) -> release.Found:
    """Return what lies there."""
    parent, name = os.path.split(wanted.path)
    if not os.path.isdir(parent):
        return release.Found()
    leftovers = tuple(os.path.join(parent, entry) for entry in sorted(os.listdir(parent)) if entry.startswith(wanted.beside))
    if not os.path.lexists(wanted.path):
        return release.Found(leftovers=leftovers)
    if os.path.islink(wanted.path) or not os.path.isdir(wanted.path):
        return release.Found(stranger="a symlink" if os.path.islink(wanted.path) else "a file")
    try:
        with open(os.path.join(wanted.path, release.RECORD), encoding="utf-8") as file:
            record = release.read_record(json.load(file))
    except FileNotFoundError:
        return release.Found(stranger=f"a directory without {release.RECORD}")
    except ValueError as error:
        return release.Found(stranger=f"a directory whose {release.RECORD} cannot be read ({error})")
    if wanted.present:
        return release.Found(record, leftovers=leftovers)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = release.mounted_below(os.path.realpath(wanted.path), file.read())
    return release.Found(record, leftovers=leftovers, users=tuple(users_of(os.path.realpath(wanted.path))), mounts=mounts)


def users_of(path: str) -> Iterator[release.User]:
    """Yield the processes that use something below a directory.

    They may be in a container, and see and show it under another path: so also the files themselves are compared.
    """
    inside = {identity(path)}
    for directory, names, files in os.walk(path):
        inside.update(identity(os.path.join(directory, name)) for name in (*names, *files))
    for process in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        if process != os.getpid() and any(uses(process, path, inside)):
            with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                yield release.User(process, file.read().strip())


def identity(path: str, follow: bool = False) -> tuple:
    state = os.stat(path, follow_symlinks=follow)
    return state.st_dev, state.st_ino


def uses(process: int, path: str, inside: set) -> Iterator[bool]:
    """Yield whether it uses something there, for each file that a process has. One that ends meanwhile, or is hidden, has none."""
    with contextlib.suppress(OSError):
        links = [f"/proc/{process}/{link}" for link in ("exe", "cwd", "root")]
        with contextlib.suppress(OSError):
            links += [f"/proc/{process}/fd/{link}" for link in os.listdir(f"/proc/{process}/fd")]
        for link in links:
            with contextlib.suppress(OSError):
                yield below(os.readlink(link), path) or identity(link, follow=True) in inside
        with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for file in release.mapped(maps.read()):
                yield below(file.path, path) or (os.makedev(*file.device), file.inode) in inside


def below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def check(archive: str | None, parent: str, check_mode: bool) -> None:
    """Raise Refused where it is plain from outside that the archive cannot be unpacked."""
    if not os.path.isdir(parent):
        if check_mode:
            return
        raise Refused(f"path: there is no directory {parent}: make it, or correct the path")
    if archive is None:
        raise Refused("archive: the release is not there yet: name the archive to unpack")
    if check_mode and not os.path.lexists(archive):
        return
    try:
        file = open_archive(archive)
    except OSError as error:
        raise Refused(f"archive: {archive}: {error.strerror}: put the archive there, or correct the path") from error
    with file:
        size, head = os.fstat(file.fileno()).st_size, file.read(18)
        file.seek(max(0, size - release.TAIL))
        needed, free = release.space_needed(size, head, file.read()), free_in(parent)
    kind = compression_of(head, release.PACKAGES)
    if not kind:
        raise Refused(f"archive: {archive} is neither a .tar.zst nor a .tar.xz file (it begins with {head[:8]!r}): get it anew")
    if not shutil.which(kind):
        raise Refused(f"archive: {archive} is compressed by {kind}, and there is no command {kind}: install it (Debian package {release.PACKAGES[kind]})")
    if needed > free:
        raise Refused(f"path: {archive} unpacks to about {amount(needed)}, and {parent} has {amount(free)} free: make room there, or choose another path")


def open_archive(path: str):
    # Not to wait for anybody who writes into a named pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"archive: {path} is no regular file: name the archive to unpack")
    return open(descriptor, "rb")


def free_in(directory: str) -> int:
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


def contents_of(path: str, record: release.Record | None) -> dict:
    """Return where the parts of the release lie."""
    def find(name: str) -> str | None:
        there = record and os.path.exists(os.path.join(path, name))
        return os.path.join(path, name) if there else None

    contents = release.contents_of(find, record.kernel_release if record else None)
    if contents["kernel"]:
        contents["kernel"] = os.path.join(path, os.path.relpath(os.path.realpath(contents["kernel"]), os.path.realpath(path)))
    return contents


# --- act ---

def put(step: release.Unpack, wanted: release.Wanted, progress: Progress) -> release.Record:
    """Unpack the archive beside the path, and give it its name when all is well."""
    parent = os.path.dirname(step.path)
    staging = tempfile.mkdtemp(prefix=wanted.beside, dir=parent)
    try:
        root = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            judge = unpacked(root, wanted, progress)
            version = version_in(staging)
            if wanted.version not in (None, version) and version is not None:
                raise Refused(f"version: {step.archive} is version {version} by its own account, not {wanted.version}: correct version or archive")
            record = release.Record(wanted.sha256, version or wanted.version, judge.bytes, judge.files, kernel_release_in(staging))
            with open(os.path.join(staging, release.RECORD), "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                json.dump(asdict(record), file, indent=2, sort_keys=True)
                file.write("\n")
            os.fchmod(root, 0o755)
            progress.say(f"{os.path.basename(step.path)}: writing to the disk")
            sync_file_system(root)
        finally:
            os.close(root)
        os.rename(staging, step.path)
        sync_directory(parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def unpacked(root: int, wanted: release.Wanted, progress: Progress) -> release.Judge:
    """Unpack the archive below a directory, or raise Refused. An archive that is another one is told so, whatever else is wrong with it."""
    judge, trouble, done = release.Judge(), None, 0
    with open_archive(wanted.archive) as file:
        size = os.fstat(file.fileno()).st_size

        def told(count: int) -> None:
            nonlocal done
            done += count
            progress.say(f"{os.path.basename(wanted.path)} {amount(done, size)}")

        archive = unpack.Archive(file, told)
        try:
            with archive.content() as content:
                unpack.unpack(unpack.Content(content), judge, root)
        except (Refused, Damaged) as error:
            trouble = error
        digest = archive.digest()
    if digest != wanted.sha256:
        raise Refused(f"sha256: {wanted.archive}, of {done} bytes, has the SHA-256 {digest}, not {wanted.sha256}: get it anew, or correct sha256")
    if not trouble and not judge.files:
        trouble = "there are no files in it"
    if trouble:
        raise Refused(f"archive: {wanted.archive}: {trouble}")
    return judge


def version_in(directory: str) -> str | None:
    """Return what the release's file VERSION says. No symlink in it leads out of it."""
    try:
        with open(os.path.join(directory, "VERSION"), encoding="utf-8", errors="replace") as file:
            return "".join(filter(str.isprintable, file.read(100).strip())) or None
    except (FileNotFoundError, IsADirectoryError):
        return None


def kernel_release_in(directory: str) -> str | None:
    image = os.path.join(directory, release.CONTENTS["kernel"][0])
    if not os.path.isfile(image) or not os.path.getsize(image):
        return None
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return release.kernel_release(data)


def carry_out(step, wanted: release.Wanted, progress: Progress) -> release.Record | None:
    """Carry out one step. Return what is then known of the release."""
    if isinstance(step, release.Unpack):
        return put(step, wanted, progress)
    if isinstance(step, release.Clear):
        leftovers = step.paths
    else:
        staging = tempfile.mkdtemp(prefix=wanted.beside, dir=os.path.dirname(step.path))
        os.rename(step.path, staging)  # over the empty directory
        sync_directory(os.path.dirname(step.path))
        leftovers = (staging,)
    for leftover in leftovers:
        progress.say(f"{os.path.basename(wanted.path)}: removing {leftover}")
        shutil.rmtree(leftover)
    return None


def look_decide_act(wanted: release.Wanted, check_mode: bool, progress: Progress) -> dict:
    parent = os.path.dirname(wanted.path)
    found = look(wanted)
    plan = release.decide(found, wanted)
    record = found.record
    if plan.steps and not check_mode and os.path.isdir(parent):
        with alone_in(parent, lambda: progress.say(f"{os.path.basename(wanted.path)}: waiting for another run in {parent}")):
            found = look(wanted)
            plan = release.decide(found, wanted)  # the other run may have done it
            record = found.record
            prepare(plan, wanted, check_mode)
            for step in plan.steps:
                record = carry_out(step, wanted, progress) or record
    else:
        prepare(plan, wanted, check_mode)
    return result(wanted, found, plan, record, check_mode)


def prepare(plan: release.Plan, wanted: release.Wanted, check_mode: bool) -> None:
    """Raise Refused where the archive is needed and cannot be unpacked."""
    if any(isinstance(step, release.Unpack) for step in plan.steps):
        check(wanted.archive, os.path.dirname(wanted.path), check_mode)


def result(wanted: release.Wanted, found: release.Found, plan: release.Plan, record: release.Record | None, check_mode: bool) -> dict:
    unpacks = any(isinstance(step, release.Unpack) for step in plan.steps)
    removes = any(isinstance(step, release.Remove) for step in plan.steps)
    after = None if removes else record
    known = asdict(after) if after else {"sha256": wanted.sha256 or None, "version": wanted.version} if unpacks else {}
    return {
        "changed": bool(plan.steps), "path": wanted.path, "steps": [str(step) for step in plan.steps], "msg": plan.reason,
        **{key: known.get(key) for key in ("sha256", "version", "bytes", "files")},
        **({"contents": contents_of(wanted.path, after)} if wanted.present else {"in_use": [asdict(user) for user in found.users]}),
        "diff": {
            "before_header": wanted.path, "after_header": wanted.path, "before": asdict(found.record) if found.record else {}, "after": known,
        },
    }


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


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
    params, began = module.params, time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    path = os.path.abspath(params["path"])
    try:
        wanted = release.parse(path, params["state"], params["archive"], params["sha256"], params["version"], params["if_in_use"])
        with Progress() as progress:
            answer = look_decide_act(wanted, module.check_mode, progress)
    except Refused as error:
        module.fail_json(msg=str(error))
    except KeyboardInterrupt:
        module.fail_json(msg=f"path: the work on {path} was interrupted; the next run begins anew")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            parent = os.path.dirname(path)
            module.fail_json(msg=f"path: no space left in {parent} ({amount(free_in(parent))} free now): make room there, or choose another path")
        module.fail_json(msg=f"path: {error.filename or path}: {error.strerror or error}")
    module.exit_json(seconds=round(time.monotonic() - began, 1), **answer)


if __name__ == "__main__":
    main()
