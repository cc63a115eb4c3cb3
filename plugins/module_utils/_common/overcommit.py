# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Overcommit: the multiple of the free space that disks may grow by together."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

MORE_ROOM = (
    "make room before they do, give them less (kata_instance_disk_size), or allow more (kata_instance_overcommit)"
)


def parse_overcommit(factor: float) -> float:
    """Return the option overcommit, or raise Refused."""
    if not factor >= 0:  # so that NaN is refused too
        raise Refused(
            f"overcommit: {factor} is not a valid factor: write the multiple of the free space that the disks may grow"
            " by together, like 1 or 2.5"
        )
    return factor
