# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kata_release, parsed and checked."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused


@dataclass(frozen=True)
class Wanted:
    """The options of the task."""

    path: str
    present: bool = True
    archive: str | None = None
    sha256: str = ""
    version: str | None = None
    keep_in_use: bool = False

    @property
    def beside(self) -> str:
        """The prefix of names, beside the path, of directories that are not yet or no longer the release."""
        return f".{posixpath.basename(self.path)}.nested-kata-"


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the module's options, or raise Refused."""
    path, state, sha256, version = (
        os.path.abspath(options["path"]),
        options["state"],
        options["sha256"],
        options["version"],
    )
    if len(path.strip("/").split("/")) < 2:
        raise Refused(
            f"path: {path} is not a directory for one release: name a directory of its own, such as"
            " /var/lib/nested-kata/kata/4.1.0"
        )
    digest = (sha256 or "").strip().lower()
    if state == "present" and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Refused(f"sha256: {sha256!r} is not 64 hexadecimal digits: give the SHA-256 of the archive")
    if version is not None and not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+~_-]*", version):
        raise Refused(f"version: {version!r} is not a valid version, such as 4.1.0")
    return Wanted(path, state == "present", options["archive"], digest, version, options["if_in_use"] == "keep")
