# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of disk_image leads from what was found to what is wanted, or is a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._disk.file_systems import FILE_SYSTEMS
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Content, Link, Loop
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._disk.plan import FILE, Found, Golden, decide, foresee
from ansible_collections.nested.kata.plugins.module_utils._disk.steps import (
    Attach,
    Clone,
    Create,
    Delete,
    Detach,
    Grow,
    GrowFileSystem,
    MakeNode,
    Preallocate,
    RemoveLeftover,
    RemoveLink,
    SetLink,
    SetMode,
    SetOwner,
    Trim,
    UpdateCapacity,
)
from hypothesis import given, settings
from hypothesis import strategies as some

M = 1024**2
G = 1024**3
PATH = "/disks/kata.img"
LINK = "/run/disks/kata"
UUID = "7d57472b-5630-4e76-9191-1ca5e456a9da"
OTHER_UUID = "11111111-2222-3333-4444-555555555555"
LOOP = Loop("/dev/loop3", 10 * G)

NOTHING = Found()
OURS = Found(kind=FILE, size=10 * G, content=Content("btrfs", UUID, "kata"))
ATTACHED = replace(OURS, loops=(LOOP,), link=Link("/dev/loop3"))
FULL = replace(OURS, fs_size=10 * G, allocated=2 * G, free=20 * G)
GROWN = replace(FULL, size=11 * G)
SEALED = replace(FULL, mode=0o400, trimmed=True)
GOLDEN_PATH = "/golden/web.img"
GOLDEN = Golden(FILE, 10 * G, Content("btrfs", OTHER_UUID, "web"), 10 * G, True, 0o400)
CLONEABLE = replace(NOTHING, golden=GOLDEN, free=20 * G)
CLONED = Clone(PATH, GOLDEN_PATH, "btrfs", None, None, None, None, 0o600, replaces_blank=False)
EMPTY = Found(kind=FILE)
ZEROS = Found(kind=FILE, size=1 * G, uid=7, gid=8, mode=0o644)
ALIEN = Found(kind=FILE, size=1 * G, content=Content(alien="a partition table (dos)"))
WANTED = Wanted(PATH, size=10 * G)
CLONE = Wanted(PATH, clone_of=GOLDEN_PATH)
NEW = Create(PATH, 10 * G, "btrfs", None, None, None, None, 0o600, replaces_blank=False)

