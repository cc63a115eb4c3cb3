# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file systems that disk images are in, and how much of them the images may still take."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from typing import Any, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.file_usage import Usage, usage_of
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount
from ansible_collections.nested.kata.plugins.module_utils._common.overcommit import MORE_ROOM
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import about
from ansible_collections.nested.kata.plugins.module_utils._disk import superblock
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Loop, loops_of


@dataclass(frozen=True)
class Room:
    """A file system with disk images in it, in bytes."""

    mount: Mount
    images: int  # their number
    growth: int  # bytes that all of them may take beyond those they take now

    def is_overcommitted(self, most: float) -> bool:
        """Return whether the images may grow by more than `most` times the free space."""
        return self.growth > self.mount.free * most


def rooms_of(usages: Sequence[Usage]) -> list[Room]:
    """Return the file systems that disk images are in, each once."""
    rooms: dict[str, Room] = {}
    for usage in usages:
        before = rooms.get(usage.mount.identity, Room(usage.mount, 0, 0))
        rooms[usage.mount.identity] = replace(before, images=before.images + 1, growth=before.growth + usage.growth)
    return list(rooms.values())


def files_at(paths: Sequence[str]) -> list[str]:
    """Return the images at the paths, each once."""
    found = []
    for path in paths:
        if not os.path.isabs(path):
            raise Refused(f"paths: {path!r} is not an absolute path")
        if os.path.isdir(path):
            found += [
                os.path.join(path, name)
                for name in sorted(os.listdir(path))
                if name.endswith(".img") and not name.startswith(".")
            ]
        elif os.path.exists(path):
            found.append(path)
    return [path for path in dict.fromkeys(found) if os.path.isfile(path)]


def describe(usage: Usage) -> dict[str, Any]:
    """Return the description and the size of an image as plain data."""
    content = superblock.read(usage.path)
    loops = loops_of(usage.path)
    return {
        "path": usage.path,
        "size": usage.size,
        "allocated": usage.allocated,
        "shared": usage.shared,
        "growth": usage.growth,
        "sealed": usage.sealed,
        "fstype": content.fstype if content else None,
        "uuid": content.uuid if content else None,
        "label": content.label if content else None,
        "attached": is_attached(usage.size, loops),
        "device": loops[0].device if loops else None,
    }


def is_attached(size: int, loops: Sequence[Loop]) -> bool:
    """Return whether a file of that size is attached as nested.kata.disk_image does it, and nothing is to be done."""
    if len(loops) != 1:
        return False
    only = loops[0]
    return only == Loop(only.device, size // 512 * 512, direct_io=only.direct_io)


def warning(room: Room) -> str:
    """Return the warning that a file system may be filled, with its effect on guests and the remedy."""
    many = f"the {room.images} disk images" if room.images > 1 else "the disk image"
    return (
        f"{platform.node()}: {many} on {room.mount.point} may grow by {about(room.growth)}, and"
        f" {about(room.mount.free)} are free there. When they fill it, writes in all their guests fail: {MORE_ROOM}"
    )


def report(paths: Sequence[str], most: float) -> tuple[dict[str, Any], list[Room]]:
    """Return the images and their file systems as plain data, and the file systems whose images may grow by more than
    `most` times the free space.
    """
    usages = [usage_of(path) for path in files_at(paths)]
    rooms = rooms_of(usages)
    file_systems = [
        {
            "mount": room.mount.point,
            "fstype": room.mount.fstype,
            "size": room.mount.size,
            "free": room.mount.free,
            "growth": room.growth,
            "overcommitted": room.is_overcommitted(most),
        }
        for room in rooms
    ]
    return {"images": [describe(usage) for usage in usages], "file_systems": file_systems}, [
        room for room in rooms if room.is_overcommitted(most)
    ]
