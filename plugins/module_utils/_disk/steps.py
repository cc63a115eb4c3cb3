# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that change a disk image, as data; machine.py carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import exact
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Loop

# Stands for the device that the kernel has yet to choose.
FREE_LOOP = Loop("a free loop device", 0)


@dataclass(frozen=True)
class RemoveLeftover:
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}, which an interrupted run left behind"


@dataclass(frozen=True)
class SettleSuperblock:
    path: str
    torn: bool
    repair: bool
    """Whether nobody uses it, so that the interrupted change can be repaired."""

    def __str__(self) -> str:
        return (
            f"{'put back' if self.torn else 'forget'} the superblock of {self.path} that an interrupted run"
            f" saved{', and check it' if self.repair else ''}"
        )


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
    mkfs_options: tuple[str, ...] = ()
    preallocated: bool = False
    filesystem_size: int | None = None

    def __str__(self) -> str:
        how = "preallocated" if self.preallocated else "sparse"
        part = f" in {exact(self.filesystem_size)} of it" if self.filesystem_size else ""
        return (
            f"make {self.path}, {how}, {exact(self.size)}, with"
            f" {self.fstype}{part}{', in place of zeros' if self.replaces_blank else ''}"
        )


@dataclass(frozen=True)
class Clone:
    path: str
    golden: str
    fstype: str
    label: str | None
    uuid: str | None
    uid: int | None
    gid: int | None
    mode: int
    replaces_blank: bool

    def __str__(self) -> str:
        return (
            f"clone {self.golden} as {self.path}, with a UUID of its"
            f" own{', in place of zeros' if self.replaces_blank else ''}"
        )


@dataclass(frozen=True)
class Grow:
    path: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"grow {self.path} from {exact(self.old)} to {exact(self.new)}"


@dataclass(frozen=True)
class Preallocate:
    path: str
    size: int

    def __str__(self) -> str:
        return f"allocate all {exact(self.size)} of {self.path}"


@dataclass(frozen=True)
class GrowFileSystem:
    path: str
    fstype: str
    size: int
    mount: str | None = None
    """Its mount point. Without one it grows unmounted, or mounted for the purpose where no other process sees it."""

    def __str__(self) -> str:
        return (
            f"grow the {self.fstype} in {self.path} to"
            f" {exact(self.size)}{f', mounted at {self.mount}' if self.mount else ''}"
        )


@dataclass(frozen=True)
class Trim:
    path: str
    fstype: str

    def __str__(self) -> str:
        return f"give back the unused space of the {self.fstype} in {self.path}"


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


Step = Union[
    RemoveLeftover,
    SettleSuperblock,
    Create,
    Clone,
    Grow,
    Preallocate,
    UpdateCapacity,
    GrowFileSystem,
    SetOwner,
    SetMode,
    Attach,
    MakeNode,
    SetLink,
    RemoveLink,
    Detach,
    Trim,
    Delete,
]