STEPS = {
    "a file that is not there is made": (NOTHING, WANTED, [NEW]),
    "a new file gets what was asked for": (
        NOTHING,
        replace(WANTED, fstype="ext4", label="kata", uuid=UUID, uid=1, gid=2, mode=0o640),
        [Create(PATH, 10 * G, "ext4", "kata", UUID, 1, 2, 0o640, replaces_blank=False)],
    ),
    "a file system takes the part of a new file that was asked for": (
        NOTHING,
        replace(WANTED, filesystem_size=1 * G, resizefs=False),
        [replace(NEW, filesystem_size=1 * G)],
    ),
    "a part that is the whole is none": (NOTHING, replace(WANTED, filesystem_size=10 * G, resizefs=False), [NEW]),
    "a file system that is there keeps the part that it takes": (
        replace(OURS, fs_size=1 * G),
        replace(WANTED, filesystem_size=2 * G, resizefs=False),
        [],
    ),
    "an empty file is replaced by one with a file system": (
        EMPTY,
        WANTED,
        [replace(NEW, uid=0, gid=0, replaces_blank=True)],
    ),
    "a file of zeros keeps its owner and mode": (
        ZEROS,
        WANTED,
        [replace(NEW, uid=7, gid=8, mode=0o644, replaces_blank=True)],
    ),
    "a file of zeros keeps its size where none is asked for": (
        ZEROS,
        replace(WANTED, size=None),
        [replace(NEW, size=1 * G, uid=7, gid=8, mode=0o644, replaces_blank=True)],
    ),
    "a file that is as asked is left alone": (OURS, replace(WANTED, uuid=UUID, label="kata"), []),
    "a size is not needed where the file is there": (OURS, replace(WANTED, size=None), []),
    "a file grows": (OURS, replace(WANTED, size=11 * G), [Grow(PATH, 10 * G, 11 * G)]),
    "the loop device grows with its file": (
        ATTACHED,
        replace(WANTED, size=11 * G),
        [Grow(PATH, 10 * G, 11 * G), UpdateCapacity("/dev/loop3")],
    ),
    "a loop device that did not notice the growth is told": (
        replace(ATTACHED, loops=(Loop("/dev/loop3", 9 * G),)),
        WANTED,
        [UpdateCapacity("/dev/loop3")],
    ),
    "an attachment of the last sectors only as far as a device has them is no difference": (
        replace(ATTACHED, size=10 * G + 100),
        replace(WANTED, size=None),
        [],
    ),
    "owner and mode are put right": (
        OURS,
        replace(WANTED, uid=1, mode=0o640),
        [SetOwner(PATH, 1, 0), SetMode(PATH, 0o640)],
    ),
    "a new file is attached and linked": (
        NOTHING,
        replace(WANTED, attached=True, link=LINK),
        [NEW, Attach(PATH), SetLink(LINK, PATH)],
    ),
    "an attached file with its link is left alone": (ATTACHED, replace(WANTED, attached=True, link=LINK), []),
    "the node of a loop device that was attached before this container started is made": (
        replace(ATTACHED, loops=(replace(LOOP, node=False),), link=Link()),
        replace(WANTED, attached=True, link=LINK),
        [MakeNode("/dev/loop3"), SetLink(LINK, PATH)],
    ),
    "an attachment is left as it is where nothing is said": (ATTACHED, WANTED, []),
    "a read-only attachment is left as it is where nothing is said": (
        replace(ATTACHED, loops=(replace(LOOP, read_only=True),)),
        WANTED,
        [],
    ),
    "a link that names another device is put right": (
        replace(ATTACHED, link=Link("/dev/loop9")),
        replace(WANTED, attached=True, link=LINK),
        [SetLink(LINK, PATH)],
    ),
    "after a boot a link that is still there is made anew": (
        replace(OURS, link=Link("/dev/loop3")),
        replace(WANTED, attached=True, link=LINK),
        [Attach(PATH), SetLink(LINK, PATH)],
    ),
    "an idle file is detached and its link removed": (
        ATTACHED,
        replace(WANTED, attached=False, link=LINK),
        [Detach(PATH, "/dev/loop3"), RemoveLink(LINK)],
    ),
    "a link that is left from before is removed": (
        replace(OURS, link=Link("/dev/loop9")),
        replace(WANTED, attached=False, link=LINK),
        [RemoveLink(LINK)],
    ),
    "a detached file is left alone": (OURS, replace(WANTED, attached=False, link=LINK), []),
    "what an interrupted run left is removed first": (
        replace(NOTHING, leftovers=("/disks/.nested-kata-new-1",)),
        WANTED,
        [RemoveLeftover("/disks/.nested-kata-new-1"), NEW],
    ),
    "a detached file system grows with its file": (
        FULL,
        replace(WANTED, size=11 * G),
        [Grow(PATH, 10 * G, 11 * G), GrowFileSystem(PATH, "btrfs", 11 * G)],
    ),
    "an attached one that nobody uses grows after its loop device": (
        replace(FULL, loops=(LOOP,)),
        replace(WANTED, size=11 * G),
        [Grow(PATH, 10 * G, 11 * G), UpdateCapacity("/dev/loop3"), GrowFileSystem(PATH, "btrfs", 11 * G)],
    ),
    "a mounted one grows where it is mounted": (
        replace(FULL, loops=(LOOP,), mount="/mnt/a"),
        replace(WANTED, size=11 * G),
        [Grow(PATH, 10 * G, 11 * G), UpdateCapacity("/dev/loop3"), GrowFileSystem(PATH, "btrfs", 11 * G, "/mnt/a")],
    ),
    "one that a virtual machine uses is left to it": (
        replace(FULL, loops=(LOOP,), use="open in process 9 (qemu)"),
        replace(WANTED, size=11 * G),
        [Grow(PATH, 10 * G, 11 * G), UpdateCapacity("/dev/loop3")],
    ),
    "one that is not to grow does not": (
        FULL,
        replace(WANTED, size=11 * G, resizefs=False),
        [Grow(PATH, 10 * G, 11 * G)],
    ),
    "a file system whose growth was interrupted grows then": (
        GROWN,
        Wanted(PATH),
        [GrowFileSystem(PATH, "btrfs", 11 * G)],
    ),
    "an ext4 that leaves out a last group too small is full": (
        replace(GROWN, content=Content("ext4", UUID), fs_size=11 * G - 4 * M),
        Wanted(PATH, fstype="ext4"),
        [],
    ),
    "an ext4 grows without a loop device": (
        replace(GROWN, content=Content("ext4", UUID), loop_control=False),
        Wanted(PATH, fstype="ext4"),
        [GrowFileSystem(PATH, "ext4", 11 * G)],
    ),
    "what is not allocated is allocated": (FULL, replace(WANTED, preallocated=True), [Preallocate(PATH, 10 * G)]),
    "what is allocated stays": (replace(FULL, allocated=10 * G), replace(WANTED, preallocated=True), []),
    "a new file is allocated where that is asked for": (
        replace(NOTHING, free=10 * G),
        replace(WANTED, preallocated=True),
        [replace(NEW, preallocated=True)],
    ),
    "a new file system is made with the options that were given": (
        NOTHING,
        replace(WANTED, mkfs_options=("-m", "single")),
        [replace(NEW, mkfs_options=("-m", "single"))],
    ),
    "a file that was written to is trimmed": (FULL, replace(WANTED, trim=True), [Trim(PATH, "btrfs")]),
    "a file that was not written to since is not trimmed again": (
        replace(FULL, trimmed=True),
        replace(WANTED, trim=True),
        [],
    ),
    "a new file has nothing to give back": (NOTHING, replace(WANTED, trim=True), [NEW]),
    "an attached file is trimmed when it is detached": (
        replace(ATTACHED, fs_size=10 * G),
        replace(WANTED, trim=True, attached=False),
        [Detach(PATH, "/dev/loop3"), Trim(PATH, "btrfs")],
    ),
    "an attached file that was not written to since may stay attached": (
        replace(ATTACHED, trimmed=True),
        replace(WANTED, trim=True),
        [],
    ),
    "a file is trimmed and then sealed": (
        FULL,
        replace(WANTED, sealed=True),
        [Trim(PATH, "btrfs"), SetMode(PATH, 0o400)],
    ),
    "a trimmed file is sealed": (
        replace(FULL, trimmed=True, mode=0o644),
        replace(WANTED, sealed=True),
        [SetMode(PATH, 0o444)],
    ),
    "a sealed file is left alone": (SEALED, replace(WANTED, sealed=True, trim=True), []),
    "a sealed file stays sealed where nothing is said": (SEALED, WANTED, []),
    "the file system in a sealed file does not grow": (replace(SEALED, size=11 * G), Wanted(PATH), []),
    "a sealed file gets the mode that was asked for": (
        SEALED,
        replace(WANTED, sealed=True, mode=0o440),
        [SetMode(PATH, 0o440)],
    ),
    "a new file is sealed at once": (NOTHING, replace(WANTED, sealed=True), [NEW, SetMode(PATH, 0o400)]),
    "a sealed file is opened, grows and is attached": (
        SEALED,
        replace(WANTED, size=11 * G, sealed=False, attached=True),
        [SetMode(PATH, 0o600), Grow(PATH, 10 * G, 11 * G), GrowFileSystem(PATH, "btrfs", 11 * G), Attach(PATH)],
    ),
    "a mode that lets its owner write opens a sealed file": (
        SEALED,
        replace(WANTED, mode=0o600),
        [SetMode(PATH, 0o600)],
    ),
    "a sealed file is removed": (SEALED, Wanted(PATH, absent=True), [Delete(PATH)]),
    "a clone is made": (CLONEABLE, CLONE, [CLONED]),
    "a clone has the identity, owner and mode that were asked for, and is attached": (
        CLONEABLE,
        replace(CLONE, uuid=UUID, label="a", uid=1, gid=2, mode=0o640, attached=True, link=LINK),
        [
            Clone(PATH, GOLDEN_PATH, "btrfs", "a", UUID, 1, 2, 0o640, replaces_blank=False),
            Attach(PATH),
            SetLink(LINK, PATH),
        ],
    ),
    "a clone that is to be larger grows": (
        CLONEABLE,
        replace(CLONE, size=11 * G),
        [CLONED, Grow(PATH, 10 * G, 11 * G), GrowFileSystem(PATH, "btrfs", 11 * G)],
    ),
    "a clone takes the place of zeros": (
        replace(ZEROS, golden=GOLDEN),
        CLONE,
        [replace(CLONED, uid=7, gid=8, mode=0o644, replaces_blank=True)],
    ),
    "an image that is there is not cloned again, whatever became of the golden one": (
        replace(OURS, golden=Golden(None)),
        CLONE,
        [],
    ),
    "a file is removed": (OURS, Wanted(PATH, absent=True), [Delete(PATH)]),
    "a file that is attached under the link that was named is removed": (
        ATTACHED,
        Wanted(PATH, link=LINK, absent=True),
        [Detach(PATH, "/dev/loop3"), RemoveLink(LINK), Delete(PATH)],
    ),
    "a file that may be detached is removed": (
        ATTACHED,
        Wanted(PATH, attached=False, absent=True),
        [Detach(PATH, "/dev/loop3"), Delete(PATH)],
    ),
    "a file that is not there need not be removed": (NOTHING, Wanted(PATH, absent=True), []),
    "any content is removed": (ALIEN, Wanted(PATH, absent=True, any_content=True), [Delete(PATH)]),
    "any content is detached and removed": (
        replace(ALIEN, loops=(LOOP,), link=Link("/dev/loop3")),
        Wanted(PATH, link=LINK, absent=True, any_content=True),
        [Detach(PATH, "/dev/loop3"), RemoveLink(LINK), Delete(PATH)],
    ),
    "any content is detached and kept": (
        replace(ALIEN, loops=(LOOP,), link=Link("/dev/loop3")),
        Wanted(PATH, link=LINK, attached=False, any_content=True),
        [Detach(PATH, "/dev/loop3"), RemoveLink(LINK)],
    ),
    "zeros that are attached are detached as any content": (
        replace(ZEROS, loops=(LOOP,)),
        Wanted(PATH, attached=False, any_content=True),
        [Detach(PATH, "/dev/loop3")],
    ),
    "a link is left of an image that is gone": (
        replace(NOTHING, link=Link("/dev/loop3")),
        Wanted(PATH, link=LINK, attached=False, any_content=True),
        [RemoveLink(LINK)],
    ),
    "nothing is removed where the directory is missing": (
        replace(NOTHING, directory=False),
        Wanted(PATH, absent=True),
        [],
    ),
}

