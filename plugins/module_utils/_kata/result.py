# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of kata_release."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._kata.contents import contents_in
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import Found, Plan, Record, Remove, Unpack


def result_of(wanted: Wanted, plan: Plan, found: Found, record: Record | None) -> dict[str, Any]:
    """Return the module's result."""
    unpacks = any(isinstance(step, Unpack) for step in plan.steps)
    removes = any(isinstance(step, Remove) for step in plan.steps)
    after = None if removes else record
    known = asdict(after) if after else {"sha256": wanted.sha256 or None, "version": wanted.version} if unpacks else {}
    return {
        "changed": bool(plan.steps),
        "path": wanted.path,
        "steps": [str(step) for step in plan.steps],
        "msg": plan.reason,
        **{key: known.get(key) for key in ("sha256", "version", "bytes", "files")},
        **(
            {"contents": contents_in(wanted.path, after)}
            if wanted.present
            else {"in_use": [asdict(user) for user in found.users]}
        ),
        "diff": {
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": asdict(found.record) if found.record else {},
            "after": known,
        },
    }
