# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of Kata: what is to be done with one, what a member of its archive may be, and what lies where in it. Nothing is touched."""
from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import unescaped

RECORD = ".nested-kata.json"
PREFIX = ("opt", "kata")  # all members lie below it, and it is stripped
PACKAGES = {"zstd": "zstd", "xz": "xz-utils"}  # of Debian, with the commands that uncompress
TAIL = 1 << 20  # bytes at the end of an archive that hold the index of any sensible xz file
USUAL_RATIO = 3  # of unpacked to packed: 2.5 GB to 925 MiB in 4.1.0

MOST_MEMBERS = 200_000
MOST_BYTES = 20 << 30
LONGEST_NAME = 1024  # bytes; the release's own path is to fit into PATH_MAX (4096) with it
LONGEST_PART = 255  # bytes; NAME_MAX

Parts = Tuple[str, ...]


# --- what is to be done ---

@dataclass(frozen=True)
class Wanted:
    """What the task asked for."""

    path: str
    present: bool = True
    archive: Optional[str] = None
    sha256: str = ""
    version: Optional[str] = None
    keep_in_use: bool = False

    @property
    def beside(self) -> str:
        """How the names begin, in the directory of the path, of what is not yet the release or is no more."""
        return f".{posixpath.basename(self.path)}.nested-kata-"


@dataclass(frozen=True)
class Record:
    """What is known of a release since it was unpacked."""

    sha256: str
    version: Optional[str]
    bytes: int
    files: int
    kernel_release: Optional[str]


@dataclass(frozen=True)
class User:
    """A process that runs on a release."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


@dataclass(frozen=True)
class Found:
    """What lies there."""

    record: Optional[Record] = None
    """Of a release that this module unpacked."""
    stranger: str = ""
    """What else it is: "a symlink", for example."""
    leftovers: Tuple[str, ...] = ()
    """Of runs that were interrupted."""
    users: Tuple[User, ...] = ()
    mounts: Tuple[str, ...] = ()
    """What is mounted below it. Users and mounts are looked for only where it is to be removed."""


@dataclass(frozen=True)
class Clear:
    """Remove what an interrupted run left."""

    paths: Tuple[str, ...]

    def __str__(self) -> str:
        return f"remove what an interrupted run left: {', '.join(self.paths)}"


@dataclass(frozen=True)
class Unpack:
    """Put the release there."""

    archive: Optional[str]
    path: str

    def __str__(self) -> str:
        return f"unpack {self.archive} into {self.path}"


@dataclass(frozen=True)
class Remove:
    """Remove the release."""

    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True)
class Plan:
    """The steps that lead from what was found to what is wanted, and why they are needed."""

    steps: Tuple[Union[Clear, Unpack, Remove], ...]
    reason: str


def parse(path: str, state: str, archive: Optional[str], sha256: Optional[str], version: Optional[str], if_in_use: str) -> Wanted:
    """Return what the options mean, or raise Refused. The paths are absolute."""
    if len(path.strip("/").split("/")) < 2:
        raise Refused(f"path: {path} is no directory for a release: name one of its own, /var/lib/nested-kata/kata/4.1.0 for example")
    digest = (sha256 or "").strip().lower()
    if state == "present" and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Refused(f"sha256: {sha256!r} is not 64 hexadecimal digits: give the SHA-256 of the archive")
    if version is not None and not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+~_-]*", version):
        raise Refused(f"version: {version!r} is no version, such as 4.1.0")
    return Wanted(path, state == "present", archive, digest, version, if_in_use == "keep")


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return what is to be done, or raise Refused."""
    if found.stranger:
        raise Refused(f"path: {wanted.path} is {found.stranger}, which this module did not make: choose another path, or move it away")
    steps, reason = _present(found, wanted) if wanted.present else _absent(found, wanted)
    if found.leftovers:
        return Plan((Clear(found.leftovers), *steps), reason + ("" if steps else ", and what an interrupted run left is beside it"))
    return Plan(steps, reason)


