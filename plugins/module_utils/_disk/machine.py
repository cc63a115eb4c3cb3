# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of disk_image: its state, and how each step is carried out there.

A run that is killed leaves the state either before a step or after it, and a file that `leftovers` finds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import stat
import struct
import tempfile
import uuid
from dataclasses import replace
from typing import Callable

from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import sync_directory
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import mount_of
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import exact
from ansible_collections.nested.kata.plugins.module_utils._disk import loop as loops
from ansible_collections.nested.kata.plugins.module_utils._disk import superblock
from ansible_collections.nested.kata.plugins.module_utils._disk.file_systems import FILE_SYSTEMS
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Content, Link
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._disk.plan import (
    FILE,
    Found,
    Golden,
    Plan,
    decide,
    foresee,
    to_be_filled,
)
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
    SettleSuperblock,
    Step,
    Trim,
    UpdateCapacity,
)

# A file with such a name in a locked directory was left behind by a run that was killed.
LEFTOVER = ".nested-kata-new-"
# The modification time that a file had when its unused space had been given back: nothing was written since then if it
# is still the same.
TRIMMED = "user.nested_kata.trimmed"
# The superblock (ext4) that a file had before it grew unmounted. e2fsprogs writes a superblock in several parts
# (lib/ext2fs/closefs.c, write_primary_superblock): when a power cut comes in between, nobody can open the file system,
# and a small one has no second superblock.
SAVED = "user.nested_kata.superblock"
# linux/fs.h: _IOW(0x94, 9, int)
FICLONE = 0x40049409
# xfs_fs.h: _IOR('X', 100, struct xfs_fsop_geom_v1), which begins with the block size and has the number of blocks at
# byte 32.
XFS_IOC_FSGEOMETRY_V1 = 0x80705864
# linux/capability.h
CAP_SYS_RESOURCE = 24
PIECE = 1 << 30
# Mounts a device where no other process sees it, runs a command there, and unmounts it. When it is killed, the mount
# ends with its namespace.
PRIVATELY = (
    'mount -t "$1" -o nosuid,nodev,noexec "$2" "$3" || exit; place=$3; shift 3; "$@"; status=$?; umount "$place" ||'
    " exit; exit $status"
)


def look(wanted: Wanted, *, glance: bool = False) -> Found:
    """Return the current state of the machine. A glance trusts the superblock where there is one and nothing else; a
    look asks blkid.
    """
    directory = os.path.dirname(wanted.path)
    found = Found(
        link=loops.link_at(wanted.link) if wanted.link else Link(),
        directory=os.path.isdir(directory),
        loop_control=os.path.exists(loops.LOOP_CONTROL),
    )
    if found.directory:
        space = os.statvfs(directory)
        found = replace(
            found,
            leftovers=leftovers(directory),
            read_only=bool(space.f_flag & os.ST_RDONLY),
            free=space.f_bavail * space.f_frsize,
        )
    try:
        status = os.lstat(wanted.path)
    except (FileNotFoundError, NotADirectoryError):
        return _origin(found, wanted)
    found = replace(
        found,
        kind=_kind(status.st_mode),
        size=status.st_size,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        allocated=status.st_blocks * 512,
    )
    if found.kind != FILE:
        return found
    if wanted.any_content:
        return _users(replace(found, data_at=0, loops=loops.loops_of(wanted.path)), wanted)
    saved, block = _saved(wanted.path), superblock.read(wanted.path)
    torn = saved is not None and superblock.torn_ext4(_superblock(wanted.path))
    if saved is not None and torn:
        block, glance = superblock.parse(bytes(1024) + saved + bytes(superblock.HEAD - 2048)), True
    content = (
        Content(block.fstype, block.uuid, block.label) if glance and block and block.alone else loops.probe(wanted.path)
    )
    found = replace(
        found,
        content=content,
        fs_size=block.size if block and block.fstype == content.fstype else None,
        data_at=None if content.fstype or content.alien else first_data(wanted.path),
        loops=loops.loops_of(wanted.path),
        trimmed=_trimmed(wanted.path, status),
        torn=None if saved is None else torn,
    )
    return _users(_origin(found, wanted) if found.blank else found, wanted)


