# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kernel_build: from what was found and what is wanted to steps. Nothing is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.nested.kata.plugins.module_utils._kernel.artifacts import Found
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted


@dataclass(frozen=True)
class Make:
    """Build the targets."""

    tree: str
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"build {', '.join(self.targets)} in {self.tree}"


@dataclass(frozen=True)
class Put:
    """Put the artifacts into their directory, all at once."""

    path: str

    def __str__(self) -> str:
        return f"put the artifacts into {self.path}"


@dataclass(frozen=True)
class Plan:
    """The steps that lead from what was found to what is wanted, and why they are needed."""

    steps: tuple[Make | Put, ...]
    reason: str


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the plan: all steps or none."""
    reason = _difference(found, wanted)
    if not reason:
        return Plan((), f"{wanted.path} holds this build")
    return Plan((Make(wanted.tree, wanted.targets), Put(wanted.path)), reason)


def _difference(found: Found, wanted: Wanted) -> str:
    """Return why what was found is not the build that is wanted."""
    record = found.record
    if record is None:
        return f"there is no build in {wanted.path} yet"
    for name, value in (("key", wanted.key), ("arch", wanted.arch), ("targets", list(wanted.targets))):
        if record.get(name) != value:
            return f"the build in {wanted.path} has another {name}"
    files = record["files"]
    for name in files:
        if name not in found.digests:
            return f"{wanted.path}/{name} is missing"
        if found.digests[name] != files[name]["sha256"]:
            return f"{wanted.path}/{name} is not the file that was built"
    return ""


def shown(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the part of a build that diff mode shows."""
    if record is None:
        return {}
    return {
        "key": record["key"],
        "release": record.get("release"),
        "files": {name: file["sha256"] for name, file in record["files"].items()},
    }


def result_of(
    wanted: Wanted, plan: Plan, found: Found, built: Mapping[str, Any] | None, compiled: int
) -> dict[str, Any]:
    """Return the module's result. `built` is the record of the build that this run made."""
    after = built or (None if plan.steps else dict(found.record or {}))
    return {
        "changed": bool(plan.steps),
        "path": wanted.path,
        "log": wanted.log,
        "objects": compiled,
        "build": after,
        "steps": [str(step) for step in plan.steps],
        "msg": plan.reason,
        "diff": {
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": shown(found.record),
            "after": {"key": wanted.key} if plan.steps and not built else shown(after),
        },
    }