def _present(found: Found, wanted: Wanted) -> Tuple[Tuple[Unpack, ...], str]:
    record = found.record
    if record is None:
        return (Unpack(wanted.archive, wanted.path),), f"there is no {wanted.path} yet"
    if record.sha256 != wanted.sha256:
        raise Refused(
            f"path: {wanted.path} holds the release with the SHA-256 {record.sha256}, not {wanted.sha256}: "
            "give this one a directory of its own, or remove the other one before (state: absent)"
        )
    if wanted.version not in (None, record.version):
        raise Refused(f"version: what is in {wanted.path}, with this SHA-256, is version {record.version}, not {wanted.version}: correct version or sha256")
    return (), f"{wanted.path} holds this release"


def _absent(found: Found, wanted: Wanted) -> Tuple[Tuple[Remove, ...], str]:
    if found.record is None:
        return (), f"there is no {wanted.path}"
    if found.users:
        in_use = f"{wanted.path} is in use by {_listed(found.users)}"
        if wanted.keep_in_use:
            return (), f"{in_use}, and stays until nothing runs on it"
        raise Refused(f"path: {in_use}: stop what runs on it, or leave it until then (if_in_use: keep)")
    if found.mounts:
        raise Refused(f"path: something is mounted on {_listed(found.mounts)}: unmount it first")
    return (Remove(wanted.path),), f"{wanted.path} is there" + ("" if not wanted.keep_in_use else ", and nothing runs on it")


def _listed(things: Tuple[Any, ...], most: int = 5) -> str:
    return ", ".join(map(str, things[:most])) + (f" and {len(things) - most} more" if len(things) > most else "")


def read_record(value: Any) -> Record:
    """Return a record that was read from its file, or raise ValueError where it is something else."""
    if not isinstance(value, dict) or not re.fullmatch(r"[0-9a-f]{64}", str(value.get("sha256"))):
        raise ValueError("it has no SHA-256")
    try:
        return Record(**value)
    except TypeError as error:
        raise ValueError(str(error)) from error


# --- members of an archive ---

