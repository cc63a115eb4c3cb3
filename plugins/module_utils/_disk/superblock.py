# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Superblocks of btrfs, ext4 and xfs: the facts that blkid reports too, in no time, and how large and how clean the
file system is, which blkid does not report.

Layouts: btrfs ctree.h (struct btrfs_super_block), ext4.h (struct ext4_super_block), xfs_format.h (struct xfs_dsb) of
the kernel.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

BTRFS_AT = 0x10000
# The number of bytes of a file to read.
HEAD = BTRFS_AT + 4096

EXT4_HAS_JOURNAL = 0x4
EXT4_RECOVER = 0x4
EXT4_JOURNAL_DEVICE = 0x8
EXT4_EXTENTS = 0x40
EXT4_64BIT = 0x80
EXT4_METADATA_CSUM = 0x400


@dataclass(frozen=True)
class Superblock:
    """The description that a file system has of itself."""

    fstype: str
    uuid: str
    label: str | None
    size: int
    """Bytes of its device that it takes."""
    clean: bool = True
    """Whether its log has nothing for the next mount to replay. For xfs this is unknown here."""
    alone: bool = True
    """Whether nothing is before and around it where partition tables, LVM, LUKS or swap have their signatures: then
    blkid has nothing to add.
    """


def read(path: str) -> Superblock | None:
    """Return the superblock of the file system in a file, None if there is none of these three."""
    with open(path, "rb") as file:
        return parse(file.read(HEAD))


def parse(head: bytes) -> Superblock | None:
    """Return the superblock in the first bytes of a file."""
    found = [block for block in (_btrfs(head), _ext4(head), _xfs(head)) if block]
    # Two at once are left to blkid.
    return found[0] if len(found) == 1 else None


def torn_ext4(block: bytes) -> bool:
    """Return whether an ext4 superblock (1024 bytes) is half old and half new: then no kernel mounts it, and e2fsck
    does not open it.
    """
    if block[0x38:0x3A] != b"\x53\xef" or not struct.unpack_from("<I", block, 0x64)[0] & EXT4_METADATA_CSUM:
        return False
    checksum: int = struct.unpack_from("<I", block, 1020)[0]
    return _crc32c(block[:1020]) != checksum


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _dummy in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def _btrfs(head: bytes) -> Superblock | None:
    block = head[BTRFS_AT:]
    if len(block) < 4096 or block[0x40:0x48] != b"_BHRfS_M":
        return None
    log_root, size, devices = (struct.unpack_from("<Q", block, at)[0] for at in (0x60, 0x70, 0x88))
    alone = devices == 1 and not any(head[:BTRFS_AT])
    return _superblock("btrfs", block[0x20:0x30], block[0x12B:0x22B], size, log_root == 0, alone)


def _ext4(head: bytes) -> Superblock | None:
    block = head[1024:2048]
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        return None
    low, power = struct.unpack_from("<I", block, 0x4)[0], struct.unpack_from("<I", block, 0x18)[0]
    compatible, incompatible = struct.unpack_from("<2I", block, 0x5C)
    if (
        not compatible & EXT4_HAS_JOURNAL
        or not incompatible & EXT4_EXTENTS
        or incompatible & EXT4_JOURNAL_DEVICE
        or power > 6
    ):
        return None
    high = struct.unpack_from("<I", block, 0x150)[0] if incompatible & EXT4_64BIT else 0
    alone = power >= 2 and not any(head[:1024]) and not any(head[2048:4096])
    return _superblock(
        "ext4",
        block[0x68:0x78],
        block[0x78:0x88],
        (high << 32 | low) << (10 + power),
        not incompatible & EXT4_RECOVER,
        alone,
    )


def _xfs(head: bytes) -> Superblock | None:
    if len(head) < 4096 or head[:4] != b"XFSB":
        return None
    block_size, blocks = struct.unpack_from(">IQ", head, 4)
    return _superblock("xfs", head[32:48], head[108:120], block_size * blocks, True, not any(head[512:4096]))


def _superblock(fstype: str, identity: bytes, label: bytes, size: int, clean: bool, alone: bool) -> Superblock:
    text = label.partition(b"\0")[0].rstrip()
    plain = all(0x20 <= byte < 0x7F for byte in text)
    return Superblock(
        fstype, str(uuid.UUID(bytes=identity)), text.decode("ascii", "replace") or None, size, clean, alone and plain
    )
