# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The space that files such as disk images take in their file system, also where they share data with others."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount, mount_of

# linux/fs.h and fiemap.h: _IOWR('f', 11, struct fiemap), struct fiemap without its extents, and struct fiemap_extent
FS_IOC_FIEMAP = 0xC020660B
FIEMAP = struct.Struct("=QQLLLL")
FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED = 0x1, 0x2000
EXTENTS = 1000  # requested at a time


@dataclass(frozen=True)
class Usage:
    """A disk image, in bytes."""

    path: str
    size: int  # that the file appears to have
    allocated: int  # that it takes on the disk
    shared: int  # bytes of these that other files have too: the next write to them needs room
    sealed: bool  # nobody may write to it
    mount: Mount

    @property
    def alone(self) -> int:
        """Bytes on the disk that only this file has."""
        return max(0, self.allocated - self.shared)

    @property
    def growth(self) -> int:
        """Bytes that it may take beyond those it takes now."""
        return 0 if self.sealed else max(0, self.size - self.alone)


def usage_of(path: str) -> Usage:
    """Return the space that a file takes; OSError where it cannot be read."""
    status = os.stat(path)
    mount = mount_of(path)
    shared = shared_bytes(path) if mount.reflink is not False and stat.S_ISREG(status.st_mode) else 0
    return Usage(path, status.st_size, status.st_blocks * 512, shared, not stat.S_IMODE(status.st_mode) & 0o222, mount)


def shared_bytes(path: str) -> int:
    """Return how many bytes of a file are shared with others (reflink, snapshots); 0 where the file system does not
    report it.
    """
    shared, start, last = 0, 0, False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while not last:
            answer = bytearray(FIEMAP.size + EXTENTS * FIEMAP_EXTENT.size)
            FIEMAP.pack_into(answer, 0, start, 2**64 - 1 - start, 0, 0, EXTENTS, 0)
            fcntl.ioctl(descriptor, FS_IOC_FIEMAP, answer)
            found = FIEMAP.unpack_from(answer)[3]
            last = found == 0
            for number in range(found):
                logical, _physical, length, _reserved, _also_reserved, flags, *_rest = FIEMAP_EXTENT.unpack_from(
                    answer, FIEMAP.size + number * FIEMAP_EXTENT.size
                )
                shared += length if flags & FIEMAP_EXTENT_SHARED else 0
                start, last = logical + length, bool(flags & FIEMAP_EXTENT_LAST)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            raise
    finally:
        os.close(descriptor)
    return shared