def _users(found: Found, wanted: Wanted) -> Found:
    """Look for users of the image, where that matters: this goes through every open file of the machine."""
    if len(found.loops) > 1 or not (
        wanted.absent or wanted.attached is False or wanted.trim or wanted.sealed or to_be_filled(found, wanted)
    ):
        return found
    if not found.loops:
        idle = not (
            wanted.absent
            or to_be_filled(found, wanted)
            or (wanted.trim and not found.trimmed)
            or (wanted.sealed and not found.sealed)
        )
        return found if idle else replace(found, use=loops.use_of_file(wanted.path))
    mount = loops.mount_of(found.loops[0].device)
    if mount and found.content.fstype == "xfs":
        found = replace(found, fs_size=_mounted_xfs_size(mount))
    return replace(
        found,
        mount=mount,
        use=None if mount else loops.use_of(found.loops[0].device),
        may_resize=_has_capability(CAP_SYS_RESOURCE),
    )


def _mounted_xfs_size(mount: str) -> int:
    # While it is mounted its superblock in the file lags behind.
    geometry = bytearray(112)
    descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, XFS_IOC_FSGEOMETRY_V1, geometry)
    finally:
        os.close(descriptor)
    size: int = struct.unpack_from("=I", geometry, 0)[0] * struct.unpack_from("=Q", geometry, 32)[0]
    return size


def _has_capability(number: int) -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def _origin(found: Found, wanted: Wanted) -> Found:
    """Look at the origin of a new file system, and whether its UUID is free."""
    if wanted.absent:
        return found
    return replace(
        found,
        below=mount_of(os.path.dirname(wanted.path)).fstype if found.directory else None,
        golden=_golden(wanted.clone_of) if wanted.clone_of else None,
        uuid_at=_bearer(wanted.uuid, wanted.path) if wanted.uuid and found.directory else None,
    )


def _golden(path: str) -> Golden:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Golden(None)
    if not stat.S_ISREG(status.st_mode):
        return Golden(_kind(status.st_mode))
    block = superblock.read(path)
    return Golden(
        FILE,
        status.st_size,
        loops.probe(path),
        block.size if block else None,
        not block or block.clean,
        stat.S_IMODE(status.st_mode),
        loops.loops_of(path),
    )


def _bearer(identity: str, path: str) -> str | None:
    """Return the block device or the other image in the same directory that has a UUID already."""
    # Without its cache, which remembers devices that are gone.
    _unused, devices = loops.run(
        "blkid", "--cache-file", "/dev/null", "--match-token", f"UUID={identity}", "--output", "device", accept=(0, 2)
    )
    if devices.strip():
        return devices.split()[0]
    with os.scandir(os.path.dirname(path)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False) and entry.path != path:
                block = superblock.read(entry.path)
                if block and block.uuid == identity:
                    return entry.path
    return None


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: FILE,
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symlink",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds[stat.S_IFMT(mode)]


def leftovers(directory: str) -> tuple[str, ...]:
    """Return the leftovers of killed runs in a directory of images, and in /dev, where a container lacks nodes."""
    with os.scandir(directory) as entries:
        files = [
            entry.path
            for entry in entries
            if entry.name.startswith(LEFTOVER) and not entry.is_dir(follow_symlinks=False)
        ]
    nodes = []
    for name in os.listdir("/dev"):
        node = re.fullmatch(r"\.nested-kata-(\d+)-loop\d+", name)
        if node and not os.path.exists(f"/proc/{node.group(1)}"):
            nodes.append(f"/dev/{name}")
    return tuple(sorted(files) + sorted(nodes))


def _trimmed(path: str, status: os.stat_result) -> bool:
    try:
        return os.getxattr(path, TRIMMED, follow_symlinks=False) == str(status.st_mtime_ns).encode()
    except OSError:
        return False