REFUSALS = {
    "a golden image that is missing": (
        replace(CLONEABLE, golden=Golden(None)),
        CLONE,
        f"clone_of: {GOLDEN_PATH} does not exist",
    ),
    "a golden image that is a directory": (
        replace(CLONEABLE, golden=Golden("a directory")),
        CLONE,
        "is a directory, not a regular file",
    ),
    "a golden image that is attached": (
        replace(CLONEABLE, golden=replace(GOLDEN, loops=(LOOP,))),
        CLONE,
        "is attached to /dev/loop3",
    ),
    "a golden image of another file system": (
        replace(CLONEABLE, golden=replace(GOLDEN, content=Content("ext4"))),
        CLONE,
        "holds ext4, not btrfs",
    ),
    "a golden image of nothing": (
        replace(CLONEABLE, golden=replace(GOLDEN, content=Content())),
        CLONE,
        "holds no file system, not btrfs",
    ),
    "a golden image of swap": (
        replace(CLONEABLE, golden=replace(GOLDEN, content=Content(alien="swap"))),
        CLONE,
        "holds swap, not btrfs",
    ),
    "a golden image that can be written to": (
        replace(CLONEABLE, golden=replace(GOLDEN, mode=0o644)),
        CLONE,
        "is not sealed (mode 0644)",
    ),
    "a golden image with a log to be replayed": (
        replace(CLONEABLE, golden=replace(GOLDEN, clean=False)),
        CLONE,
        "was not unmounted cleanly",
    ),
    "a clone smaller than the golden image": (
        CLONEABLE,
        replace(CLONE, size=9 * G),
        "9 GiB is smaller than /golden/web.img (10 GiB)",
    ),
    "a clone in place of more zeros": (
        replace(ZEROS, size=12 * G, golden=GOLDEN),
        CLONE,
        "10 GiB is smaller than /disks/kata.img (12 GiB)",
    ),
    "a UUID that is taken": (
        replace(NOTHING, uuid_at="/dev/vda1"),
        replace(WANTED, uuid=UUID),
        f"uuid: {UUID} is already the UUID of /dev/vda1",
    ),
    "a file system without holes": (
        replace(NOTHING, below="vfat"),
        WANTED,
        "path: /disks is on vfat, which has no sparse files",
    ),
    "a read-only file system": (replace(NOTHING, read_only=True), WANTED, "path: /disks is on a read-only file system"),
    "an allocation that does not fit": (
        replace(NOTHING, free=9 * G),
        replace(WANTED, preallocated=True),
        "allocation: needs 10 GiB in /disks, and 9 GiB are free",
    ),
    "the rest of an allocation that does not fit": (
        replace(FULL, free=7 * G),
        replace(WANTED, preallocated=True),
        "needs 8 GiB in /disks",
    ),
    "an attached file to be trimmed": (
        ATTACHED,
        replace(WANTED, trim=True),
        "trim: /disks/kata.img is attached to /dev/loop3: end that",
    ),
    "an open file to be trimmed": (
        replace(FULL, use="open in process 9 (qemu)"),
        replace(WANTED, trim=True),
        "is open in process 9 (qemu)",
    ),
    "a sealed file to be trimmed": (
        replace(SEALED, trimmed=False),
        replace(WANTED, trim=True),
        "is sealed (mode 0400) and cannot be trimmed",
    ),
    "trimming without loop devices": (
        replace(FULL, loop_control=False),
        replace(WANTED, trim=True),
        "trim: there is no /dev/loop-control",
    ),
    "growing without loop devices": (
        replace(GROWN, loop_control=False),
        Wanted(PATH),
        "resizefs: there is no /dev/loop-control",
    ),
    "growing a mounted ext4 without the capability": (
        replace(GROWN, content=Content("ext4", UUID), loops=(LOOP,), mount="/mnt", may_resize=False),
        Wanted(PATH, fstype="ext4"),
        "(/mnt) needs CAP_SYS_RESOURCE",
    ),
    "an attached file to be sealed": (
        ATTACHED,
        replace(WANTED, sealed=True),
        "sealed: /disks/kata.img is attached to /dev/loop3: end that",
    ),
    "an attached file that was trimmed to be sealed": (
        replace(ATTACHED, trimmed=True),
        replace(WANTED, sealed=True),
        "is attached to /dev/loop3",
    ),
    "a sealed file to be attached": (
        SEALED,
        replace(WANTED, attached=True),
        "attached: /disks/kata.img is sealed (mode 0400) and cannot be attached",
    ),
    "a sealed file to grow": (
        SEALED,
        replace(WANTED, size=11 * G),
        "size: /disks/kata.img is sealed (mode 0400) and cannot be grown",
    ),
    "a sealed file to be allocated": (SEALED, replace(WANTED, preallocated=True), "cannot be allocated"),
    "removing an open file": (
        replace(FULL, use="open in process 9 (qemu)"),
        Wanted(PATH, absent=True),
        "is open in process 9 (qemu)",
    ),
    "a part too small for btrfs": (
        NOTHING,
        replace(WANTED, filesystem_size=108 * M, resizefs=False),
        "filesystem_size: 108 MiB is too small for btrfs: at least 109 MiB",
    ),
    "a part larger than its file": (
        NOTHING,
        replace(WANTED, filesystem_size=11 * G, resizefs=False),
        "filesystem_size: 11 GiB is larger than the file (10 GiB): raise size too",
    ),
    "too small for xfs": (
        NOTHING,
        replace(WANTED, size=299 * M, fstype="xfs"),
        "299 MiB is too small for xfs: at least 300 MiB",
    ),
    "a directory": (Found(kind="a directory"), WANTED, "is a directory, not a regular file"),
    "a symlink": (Found(kind="a symlink"), Wanted(PATH, absent=True), "is a symlink, not a regular file"),
    "a directory that is missing": (replace(NOTHING, directory=False), WANTED, "there is no directory /disks"),
    "no size for a new file": (NOTHING, Wanted(PATH), "size: is needed, because /disks/kata.img does not exist yet"),
    "no size for an empty file": (EMPTY, Wanted(PATH), "size: is needed, because /disks/kata.img is an empty file"),
    "too small for btrfs": (NOTHING, replace(WANTED, size=108 * M), "108 MiB is too small for btrfs: at least 109 MiB"),
    "too small for ext4": (
        NOTHING,
        replace(WANTED, size=4 * M, fstype="ext4"),
        "4 MiB is too small for ext4: at least 8 MiB",
    ),
    "zeros too small for btrfs": (Found(kind=FILE, size=M), Wanted(PATH), "1 MiB is too small for btrfs"),
    "smaller than it is": (OURS, replace(WANTED, size=9 * G), "9 GiB is smaller than /disks/kata.img (10 GiB)"),
    "smaller than the zeros": (ZEROS, replace(WANTED, size=512 * M), "512 MiB is smaller than"),
    "another file system": (replace(OURS, content=Content("ext4", UUID)), WANTED, "holds ext4, not btrfs"),
    "LUKS": (
        replace(OURS, content=Content(alien="crypto_LUKS, which is not a file system")),
        WANTED,
        "holds crypto_LUKS",
    ),
    "data": (
        replace(OURS, content=Content(), data_at=0),
        WANTED,
        "holds data that is not a file system (from byte 0 on)",
    ),
    "another UUID": (OURS, replace(WANTED, uuid=OTHER_UUID), f"uuid: {PATH} holds the file system {UUID}"),
    "another label": (
        OURS,
        replace(WANTED, label="other"),
        "label: /disks/kata.img holds the label 'kata', not 'other'",
    ),
    "no label": (
        replace(OURS, content=Content("btrfs", UUID)),
        replace(WANTED, label="other"),
        "holds the label '', not 'other'",
    ),
    "two loop devices": (
        replace(OURS, loops=(LOOP, Loop("/dev/loop4", G))),
        WANTED,
        "more than once, to /dev/loop3 and /dev/loop4",
    ),
    "a read-only loop device": (
        replace(OURS, loops=(replace(LOOP, read_only=True),)),
        replace(WANTED, attached=True),
        "read-only to /dev/loop3",
    ),
    "a part of it": (
        replace(OURS, loops=(replace(LOOP, partial=True),)),
        replace(WANTED, attached=True),
        "attached in part",
    ),
    "mount -o loop": (
        replace(OURS, loops=(replace(LOOP, autoclear=True),)),
        replace(WANTED, attached=True),
        "vanishes when its last user ends",
    ),
    "zeros that somebody attached": (
        replace(ZEROS, loops=(LOOP,)),
        WANTED,
        "is attached to /dev/loop3: detach it first",
    ),
    "no loop devices": (
        replace(OURS, loop_control=False),
        replace(WANTED, attached=True),
        "there is no /dev/loop-control",
    ),
    "a link that is none": (
        replace(OURS, link=Link(obstacle="is not a symlink")),
        replace(WANTED, attached=True, link=LINK),
        "link: /run/disks/kata is not a symlink",
    ),
    "detach what is mounted": (
        replace(ATTACHED, use="mounted at /mnt"),
        replace(WANTED, attached=False),
        "/dev/loop3 is mounted at /mnt",
    ),
    "remove what is in use": (
        replace(ATTACHED, use="open in process 9 (qemu)"),
        Wanted(PATH, link=LINK, absent=True),
        "/dev/loop3 is open in process 9",
    ),
    "remove what is attached elsewhere": (
        ATTACHED,
        Wanted(PATH, absent=True),
        "is attached to /dev/loop3: name the link",
    ),
    "remove what is attached under another link": (
        replace(ATTACHED, link=Link("/dev/loop9")),
        Wanted(PATH, link=LINK, absent=True),
        "is attached to /dev/loop3: name the link",
    ),
    "remove any content that is in use": (
        replace(ALIEN, loops=(LOOP,), link=Link("/dev/loop3"), use="open in process 9 (qemu)"),
        Wanted(PATH, link=LINK, absent=True, any_content=True),
        "/dev/loop3 is open in process 9",
    ),
    "remove what is no file, with any content": (
        Found(kind="a symlink"),
        Wanted(PATH, absent=True, any_content=True),
        "is a symlink, not a regular file",
    ),
    "remove another file system": (OURS, Wanted(PATH, fstype="ext4", absent=True), "holds btrfs, not ext4"),
    "remove another UUID": (OURS, Wanted(PATH, uuid=OTHER_UUID, absent=True), "uuid:"),
    "remove zeros": (ZEROS, Wanted(PATH, absent=True), "holds nothing but zeros"),
    "remove data": (replace(OURS, content=Content(), data_at=9), Wanted(PATH, absent=True), "from byte 9 on"),
}


