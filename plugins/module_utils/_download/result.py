# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of download."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._download.fetch import Received
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Found, Plan


def result_of(
    wanted: Wanted,
    check_mode: bool,
    plan: Plan,
    found: Found,
    checksum: Checksum | None,
    received: Received,
    changed: bool,
) -> dict[str, Any]:
    """Return the result of the module."""
    there = os.path.exists(wanted.path) and not (plan.steps and check_mode)
    return {
        "url": received.url,
        "bytes_received": received.bytes_received,
        "resumed_from": received.resumed_from,
        "signed_by": received.signed_by,
        "changed": changed,
        "path": wanted.path,
        "checksum": str(checksum) if checksum else None,
        "size": os.path.getsize(wanted.path) if there else None,
        "steps": [str(step) for step in plan.steps],
        "msg": plan.reason,
        "diff": {
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": {"checksum": str(found.checksum) if found.checksum else None},
            "after": {"checksum": str(checksum) if checksum else None},
        },
    }
