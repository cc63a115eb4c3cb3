# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images: what a file and its loop device look like, what a task wants, and the steps between the two.

Nothing here touches the machine: disk_steps.py looks at it and carries the steps out.
"""
from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass, replace
from typing import Union

from ansible_collections.nested.kata.plugins.module_utils import loop as loops
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import BLOCK, exact, parse_size
from ansible_collections.nested.kata.plugins.module_utils.loop import WRITABLE, Content, Link, Loop

FILE = "a regular file"
DEFAULT_MODE = 0o600
# Where the device shall go when only the kernel will know.
FREE_LOOP = Loop("a free loop device", 0)


# File systems that have no holes: ftruncate(2) writes every zero there.
WITHOUT_HOLES = ("vfat", "exfat", "msdos", "hfs", "hfsplus")


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system that an image may hold. In the commands stand {file}, {uuid}, {label}, and {device} and {mount} while it is mounted."""

    minimum: int
    label_bytes: int
    slack: int
    """So much of its device it may leave unused at the end."""
    grows_to: int
    """The kernel makes none grow to less."""
    mkfs: tuple[str, ...]
    """Makes it fast and sparse: no discard (the file is one hole), nothing written that the kernel can write later."""
    mkfs_uuid: tuple[str, ...]
    set_uuid: tuple[str, ...]
    set_label: tuple[str, ...]
    grow: tuple[str, ...]
    check: tuple[str, ...] = ()
    """What has to come before it grows unmounted, where it can: {device} is the file then, unless that is attached."""


