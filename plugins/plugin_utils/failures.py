# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a task failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown

LINES = 4  # the last ones of a command
UNKNOWN = "no reason given"


def failure_reason(result: Mapping[str, Any], item: str = "", line: str = "") -> str:
    """Return why the task failed. Its result may be what the Python of somebody else made up."""
    items = [one for one in _listed(result, "results") if isinstance(one, Mapping)]
    failure = next((one for one in items if one.get("failed")), result)
    if line:
        lines = [one.strip() for one in _lines(failure, "stderr_lines") if re.match(line, one)]
        return shown(next(iter(lines), failure.get("stderr") or failure.get("msg", UNKNOWN)))
    written = [*_lines(failure, "stderr_lines"), *_lines(failure, "stdout_lines")]
    message = failure.get("msg", UNKNOWN)
    reason = " / ".join(written[-LINES:]) if written and "non-zero return code" in str(message) else message
    blamed = failure.get(item, failure.get("url", "")) if item else ""
    return shown(f"{blamed}: {reason}" if blamed else reason)


def _listed(result: Mapping[str, Any], key: str) -> list[Any]:
    value = result.get(key)
    return value if isinstance(value, list) else []


def _lines(result: Mapping[str, Any], key: str) -> list[str]:
    return [str(one) for one in _listed(result, key)]
