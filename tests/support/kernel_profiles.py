# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles of the role guest_kernel: which fragments they are, and what may be missing."""

from __future__ import annotations

import yaml
from ansible_runner import CHECKOUT

DIRECTORY = CHECKOUT / "files" / "kernel"
_PROFILES = yaml.safe_load((CHECKOUT / "roles/guest_kernel/vars/profiles.yml").read_text(encoding="utf-8"))
PROFILES: dict[str, list[str]] = _PROFILES["guest_kernel_profiles"]
ALLOW_MISSING: dict[str, str] = _PROFILES["guest_kernel_allow_missing"]


def names_of(profile: str, arch: str) -> list[str]:
    """Return the fragments of a profile, in the order in which the role merges them."""
    return [
        f"base-{arch}" if name == "base" else name.replace("{{ guest_kernel_arch }}", arch)
        for name in PROFILES[profile]
    ]


def fragments_of(profile: str, arch: str) -> list[str]:
    """Return their files."""
    return [str(DIRECTORY / f"{name}.config") for name in names_of(profile, arch)]
