# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users of a release are found by what they have open and mounted."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.module_utils._kata.users import MappedFile, mapped, mounted_below

PATH = "/srv/kata/4.1.0"


def test_the_files_in_a_process_s_memory_are_read() -> None:
    maps = (
        "55d0c0a00000-55d0c0a02000 r--p 00000000 fd:01 12345                      /srv/kata/4.1.0/bin/qemu system\n"
        "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
        "7f0000001000-7f0000002000 rw-p 00000000 00:00 0                          [heap]\n"
        "7f0000002000-7f0000003000 rw-s 00000000 00:1b 99                         /dev/shm/x (deleted)\n"
    )
    assert list(mapped(maps)) == [
        MappedFile((0xFD, 1), 12345, "/srv/kata/4.1.0/bin/qemu system"),
        MappedFile((0, 0x1B), 99, "/dev/shm/x (deleted)"),
    ]


def test_what_is_mounted_below_is_read_with_its_spaces() -> None:
    mountinfo = (
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "30 22 0:40 / /srv/kata/4.1.0/my\\040share rw - tmpfs tmpfs rw\n"
        "31 22 0:41 / /srv/kata/4.1.0-old rw - tmpfs tmpfs rw\n"
        "32 22 0:42 / /srv/kata/4.1.0 rw - tmpfs tmpfs rw\n"
    )
    assert mounted_below(PATH, mountinfo) == (f"{PATH}/my share", PATH)