FILE_SYSTEMS = {
    "btrfs": FileSystem(
        # fs/btrfs/ioctl.c, btrfs_ioctl_resize: new_size < SZ_256M is an invalid argument.
        109 * 1024 ** 2, 255, 0, 256 * 1024 ** 2,
        mkfs=("mkfs.btrfs", "-q", "--nodiscard"), mkfs_uuid=("-U", "{uuid}"),
        # Not -U, which writes all metadata anew: 0.8 s and 51 MiB for 40000 files, where this takes 0.02 s and under 1 MiB (btrfstune(8)).
        set_uuid=("btrfstune", "-M", "{uuid}", "{file}"), set_label=("btrfs", "filesystem", "label", "{file}", "{label}"),
        grow=("btrfs", "filesystem", "resize", "max", "{mount}"),
    ),
    "ext4": FileSystem(
        # A last group too small for its own bitmaps and inode table is left out (resize2fs(8), e2fsprogs resize2fs.c, adjust_fs_info).
        8 * 1024 ** 2, 16, 8 * 1024 ** 2, 0,
        # Blocks of 4 KiB also where the image is small: with 1 KiB it could not be mounted from a disk with sectors of 4 KiB. With a seed
        # for the checksums a clone's new UUID changes the superblocks and not the checksum of every inode (ext4(5), metadata_csum_seed).
        mkfs=("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-O", "metadata_csum_seed", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
        mkfs_uuid=("-U", "{uuid}"), set_uuid=("tune2fs", "-U", "{uuid}", "{file}"), set_label=("tune2fs", "-L", "{label}", "{file}"),
        # Unmounted, since the kernel asks for CAP_SYS_RESOURCE when it is mounted, which few containers have (fs/ext4/resize.c, ext4_resize_begin).
        grow=("resize2fs", "{device}"), check=("e2fsck", "-f", "-p", "{device}"),
    ),
    "xfs": FileSystem(
        # A last allocation group of less than 64 blocks is left out (xfs_format.h, XFS_MIN_AG_BLOCKS).
        300 * 1024 ** 2, 12, 1024 ** 2, 0,
        # Sectors of 4 KiB: with 512 bytes it could not be mounted from a disk with sectors of 4 KiB.
        mkfs=("mkfs.xfs", "-q", "-K", "-s", f"size={BLOCK}"), mkfs_uuid=("-m", "uuid={uuid}"),
        set_uuid=("xfs_admin", "-U", "{uuid}", "{file}"), set_label=("xfs_admin", "-L", "{label}", "{file}"),
        grow=("xfs_growfs", "{mount}"),
    ),
}


@dataclass(frozen=True)
class Wanted:
    """What the task asked for, parsed and checked."""

    path: str
    fstype: str = "btrfs"
    size: int | None = None
    label: str | None = None
    uuid: str | None = None
    attached: bool | None = None
    link: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    absent: bool = False
    mkfs_options: tuple[str, ...] = ()
    preallocated: bool = False
    clone_of: str | None = None
    resizefs: bool = True
    sealed: bool | None = None
    trim: bool = False


@dataclass(frozen=True)
class Golden:
    """The image that a new one is to be cloned from."""

    kind: str | None
    size: int = 0
    content: Content = Content()
    fs_size: int | None = None
    clean: bool = True
    mode: int = 0
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True)
class Found:
    """What the machine looks like now."""

    kind: str | None = None
    """FILE, None where nothing is, or what else lies there, in words."""
    size: int = 0
    content: Content = Content()
    data_at: int | None = None
    """Where blkid finds nothing: offset of the first byte that is not zero, None if all are zero."""
    uid: int = 0
    gid: int = 0
    mode: int = DEFAULT_MODE
    loops: tuple[Loop, ...] = ()
    mount: str | None = None
    """Where the loop device is mounted; this and `use` are only looked up where it matters."""
    use: str | None = None
    """Who uses the loop device, or the file itself."""
    may_resize: bool = True
    """Whether this process may grow a mounted ext4."""
    fs_size: int | None = None
    """Bytes that the file system takes, None where that is not known."""
    allocated: int | None = None
    """Bytes that the file takes on its disk, None where that cannot be foreseen."""
    trimmed: bool = False
    """Nothing was written since its unused space was given back."""
    link: Link = Link()
    leftovers: tuple[str, ...] = ()
    directory: bool = True
    """Whether the directory that the file is to lie in exists."""
    below: str | None = None
    """The file system that the directory lies in."""
    read_only: bool = False
    free: int = 0
    loop_control: bool = True
    torn: bool | None = None
    """Whether the superblock that a run saved before ext4 grew unmounted is needed; None: none was left."""
    golden: Golden | None = None
    """Only looked at where there is something to clone."""
    uuid_at: str | None = None
    """What else bears the UUID that a new file system is to have."""

    @property
    def blank(self) -> bool:
        return self.kind == FILE and self.data_at is None and not self.content.fstype and not self.content.alien

    @property
    def sealed(self) -> bool:
        return self.kind == FILE and not self.mode & WRITABLE


@dataclass(frozen=True)
class RemoveLeftover:
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}, which an interrupted run left behind"


@dataclass(frozen=True)
class SettleSuperblock:
    path: str
    torn: bool
    mend: bool
    """Nobody uses it, so that what was left half done can be put right."""

    def __str__(self) -> str:
        return f"{'put back' if self.torn else 'forget'} the superblock of {self.path} that an interrupted run saved{', and check it' if self.mend else ''}"


@dataclass(frozen=True)
class Create:
    path: str
    size: int
    fstype: str
    label: str | None
    uuid: str | None
    uid: int | None
    gid: int | None
    mode: int
    replaces_blank: bool
    mkfs_options: tuple[str, ...] = ()
    preallocated: bool = False

    def __str__(self) -> str:
        how = "preallocated" if self.preallocated else "sparse"
        return f"make {self.path}, {how}, {exact(self.size)}, with {self.fstype}{', in place of zeros' if self.replaces_blank else ''}"


@dataclass(frozen=True)
class Clone:
    path: str
    golden: str
    fstype: str
    label: str | None
    uuid: str | None
    uid: int | None
    gid: int | None
    mode: int
    replaces_blank: bool

    def __str__(self) -> str:
        return f"clone {self.golden} as {self.path}, with a UUID of its own{', in place of zeros' if self.replaces_blank else ''}"


@dataclass(frozen=True)
class Grow:
    path: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"grow {self.path} from {exact(self.old)} to {exact(self.new)}"


