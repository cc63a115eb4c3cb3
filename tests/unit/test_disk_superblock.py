# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Superblocks read from bytes. Those that mkfs writes are read by the integration tests of disk_image."""

from __future__ import annotations

import struct
import uuid

import pytest
from ansible_collections.nested.kata.plugins.module_utils._disk.superblock import HEAD, Superblock, parse
from hypothesis import given
from hypothesis import strategies as some

UUID = "7d57472b-5630-4e76-9191-1ca5e456a9da"
BYTES = uuid.UUID(UUID).bytes
G = 1024**3


def head(*parts: tuple[int, bytes]) -> bytes:
    """Return the first bytes of a file that is zero but for these parts."""
    data = bytearray(HEAD)
    for at, part in parts:
        data[at : at + len(part)] = part
    return bytes(data)


def btrfs(label: bytes = b"kata", log_root: int = 0, devices: int = 1) -> list[tuple[int, bytes]]:
    numbers = struct.pack("<3Q", log_root, 0, 10 * G)
    return [
        (0x10020, BYTES),
        (0x10040, b"_BHRfS_M"),
        (0x10060, numbers),
        (0x10088, struct.pack("<Q", devices)),
        (0x1012B, label),
    ]


def ext4(compatible: int = 0x3C, incompatible: int = 0x2C2) -> list[tuple[int, bytes]]:
    return [
        (0x404, struct.pack("<I", 10 * G // 4096)),
        (0x418, struct.pack("<I", 2)),
        (0x438, b"\x53\xef"),
        (0x45C, struct.pack("<2I", compatible, incompatible)),
        (0x468, BYTES),
        (0x478, b"kata\0\0"),
        (0x550, struct.pack("<I", 1)),
    ]


XFS = [(0, b"XFSB" + struct.pack(">IQ", 4096, 10 * G // 4096)), (32, BYTES), (108, b"kata")]

SUPERBLOCKS = {
    "btrfs": (btrfs(), Superblock("btrfs", UUID, "kata", 10 * G)),
    "btrfs without a label": (btrfs(label=b""), Superblock("btrfs", UUID, None, 10 * G)),
    "btrfs with a label that is no ASCII is for blkid": (
        btrfs(label="ä".encode()),
        Superblock("btrfs", UUID, "\ufffd\ufffd", 10 * G, alone=False),
    ),
    "btrfs with something in its log": (btrfs(log_root=4096), Superblock("btrfs", UUID, "kata", 10 * G, clean=False)),
    "btrfs on several devices is for blkid": (btrfs(devices=2), Superblock("btrfs", UUID, "kata", 10 * G, alone=False)),
    "btrfs behind a partition table is for blkid": (
        [*btrfs(), (510, b"\x55\xaa")],
        Superblock("btrfs", UUID, "kata", 10 * G, alone=False),
    ),
    "ext4": (ext4(), Superblock("ext4", UUID, "kata", (1 << 44) + 10 * G)),
    "ext4 of 32 bits": (ext4(incompatible=0x242), Superblock("ext4", UUID, "kata", 10 * G)),
    "ext4 with something in its log": (
        ext4(incompatible=0x2C6),
        Superblock("ext4", UUID, "kata", (1 << 44) + 10 * G, clean=False),
    ),
    "ext4 behind a partition table is for blkid": (
        [*ext4(), (510, b"\x55\xaa")],
        Superblock("ext4", UUID, "kata", (1 << 44) + 10 * G, alone=False),
    ),
    "ext4 before the mark of swap is for blkid": (
        [*ext4(), (4086, b"SWAPSPACE2")],
        Superblock("ext4", UUID, "kata", (1 << 44) + 10 * G, alone=False),
    ),
    "xfs": (XFS, Superblock("xfs", UUID, "kata", 10 * G)),
    "xfs before the mark of LVM is for blkid": (
        [*XFS, (512, b"LABELONE")],
        Superblock("xfs", UUID, "kata", 10 * G, alone=False),
    ),
    "ext3": (ext4(incompatible=0x2), None),
    "ext2": (ext4(compatible=0x38), None),
    "the journal of an ext4": (ext4(incompatible=0x48), None),
    "two at once": ([*btrfs(), *ext4()], None),
    "zeros": ([], None),
}


@pytest.mark.parametrize("case", SUPERBLOCKS)
def test_a_superblock_says_what_the_file_holds_how_large_and_whether_it_is_clean(case):
    parts, superblock = SUPERBLOCKS[case]
    assert parse(head(*parts)) == superblock


@given(
    some.one_of(some.binary(max_size=5000), some.sampled_from([btrfs(), ext4(), XFS]).map(lambda parts: head(*parts))),
    some.integers(0, HEAD),
)
def test_whatever_the_bytes_are_and_wherever_they_end_it_is_a_superblock_or_none(data, length):
    found = parse(data[:length])
    assert found is None or found.fstype in ("btrfs", "ext4", "xfs")
