# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernels in a directory of the role guest_kernel, each in a directory of its own that kernel_build made."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Collection

from ansible_collections.nested.kata.plugins.module_utils._kernel import artifacts

KERNEL = r"[0-9]+(?:\.[0-9]+)*(?:-rc[0-9]+)?-(?P<name>[a-z0-9][a-z0-9_.-]*)-[0-9a-f]{12}"
UNFINISHED = re.compile(rf"\.{KERNEL}\.nested-kata-.*")
FINISHED = re.compile(KERNEL)
VERSIONS = os.path.join("sources", "versions.json")
UNKNOWN = {"build": {}, "complete": False}


def look(directory: str, names: Collection[str]) -> dict[str, Any]:
    """Return the kernels there, and which versions of Debian's sources they were built from. Those of other names than
    these are listed without what is in them.
    """
    kernels = []
    if os.path.isdir(directory):
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                match = FINISHED.fullmatch(entry.name) or UNFINISHED.fullmatch(entry.name)
                if match and entry.is_dir(follow_symlinks=False):
                    about = content(entry.path) if match["name"] in names else UNKNOWN
                    kernels.append({"path": entry.path, "mtime": entry.stat(follow_symlinks=False).st_mtime, **about})
    return {"kernels": kernels, "versions": versions(directory)}


def content(path: str) -> dict[str, Any]:
    """Return the record of a build, and whether all its files are there as they were built."""
    try:
        found = artifacts.content(path)
    except (OSError, ValueError):
        return UNKNOWN
    if found.record is None:
        return UNKNOWN
    recorded = {name: file["sha256"] for name, file in found.record["files"].items()}
    return {"build": dict(found.record), "complete": dict(found.digests) == recorded}


def versions(directory: str) -> dict[str, str]:
    """Return the version of each of Debian's sources that was built last; nothing where that cannot be read."""
    try:
        with open(os.path.join(directory, VERSIONS), encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return {str(source): str(version) for source, version in known.items()} if isinstance(known, dict) else {}