@dataclass(frozen=True)
class Preallocate:
    path: str
    size: int

    def __str__(self) -> str:
        return f"allocate all {exact(self.size)} of {self.path}"


@dataclass(frozen=True)
class GrowFileSystem:
    path: str
    fstype: str
    size: int
    mount: str | None = None
    """Where it is mounted. Else it grows unmounted, or mounted for the purpose where nobody else sees it."""

    def __str__(self) -> str:
        return f"grow the {self.fstype} in {self.path} to {exact(self.size)}{f', mounted at {self.mount}' if self.mount else ''}"


@dataclass(frozen=True)
class Trim:
    path: str
    fstype: str

    def __str__(self) -> str:
        return f"give back the unused space of the {self.fstype} in {self.path}"


@dataclass(frozen=True)
class UpdateCapacity:
    device: str

    def __str__(self) -> str:
        return f"tell {self.device} the size of its file"


@dataclass(frozen=True)
class SetOwner:
    path: str
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"set the owner of {self.path} to {self.uid}:{self.gid}"


@dataclass(frozen=True)
class SetMode:
    path: str
    mode: int

    def __str__(self) -> str:
        return f"set the mode of {self.path} to {self.mode:04o}"


@dataclass(frozen=True)
class Attach:
    path: str

    def __str__(self) -> str:
        return f"attach {self.path} to {FREE_LOOP.device}"


@dataclass(frozen=True)
class MakeNode:
    device: str

    def __str__(self) -> str:
        return f"make the missing node {self.device}"


@dataclass(frozen=True)
class SetLink:
    link: str
    path: str

    def __str__(self) -> str:
        return f"make {self.link} name the loop device of {self.path}"


@dataclass(frozen=True)
class RemoveLink:
    link: str

    def __str__(self) -> str:
        return f"remove the link {self.link}"


@dataclass(frozen=True)
class Detach:
    path: str
    device: str

    def __str__(self) -> str:
        return f"detach {self.path} from {self.device}"


@dataclass(frozen=True)
class Delete:
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


Step = Union[
    RemoveLeftover, SettleSuperblock, Create, Clone, Grow, Preallocate, UpdateCapacity, GrowFileSystem, SetOwner, SetMode, Attach, MakeNode, SetLink,
    RemoveLink, Detach, Trim, Delete,
]


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    reason: str


def parse(options: dict) -> Wanted:
    """Return what the module's options ask for, or refuse what cannot be meant."""
    absent = options["state"] == "absent"
    for option in ("path", "link", "clone_of"):
        if options[option] is not None and (not os.path.isabs(options[option]) or os.path.basename(options[option]) in ("", ".", "..")):
            raise Refused(f"{option}: {options[option]!r} is no absolute path of a file")
    if options["link"] and options["attached"] is None and not absent:
        raise Refused("link: names the loop device, so it needs attached: true, or attached: false to remove it")
    if absent and options["attached"]:
        raise Refused("attached: true cannot go with state: absent")
    path = os.path.normpath(options["path"])
    golden = options["clone_of"] and os.path.normpath(options["clone_of"])
    mode = _parse_mode(options["mode"])
    _check_together(options, path, golden, mode)
    return Wanted(
        path=path,
        fstype=options["fstype"],
        size=None if options["size"] is None else parse_size(options["size"]),
        label=_parse_label(options["label"], options["fstype"]),
        uuid=_parse_uuid(options["uuid"]),
        attached=options["attached"],
        link=options["link"] and os.path.normpath(options["link"]),
        uid=_parse_id("owner", options["owner"], lambda name: pwd.getpwnam(name).pw_uid),
        gid=_parse_id("group", options["group"], lambda name: grp.getgrnam(name).gr_gid),
        mode=mode,
        absent=absent,
        mkfs_options=_parse_mkfs_options(options["mkfs_options"]),
        preallocated=options["allocation"] == "preallocated",
        clone_of=golden,
        resizefs=options["resizefs"],
        sealed=options["sealed"],
        trim=options["trim"],
    )