def _superblock(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(2048)[1024:].ljust(1024, b"\0")


def _saved(path: str) -> bytes | None:
    try:
        return os.getxattr(path, SAVED, follow_symlinks=False)
    except OSError:
        return None


def _note_trimmed(descriptor: int) -> None:
    # A file system without attributes has its files trimmed again at the next run.
    with contextlib.suppress(OSError):
        os.setxattr(descriptor, TRIMMED, str(os.fstat(descriptor).st_mtime_ns).encode())


def first_data(path: str) -> int | None:
    """Return the offset of the first byte that is not zero. Holes are skipped, so that a sparse file costs nothing."""
    with open(path, "rb", buffering=0) as file:
        offset, chunk = 0, 1024**2
        zeros = bytes(chunk)
        while True:
            try:
                offset = file.seek(offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return None
                raise
            block = file.read(chunk)
            if not block:
                return None
            if block != zeros[: len(block)]:
                return offset + len(block) - len(block.lstrip(b"\0"))
            offset += len(block)


def apply(wanted: Wanted, check_mode: bool) -> tuple[Plan, Found, Found]:
    """Return the plan, and the state of the machine before and after it."""
    directory = os.path.dirname(wanted.path)
    with loops.locked(directory) if os.path.isdir(directory) else contextlib.nullcontext():
        before = look(wanted, glance=True)
        if not _is_as_wanted(before, wanted):
            before = look(wanted)
        plan = decide(before, wanted)
        prepare(plan)
        if check_mode or not plan.steps:
            return plan, before, foresee(before, plan)
        for step in plan.steps:
            carry_out(step)
        return plan, before, look(wanted, glance=True)


def _is_as_wanted(found: Found, wanted: Wanted) -> bool:
    """Return whether there is nothing to do, for which a glance is enough. A change or a refusal needs a close look."""
    try:
        return not decide(found, wanted).steps
    except Refused:
        return False


def prepare(plan: Plan) -> None:
    """Refuse a plan whose commands are missing, before its first step."""
    for step in plan.steps:
        for command in _commands(step):
            loops.command_path(command)


@functools.singledispatch
def _commands(step: Step) -> tuple[str, ...]:
    """Return the commands that a step runs and that may be missing."""
    return ()


@_commands.register(Create)
def _commands_to_create(step: Create) -> tuple[str, ...]:
    return (FILE_SYSTEMS[step.fstype].mkfs[0],)


@_commands.register(Clone)
def _commands_to_clone(step: Clone) -> tuple[str, ...]:
    kind = FILE_SYSTEMS[step.fstype]
    return (kind.set_uuid[0], *(kind.set_label[:1] if step.label else ()))


@_commands.register(GrowFileSystem)
def _commands_to_grow_file_system(step: GrowFileSystem) -> tuple[str, ...]:
    kind = FILE_SYSTEMS[step.fstype]
    return (kind.grow[0], *(() if step.mount else kind.check[:1] or ("unshare", "mount")))


@_commands.register(Trim)
def _commands_to_trim(step: Trim) -> tuple[str, ...]:
    return ("fstrim", "unshare", "mount")


@functools.singledispatch
def carry_out(step: Step) -> None:
    """Carry out one step."""
    raise NotImplementedError(step)


@carry_out.register(RemoveLeftover)
def _remove_leftover(step: RemoveLeftover) -> None:
    os.unlink(step.path)


@carry_out.register(SettleSuperblock)
def _settle_superblock(step: SettleSuperblock) -> None:
    with open(step.path, "r+b") as file:
        if step.torn:
            os.pwrite(file.fileno(), os.getxattr(step.path, SAVED), 1024)
        os.fsync(file.fileno())
    if step.repair:
        # Growing touches no data: every question is about groups that were being added (e2fsck(8), -y).
        loops.run("e2fsck", "-f", "-y", step.path, accept=(0, 1))
    os.removexattr(step.path, SAVED)


@carry_out.register(Grow)
def _grow(step: Grow) -> None:
    with open(step.path, "r+b") as file:
        os.ftruncate(file.fileno(), step.new)
        os.fsync(file.fileno())


@carry_out.register(Preallocate)
def _preallocate(step: Preallocate) -> None:
    with open(step.path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, step.size)
        os.fsync(file.fileno())


@carry_out.register(UpdateCapacity)
def _update_capacity(step: UpdateCapacity) -> None:
    loops.update_capacity(step.device)


@carry_out.register(Trim)
def _trim(step: Trim) -> None:
    run_mounted(step.path, step.fstype, ("fstrim", "{mount}"))
    with open(step.path, "rb") as file:
        _note_trimmed(file.fileno())


@carry_out.register(SetOwner)
def _set_owner(step: SetOwner) -> None:
    os.chown(step.path, step.uid, step.gid, follow_symlinks=False)


@carry_out.register(SetMode)
def _set_mode(step: SetMode) -> None:
    os.chmod(step.path, step.mode)


@carry_out.register(Attach)
def _attach(step: Attach) -> None:
    loops.attach(step.path)


@carry_out.register(MakeNode)
def _make_node(step: MakeNode) -> None:
    loops.make_node(step.device)


@carry_out.register(SetLink)
def _set_link(step: SetLink) -> None:
    loop = loops.check_loops(step.path, loops.loops_of(step.path))
    if loop is None:
        raise Refused(f"{step.path} was detached by another process while the link was being made: run again")
    loops.set_link(step.link, loop.device)


@carry_out.register(RemoveLink)
def _remove_link(step: RemoveLink) -> None:
    os.unlink(step.link)


@carry_out.register(Detach)
def _detach(step: Detach) -> None:
    loops.detach(step.path, step.device)


@carry_out.register(Delete)
def _delete(step: Delete) -> None:
    os.unlink(step.path)
    sync_directory(os.path.dirname(step.path))


def _filled(command: tuple[str, ...], **values: str) -> list[str]:
    return [part.format(**values) for part in command]


@carry_out.register(GrowFileSystem)
def _grow_file_system(step: GrowFileSystem) -> None:
    kind = FILE_SYSTEMS[step.fstype]
    loop = loops.check_loops(step.path, loops.loops_of(step.path))
    device = loop.device if loop else step.path
    if step.mount:
        loops.run(*_filled(kind.grow, mount=step.mount, device=device))
    elif kind.check:
        with contextlib.suppress(OSError):
            os.setxattr(step.path, SAVED, _superblock(step.path))
        sync_directory(os.path.dirname(step.path))
        # Status 1 means that it found and corrected errors (e2fsck(8)).
        loops.run(*_filled(kind.check, device=device), accept=(0, 1))
        loops.run(*_filled(kind.grow, device=device))
        with contextlib.suppress(OSError):
            os.removexattr(step.path, SAVED)
    else:
        run_mounted(step.path, step.fstype, kind.grow)


def run_mounted(path: str, fstype: str, command: tuple[str, ...]) -> None:
    """Mount the file system of an image in a mount namespace of its own, run a command on it there, and unmount it."""
    loop = loops.check_loops(path, loops.loops_of(path))
    # Any directory will do, since it is covered in that namespace only.
    place = os.path.dirname(path)
    with contextlib.nullcontext(loop.device) if loop else loops.attached_briefly(path) as device:
        filled = _filled(command, mount=place, device=device)
        try:
            loops.run(
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                PRIVATELY,
                "sh",
                fstype,
                device,
                place,
                *filled,
            )
        except CommandFailed as error:
            raise CommandFailed((*filled, f"({path}, mounted for that)"), error.status, error.line) from None


@carry_out.register(Create)
def _create(step: Create) -> None:
    def make(descriptor: int, new: str) -> None:
        kind = FILE_SYSTEMS[step.fstype]
        os.ftruncate(descriptor, step.size)
        if step.preallocated:
            os.posix_fallocate(descriptor, 0, step.size)
        label = ("-L", step.label) if step.label else ()
        identity = _filled(kind.mkfs_uuid, uuid=step.uuid) if step.uuid else ()
        size = step.filesystem_size
        last = _filled(kind.mkfs_size, size=str(size), kib=str(size // 1024), file=new) if size else [new]
        loops.run(*kind.mkfs, *label, *identity, *step.mkfs_options, *last)
        if loops.probe(new).fstype != step.fstype:
            raise Refused(f"{kind.mkfs[0]} reported success but left no {step.fstype} in {new}: nothing was changed")

    _make_complete(step, make)


@carry_out.register(Clone)
def _clone(step: Clone) -> None:
    def make(descriptor: int, new: str) -> None:
        kind, identity = FILE_SYSTEMS[step.fstype], step.uuid or str(uuid.uuid4())
        source = os.open(step.golden, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            copy_data(source, descriptor)
        finally:
            os.close(source)
        try:
            loops.run(*_filled(kind.set_uuid, uuid=identity, file=new))
        except CommandFailed:
            # An ext4 without metadata_csum_seed has to be checked first.
            if not kind.check:
                raise
            loops.run(*_filled(kind.check, device=new), accept=(0, 1))
            loops.run(*_filled(kind.set_uuid, uuid=identity, file=new))
        if step.label:
            loops.run(*_filled(kind.set_label, label=step.label, file=new))
        # xfs_admin ends with 0 also where it did nothing, because the log is not clean.
        if (loops.probe(new).uuid or "") != identity:
            raise Refused(
                f"clone_of: {step.golden} does not accept a new UUID ({kind.set_uuid[0]}): seal it again, sealed: false"
                " and then sealed: true"
            )

    _make_complete(step, make)


def copy_data(source: int, target: int) -> None:
    """Make an open file share all extents of another (ioctl_ficlonerange(2)), or copy all but the holes where the file
    system cannot.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
            raise
    size, start = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while start < size:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            # Unlike copy_file_range(2), sendfile(2) also goes from one file system to another kind.
            sent = os.sendfile(target, source, start, min(PIECE, end - start))
            if not sent:
                raise OSError(errno.EIO, "the golden image became shorter while it was copied")
            start += sent


def _make_complete(step: Create | Clone, make: Callable[[int, str], None]) -> None:
    """Make a file under another name, and give it its own name only when it is complete and on disk."""
    directory = os.path.dirname(step.path)
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    # The name is random because commands that a killed run had started may still be writing to its file.
    descriptor, new = tempfile.mkstemp(prefix=LEFTOVER, dir=directory)
    try:
        make(descriptor, new)
        _set_owner_and_mode_of_new(descriptor, step)
        os.fsync(descriptor)
        _note_trimmed(descriptor)
        if step.replaces_blank:
            if first_data(step.path) is not None or loops.loops_of(step.path):
                raise Refused(
                    f"{step.path} was changed by another process while its file system was being made: it is left as it"
                    " is"
                )
            os.replace(new, step.path)
        else:
            _name(new, step.path)
            os.unlink(new)
        sync_directory(directory)
    except (CommandFailed, OSError) as error:
        # mkfs.btrfs reports a full disk as an input/output error: the free space shows it.
        if free < 16 * 1024**2 or getattr(error, "errno", None) == errno.ENOSPC:
            raise Refused(
                f"too little space in {directory} to make a file system ({exact(free)} free): {error}"
            ) from None
        raise
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _set_owner_and_mode_of_new(descriptor: int, step: Create | Clone) -> None:
    # Only where they differ: mkfs has written the file out, and a change has the file system write its journal again.
    status = os.fstat(descriptor)
    uid, gid = status.st_uid if step.uid is None else step.uid, status.st_gid if step.gid is None else step.gid
    if (uid, gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, uid, gid)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != step.mode:
        os.fchmod(descriptor, step.mode)


def _name(new: str, path: str) -> None:
    # A hard link, unlike a rename, never replaces a file that was made meanwhile.
    try:
        os.link(new, path)
    except FileExistsError:
        raise Refused(
            f"{path} was made by another process while its file system was being made: it is left as it is"
        ) from None
