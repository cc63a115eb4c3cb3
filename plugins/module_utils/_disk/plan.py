# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of disk_image: the steps from the found to the wanted state, or a refusal. Nothing here touches the
machine.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import BLOCK, exact
from ansible_collections.nested.kata.plugins.module_utils._disk import loop as loops
from ansible_collections.nested.kata.plugins.module_utils._disk.file_systems import FILE_SYSTEMS, WITHOUT_HOLES
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import WRITABLE, Content, Link, Loop
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._disk.steps import (
    FREE_LOOP,
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
    SettleSuperblock,
    Step,
    Trim,
    UpdateCapacity,
)

FILE = "a regular file"
DEFAULT_MODE = 0o600


@dataclass(frozen=True)
class Golden:
    """The image that a new one is cloned from."""

    kind: str | None
    size: int = 0
    content: Content = Content()
    fs_size: int | None = None
    clean: bool = True
    mode: int = 0
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True)
class Found:
    """The current state of the machine."""

    kind: str | None = None
    """FILE, None where nothing is, or a description of anything else that is there."""
    size: int = 0
    content: Content = Content()
    data_at: int | None = None
    """Where blkid finds nothing: offset of the first byte that is not zero, None if all are zero."""
    uid: int = 0
    gid: int = 0
    mode: int = DEFAULT_MODE
    loops: tuple[Loop, ...] = ()
    mount: str | None = None
    """Mount point of the loop device; this and `use` are only looked up where they matter."""
    use: str | None = None
    """Description of the user of the loop device, or of the file itself."""
    may_resize: bool = True
    """Whether this process may grow a mounted ext4."""
    fs_size: int | None = None
    """Bytes that the file system takes, None where that is not known."""
    allocated: int | None = None
    """Bytes that the file takes on its disk, None where that cannot be foreseen."""
    trimmed: bool = False
    """Whether nothing was written since its unused space was given back."""
    link: Link = Link()
    leftovers: tuple[str, ...] = ()
    directory: bool = True
    """Whether the directory of the file exists."""
    below: str | None = None
    """The file system that the directory is in."""
    read_only: bool = False
    free: int = 0
    loop_control: bool = True
    torn: bool | None = None
    """Whether the superblock that a run saved before ext4 grew unmounted is needed; None: there is none."""
    golden: Golden | None = None
    """Only looked at where there is something to clone."""
    uuid_at: str | None = None
    """The device or image that already has the UUID of the new file system."""

    @property
    def blank(self) -> bool:
        return self.kind == FILE and self.data_at is None and not self.content.fstype and not self.content.alien

    @property
    def sealed(self) -> bool:
        return self.kind == FILE and not self.mode & WRITABLE


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    reason: str


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that lead from found to wanted, or raise Refused with the reason. Touches nothing."""
    if found.kind not in (None, FILE):
        raise Refused(f"{wanted.path} is {found.kind}, not a regular file: nothing was changed")
    if wanted.link and found.link.obstacle:
        raise Refused(
            f"link: {wanted.link} {found.link.obstacle}: it is left as it is, choose another link or remove it"
        )
    if len(found.loops) > 1:
        loops.check_loops(wanted.path, found.loops)
    if wanted.absent:
        steps, reasons = _remove(found, wanted)
    elif wanted.any_content:
        steps, reasons = [], []
    elif found.kind is None or found.blank:
        steps, reasons = _make(found, wanted)
    else:
        steps, reasons = _keep(found, wanted)
    if not wanted.absent:
        for part in (_connect,) if wanted.any_content else (_connect, _settle):
            more, why = part(foresee(found, Plan(tuple(steps), "")), wanted)
            steps, reasons = steps + more, reasons + why
    if found.torn is not None and not wanted.absent and not wanted.any_content:
        steps.insert(0, SettleSuperblock(wanted.path, found.torn, repair=not found.loops and not found.use))
        reasons.append("a run was interrupted while the file system grew")
    if found.leftovers:
        steps = [RemoveLeftover(path) for path in found.leftovers] + steps
        reasons = [*reasons, "an interrupted run left something behind"]
    if steps and found.read_only:
        raise Refused(
            f"path: {os.path.dirname(wanted.path)} is on a read-only file system: mount it writable or choose another"
            " directory"
        )
    return Plan(
        tuple(steps), "; ".join(reasons) or ("there is no such file" if wanted.absent else "everything is as asked")
    )


def _make(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    directory = os.path.dirname(wanted.path)
    if not found.directory:
        raise Refused(f"path: there is no directory {directory}: make it first")
    if found.below in WITHOUT_HOLES:
        raise Refused(
            f"path: {directory} is on {found.below}, which has no sparse files: choose a directory on ext4, xfs or"
            " btrfs"
        )
    if found.loops:
        raise Refused(
            f"{wanted.path} holds no file system yet but is attached to {found.loops[0].device}: detach it first,"
            " a process may be writing to it"
        )
    if wanted.uuid and found.uuid_at:
        raise Refused(
            f"uuid: {wanted.uuid} is already the UUID of {found.uuid_at}: two file systems with one UUID cannot be"
            " distinguished, choose another"
        )
    new = found.kind is None
    reasons = [
        "there is no file yet" if new else "the file holds nothing but zeros" if found.size else "the file is empty"
    ]
    uid = wanted.uid if new or wanted.uid is not None else found.uid
    gid = wanted.gid if new or wanted.gid is not None else found.gid
    # An image is sealed when everything else is done.
    mode = (wanted.mode if wanted.mode is not None else DEFAULT_MODE if new else found.mode) | 0o200
    if wanted.clone_of:
        _check_golden(found, wanted)
        clone = Clone(wanted.path, wanted.clone_of, wanted.fstype, wanted.label, wanted.uuid, uid, gid, mode, not new)
        more, why = _grow(foresee(found, Plan((clone,), "")), wanted)
        return [clone, *more], reasons + why
    size = wanted.size or found.size
    part = wanted.filesystem_size if wanted.filesystem_size != size else None
    minimum = FILE_SYSTEMS[wanted.fstype].minimum
    if not size:
        raise Refused(f"size: is needed, because {wanted.path} {'does not exist yet' if new else 'is an empty file'}")
    if size < found.size:
        raise Refused(_smaller(found, wanted))
    if part and part > size:
        raise Refused(f"filesystem_size: {exact(part)} is larger than the file ({exact(size)}): raise size too")
    for option, value in (("size", size), ("filesystem_size", part or size)):
        if value < minimum:
            raise Refused(f"{option}: {exact(value)} is too small for {wanted.fstype}: at least {exact(minimum)}")
    if wanted.preallocated:
        _check_free(found, wanted, size)
    return [
        Create(
            wanted.path,
            size,
            wanted.fstype,
            wanted.label,
            wanted.uuid,
            uid,
            gid,
            mode,
            replaces_blank=not new,
            mkfs_options=wanted.mkfs_options,
            preallocated=wanted.preallocated,
            filesystem_size=part,
        )
    ], reasons


def _check_golden(found: Found, wanted: Wanted) -> None:
    """Refuse to clone anything but a sealed image."""
    golden, name = found.golden or Golden(None), f"clone_of: {wanted.clone_of}"
    if golden.kind is None:
        raise Refused(f"{name} does not exist: make it first, with sealed: true")
    if golden.kind != FILE:
        raise Refused(f"{name} is {golden.kind}, not a regular file")
    if golden.loops:
        raise Refused(
            f"{name} is attached to {golden.loops[0].device}: an image that is being written to cannot be cloned,"
            " detach and seal it (sealed: true)"
        )
    if golden.content.fstype != wanted.fstype:
        raise Refused(
            f"{name} holds {golden.content.alien or golden.content.fstype or 'no file system'}, not {wanted.fstype}"
            " (fstype)"
        )
    if golden.mode & WRITABLE:
        raise Refused(
            f"{name} is not sealed (mode {golden.mode:04o}), so that a process may be writing to it: seal it (sealed:"
            " true)"
        )
    if not golden.clean:
        raise Refused(
            f"{name} was not unmounted cleanly, and a new UUID would destroy its log: open it again (sealed: false) and"
            " seal it (sealed: true)"
        )
    if max(golden.size, found.size) > (wanted.size or golden.size):
        larger = (
            f"{wanted.clone_of} ({exact(golden.size)})"
            if golden.size >= found.size
            else f"{wanted.path} ({exact(found.size)})"
        )
        raise Refused(
            f"size: {exact(wanted.size or golden.size)} is smaller than {larger}: an image never shrinks, nothing was"
            " changed"
        )


def _check_free(found: Found, wanted: Wanted, size: int) -> None:
    missing = size - (found.allocated or 0)
    if missing > found.free:
        raise Refused(
            f"allocation: needs {exact(missing)} in {os.path.dirname(wanted.path)}, and {exact(found.free)} are free:"
            " nothing was changed"
        )


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
    # A change of owner clears the set-user-ID bits, so the mode comes after it. Sealing comes last, opening first.
    mode = found.mode if wanted.mode is None else wanted.mode
    mode = mode | 0o200 if wanted.sealed is False else mode
    if mode != found.mode and mode & WRITABLE:
        steps.append(SetMode(wanted.path, mode))
        reasons.append("it is sealed" if found.sealed else "the mode differs")
    more, why = _grow(foresee(found, Plan(tuple(steps), "")), wanted)
    return steps + more, reasons + why


def _grow(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Make the file, its loop device and its file system as large as wanted."""
    steps: list[Step] = []
    reasons = []
    size = wanted.size or found.size
    if size > found.size:
        _check_open(found, wanted, "size", "grown")
        least = FILE_SYSTEMS[wanted.fstype].grows_to
        if wanted.resizefs and size < least:
            raise Refused(
                f"size: {exact(size)} is too small to grow to, {wanted.fstype} grows to {exact(least)} or more: nothing"
                " was changed"
            )
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
    # A file system in use by others (a VM, another mount namespace) can only be grown by them.
    if to_be_filled(found, wanted) and not found.sealed and not found.use:
        attached = loops.check_loops(wanted.path, found.loops)
        if found.mount and wanted.fstype == "ext4" and not found.may_resize:
            raise Refused(
                f"resizefs: growing an ext4 that is mounted ({found.mount}) needs CAP_SYS_RESOURCE, which this process"
                " does not have: unmount it, or set resizefs: false"
            )
        if attached is None and not found.loop_control and not FILE_SYSTEMS[wanted.fstype].check:
            raise Refused(_no_loop_devices("resizefs"))
        steps.append(GrowFileSystem(wanted.path, wanted.fstype, size, found.mount))
        reasons += [] if size > found.size else ["the file system is smaller than its file"]
    return steps, reasons


