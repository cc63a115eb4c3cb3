# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images: what a file and its loop device look like, what a task wants, and the steps between the two.

parse and look are the way in, decide and foresee are pure, carry_out is the only thing that changes anything.
"""
from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import re
import stat
import tempfile
from dataclasses import dataclass, replace
from typing import Union

from ansible_collections.nested.kata.plugins.module_utils import loop as loops
from ansible_collections.nested.kata.plugins.module_utils.loop import CommandFailed, Content, Link, Loop, Refused

FILE = "a regular file"
# Whatever bears such a name in a locked directory was left behind by a run that was killed.
LEFTOVER = ".nested-kata-new-"
BLOCK = 4096
DEFAULT_MODE = 0o600
UNITS = {
    "": 1, "B": 1,
    **{f"{letter}{suffix}": 1024 ** power for power, letter in enumerate("KMGTP", 1) for suffix in ("", "IB")},
    **{f"{letter}B": 1000 ** power for power, letter in enumerate("KMGTP", 1)},
}
# Where the device shall go when only the kernel will know.
FREE_LOOP = Loop("a free loop device", 0)


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system that an image may hold."""

    minimum: int
    label_bytes: int
    mkfs: tuple[str, ...]
    """Makes it fast and sparse: no discard (the file is one hole), nothing written that the kernel can write later."""