@dataclass(frozen=True)
class Member:
    """A member of an archive, as all its headers together describe it."""

    name: str
    kind: str
    """A file, a directory, a symlink, a hard link; anything else is refused by this word."""
    size: int = 0
    mode: int = 0o644
    mtime: float = 0
    target: str = ""


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory, or set the mode of the one that is there."""

    parts: Parts
    mode: int = 0o755


@dataclass(frozen=True)
class WriteFile:
    """Write a new file with the next bytes of the archive."""

    parts: Parts
    size: int
    mode: int
    mtime: float


@dataclass(frozen=True)
class MakeSymlink:
    """Make a symlink."""

    parts: Parts
    target: str


@dataclass(frozen=True)
class MakeLink:
    """Give a file that was written another name."""

    parts: Parts
    existing: Parts


Piece = Union[MakeDirectory, WriteFile, MakeSymlink, MakeLink]


class Judge:
    """Says what each member of an archive becomes below the release's directory, in the archive's order, or refuses it."""

    def __init__(self) -> None:
        self._kinds: Dict[Parts, str] = {(): "a directory"}
        self._members = 0
        self.bytes = 0
        self.files = 0

    def pieces(self, member: Member) -> Tuple[Piece, ...]:
        """Return the steps for a member, in their order. It is refused before anything is done about it."""
        try:
            self._members += 1
            if self._members > MOST_MEMBERS:
                raise Refused(f"there are more than {MOST_MEMBERS} of them")
            return self._pieces(member)
        except Refused as error:
            raise Refused(f"member {member.name[:200]!r}: {error}") from None

    def _pieces(self, member: Member) -> Tuple[Piece, ...]:
        if member.kind not in ("a file", "a directory", "a symlink", "a hard link"):
            raise Refused(f"it is {member.kind}")
        if not 0 <= member.size <= MOST_BYTES or member.size and member.kind != "a file":
            raise Refused(f"it is {member.kind} with a size of {member.size}")
        name = parts_of(member.name)
        if name == PREFIX[:len(name)]:
            if member.kind != "a directory":
                raise Refused(f"it is {member.kind} where a directory belongs")
            return ()
        parts = self._below(name)
        if parts == (RECORD,):
            raise Refused("the name is kept for this module's own record")
        parents = self._missing_parents(parts)
        if parts in self._kinds and not self._kinds[parts] == member.kind == "a directory":
            raise Refused(f"there was {self._kinds[parts]} of this name before it")
        piece = self._piece(parts, member)
        self._kinds.update({parent: "a directory" for parent in parents})
        self._kinds[parts] = "a file" if member.kind == "a hard link" else member.kind
        return (*map(MakeDirectory, parents), piece)

    def _piece(self, parts: Parts, member: Member) -> Piece:
        # Nobody but the owner may write, and nobody becomes the owner by running it.
        if member.kind == "a directory":
            return MakeDirectory(parts, member.mode & 0o755 | 0o700)
        if member.kind == "a symlink":
            return MakeSymlink(parts, relative_target(parts, member.target))
        self.files += 1
        if member.kind == "a hard link":
            return MakeLink(parts, self._existing(member.target))
        self.bytes += member.size
        if self.bytes > MOST_BYTES:
            raise Refused(f"the files before it and it are larger than {MOST_BYTES >> 30} GiB")
        # A time that is not one (NaN) fails every comparison.
        return WriteFile(parts, member.size, member.mode & 0o755 | 0o400, member.mtime if 0 <= member.mtime < 1 << 32 else 0)

    def _below(self, name: Parts) -> Parts:
        if name[:len(PREFIX)] != PREFIX:
            raise Refused(f"it lies outside of {'/'.join(PREFIX)}")
        return name[len(PREFIX):]

    def _missing_parents(self, parts: Parts) -> List[Parts]:
        parents = [parts[:length] for length in range(1, len(parts))]
        for parent in parents:
            kind = self._kinds.get(parent, "a directory")
            if kind != "a directory":
                raise Refused(f"it lies below {'/'.join(parent)}, which is {kind}")
        return [parent for parent in parents if parent not in self._kinds]

    def _existing(self, target: str) -> Parts:
        try:
            existing = self._below(parts_of(target))
        except Refused as error:
            raise Refused(f"it is a hard link to {target[:200]!r}: {error}") from error
        kind = self._kinds.get(existing)
        if kind != "a file":
            raise Refused(f"it is a hard link to {target!r}, which is {kind or 'not there'}")
        return existing


def parts_of(name: str) -> Parts:
    """Return the parts of a name, none of which leads anywhere but down."""
    _legible(name, "its name")
    if name.startswith("/"):
        raise Refused("its name is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused("its name has .. in it")
    return parts


def relative_target(parts: Parts, target: str) -> str:
    """Return the target of a symlink, relative and with no .. but at its beginning, which is where no other symlink can be on the way."""
    _legible(target, "its target")
    way: List[str] = [] if target.startswith("/") else [*PREFIX, *parts[:-1]]
    for part in target.split("/"):
        if part == "..":
            if not way:
                raise Refused(f"it is a symlink to {target!r}, above everything")
            way.pop()
        elif part not in ("", "."):
            way.append(part)
    if tuple(way[:len(PREFIX)]) != PREFIX:
        raise Refused(f"it is a symlink to {target!r}, outside of {'/'.join(PREFIX)}")
    return posixpath.relpath("/" + "/".join(way), "/" + "/".join((*PREFIX, *parts[:-1])))


def _legible(text: str, what: str) -> None:
    if not text:
        raise Refused(f"{what} is empty")
    # Neither control characters and NUL, nor what is not UTF-8 (surrogates), nor what turns the direction of writing.
    if not text.isprintable():
        raise Refused(f"{what} has characters that cannot be printed")
    if len(text.encode()) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in text.split("/")):
        raise Refused(f"{what} is too long")


# --- archives ---

def space_needed(size: int, head: bytes, tail: bytes) -> int:
    """Return how many bytes an archive of this size probably unpacks to: what it says itself, or else what is usual."""
    said = zstd_content(head) if compression_of(head, PACKAGES) == "zstd" else xz_content(tail)
    return USUAL_RATIO * size if said is None else said


def zstd_content(head: bytes) -> Optional[int]:
    """Return the size of the content that a zstd frame's header tells (RFC 8878, 3.1.1.1)."""
    if len(head) < 18:
        return None
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(head[start:start + width], "little") + (256 if width == 2 else 0) if width else None


