# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system that a path is in: how much room it has, and whether its files can share data."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._common.files import unescaped

# File systems whose type alone determines whether they have reflink. XFS is asked; others depend on the file systems
# below them.
REFLINK = {
    "btrfs": True,
    "bcachefs": True,
    "ext4": False,
    "ext3": False,
    "ext2": False,
    "tmpfs": False,
    "f2fs": False,
    "squashfs": False,
}
XFS_IOC_FSGEOMETRY = 0x8100587E  # _IOR('X', 126, struct xfs_fsop_geom) in fs/xfs/libxfs/xfs_fs.h, of 256 bytes
XFS_GEOMETRY_SIZE = 256
XFS_FLAGS = struct.Struct("=I")
XFS_FLAGS_AT = 92
XFS_REFLINK = 1 << 20  # XFS_FSOP_GEOM_FLAGS_REFLINK


@dataclass(frozen=True)
class Mount:
    """The file system that a path is in, or would be in."""

    identity: str  # the same for all paths that share its space
    point: str
    fstype: str
    free: int  # bytes that can still be written
    size: int
    read_only: bool = False
    reflink: bool | None = None  # None: unknown from here


def mount_of(path: str) -> Mount:
    """Return the file system that a path is in, or would be in once its directories are made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # The kernel's own id of the mount, also where one mount covers another (proc(5), /proc/pid/fdinfo).
        number = re.search(r"^mnt_id:\s*(\d+)$", _text_of(f"/proc/self/fdinfo/{descriptor}"), re.MULTILINE)
    finally:
        os.close(descriptor)
    fields, kind = _mountinfo_line(number.group(1) if number else "")
    room = os.statvfs(path)
    fstype, source = kind[0], kind[1]
    return Mount(
        # Subvolumes of one btrfs have numbers of their own, and share the space.
        identity=source if fstype == "btrfs" else str(os.stat(path).st_dev),
        point=unescaped(fields[4]),
        fstype=fstype,
        free=room.f_bavail * room.f_frsize,
        size=room.f_blocks * room.f_frsize,
        read_only=bool(room.f_flag & os.ST_RDONLY),
        reflink=_xfs_reflink(path) if fstype == "xfs" else REFLINK.get(fstype),
    )


def _mountinfo_line(number: str) -> tuple[list[str], list[str]]:
    for line in _text_of("/proc/self/mountinfo").splitlines():
        mount, _dummy, rest = line.partition(" - ")
        if mount.split(" ", 1)[0] == number:
            return mount.split(), rest.split()
    return ["", "", "", "", "/"], ["unknown", ""]


def _xfs_reflink(path: str) -> bool | None:
    geometry = bytearray(XFS_GEOMETRY_SIZE)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, XFS_IOC_FSGEOMETRY, geometry)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return bool(XFS_FLAGS.unpack_from(geometry, XFS_FLAGS_AT)[0] & XFS_REFLINK)


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
