# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kata_release: from what was found and what is wanted to steps, or to a refusal. Nothing is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted

RECORD = ".nested-kata.json"


@dataclass(frozen=True)
class Record:
    """The facts recorded when a release was unpacked."""

    sha256: str
    version: str | None
    bytes: int
    files: int
    kernel_release: str | None


@dataclass(frozen=True)
class User:
    """A process that uses a release."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


@dataclass(frozen=True)
class Found:
    """The state of the path."""

    record: Record | None = None
    """Of a release that this module unpacked."""
    stranger: str = ""
    """A description where it is something else: "a symlink", for example."""
    leftovers: tuple[str, ...] = ()
    """Of runs that were interrupted."""
    users: tuple[User, ...] = ()
    mounts: tuple[str, ...] = ()
    """Mount points below it. Users and mounts are looked for only where the release would be removed."""


@dataclass(frozen=True)
class Clear:
    """Remove what an interrupted run left."""

    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"remove what an interrupted run left: {', '.join(self.paths)}"


@dataclass(frozen=True)
class Unpack:
    """Put the release there."""

    archive: str | None
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

    steps: tuple[Clear | Unpack | Remove, ...]
    reason: str


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the plan, or raise Refused."""
    if found.stranger:
        raise Refused(
            f"path: {wanted.path} is {found.stranger}, which this module did not make: choose another path, or move it"
            " away"
        )
    steps, reason = _present(found, wanted) if wanted.present else _absent(found, wanted)
    if found.leftovers:
        return Plan(
            (Clear(found.leftovers), *steps),
            reason + ("" if steps else ", and an interrupted run left files beside it"),
        )
    return Plan(steps, reason)


def _present(found: Found, wanted: Wanted) -> tuple[tuple[Unpack, ...], str]:
    record = found.record
    if record is None:
        return (Unpack(wanted.archive, wanted.path),), f"there is no {wanted.path} yet"
    if record.sha256 != wanted.sha256:
        raise Refused(
            f"path: {wanted.path} holds the release with the SHA-256 {record.sha256}, not {wanted.sha256}: "
            "give the new release a directory of its own, or remove the old one first (state: absent)"
        )
    if wanted.version not in (None, record.version):
        raise Refused(
            f"version: the release in {wanted.path}, with this SHA-256, is version {record.version}, not"
            f" {wanted.version}: correct version or sha256"
        )
    return (), f"{wanted.path} holds this release"


def _absent(found: Found, wanted: Wanted) -> tuple[tuple[Remove, ...], str]:
    if found.record is None:
        return (), f"there is no {wanted.path}"
    if found.users:
        in_use = f"{wanted.path} is in use by {_listed(found.users)}"
        if wanted.keep_in_use:
            return (), f"{in_use}, and stays until nothing runs on it"
        raise Refused(f"path: {in_use}: stop these processes, or keep it until they end (if_in_use: keep)")
    if found.mounts:
        raise Refused(f"path: something is mounted on {_listed(found.mounts)}: unmount it first")
    return (Remove(wanted.path),), f"{wanted.path} is there" + (
        "" if not wanted.keep_in_use else ", and nothing runs on it"
    )


def _listed(things: tuple[Any, ...], most: int = 5) -> str:
    return ", ".join(map(str, things[:most])) + (f" and {len(things) - most} more" if len(things) > most else "")


def read_record(value: Any) -> Record:
    """Return a record that was read from its file, or raise ValueError where it is something else."""
    if not isinstance(value, dict) or not re.fullmatch(r"[0-9a-f]{64}", str(value.get("sha256"))):
        raise ValueError("it has no SHA-256")
    try:
        return Record(**value)
    except TypeError as error:
        raise ValueError(str(error)) from error
