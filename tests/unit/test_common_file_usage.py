# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file takes of its file system, and what it may still take."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import file_usage
from ansible_collections.nested.kata.plugins.module_utils._common.file_usage import (
    EXTENTS,
    FIEMAP,
    FIEMAP_EXTENT,
    FIEMAP_EXTENT_LAST,
    FIEMAP_EXTENT_SHARED,
    Usage,
    shared_bytes,
    usage_of,
)
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount

GIB = 1 << 30
ROOT = Mount("8:1", "/", "ext4", free=100 * GIB, size=200 * GIB, reflink=False)
DATA = Mount("/dev/sdb", "/srv", "btrfs", free=50 * GIB, size=500 * GIB, reflink=True)


def usage(size: int, allocated: int = 0, shared: int = 0, sealed: bool = False, mount: Mount = DATA) -> Usage:
    return Usage("/srv/x.img", size * GIB, allocated * GIB, shared * GIB, sealed, mount)


@pytest.mark.parametrize(
    ("found", "growth"),
    [
        (usage(20), 20),
        (usage(20, allocated=5), 15),
        (usage(20, allocated=20), 0),
        # A file system may take more for a file than its size says, reserved beyond its end.
        (usage(20, allocated=21), 0),
        # What is shared has to be written elsewhere when it changes.
        (usage(20, allocated=5, shared=5), 20),
        (usage(20, allocated=5, shared=3), 18),
        (usage(20, allocated=5, sealed=True), 0),
    ],
)
def test_an_image_may_grow_by_what_it_has_not_to_itself(found: Usage, growth: int) -> None:
    assert found.growth == growth * GIB


def test_extents_are_asked_for_until_the_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extents = [(number * 8192, 4096, FIEMAP_EXTENT_SHARED if number % 2 else 0) for number in range(2 * EXTENTS + 7)]
    asked = []

    def fiemap(dummy: int, request: int, answer: bytearray) -> int:
        assert request >> 16 & 0x3FFF == FIEMAP.size
        start = FIEMAP.unpack_from(answer)[0]
        asked.append(start)
        here = [extent for extent in extents if extent[0] + extent[1] > start][:EXTENTS]
        for number, (logical, length, flags) in enumerate(here):
            last = FIEMAP_EXTENT_LAST if logical == extents[-1][0] else 0
            FIEMAP_EXTENT.pack_into(
                answer, FIEMAP.size + number * FIEMAP_EXTENT.size, logical, 0, length, 0, 0, flags | last, 0, 0, 0
            )
        FIEMAP.pack_into(answer, 0, start, 0, 0, len(here), EXTENTS, 0)
        return 0

    (tmp_path / "x").touch()
    monkeypatch.setattr(file_usage.fcntl, "ioctl", fiemap)
    assert shared_bytes(str(tmp_path / "x")) == (EXTENTS + 3) * 4096
    assert len(asked) == 3


@pytest.mark.parametrize(("number", "told"), [(errno.EOPNOTSUPP, False), (errno.ENOTTY, False), (errno.EIO, True)])
def test_a_file_system_without_extents_shares_nothing(
    number: int, told: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fiemap(*dummy: object) -> int:
        raise OSError(number, "no")

    (tmp_path / "x").write_bytes(b"x" * 10000)
    monkeypatch.setattr(file_usage.fcntl, "ioctl", fiemap)
    if told:
        with pytest.raises(OSError):
            shared_bytes(str(tmp_path / "x"))
    else:
        assert shared_bytes(str(tmp_path / "x")) == 0


def test_what_nobody_may_write_to_is_sealed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert not usage_of(str(tmp_path / "x")).sealed
    (tmp_path / "x").chmod(0o400)
    assert usage_of(str(tmp_path / "x")).sealed
