# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of room, memory, time and reachability. Facts go in, judgements come out, nothing is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount
from ansible_collections.nested.kata.plugins.module_utils._common.overcommit import MORE_ROOM
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import MEBIBYTE, about
from ansible_collections.nested.kata.plugins.module_utils._host.findings import ERROR, WARNING, Judgement

MOST_SKEW = 60  # seconds


@dataclass(frozen=True)
class Part:
    """Something that takes room."""

    purpose: str
    size: int
    there: int  # bytes of it that are on the disk already
    sparse: bool
    mount: Mount

    @property
    def missing(self) -> int:
        return max(0, self.size - self.there)


@dataclass(frozen=True)
class Answer:
    """The outcome for a resource that must be reached: it is not tried where the resource is there already."""

    purpose: str
    required: bool
    failures: tuple[str, ...] = ()
    tried: bool = True
    reached: bool = True


@dataclass(frozen=True)
class Resources:
    """The state of room, memory, time and the network."""

    parts: tuple[Part, ...] = ()
    disks: Mount | None = None
    memory_total: int = 0
    memory_available: int = 0
    shm: Mount | None = None
    skew: float | None = None  # seconds that this machine's clock is ahead of the control node's
    answers: tuple[Answer, ...] = ()


def meminfo(text: str) -> dict[str, int]:
    """Return the values in the text of /proc/meminfo, in bytes."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def check_space(parts: Sequence[Part], overcommit: float) -> Judgement | None:
    """Judge, for each file system, whether the missing parts fit. Sparse files may outgrow the rest of the free space:
    by more than overcommit times is a warning.
    """
    if not parts:
        return None
    found, needed, short, tight = [], [], [], []
    for identity in dict.fromkeys(part.mount.identity for part in parts):
        here = [part for part in parts if part.mount.identity == identity]
        mount = here[0].mount
        free = 0 if mount.read_only else mount.free
        solid, sparse = (sum(part.missing for part in here if part.sparse is kind) for kind in (False, True))
        wanted = solid + sparse
        found.append(f"{mount.point}: " + ("read-only" if mount.read_only else f"{about(free)} free"))
        needed.append(f"{about(wanted)} ({', '.join(f'{about(part.missing)} {part.purpose}' for part in here)})")
        if free < solid or (mount.read_only and wanted):
            short.append(mount.point)
        elif (free - solid) * overcommit < sparse:
            tight.append(mount.point)
    texts = "; ".join(found), "; ".join(needed)
    if short:
        return Judgement(
            False, *texts, f"make room on {' and '.join(short)}, or put the directories elsewhere: a mount, or a link"
        )
    if tight:
        return Judgement(False, *texts, f"disks are sparse and may fill {' and '.join(tight)}: {MORE_ROOM}", WARNING)
    return Judgement(True, *texts)


def check_reflink(mount: Mount | None) -> Judgement | None:
    """Judge whether disks are cloned in no time. Everything works without that too, so this never fails."""
    if mount is None:
        return None
    needed = "any; best btrfs or XFS with reflink"
    if mount.reflink:
        return Judgement(True, f"{mount.fstype} with reflink on {mount.point}", needed)
    known = "without reflink" if mount.reflink is False else "that may have reflink or not"
    return Judgement(
        True,
        f"{mount.fstype} {known} on {mount.point}",
        needed,
        "a golden disk is copied there, which takes longer than a clone",
    )


def check_memory(resources: Resources, wanted: int, running: bool) -> Judgement | None:
    """Judge the memory for all instances. Where instances run, they have taken their memory already, so then only the
    total counts.
    """
    if not wanted:
        return None
    total, available = resources.memory_total, resources.memory_available
    needed = f"{about(wanted)} for the instances"
    found = f"{about(available)} of {about(total)} available" + (", instances run" if running else "")
    if wanted > total:
        return Judgement(
            False, found, needed, "give the instances less (kata_instance_memory), have fewer, or put more memory in"
        )
    if wanted > available and not running:
        remedy = (
            "stop what takes it, or give the instances less (kata_instance_memory): when they use all of theirs,"
            " something is killed"
        )
        return Judgement(False, found, needed, remedy, WARNING)
    return Judgement(True, found, needed)


def check_shm(shm: Mount | None, target: str, wanted: int) -> Judgement | None:
    """Judge /dev/shm of a target, where QEMU keeps the memory of its guests. A proxy has its own."""
    if target != "host":
        return None
    needed = "a tmpfs" + (f" of {about(wanted)} or more" if wanted else "")
    if shm is None or shm.fstype != "tmpfs":
        found = f"{shm.fstype} at /dev/shm" if shm else "no /dev/shm"
        return Judgement(False, found, needed, "mount it: mount -t tmpfs tmpfs /dev/shm; in a container, --shm-size")
    found = f"tmpfs of {about(shm.size)}" if shm.size else "tmpfs without a limit"
    if shm.read_only:
        return Judgement(False, f"{found}, read-only", needed, "mount -o remount,rw /dev/shm")
    if 0 < shm.size < wanted:
        size = -(-wanted // MEBIBYTE)
        remedy = (
            f"mount -o remount,size={size}M /dev/shm, and a line for it in /etc/fstab to have it after a reboot; in a"
            f" container, --shm-size {size}m"
        )
        return Judgement(False, found, needed, remedy)
    return Judgement(True, found, needed)


def check_time(skew: float | None) -> Judgement | None:
    """Judge the clock: with a wrong time, certificates and signatures of packages are not valid yet, or no longer."""
    if skew is None:
        return None
    needed = f"at most {MOST_SKEW} s off the control node"
    found = f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) <= MOST_SKEW:
        return Judgement(True, found, needed)
    remedy = (
        "set it and keep it: timedatectl set-ntp true (systemd-timesyncd), or chrony; if the control node is wrong,"
        " there"
    )
    return Judgement(False, found, needed, remedy)


def check_reachable(answers: Sequence[Answer]) -> Judgement | None:
    """Judge the resources that must be reached: an error where a required one cannot be."""
    if not answers:
        return None
    needed = ", ".join(answer.purpose for answer in answers)
    failed = [answer for answer in answers if not answer.reached]
    if failed:
        found = "; ".join(f"{answer.purpose}: {', '.join(answer.failures)}" for answer in failed)
        remedy = "correct name resolution, proxy or firewall, or name a mirror or a local file that is there"
        return Judgement(False, found, needed, remedy, ERROR if any(answer.required for answer in failed) else WARNING)
    reached = sum(answer.tried for answer in answers)
    there = len(answers) - reached
    return Judgement(
        True, ", ".join([f"{reached} reached"] * bool(reached) + [f"{there} there already"] * bool(there)), needed
    )