def _check_together(options: dict, path: str, golden: str | None, mode: int | None) -> None:
    """Refuse options that contradict each other."""
    if golden == path:
        raise Refused("clone_of: is the path itself, an image is no clone of its own")
    if golden and options["mkfs_options"]:
        raise Refused("mkfs_options: are for a new file system, with clone_of there is none to be made")
    if options["allocation"] == "preallocated":
        for option in ("clone_of", "trim", "sealed"):
            if options[option]:
                raise Refused(f"allocation: preallocated cannot go with {option}, which is for files that have holes")
    for option in ("trim", "sealed"):
        if options[option] and options["attached"]:
            raise Refused(f"{option}: true cannot go with attached: true, it is for an image that nobody uses")
        if options[option] and options["state"] == "absent":
            raise Refused(f"{option}: true cannot go with state: absent")
    if mode is not None and bool(mode & WRITABLE) == bool(options["sealed"]):
        raise Refused(
            f"mode: {mode:04o} lets somebody write, and sealed: true nobody: choose one" if options["sealed"] else
            f"mode: {mode:04o} lets nobody write, which seals an image: say sealed: true if that is meant"
        )


def _parse_mkfs_options(options: list[str] | None) -> tuple[str, ...]:
    before = ""
    for option in options or ():
        # A word of its own would be a second device to format, and a path an external journal, a prototype or another device.
        if "/" in option or not option.startswith("-") and not before.startswith("-"):
            raise Refused(f"mkfs_options: {option!r} may name another file or device: only options and their values are taken, and no paths")
        before = option
    return tuple(options or ())


def _parse_label(label: str | None, fstype: str) -> str | None:
    longest = FILE_SYSTEMS[fstype].label_bytes
    if label is not None and not re.fullmatch(r"[ -~]{1,%d}" % longest, label):
        raise Refused(f"label: {label!r} is no label for {fstype}: 1 to {longest} characters, printable ASCII")
    return label


def _parse_uuid(uuid: str | None) -> str | None:
    if uuid is None:
        return None
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid.lower()):
        raise Refused(f"uuid: {uuid!r} is no UUID: write it like 7d57472b-5630-4e76-9191-1ca5e456a9da")
    return uuid.lower()


def _parse_id(option: str, name: str | None, look_up) -> int | None:
    if name is None or name.isdigit():
        return None if name is None else int(name)
    try:
        return look_up(name)
    except KeyError:
        raise Refused(f"{option}: there is no {name!r} on this machine") from None


