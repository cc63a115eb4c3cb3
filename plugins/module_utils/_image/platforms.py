# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Platforms, and the one spelling of those that have several."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")

# Other spellings, as containerd reads them (github.com/containerd/platforms, database.go).
ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}
SAME = {
    "amd64/v1": "amd64",
    "arm": "arm/v7",
    "arm/5": "arm/v5",
    "arm/6": "arm/v6",
    "arm/7": "arm/v7",
    "arm/8": "arm/v8",
    "arm64/8": "arm64",
    "arm64/v8": "arm64",
    "arm64/v8.0": "arm64",
    "arm64/9": "arm64/v9",
    "arm64/9.0": "arm64/v9",
    "arm64/v9.0": "arm64/v9",
}


def parse_platform(text: str) -> str:
    if not PLATFORM.fullmatch(text):
        raise Refused(
            f"{text!r} is not a valid platform: write os/architecture or os/architecture/variant, such as linux/amd64"
            " or linux/arm64/v8"
        )
    return text


def platform_of(*parts: Any) -> str:
    """Return a platform: system, architecture and variant, as far as they are known."""
    return "/".join(str(part) for part in parts if part)


def normal(platform: str) -> str:
    """Return the one spelling of a platform: linux/arm64/v8 is linux/arm64."""
    system, architecture, variant = [*platform.lower().split("/"), "", ""][:3]
    machine = ARCHITECTURES.get(architecture, architecture)
    if "/" not in machine:
        machine = platform_of(machine, variant)
    return platform_of(system, SAME.get(machine, machine))


def runs_on(platform: str, wanted: str) -> bool:
    """Return whether an image of one platform is for another one. One without a variant is content with any."""
    mine, asked = normal(platform), normal(wanted)
    return mine == asked or (wanted.count("/") < 2 and mine.split("/")[:2] == asked.split("/")[:2])


def best(platforms: list[str], wanted: str) -> list[int]:
    """Return the numbers of the platforms that are for a wanted one: those that are the same, or else all that do."""
    same = [number for number, platform in enumerate(platforms) if normal(platform) == normal(wanted)]
    return same or [number for number, platform in enumerate(platforms) if runs_on(platform, wanted)]
