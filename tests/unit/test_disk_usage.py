# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file systems that disk images are in, and whether the images may outgrow them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.file_usage import Usage
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Loop
from ansible_collections.nested.kata.plugins.module_utils._disk.usage import (
    Room,
    files_at,
    is_attached,
    rooms_of,
    warning,
)

GIB = 1 << 30
ROOT = Mount("8:1", "/", "ext4", free=100 * GIB, size=200 * GIB, reflink=False)
DATA = Mount("/dev/sdb", "/srv", "btrfs", free=50 * GIB, size=500 * GIB, reflink=True)
LOOP = Loop("/dev/loop3", GIB)


def usage(size: int, allocated: int = 0, sealed: bool = False, mount: Mount = DATA) -> Usage:
    return Usage("/srv/x.img", size * GIB, allocated * GIB, 0, sealed, mount)


def test_images_on_one_file_system_add_up() -> None:
    assert rooms_of([usage(20), usage(5, mount=ROOT), usage(30, allocated=10), usage(9, sealed=True)]) == [
        Room(DATA, 3, 40 * GIB),
        Room(ROOT, 1, 5 * GIB),
    ]
    assert rooms_of([]) == []


@pytest.mark.parametrize(
    ("growth", "most", "too_much"),
    [
        (50, 1, False),
        (51, 1, True),
        (100, 2, False),
        (101, 2, True),
        (25, 0.5, False),
        (26, 0.5, True),
        (0, 0, False),
        (1, 0, True),
        (10**6, float("inf"), False),
    ],
)
def test_more_than_so_many_times_what_is_free_is_too_much(growth: int, most: float, too_much: bool) -> None:
    assert Room(DATA, 1, growth * GIB).is_overcommitted(most) is too_much


@pytest.mark.parametrize(
    ("room", "begin"),
    [
        (Room(DATA, 1, 60 * GIB), ": the disk image on /srv may grow by 60 GiB, and 50 GiB are free there."),
        (Room(DATA, 3, 60 * GIB), ": the 3 disk images on /srv may grow by 60 GiB, and 50 GiB are free there."),
    ],
)
def test_the_warning_says_what_is_there_and_what_to_do(room: Room, begin: str) -> None:
    assert begin in warning(room)
    assert "kata_instance_overcommit" in warning(room)


def test_a_directory_stands_for_the_images_in_it(tmp_path: Path) -> None:
    for name in ("b.img", "a.img", ".nested-kata-new-x.img", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "directory.img").mkdir()
    images = [str(tmp_path / "a.img"), str(tmp_path / "b.img")]
    assert files_at([str(tmp_path), images[0], str(tmp_path / "none.img")]) == images
    assert files_at([str(tmp_path / "notes.txt")]) == [str(tmp_path / "notes.txt")]
    with pytest.raises(Refused, match=r"^paths: 'a.img' is not an absolute path"):
        files_at(["a.img"])


@pytest.mark.parametrize(
    ("size", "loops", "attached"),
    [
        (GIB, [LOOP], True),
        (GIB, [replace(LOOP, device="/dev/loop9", direct_io=True)], True),
        (GIB + 511, [LOOP], True),  # a loop device has whole sectors
        (GIB, [], False),
        (GIB, [LOOP, replace(LOOP, device="/dev/loop4")], False),
        (GIB + 512, [LOOP], False),  # it grew
        (GIB, [replace(LOOP, read_only=True)], False),
        (GIB, [replace(LOOP, partial=True)], False),
        (GIB, [replace(LOOP, autoclear=True)], False),
        (GIB, [replace(LOOP, node=False)], False),
    ],
)
def test_a_file_is_attached_where_one_loop_device_has_all_of_it_to_write_and_to_stay(
    size: int, loops: list[Loop], attached: bool
) -> None:
    assert is_attached(size, loops) is attached