@pytest.mark.parametrize("case", STEPS)
def test_the_steps_lead_from_what_is_found_to_what_is_wanted(case):
    found, wanted, steps = STEPS[case]
    plan = decide(found, wanted)
    assert list(plan.steps) == steps
    assert "\n" not in plan.reason
    assert plan.reason


@pytest.mark.parametrize("case", STEPS)
def test_after_the_steps_nothing_is_left_to_do(case):
    found, wanted, _unused = STEPS[case]
    assert decide(foresee(found, decide(found, wanted)), wanted).steps == ()


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_was_found(case):
    found, wanted, message = REFUSALS[case]
    with pytest.raises(Refused) as refusal:
        decide(found, wanted)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


sizes = some.sampled_from([0, 4096, 100 * M, 200 * M, 1 * G, 1 * G + 100, 10 * G])
devices = some.builds(
    Loop, some.sampled_from(["/dev/loop3", "/dev/loop4"]), sizes, some.booleans(), some.booleans(), some.booleans()
)
contents = some.sampled_from(
    [
        Content(),
        Content("btrfs", UUID),
        Content("btrfs", OTHER_UUID, "kata"),
        Content("ext4", UUID),
        Content("xfs", UUID),
        Content("btrfs"),
        Content(alien="a partition table (dos)"),
        Content(alien="swap, which is not a file system"),
    ]
)
goldens = some.builds(
    Golden,
    kind=some.sampled_from([None, FILE, FILE, FILE, "a directory"]),
    size=sizes.filter(bool),
    content=contents,
    fs_size=sizes.filter(bool),
    clean=some.booleans(),
    mode=some.sampled_from([0o400, 0o400, 0o444, 0o600]),
    loops=some.lists(devices, max_size=1).map(tuple),
)
states = some.builds(
    Found,
    kind=some.sampled_from([None, FILE, FILE, FILE, FILE, "a directory"]),
    size=sizes,
    content=contents,
    data_at=some.sampled_from([None, None, 0, 70000]),
    uid=some.integers(0, 2),
    gid=some.integers(0, 2),
    mode=some.sampled_from([0o600, 0o644, 0o400]),
    loops=some.lists(devices, max_size=2).map(tuple),
    use=some.sampled_from([None, None, "mounted at /mnt"]),
    link=some.sampled_from([Link(), Link("/dev/loop3"), Link("/dev/loop9"), Link(obstacle="is not a symlink")]),
    leftovers=some.sampled_from([(), ("/disks/.nested-kata-new-1",)]),
    directory=some.booleans(),
    loop_control=some.booleans(),
    mount=some.sampled_from([None, None, "/mnt"]),
    fs_size=some.one_of(some.none(), sizes),
    allocated=sizes,
    trimmed=some.booleans(),
    may_resize=some.booleans(),
    below=some.sampled_from([None, "ext4", "ext4", "vfat"]),
    read_only=some.sampled_from([False, False, False, True]),
    free=some.sampled_from([0, 200 * M, 100 * G]),
    uuid_at=some.sampled_from([None, None, "/dev/vda1"]),
    golden=some.one_of(some.none(), goldens),
)