def xz_content(tail: bytes) -> Optional[int]:
    """Return the size of the content that the index at the end of an xz file tells (xz-file-format.txt, 2.1.2 and 4)."""
    if tail[-2:] != b"YZ" or len(tail) < 12:
        return None
    length = 4 * (int.from_bytes(tail[-8:-4], "little") + 1)
    index = tail[-12 - length:-12]
    if len(index) < length or index[0] != 0:
        return None
    numbers = _multibyte(index[1:])
    try:
        return sum([next(numbers), next(numbers)][1] for dummy in range(next(numbers)))
    except StopIteration:
        return None


def _multibyte(data: bytes) -> Iterator[int]:
    """Return the numbers in data, seven bits a byte (xz-file-format.txt, 1.2)."""
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


# --- a release that is there ---

RUST, GO = "runtime-rs/bin/containerd-shim-kata-v2", "bin/containerd-shim-kata-v2"
CONTENTS: Mapping[str, Tuple[str, ...]] = {
    "shim": (RUST, GO),
    "qemu": tuple(f"bin/qemu-system-{arch}" for arch in ("x86_64", "aarch64", "s390x", "ppc64", "riscv64")),
    "virtiofsd": ("libexec/virtiofsd",),
    "cloud_hypervisor": ("bin/cloud-hypervisor",),
    "kernel": ("share/kata-containers/vmlinux.container",),
    "image": ("share/kata-containers/kata-containers.img",),
    "initrd": ("share/kata-containers/kata-containers-initrd.img",),
    "configuration": (
        "share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml", "share/defaults/kata-containers/configuration-qemu.toml",
    ),
}


def contents_of(find: Callable[[str], Optional[str]], kernel_release: Optional[str]) -> Dict[str, Optional[str]]:
    """Return where the parts of a release lie. `find` returns the path of a name below the release, or None."""
    contents = {what: next(filter(None, map(find, names)), None) for what, names in CONTENTS.items()}
    contents["shim_kind"] = None if not contents["shim"] else "rust" if contents["shim"].endswith(f"/{RUST}") else "go"
    contents["kernel_release"] = kernel_release
    return contents


def kernel_release(image: Any) -> Optional[str]:
    """Return the release of a kernel, whose file's bytes are given: a vmlinux, or a bzImage (Documentation/arch/x86/boot.rst, kernel_version)."""
    if image[0x202:0x206] == b"HdrS":
        start = 0x200 + int.from_bytes(image[0x20E:0x210], "little")
        match = re.match(rb"([\x21-\x7e]+)[ \0]", image[start:start + 256])
    else:
        match = re.search(rb"Linux version ([0-9][\x21-\x7e]*) \(", image)
    return match[1].decode() if match else None


@dataclass(frozen=True)
class MappedFile:
    """A file that a process has in its memory."""

    device: Tuple[int, int]
    inode: int
    path: str


def mapped(maps: str) -> Iterator[MappedFile]:
    """Return the files in /proc/PID/maps (proc_pid_maps(5))."""
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4] != "0":
            major, dummy, minor = fields[3].partition(":")
            yield MappedFile((int(major, 16), int(minor, 16)), int(fields[4]), fields[5])


def mounted_below(path: str, mountinfo: str) -> Tuple[str, ...]:
    """Return what is mounted on a directory or below it, by /proc/self/mountinfo."""
    points = (unescaped(line.split()[4]) for line in mountinfo.splitlines())
    return tuple(point for point in points if point == path or point.startswith(f"{path}/"))