def _parse_mode(mode: object) -> int | None:
    if mode is None:
        return None
    # YAML turns an unquoted 0600 into the number it means; a string is read as octal.
    text = str(mode)
    if isinstance(mode, int) and not isinstance(mode, bool) and 0 <= mode <= 0o7777:
        return mode
    if isinstance(mode, str) and re.fullmatch(r"0?[0-7]{3,4}", text) and int(text, 8) <= 0o7777:
        return int(text, 8)
    raise Refused(f"mode: {text!r} is no mode: write it in octal and in quotes, like '0600'")


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that lead from found to wanted, or raise Refused with the reason. Touches nothing."""
    if found.kind not in (None, FILE):
        raise Refused(f"{wanted.path} is {found.kind}, not a regular file: nothing was changed")
    if wanted.link and found.link.obstacle:
        raise Refused(f"link: {wanted.link} {found.link.obstacle}: it is left as it is, choose another link or remove it")
    if len(found.loops) > 1:
        loops.check_loops(wanted.path, found.loops)
    if wanted.absent:
        steps, reasons = _remove(found, wanted)
    elif found.kind is None or found.blank:
        steps, reasons = _make(found, wanted)
    else:
        steps, reasons = _keep(found, wanted)
    if not wanted.absent:
        for part in (_connect, _settle):
            more, why = part(foresee(found, Plan(tuple(steps), "")), wanted)
            steps, reasons = steps + more, reasons + why
    if found.torn is not None and not wanted.absent:
        steps.insert(0, SettleSuperblock(wanted.path, found.torn, mend=not found.loops and not found.use))
        reasons.append("a run was interrupted while the file system grew")
    if found.leftovers:
        steps = [RemoveLeftover(path) for path in found.leftovers] + steps
        reasons = [*reasons, "an interrupted run left something behind"]
    if steps and found.read_only:
        raise Refused(f"path: {os.path.dirname(wanted.path)} is on a read-only file system: mount it writable or choose another directory")
    return Plan(tuple(steps), "; ".join(reasons) or ("there is no such file" if wanted.absent else "everything is as asked"))


def _make(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    directory = os.path.dirname(wanted.path)
    if not found.directory:
        raise Refused(f"path: there is no directory {directory}: make it first")
    if found.below in WITHOUT_HOLES:
        raise Refused(f"path: {directory} is on {found.below}, which has no sparse files: choose a directory on ext4, xfs or btrfs")
    if found.loops:
        raise Refused(f"{wanted.path} holds no file system yet but is attached to {found.loops[0].device}: detach it first, somebody may be writing to it")
    if wanted.uuid and found.uuid_at:
        raise Refused(f"uuid: {wanted.uuid} is that of {found.uuid_at} already: two file systems with one UUID cannot be told apart, choose another")
    new = found.kind is None
    reasons = ["there is no file yet" if new else "the file holds nothing but zeros" if found.size else "the file is empty"]
    uid = wanted.uid if new or wanted.uid is not None else found.uid
    gid = wanted.gid if new or wanted.gid is not None else found.gid
    # What is to be sealed is so when everything else is done.
    mode = (wanted.mode if wanted.mode is not None else DEFAULT_MODE if new else found.mode) | 0o200
    if wanted.clone_of:
        _check_golden(found, wanted)
        clone = Clone(wanted.path, wanted.clone_of, wanted.fstype, wanted.label, wanted.uuid, uid, gid, mode, not new)
        more, why = _grow(foresee(found, Plan((clone,), "")), wanted)
        return [clone, *more], reasons + why
    size = wanted.size or found.size
    minimum = FILE_SYSTEMS[wanted.fstype].minimum
    if not size:
        raise Refused(f"size: is needed, because {wanted.path} {'does not exist yet' if new else 'is an empty file'}")
    if size < found.size:
        raise Refused(_smaller(found, wanted))
    if size < minimum:
        raise Refused(f"size: {exact(size)} is too small for {wanted.fstype}: at least {exact(minimum)}")
    if wanted.preallocated:
        _check_free(found, wanted, size)
    return [Create(
        wanted.path, size, wanted.fstype, wanted.label, wanted.uuid, uid, gid, mode, replaces_blank=not new,
        mkfs_options=wanted.mkfs_options, preallocated=wanted.preallocated,
    )], reasons


def _check_golden(found: Found, wanted: Wanted) -> None:
    """Refuse to clone what is not an image that nobody writes to any more."""
    golden, name = found.golden or Golden(None), f"clone_of: {wanted.clone_of}"
    if golden.kind is None:
        raise Refused(f"{name} does not exist: make it first, with sealed: true")
    if golden.kind != FILE:
        raise Refused(f"{name} is {golden.kind}, not a regular file")
    if golden.loops:
        raise Refused(f"{name} is attached to {golden.loops[0].device}: what is being written to cannot be cloned, detach and seal it (sealed: true)")
    if golden.content.fstype != wanted.fstype:
        raise Refused(f"{name} holds {golden.content.alien or golden.content.fstype or 'no file system'}, not {wanted.fstype} (fstype)")
    if golden.mode & WRITABLE:
        raise Refused(f"{name} is not sealed (mode {golden.mode:04o}), so that somebody may be writing to it: seal it (sealed: true)")
    if not golden.clean:
        raise Refused(f"{name} was not unmounted cleanly, and a new UUID would destroy its log: open it again (sealed: false) and seal it (sealed: true)")
    if max(golden.size, found.size) > (wanted.size or golden.size):
        larger = f"{wanted.clone_of} is ({exact(golden.size)})" if golden.size >= found.size else f"{wanted.path} is ({exact(found.size)})"
        raise Refused(f"size: {exact(wanted.size or golden.size)} is smaller than {larger}: an image never shrinks, nothing was changed")


def _check_free(found: Found, wanted: Wanted, size: int) -> None:
    missing = size - (found.allocated or 0)
    if missing > found.free:
        raise Refused(f"allocation: needs {exact(missing)} in {os.path.dirname(wanted.path)}, and {exact(found.free)} are free: nothing was changed")


def _keep(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    _check_content(found, wanted)
    steps: list[Step] = []
    reasons = []
    if wanted.size is not None and wanted.size < found.size:
        raise Refused(_smaller(found, wanted))
    uid = found.uid if wanted.uid is None else wanted.uid
    gid = found.gid if wanted.gid is None else wanted.gid
    if (uid, gid) != (found.uid, found.gid):
        steps.append(SetOwner(wanted.path, uid, gid))
        reasons.append("the owner differs")
    # A change of owner takes the set-user-ID bits away, so the mode comes after it. Sealing comes last, opening first.
    mode = found.mode if wanted.mode is None else wanted.mode
    mode = mode | 0o200 if wanted.sealed is False else mode
    if mode != found.mode and mode & WRITABLE:
        steps.append(SetMode(wanted.path, mode))
        reasons.append("it is sealed" if found.sealed else "the mode differs")
    more, why = _grow(foresee(found, Plan(tuple(steps), "")), wanted)
    return steps + more, reasons + why


def _grow(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Make the file, its loop device and its file system as large as asked."""
    steps: list[Step] = []
    reasons = []
    size = wanted.size or found.size
    if size > found.size:
        _check_open(found, wanted, "size", "grown")
        least = FILE_SYSTEMS[wanted.fstype].grows_to
        if wanted.resizefs and size < least:
            raise Refused(f"size: {exact(size)} is too small to grow to, {wanted.fstype} grows to {exact(least)} or more: nothing was changed")
        steps.append(Grow(wanted.path, found.size, size))
        reasons.append("the file is smaller than asked")
    if wanted.preallocated and (found.allocated or 0) < size:
        _check_open(found, wanted, "allocation", "allocated")
        _check_free(found, wanted, size)
        steps.append(Preallocate(wanted.path, size))
        reasons.append("not all of it is allocated")
    for loop in found.loops:
        if not loop.partial and loop.size != size // 512 * 512:
            steps.append(UpdateCapacity(loop.device))
            reasons += [] if size > found.size else ["the loop device does not know the size of its file"]
    # What others use (a VM, another mount namespace) only they can grow.
    if to_be_filled(found, wanted) and not found.sealed and not found.use:
        loop = loops.check_loops(wanted.path, found.loops)
        if found.mount and wanted.fstype == "ext4" and not found.may_resize:
            raise Refused(
                f"resizefs: growing an ext4 that is mounted ({found.mount}) takes CAP_SYS_RESOURCE, which this process has not: unmount it, or resizefs: false"
            )
        if loop is None and not found.loop_control and not FILE_SYSTEMS[wanted.fstype].check:
            raise Refused(_no_loop_devices("resizefs"))
        steps.append(GrowFileSystem(wanted.path, wanted.fstype, size, found.mount))
        reasons += [] if size > found.size else ["the file system is smaller than its file"]
    return steps, reasons