def possible(found: Found) -> Found:
    """Return the state without what cannot be: a file that is not there has no size, no content, no loop device;
    without one nobody uses it.
    """
    if not found.kind:
        return replace(
            found,
            size=0,
            content=Content(),
            data_at=None,
            uid=0,
            gid=0,
            mode=0o600,
            loops=(),
            mount=None,
            use=None,
            fs_size=None,
            allocated=None,
            trimmed=False,
            leftovers=found.leftovers if found.directory else (),
        )
    known = found.content.fstype in FILE_SYSTEMS
    return replace(
        found,
        directory=True,
        mount=found.mount if found.loops else None,
        use=None if found.loops and found.mount else found.use,
        fs_size=min(found.fs_size, found.size) if known and found.fs_size is not None else None,
    )


def fits(wanted: Wanted) -> bool:
    """Return whether parse lets these together through."""
    return not (
        (wanted.attached and (wanted.absent or wanted.trim or wanted.sealed))
        or (wanted.absent and (wanted.trim or wanted.sealed))
        or (wanted.preallocated and (wanted.clone_of or wanted.trim or wanted.sealed))
        or (wanted.mode is not None and bool(wanted.mode & 0o222) == bool(wanted.sealed))
        or (wanted.any_content and not (wanted.absent or wanted.attached is False))
        or (wanted.any_content and (wanted.size or wanted.clone_of or wanted.trim or wanted.sealed))
        or (wanted.any_content and (wanted.preallocated or wanted.label or wanted.uuid))
    )


