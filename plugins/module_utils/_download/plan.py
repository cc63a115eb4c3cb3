# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of download: the steps from the found to the wanted state. Nothing is touched."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted


@dataclass(frozen=True)
class Found:
    """The state of the file."""

    there: bool = False
    checksum: Checksum | None = None
    """Of the file, by the wanted algorithm."""
    signed_by: str | None = None
    """Fingerprint of the key that signed the file. It is determined only where no checksum can be compared."""
    part: int = 0
    """Bytes of a download that was interrupted."""


@dataclass(frozen=True)
class Fetch:
    """Get the file from the first URL that serves it."""

    urls: tuple[str, ...]
    path: str
    offset: int

    def __str__(self) -> str:
        first = shown(self.urls[0]) + (f" (or {len(self.urls) - 1} more)" if len(self.urls) > 1 else "")
        return f"get {self.path} from {first}" + (f", from byte {self.offset} on" if self.offset else "")


@dataclass(frozen=True)
class Plan:
    """The steps from the found to the wanted state, and why they are needed."""

    steps: tuple[Fetch, ...]
    reason: str


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the steps and their reason."""
    fetch = (Fetch(wanted.urls, wanted.path, found.part),)
    if not found.there:
        return Plan(fetch, f"there is no {wanted.path} yet" + (f", but {found.part} bytes of it" if found.part else ""))
    if wanted.checksum and found.checksum != wanted.checksum:
        return Plan(fetch, f"{wanted.path} has another checksum, {found.checksum}")
    if not wanted.checksum and not found.signed_by:
        return Plan(fetch, f"{wanted.path} is not what {' or '.join(map(shown, wanted.signatures))} signs")
    return Plan((), f"{wanted.path} is there, with the right {'checksum' if wanted.checksum else 'signature'}")
