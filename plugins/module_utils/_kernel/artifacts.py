# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a kernel's artifacts and the record of their build, as kernel_build leaves it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import digest_of

RECORD = "build.json"


@dataclass(frozen=True)
class Found:
    """The state of the directory of the artifacts."""

    record: Mapping[str, Any] | None = None
    """The contents of build.json, None where there is none."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each recorded file that is there."""


def look(path: str) -> Found:
    """Return what is in the directory of the artifacts, or raise Refused where it is not managed by this module."""
    if not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"path: there is no directory {os.path.dirname(path)}: make it, or correct the path")
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
        raise Refused(f"path: {path} is not a directory: move it away, or choose another path")
    names = os.listdir(path) if os.path.isdir(path) else []
    try:
        found = content(path)
    except ValueError as error:
        raise Refused(
            f"path: {path}/{RECORD} cannot be read as the record of a build ({error}): move {path} away"
        ) from error
    strangers = foreign(names, found.record)
    if strangers:
        raise Refused(
            f"path: {path} holds files that are not from a build of this module ({', '.join(strangers[:5])}): choose"
            " another directory"
        )
    return found


def content(path: str) -> Found:
    """Return the record of a build and the digests of its files as they are, or raise ValueError where it is none."""
    try:
        with open(os.path.join(path, RECORD), encoding="utf-8") as file:
            record = read_record(json.load(file))
    except FileNotFoundError:
        return Found()
    names = set(record["files"]).intersection(os.listdir(path))
    return Found(record, {name: digest_of(os.path.join(path, name)) for name in record["files"] if name in names})


def read_record(value: Any) -> Mapping[str, Any]:
    """Return a record of this module, or raise ValueError where it is something else."""
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict) or "key" not in value:
        raise ValueError("it is not the record of a kernel build")
    if not all(isinstance(file, dict) and isinstance(file.get("sha256"), str) for file in value["files"].values()):
        raise ValueError("it names files without a digest")
    return value


def foreign(names: Iterable[str], record: Mapping[str, Any] | None) -> list[str]:
    """Return the names in a directory that are not from a build of this module."""
    own = {RECORD, *record["files"]} if record else set()
    return sorted(set(names) - own)