founds = states.map(possible)
wants = some.builds(
    Wanted,
    path=some.just(PATH),
    fstype=some.sampled_from(list(FILE_SYSTEMS)),
    size=some.one_of(some.none(), sizes.filter(bool)),
    label=some.sampled_from([None, None, "kata"]),
    uuid=some.sampled_from([None, None, UUID]),
    attached=some.sampled_from([None, True, False]),
    link=some.sampled_from([None, LINK]),
    uid=some.sampled_from([None, 1]),
    gid=some.sampled_from([None, 1]),
    mode=some.sampled_from([None, 0o600]),
    absent=some.sampled_from([False, False, True]),
    clone_of=some.sampled_from([None, GOLDEN_PATH]),
    resizefs=some.booleans(),
    sealed=some.sampled_from([None, None, True, False]),
    trim=some.booleans(),
    preallocated=some.booleans(),
    any_content=some.sampled_from([False, False, False, True]),
).filter(fits)


@settings(max_examples=3000)
@given(founds, wants)
def test_whatever_is_found_nothing_that_is_not_ours_is_formatted_shrunk_detached_or_removed(found, wanted):
    try:
        plan = decide(found, wanted)
    except Refused:
        return
    assert not (plan.steps and found.read_only)
    for number, step in enumerate(plan.steps):
        before = foresee(found, replace(plan, steps=plan.steps[:number]))
        if isinstance(step, (Create, Clone)):
            assert not wanted.absent
            assert not found.loops
            assert not (wanted.uuid and found.uuid_at)
            assert found.below != "vfat"
            assert found.kind is None or (found.kind == FILE and found.content == Content() and found.data_at is None)
            assert step.replaces_blank == (found.kind is not None)
            assert isinstance(step, Clone) == bool(wanted.clone_of)
        if isinstance(step, Clone):
            golden = found.golden
            assert golden.kind == FILE
            assert not golden.loops
            assert golden.clean
            assert not golden.mode & 0o222
            assert golden.content.fstype == wanted.fstype
        elif isinstance(step, Trim):
            assert not before.loops
            assert not before.use
            assert not before.sealed
            assert wanted.trim or wanted.sealed
            assert not wanted.preallocated
        elif isinstance(step, GrowFileSystem):
            assert not before.use
            assert not before.sealed
            assert wanted.resizefs
            assert before.fs_size < step.size
            assert step.mount == found.mount
        elif isinstance(step, Preallocate):
            assert wanted.preallocated
            assert not before.sealed
        elif isinstance(step, Create):
            assert step.size >= found.size
            assert step.size >= FILE_SYSTEMS[wanted.fstype].minimum
        elif isinstance(step, Grow):
            assert step.new > step.old == before.size
            assert before.content.fstype == wanted.fstype
            assert not before.sealed
        elif isinstance(step, Detach):
            assert found.use is None
            assert found.mount is None
            assert len(found.loops) == 1
            assert wanted.absent or wanted.attached is False
        elif isinstance(step, Delete):
            assert wanted.absent
            assert wanted.any_content or (found.content.fstype == wanted.fstype and not found.content.alien)
            assert not found.use
            assert wanted.uuid in (None, found.content.uuid)
            assert wanted.label in (None, found.content.label)
        elif isinstance(step, Attach):
            assert wanted.attached
            assert not found.loops
            assert not before.sealed
    after = foresee(found, plan)
    assert decide(after, wanted).steps == ()
    assert (
        wanted.absent
        or wanted.any_content
        or (after.kind == FILE and after.size >= found.size and after.content.fstype == wanted.fstype)
    )
