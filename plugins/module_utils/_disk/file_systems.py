# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of file systems that a disk image may hold."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import BLOCK

# File systems that have no holes: ftruncate(2) writes every zero there.
WITHOUT_HOLES = ("vfat", "exfat", "msdos", "hfs", "hfsplus")


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system that an image may hold. Its commands have the placeholders {file}, {uuid}, {label}, and
    {device} and {mount} while it is mounted.
    """

    minimum: int
    label_bytes: int
    slack: int
    """Bytes that it may leave unused at the end of its device."""
    grows_to: int
    """The kernel does not let it grow to less than this."""
    mkfs: tuple[str, ...]
    """Makes it fast and sparse: no discard (the file is one hole), and no writes that the kernel can do later."""
    mkfs_uuid: tuple[str, ...]
    mkfs_size: tuple[str, ...]
    """The last arguments, where it takes only a part of the file: {size} bytes, or {kib} KiB."""
    set_uuid: tuple[str, ...]
    set_label: tuple[str, ...]
    grow: tuple[str, ...]
    check: tuple[str, ...] = ()
    """Must run before it grows unmounted, where it can: {device} is then the file, unless that is attached."""


FILE_SYSTEMS = {
    "btrfs": FileSystem(
        # fs/btrfs/ioctl.c, btrfs_ioctl_resize: new_size < SZ_256M is an invalid argument.
        109 * 1024**2,
        255,
        0,
        256 * 1024**2,
        mkfs=("mkfs.btrfs", "-q", "--nodiscard"),
        mkfs_uuid=("-U", "{uuid}"),
        mkfs_size=("--byte-count", "{size}", "{file}"),
        # Not -U, which rewrites all metadata: 0.8 s and 51 MiB for 40000 files, where this takes 0.02 s and under 1
        # MiB (btrfstune(8)).
        set_uuid=("btrfstune", "-M", "{uuid}", "{file}"),
        set_label=("btrfs", "filesystem", "label", "{file}", "{label}"),
        grow=("btrfs", "filesystem", "resize", "max", "{mount}"),
    ),
    "ext4": FileSystem(
        # A last group too small for its own bitmaps and inode table is left out (resize2fs(8), e2fsprogs resize2fs.c,
        # adjust_fs_info).
        8 * 1024**2,
        16,
        8 * 1024**2,
        0,
        # Blocks of 4 KiB also where the image is small: with 1 KiB it could not be mounted from a disk with sectors of
        # 4 KiB. With a seed for the checksums a clone's new UUID changes the superblocks and not the checksum of every
        # inode (ext4(5), metadata_csum_seed).
        mkfs=(
            "mkfs.ext4",
            "-q",
            "-F",
            "-b",
            str(BLOCK),
            "-O",
            "metadata_csum_seed",
            "-E",
            "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
        ),
        mkfs_uuid=("-U", "{uuid}"),
        mkfs_size=("{file}", "{kib}k"),
        set_uuid=("tune2fs", "-U", "{uuid}", "{file}"),
        set_label=("tune2fs", "-L", "{label}", "{file}"),
        # Unmounted, since the kernel asks for CAP_SYS_RESOURCE when it is mounted, which few containers have
        # (fs/ext4/resize.c, ext4_resize_begin).
        grow=("resize2fs", "{device}"),
        check=("e2fsck", "-f", "-p", "{device}"),
    ),
    "xfs": FileSystem(
        # A last allocation group of less than 64 blocks is left out (xfs_format.h, XFS_MIN_AG_BLOCKS).
        300 * 1024**2,
        12,
        1024**2,
        0,
        # Sectors of 4 KiB: with 512 bytes it could not be mounted from a disk with sectors of 4 KiB.
        mkfs=("mkfs.xfs", "-q", "-K", "-s", f"size={BLOCK}"),
        mkfs_uuid=("-m", "uuid={uuid}"),
        mkfs_size=("-d", "size={size}", "{file}"),
        set_uuid=("xfs_admin", "-U", "{uuid}", "{file}"),
        set_label=("xfs_admin", "-L", "{label}", "{file}"),
        grow=("xfs_growfs", "{mount}"),
    ),
}