FILE_SYSTEMS = {
    "btrfs": FileSystem(109 * 1024 ** 2, 255, ("mkfs.btrfs", "-q", "--nodiscard")),
    # Blocks of 4 KiB also where the image is small: with 1 KiB it could not be mounted from a disk with sectors of 4 KiB.
    "ext4": FileSystem(8 * 1024 ** 2, 16, ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1")),
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
    use: str | None = None
    """Who uses the loop device; only looked up where it may have to be detached."""
    link: Link = Link()
    leftovers: tuple[str, ...] = ()
    directory: bool = True
    """Whether the directory that the file is to lie in exists."""
    loop_control: bool = True

    @property
    def blank(self) -> bool:
        return self.kind == FILE and self.data_at is None and not self.content.fstype and not self.content.alien


@dataclass(frozen=True)
class RemoveLeftover:
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}, which an interrupted run left behind"


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

    def __str__(self) -> str:
        return f"make {self.path}, sparse, {readable(self.size)}, with {self.fstype}{', in place of zeros' if self.replaces_blank else ''}"


@dataclass(frozen=True)
class Grow:
    path: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"grow {self.path} from {readable(self.old)} to {readable(self.new)}"


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


Step = Union[RemoveLeftover, Create, Grow, UpdateCapacity, SetOwner, SetMode, Attach, MakeNode, SetLink, RemoveLink, Detach, Delete]


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    reason: str


def readable(size: int) -> str:
    """Return a number of bytes in the largest binary unit that shows it exactly."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size and size % 1024 ** power == 0:
            return f"{size // 1024 ** power} {unit}"
    return f"{size} bytes"


def parse_size(text: str) -> int:
    """Return the bytes that a size like 10G means, rounded up to a whole block."""
    match = re.fullmatch(r"([0-9]+)\s*([A-Za-z]*)", text.strip())
    unit = UNITS.get(match.group(2).upper()) if match else None
    size = int(match.group(1)) * unit if match and unit else 0
    if not 0 < size < 2 ** 63 - BLOCK:
        raise Refused(f"size: {text!r} is no size: write it like 10G, 512M or 20GiB (powers of 1024), 20GB (powers of 1000), or as a number of bytes")
    return -(-size // BLOCK) * BLOCK


def parse(options: dict) -> Wanted:
    """Return what the module's options ask for, or refuse what cannot be meant."""
    absent = options["state"] == "absent"
    for option in ("path", "link"):
        if options[option] is not None and (not os.path.isabs(options[option]) or os.path.basename(options[option]) in ("", ".", "..")):
            raise Refused(f"{option}: {options[option]!r} is no absolute path of a file")
    if options["link"] and options["attached"] is None and not absent:
        raise Refused("link: names the loop device, so it needs attached: true, or attached: false to remove it")
    if absent and options["attached"]:
        raise Refused("attached: true cannot go with state: absent")
    return Wanted(
        path=os.path.normpath(options["path"]),
        fstype=options["fstype"],
        size=None if options["size"] is None else parse_size(options["size"]),
        label=_parse_label(options["label"], options["fstype"]),
        uuid=_parse_uuid(options["uuid"]),
        attached=options["attached"],
        link=options["link"] and os.path.normpath(options["link"]),
        uid=_parse_id("owner", options["owner"], lambda name: pwd.getpwnam(name).pw_uid),
        gid=_parse_id("group", options["group"], lambda name: grp.getgrnam(name).gr_gid),
        mode=_parse_mode(options["mode"]),
        absent=absent,
    )


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
        more, why = _connect(found, wanted)
        steps, reasons = steps + more, reasons + why
    if found.leftovers:
        steps = [RemoveLeftover(path) for path in found.leftovers] + steps
        reasons = [*reasons, "an interrupted run left something behind"]
    return Plan(tuple(steps), "; ".join(reasons) or ("there is no such file" if wanted.absent else "everything is as asked"))


def _make(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    if not found.directory:
        raise Refused(f"path: there is no directory {os.path.dirname(wanted.path)}: make it first")
    size = wanted.size or found.size
    minimum = FILE_SYSTEMS[wanted.fstype].minimum
    if not size:
        raise Refused(f"size: is needed, because {wanted.path} {'does not exist yet' if found.kind is None else 'is an empty file'}")
    if size < found.size:
        raise Refused(_smaller(found, wanted))
    if size < minimum:
        raise Refused(f"size: {readable(size)} is too small for {wanted.fstype}: at least {readable(minimum)}")
    if found.loops:
        raise Refused(f"{wanted.path} holds no file system yet but is attached to {found.loops[0].device}: detach it first, somebody may be writing to it")
    new = found.kind is None
    return [Create(
        wanted.path, size, wanted.fstype, wanted.label, wanted.uuid,
        uid=wanted.uid if new or wanted.uid is not None else found.uid,
        gid=wanted.gid if new or wanted.gid is not None else found.gid,
        mode=wanted.mode if wanted.mode is not None else DEFAULT_MODE if new else found.mode,
        replaces_blank=not new,
    )], ["there is no file yet" if new else "the file holds nothing but zeros" if found.size else "the file is empty"]


def _keep(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    _check_content(found, wanted)
    steps: list[Step] = []
    reasons = []
    if wanted.size is not None and wanted.size < found.size:
        raise Refused(_smaller(found, wanted))
    size = wanted.size or found.size
    if size > found.size:
        steps.append(Grow(wanted.path, found.size, size))
        reasons.append("the file is smaller than asked")
    for loop in found.loops:
        if not loop.partial and loop.size != size // 512 * 512:
            steps.append(UpdateCapacity(loop.device))
            reasons += [] if size > found.size else ["the loop device does not know the size of its file"]
    uid = found.uid if wanted.uid is None else wanted.uid
    gid = found.gid if wanted.gid is None else wanted.gid
    mode = found.mode if wanted.mode is None else wanted.mode
    if (uid, gid) != (found.uid, found.gid):
        steps.append(SetOwner(wanted.path, uid, gid))
        reasons.append("the owner differs")
    # A change of owner takes the set-user-ID bits away, so the mode comes after it.
    if mode != found.mode:
        steps.append(SetMode(wanted.path, mode))
        reasons.append("the mode differs")
    return steps, reasons


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
    return f"size: {readable(wanted.size or 0)} is smaller than {wanted.path} is ({readable(found.size)}): an image never shrinks, nothing was changed"


def _connect(found: Found, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Attach or detach, and put the link right."""
    if wanted.attached is None:
        return [], []
    loop = loops.check_loops(wanted.path, found.loops)
    if not wanted.attached:
        return _disconnect(found, wanted, loop)
    steps: list[Step] = []
    reasons = []
    if loop is None:
        if not found.loop_control:
            raise Refused(f"attached: there is no {loops.LOOP_CONTROL}: modprobe loop, or in a container --device {loops.LOOP_CONTROL}")
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
        if found.use:
            raise Refused(f"{wanted.path} is in use: {loop.device} is {found.use}: end that first, nothing was changed")
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
    steps, reasons = _disconnect(found, wanted, loop)
    return [*steps, Delete(wanted.path)], ["the file is there"]


def foresee(found: Found, plan: Plan) -> Found:
    """Return what the machine will look like after the plan, as far as that can be known before."""
    for step in plan.steps:
        if isinstance(step, RemoveLeftover):
            found = replace(found, leftovers=tuple(path for path in found.leftovers if path != step.path))
        elif isinstance(step, Create):
            found = replace(
                found, kind=FILE, size=step.size, content=Content(step.fstype, step.uuid, step.label), data_at=None, mode=step.mode,
                uid=found.uid if step.uid is None else step.uid, gid=found.gid if step.gid is None else step.gid,
            )
        elif isinstance(step, Grow):
            found = replace(found, size=step.new)
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
            found = replace(found, loops=(), use=None)
        elif isinstance(step, Delete):
            found = Found(link=found.link, leftovers=found.leftovers, directory=found.directory, loop_control=found.loop_control)
    return found


def look(wanted: Wanted) -> Found:
    """Return what the machine looks like now."""
    directory = os.path.dirname(wanted.path)
    found = Found(
        link=loops.link_at(wanted.link) if wanted.link else Link(),
        leftovers=_leftovers(directory) if os.path.isdir(directory) else (),
        directory=os.path.isdir(directory),
        loop_control=os.path.exists(loops.LOOP_CONTROL),
    )
    try:
        status = os.lstat(wanted.path)
    except (FileNotFoundError, NotADirectoryError):
        return found
    found = replace(found, kind=_kind(status.st_mode), size=status.st_size, uid=status.st_uid, gid=status.st_gid, mode=stat.S_IMODE(status.st_mode))
    if found.kind != FILE:
        return found
    content = loops.probe(wanted.path)
    attachments = loops.loops_of(wanted.path)
    detaching = len(attachments) == 1 and (wanted.absent or wanted.attached is False)
    return replace(
        found,
        content=content,
        data_at=None if content.fstype or content.alien else first_data(wanted.path),
        loops=attachments,
        use=loops.use_of(attachments[0].device) if detaching else None,
    )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: FILE, stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink", stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    }
    return kinds[stat.S_IFMT(mode)]


def _leftovers(directory: str) -> tuple[str, ...]:
    with os.scandir(directory) as entries:
        return tuple(sorted(entry.path for entry in entries if entry.name.startswith(LEFTOVER) and not entry.is_dir(follow_symlinks=False)))


def first_data(path: str) -> int | None:
    """Return the offset of the first byte that is not zero. Holes are skipped, so that a sparse file costs nothing."""
    with open(path, "rb", buffering=0) as file:
        offset, chunk = 0, 1024 ** 2
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
            if block != zeros[:len(block)]:
                return offset + len(block) - len(block.lstrip(b"\0"))
            offset += len(block)


def prepare(plan: Plan) -> None:
    """Refuse a plan whose commands are missing, before its first step."""
    for step in plan.steps:
        if isinstance(step, Create):
            loops.command_path(FILE_SYSTEMS[step.fstype].mkfs[0])


def carry_out(step: Step) -> None:
    """Do one step."""
    if isinstance(step, RemoveLeftover):
        os.unlink(step.path)
    elif isinstance(step, Create):
        _create(step)
    elif isinstance(step, Grow):
        with open(step.path, "r+b") as file:
            os.ftruncate(file.fileno(), step.new)
            os.fsync(file.fileno())
    elif isinstance(step, UpdateCapacity):
        loops.update_capacity(step.device)
    elif isinstance(step, SetOwner):
        os.chown(step.path, step.uid, step.gid, follow_symlinks=False)
    elif isinstance(step, SetMode):
        os.chmod(step.path, step.mode)
    elif isinstance(step, Attach):
        loops.attach(step.path)
    elif isinstance(step, MakeNode):
        loops.make_node(step.device)
    elif isinstance(step, SetLink):
        loop = loops.check_loops(step.path, loops.loops_of(step.path))
        if loop is None:
            raise Refused(f"{step.path} was detached by somebody else while the link was being made: run again")
        loops.set_link(step.link, loop.device)
    elif isinstance(step, RemoveLink):
        os.unlink(step.link)
    elif isinstance(step, Detach):
        loops.detach(step.path, step.device)
    elif isinstance(step, Delete):
        os.unlink(step.path)
        _sync_directory(os.path.dirname(step.path))


def _create(step: Create) -> None:
    """Make the file system in a file of another name, and give it its own name only when it is complete and on disk."""
    directory = os.path.dirname(step.path)
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    # The name is random because mkfs of a run that was killed may still be at work on its own.
    descriptor, new = tempfile.mkstemp(prefix=LEFTOVER, dir=directory)
    try:
        os.ftruncate(descriptor, step.size)
        label = ("-L", step.label) if step.label else ()
        uuid = ("-U", step.uuid) if step.uuid else ()
        loops.run(*FILE_SYSTEMS[step.fstype].mkfs, *label, *uuid, new)
        if loops.probe(new).fstype != step.fstype:
            raise Refused(f"{FILE_SYSTEMS[step.fstype].mkfs[0]} reported success but left no {step.fstype} in {new}: nothing was changed")
        os.fchown(descriptor, -1 if step.uid is None else step.uid, -1 if step.gid is None else step.gid)
        os.fchmod(descriptor, step.mode)
        os.fsync(descriptor)
        if step.replaces_blank:
            if first_data(step.path) is not None or loops.loops_of(step.path):
                raise Refused(f"{step.path} was changed by somebody else while its file system was being made: it is left as it is")
            os.replace(new, step.path)
        else:
            _name(new, step.path)
            os.unlink(new)
        _sync_directory(directory)
    except (CommandFailed, OSError) as error:
        # mkfs.btrfs calls a full disk an input/output error: what was free tells.
        if free < 16 * 1024 ** 2 or getattr(error, "errno", None) == errno.ENOSPC:
            raise Refused(f"too little space in {directory} to make a file system ({readable(free)} free): {error}") from None
        raise
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _name(new: str, path: str) -> None:
    # A hard link, unlike a rename, never replaces a file that came into being meanwhile.
    try:
        os.link(new, path)
    except FileExistsError:
        raise Refused(f"{path} was made by somebody else while its file system was being made: it is left as it is") from None


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(found: Found) -> dict:
    """Return what was found as plain data, for a result or one side of a diff."""
    there = found.kind == FILE
    return {
        "size": found.size if there else None,
        "fstype": found.content.fstype,
        "uuid": found.content.uuid,
        "label": found.content.label,
        "device": found.loops[0].device if found.loops else None,
        "link": found.link.target,
        "owner": found.uid if there else None,
        "group": found.gid if there else None,
        "mode": f"{found.mode:04o}" if there else None,
    }