def to_be_filled(found: Found, wanted: Wanted) -> bool:
    """Return whether the file system must grow to the end of its file."""
    size = max(wanted.size or 0, found.size)
    return (
        wanted.resizefs
        and found.fs_size is not None
        and found.content.fstype == wanted.fstype
        and found.fs_size + FILE_SYSTEMS[wanted.fstype].slack < size // BLOCK * BLOCK
        and size >= FILE_SYSTEMS[wanted.fstype].grows_to
    )


def _check_open(found: Found, wanted: Wanted, option: str, done: str) -> None:
    if found.sealed:
        raise Refused(
            f"{option}: {wanted.path} is sealed (mode {found.mode:04o}) and cannot be {done}: clone it (clone_of), or"
            " open it (sealed: false)"
        )


def _settle(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Give back unused space, and seal the image if wanted: the last of all steps, on a file that nobody uses."""
    mode = (found.mode if wanted.mode is None else wanted.mode) & ~WRITABLE
    sealing = bool(wanted.sealed) and mode != found.mode
    opened = bool(wanted.sealed) and not found.sealed
    trimming = (wanted.trim or opened) and not found.trimmed
    option = "trim" if wanted.trim else "sealed"
    if (trimming or opened) and (found.loops or found.use or found.mount):
        user = f"attached to {found.loops[0].device}" if found.loops else found.use
        raise Refused(
            f"{option}: {wanted.path} is {user}: end that and detach it first (attached: false), nothing was changed"
        )
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
    """Refuse a file whose content differs from the options of the task."""
    content = found.content
    if content.alien:
        raise Refused(f"{wanted.path} holds {content.alien}: nothing was changed")
    if not content.fstype:
        where = (
            "nothing but zeros"
            if found.data_at is None
            else f"data that is not a file system (from byte {found.data_at} on)"
        )
        raise Refused(f"{wanted.path} holds {where}: nothing was changed")
    if content.fstype != wanted.fstype:
        raise Refused(f"{wanted.path} holds {content.fstype}, not {wanted.fstype}: nothing was changed")
    if wanted.uuid and (content.uuid or "").lower() != wanted.uuid:
        raise Refused(
            f"uuid: {wanted.path} holds the file system {content.uuid}, not {wanted.uuid}: nothing was changed"
        )
    if wanted.label and content.label != wanted.label:
        raise Refused(
            f"label: {wanted.path} holds the label {content.label or ''!r}, not {wanted.label!r}: nothing was changed"
        )


def _smaller(found: Found, wanted: Wanted) -> str:
    return (
        f"size: {exact(wanted.size or 0)} is smaller than {wanted.path} ({exact(found.size)}): an image never shrinks,"
        " nothing was changed"
    )


def _connect(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Attach or detach, and correct the link."""
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
            raise Refused(
                f"{wanted.path} is in use: {loop.device} is {found.use or f'mounted at {found.mount}'}: end that first,"
                " nothing was changed"
            )
        steps.append(Detach(wanted.path, loop.device))
    # A link that names another loop device is a leftover and would lead to the wrong disk: it is removed too.
    if wanted.link and found.link.target:
        steps.append(RemoveLink(wanted.link))
    return steps, ["it is attached"] if loop else ["its link is still there"] if steps else []


def _remove(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    if found.kind is None:
        return _disconnect(found, wanted, None)
    if not wanted.any_content:
        _check_content(found, wanted)
    loop = loops.check_loops(wanted.path, found.loops)
    if loop and wanted.attached is None and (not wanted.link or found.link.target != loop.device):
        raise Refused(
            f"{wanted.path} is attached to {loop.device}: name the link that leads there, or set attached: false, if it"
            " may be detached"
        )
    if found.use and not loop:
        raise Refused(f"{wanted.path} is {found.use}: end that first, nothing was changed")
    steps, _reasons = _disconnect(found, wanted, loop)
    return [*steps, Delete(wanted.path)], ["the file is there"]


def foresee(found: Found, plan: Plan) -> Found:
    """Return the state of the machine after the plan, as far as it can be known before."""
    return functools.reduce(lambda before, step: _after(step, before), plan.steps, found)


@functools.singledispatch
def _after(step: Step, found: Found) -> Found:
    """Return the state of the machine after a step."""
    raise NotImplementedError(step)


@_after.register(RemoveLeftover)
def _after_remove_leftover(step: RemoveLeftover, found: Found) -> Found:
    return replace(found, leftovers=tuple(path for path in found.leftovers if path != step.path))


@_after.register(SettleSuperblock)
def _after_settle_superblock(step: SettleSuperblock, found: Found) -> Found:
    return replace(found, torn=None)


@_after.register(Create)
def _after_create(step: Create, found: Found) -> Found:
    taken = step.filesystem_size or step.size
    return _made(found, step, step.size, taken, step.label, step.size if step.preallocated else None)


@_after.register(Clone)
def _after_clone(step: Clone, found: Found) -> Found:
    golden = found.golden or Golden(FILE)
    return _made(found, step, golden.size, golden.fs_size, step.label or golden.content.label, None)


def _made(
    found: Found, step: Create | Clone, size: int, fs_size: int | None, label: str | None, allocated: int | None
) -> Found:
    return replace(
        found,
        kind=FILE,
        size=size,
        content=Content(step.fstype, step.uuid, label),
        data_at=None,
        mode=step.mode,
        uid=found.uid if step.uid is None else step.uid,
        gid=found.gid if step.gid is None else step.gid,
        fs_size=fs_size,
        allocated=allocated,
        trimmed=True,
    )


@_after.register(Grow)
def _after_grow(step: Grow, found: Found) -> Found:
    return replace(found, size=step.new, trimmed=False)


@_after.register(Preallocate)
def _after_preallocate(step: Preallocate, found: Found) -> Found:
    return replace(found, allocated=step.size, trimmed=False)


@_after.register(GrowFileSystem)
def _after_grow_file_system(step: GrowFileSystem, found: Found) -> Found:
    return replace(found, fs_size=step.size, trimmed=False)


@_after.register(Trim)
def _after_trim(step: Trim, found: Found) -> Found:
    return replace(found, allocated=None, trimmed=True)


@_after.register(UpdateCapacity)
def _after_update_capacity(step: UpdateCapacity, found: Found) -> Found:
    return replace(found, loops=tuple(replace(loop, size=found.size // 512 * 512) for loop in found.loops))


@_after.register(SetOwner)
def _after_set_owner(step: SetOwner, found: Found) -> Found:
    return replace(found, uid=step.uid, gid=step.gid)


@_after.register(SetMode)
def _after_set_mode(step: SetMode, found: Found) -> Found:
    return replace(found, mode=step.mode)


@_after.register(Attach)
def _after_attach(step: Attach, found: Found) -> Found:
    return replace(found, loops=(replace(FREE_LOOP, size=found.size // 512 * 512),))


@_after.register(MakeNode)
def _after_make_node(step: MakeNode, found: Found) -> Found:
    return replace(found, loops=tuple(replace(loop, node=True) for loop in found.loops))


@_after.register(SetLink)
def _after_set_link(step: SetLink, found: Found) -> Found:
    return replace(found, link=Link(found.loops[0].device))


@_after.register(RemoveLink)
def _after_remove_link(step: RemoveLink, found: Found) -> Found:
    return replace(found, link=Link())


@_after.register(Detach)
def _after_detach(step: Detach, found: Found) -> Found:
    return replace(found, loops=(), mount=None, use=None)


@_after.register(Delete)
def _after_delete(step: Delete, found: Found) -> Found:
    return Found(
        link=found.link,
        leftovers=found.leftovers,
        directory=found.directory,
        below=found.below,
        free=found.free,
        loop_control=found.loop_control,
    )
