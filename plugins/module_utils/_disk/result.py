# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of disk_image."""

from __future__ import annotations

from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._disk.plan import FILE, Found, Plan
from ansible_collections.nested.kata.plugins.module_utils._disk.steps import FREE_LOOP


def describe(found: Found) -> dict[str, Any]:
    """Return what was found as plain data, for a result or one side of a diff."""
    there = found.kind == FILE
    return {
        "size": found.size if there else None,
        "filesystem_size": found.fs_size,
        "fstype": found.content.fstype,
        "uuid": found.content.uuid,
        "label": found.content.label,
        "device": found.loops[0].device if found.loops else None,
        "link": found.link.target,
        "owner": found.uid if there else None,
        "group": found.gid if there else None,
        "mode": f"{found.mode:04o}" if there else None,
    }


def result_of(wanted: Wanted, plan: Plan, before: Found, after: Found) -> dict[str, Any]:
    """Return the result of the module."""
    found = describe(after)
    foreseen = found["device"] == FREE_LOOP.device
    return {
        "changed": bool(plan.steps),
        "path": wanted.path,
        "size": found["size"],
        "allocated": after.allocated,
        "filesystem_size": found["filesystem_size"],
        "sealed": after.sealed,
        "fstype": found["fstype"],
        "uuid": found["uuid"],
        "label": found["label"],
        "device": None if foreseen else found["device"],
        "direct_io": after.loops[0].direct_io if after.loops and not foreseen else None,
        "link": wanted.link if found["link"] and found["link"] == found["device"] else None,
        "steps": [str(step) for step in plan.steps],
        "msg": plan.reason,
        "diff": {
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": describe(before),
            "after": found,
        },
    }
