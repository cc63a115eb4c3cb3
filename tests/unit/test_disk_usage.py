# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What disk images may still take, and whether that is more than there is room for."""
from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ansible_collections.nested.kata.plugins.module_utils import disk_usage
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount
from ansible_collections.nested.kata.plugins.module_utils.disk_usage import (
    EXTENTS, FIEMAP, FIEMAP_EXTENT, FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED, Room, Usage, look, parse_overcommit,
    rooms_of, shared_bytes,
)

GIB = 1 << 30
ROOT = Mount("8:1", "/", "ext4", free=100 * GIB, size=200 * GIB, reflink=False)
DATA = Mount("/dev/sdb", "/srv", "btrfs", free=50 * GIB, size=500 * GIB, reflink=True)


def usage(size: int, allocated: int = 0, shared: int = 0, sealed: bool = False, mount: Mount = DATA) -> Usage:
    return Usage("/srv/x.img", size * GIB, allocated * GIB, shared * GIB, sealed, mount)


@pytest.mark.parametrize("found, growth", [
    (usage(20), 20),
    (usage(20, allocated=5), 15),
    (usage(20, allocated=20), 0),
    # A file system may take more for a file than its size says, reserved beyond its end.
    (usage(20, allocated=21), 0),
    # What is shared has to be written elsewhere when it changes.
    (usage(20, allocated=5, shared=5), 20),
    (usage(20, allocated=5, shared=3), 18),
    (usage(20, allocated=5, sealed=True), 0),
])
def test_an_image_may_grow_by_what_it_has_not_to_itself(found: Usage, growth: int) -> None:
    assert found.growth == growth * GIB


def test_images_on_one_file_system_add_up() -> None:
    assert rooms_of([usage(20), usage(5, mount=ROOT), usage(30, allocated=10), usage(9, sealed=True)]) == [Room(DATA, 3, 40 * GIB), Room(ROOT, 1, 5 * GIB)]
    assert rooms_of([]) == []


@pytest.mark.parametrize("growth, most, too_much", [
    (50, 1, False), (51, 1, True), (100, 2, False), (101, 2, True), (25, 0.5, False), (26, 0.5, True), (0, 0, False), (1, 0, True),
    (10 ** 6, float("inf"), False),
])
def test_more_than_so_many_times_what_is_free_is_too_much(growth: int, most: float, too_much: bool) -> None:
    assert Room(DATA, 1, growth * GIB).is_overcommitted(most) is too_much


@pytest.mark.parametrize("factor", [-1, -0.1, float("nan")])
def test_what_is_no_factor_is_refused(factor: float) -> None:
    with pytest.raises(Refused, match="^overcommit: .* is no factor: "):
        parse_overcommit(factor)


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
            FIEMAP_EXTENT.pack_into(answer, FIEMAP.size + number * FIEMAP_EXTENT.size, logical, 0, length, 0, 0, flags | last, 0, 0, 0)
        FIEMAP.pack_into(answer, 0, start, 0, 0, len(here), EXTENTS, 0)
        return 0

    (tmp_path / "x").touch()
    monkeypatch.setattr(disk_usage.fcntl, "ioctl", fiemap)
    assert shared_bytes(str(tmp_path / "x")) == (EXTENTS + 3) * 4096
    assert len(asked) == 3


@pytest.mark.parametrize("number, told", [(errno.EOPNOTSUPP, False), (errno.ENOTTY, False), (errno.EIO, True)])
def test_a_file_system_without_extents_shares_nothing(number: int, told: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fiemap(*dummy: object) -> int:
        raise OSError(number, "no")

    (tmp_path / "x").write_bytes(b"x" * 10000)
    monkeypatch.setattr(disk_usage.fcntl, "ioctl", fiemap)
    if told:
        with pytest.raises(OSError):
            shared_bytes(str(tmp_path / "x"))
    else:
        assert shared_bytes(str(tmp_path / "x")) == 0


def test_what_nobody_may_write_to_is_sealed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert not look(str(tmp_path / "x")).sealed
    (tmp_path / "x").chmod(0o400)
    assert look(str(tmp_path / "x")).sealed