def to_be_filled(found: Found, wanted: Wanted) -> bool:
    """Return whether the file system is to grow to the end of its file."""
    size = max(wanted.size or 0, found.size)
    return wanted.resizefs and found.fs_size is not None and found.content.fstype == wanted.fstype \
        and found.fs_size + FILE_SYSTEMS[wanted.fstype].slack < size // BLOCK * BLOCK and size >= FILE_SYSTEMS[wanted.fstype].grows_to


def _check_open(found: Found, wanted: Wanted, option: str, done: str) -> None:
    if found.sealed:
        raise Refused(f"{option}: {wanted.path} is sealed (mode {found.mode:04o}) and cannot be {done}: clone it (clone_of), or open it (sealed: false)")


def _settle(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Give back unused space, and seal what is to be sealed: the last of all, on a file that nobody uses."""
    mode = (found.mode if wanted.mode is None else wanted.mode) & ~WRITABLE
    sealing = bool(wanted.sealed) and mode != found.mode
    opened = bool(wanted.sealed) and not found.sealed
    trimming = (wanted.trim or opened) and not found.trimmed
    option = "trim" if wanted.trim else "sealed"
    if (trimming or opened) and (found.loops or found.use or found.mount):
        user = f"attached to {found.loops[0].device}" if found.loops else found.use
        raise Refused(f"{option}: {wanted.path} is {user}: end that and detach it first (attached: false), nothing was changed")
    steps: list[Step] = []
    reasons = []
    if trimming:
        _check_open(found, wanted, option, "trimmed")
        if not found.loop_control:
            raise Refused(_no_loop_devices(option))
        steps.append(Trim(wanted.path, wanted.fstype))
        reasons.append("it may have been written to since it was trimmed")
    if sealing:
        steps.append(SetMode(wanted.path, mode))
        reasons.append("it is not sealed" if opened else "the mode differs")
    return steps, reasons


def _no_loop_devices(option: str) -> str:
    return f"{option}: there is no {loops.LOOP_CONTROL}: modprobe loop, or in a container --device {loops.LOOP_CONTROL}"


def _check_content(found: Found, wanted: Wanted) -> None:
    """Refuse a file that does not hold what the task says it holds."""
    content = found.content
    if content.alien:
        raise Refused(f"{wanted.path} holds {content.alien}: nothing was changed")
    if not content.fstype:
        where = "nothing but zeros" if found.data_at is None else f"data that is no file system (from byte {found.data_at} on)"
        raise Refused(f"{wanted.path} holds {where}: nothing was changed")
    if content.fstype != wanted.fstype:
        raise Refused(f"{wanted.path} holds {content.fstype}, not {wanted.fstype}: nothing was changed")
    if wanted.uuid and (content.uuid or "").lower() != wanted.uuid:
        raise Refused(f"uuid: {wanted.path} holds the file system {content.uuid}, not {wanted.uuid}: nothing was changed")
    if wanted.label and content.label != wanted.label:
        raise Refused(f"label: {wanted.path} holds the label {content.label or ''!r}, not {wanted.label!r}: nothing was changed")


def _smaller(found: Found, wanted: Wanted) -> str:
    return f"size: {exact(wanted.size or 0)} is smaller than {wanted.path} is ({exact(found.size)}): an image never shrinks, nothing was changed"


def _connect(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Attach or detach, and put the link right."""
    if wanted.attached is None:
        return [], []
    loop = loops.check_loops(wanted.path, found.loops)
    if not wanted.attached:
        return _disconnect(found, wanted, loop)
    _check_open(found, wanted, "attached", "attached")
    steps: list[Step] = []
    reasons = []
    if loop is None:
        if not found.loop_control:
            raise Refused(_no_loop_devices("attached"))
        steps.append(Attach(wanted.path))
        reasons.append("it is not attached")
    elif not loop.node:
        steps.append(MakeNode(loop.device))
        reasons.append(f"{loop.device} is missing in /dev")
    if wanted.link and (loop is None or found.link.target != loop.device):
        steps.append(SetLink(wanted.link, wanted.path))
        reasons += ["the link does not name its loop device"] if loop else []
    return steps, reasons


def _disconnect(found: Found, wanted: Wanted, loop: Loop | None) -> tuple[list[Step], list[str]]:
    steps: list[Step] = []
    if loop:
        if found.use or found.mount:
            raise Refused(f"{wanted.path} is in use: {loop.device} is {found.use or f'mounted at {found.mount}'}: end that first, nothing was changed")
        steps.append(Detach(wanted.path, loop.device))
    # A link that names another loop device is left from before and would lead to the wrong disk: it goes too.
    if wanted.link and found.link.target:
        steps.append(RemoveLink(wanted.link))
    return steps, ["it is attached"] if loop else ["its link is still there"] if steps else []


def _remove(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    if found.kind is None:
        return _disconnect(found, wanted, None)
    _check_content(found, wanted)
    loop = loops.check_loops(wanted.path, found.loops)
    if loop and wanted.attached is None and (not wanted.link or found.link.target != loop.device):
        raise Refused(f"{wanted.path} is attached to {loop.device}: name the link that leads there, or say attached: false, if it may be detached")
    if found.use and not loop:
        raise Refused(f"{wanted.path} is {found.use}: end that first, nothing was changed")
    steps, reasons = _disconnect(found, wanted, loop)
    return [*steps, Delete(wanted.path)], ["the file is there"]


def foresee(found: Found, plan: Plan) -> Found:
    """Return what the machine will look like after the plan, as far as that can be known before."""
    for step in plan.steps:
        if isinstance(step, RemoveLeftover):
            found = replace(found, leftovers=tuple(path for path in found.leftovers if path != step.path))
        elif isinstance(step, SettleSuperblock):
            found = replace(found, torn=None)
        elif isinstance(step, (Create, Clone)):
            found = _made(found, step)
        elif isinstance(step, Grow):
            found = replace(found, size=step.new, trimmed=False)
        elif isinstance(step, Preallocate):
            found = replace(found, allocated=step.size, trimmed=False)
        elif isinstance(step, GrowFileSystem):
            found = replace(found, fs_size=step.size, trimmed=False)
        elif isinstance(step, Trim):
            found = replace(found, allocated=None, trimmed=True)
        elif isinstance(step, UpdateCapacity):
            found = replace(found, loops=tuple(replace(loop, size=found.size // 512 * 512) for loop in found.loops))
        elif isinstance(step, SetOwner):
            found = replace(found, uid=step.uid, gid=step.gid)
        elif isinstance(step, SetMode):
            found = replace(found, mode=step.mode)
        elif isinstance(step, Attach):
            found = replace(found, loops=(replace(FREE_LOOP, size=found.size // 512 * 512),))
        elif isinstance(step, MakeNode):
            found = replace(found, loops=tuple(replace(loop, node=True) for loop in found.loops))
        elif isinstance(step, SetLink):
            found = replace(found, link=Link(found.loops[0].device))
        elif isinstance(step, RemoveLink):
            found = replace(found, link=Link())
        elif isinstance(step, Detach):
            found = replace(found, loops=(), mount=None, use=None)
        elif isinstance(step, Delete):
            found = Found(
                link=found.link, leftovers=found.leftovers, directory=found.directory, below=found.below, free=found.free, loop_control=found.loop_control,
            )
    return found


def _made(found: Found, step: Create | Clone) -> Found:
    if isinstance(step, Create):
        size, fs_size, label, allocated = step.size, step.size, step.label, step.size if step.preallocated else None
    else:
        golden = found.golden or Golden(FILE)
        size, fs_size, label, allocated = golden.size, golden.fs_size, step.label or golden.content.label, None
    return replace(
        found, kind=FILE, size=size, content=Content(step.fstype, step.uuid, label), data_at=None, mode=step.mode,
        uid=found.uid if step.uid is None else step.uid, gid=found.gid if step.gid is None else step.gid,
        fs_size=fs_size, allocated=allocated, trimmed=True,
    )


def describe(found: Found) -> dict:
    """Return what was found as plain data, for a result or one side of a diff."""
    there = found.kind == FILE
    return {
        "size": found.size if there else None,
        "filesystem_size": found.fs_size,
        "fstype": found.content.fstype,
        "uuid": found.content.uuid,
        "label": found.content.label,
        "device": found.loops[0].device if found.loops else None,
        "link": found.link.target,
        "owner": found.uid if there else None,
        "group": found.gid if there else None,
        "mode": f"{found.mode:04o}" if there else None,
    }
