# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system that a path lies in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import mounts
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import mount_of


def test_a_path_that_is_not_there_yet_lies_where_its_nearest_directory_does(tmp_path: Path) -> None:
    # How much is free may change between the two.
    assert replace(mount_of(f"{tmp_path}/a/b/c"), free=0) == replace(mount_of(str(tmp_path)), free=0)
    assert (mount_of("/proc/x/y").fstype, mount_of("/proc/x/y").point) == ("proc", "/proc")


@pytest.mark.parametrize(("flags", "reflink"), [(1 << 20, True), ((1 << 19) | 1, False), (0x1FFFFF, True)])
def test_xfs_says_in_its_geometry_whether_it_has_reflink(
    flags: int, reflink: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def geometry(dummy: int, request: int, buffer: bytearray) -> int:
        assert request >> 16 & 0x3FFF == len(buffer)
        buffer[92:96] = flags.to_bytes(4, "little")
        return 0

    monkeypatch.setattr(mounts.fcntl, "ioctl", geometry)
    assert mounts._xfs_reflink(str(tmp_path)) is reflink


def test_what_is_no_xfs_does_not_know() -> None:
    assert mounts._xfs_reflink("/proc") is None
    assert mounts._xfs_reflink("/nonexistent") is None
