# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of disk_image are parsed, or refused with the option, what was found and what to do."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted, parse

G = 1024**3
PATH = "/disks/kata.img"
LINK = "/run/disks/kata"
GOLDEN_PATH = "/golden/web.img"
UUID = "7d57472b-5630-4e76-9191-1ca5e456a9da"
OPTIONS = {
    "path": PATH,
    "size": None,
    "filesystem_size": None,
    "fstype": "btrfs",
    "label": None,
    "uuid": None,
    "attached": None,
    "link": None,
    "owner": None,
    "group": None,
    "mode": None,
    "state": "present",
    "mkfs_options": None,
    "allocation": None,
    "clone_of": None,
    "resizefs": True,
    "sealed": None,
    "trim": False,
    "any_content": False,
}
BAD_OPTIONS = {
    "a relative path": ({"path": "kata.img"}, "path: 'kata.img' is not the absolute path"),
    "a path that ends in a slash": ({"path": "/disks/"}, "path: '/disks/' is not the absolute path of a file"),
    "a relative link": ({"link": "kata", "attached": True}, "link: 'kata' is not the absolute path"),
    "a link for nothing": ({"link": LINK}, "link: names the loop device, so it needs attached: true"),
    "attached and absent": ({"attached": True, "state": "absent"}, "attached: true cannot go with state: absent"),
    "no size": ({"size": "big"}, "size: 'big' is not a valid size: write it like 10G"),
    "no size of the file system": (
        {"filesystem_size": "big", "resizefs": False},
        "filesystem_size: 'big' is not a valid size",
    ),
    "a part for a file system that fills its file": (
        {"size": "10G", "filesystem_size": "1G"},
        "filesystem_size: goes with resizefs: false",
    ),
    "a file system of any size": (
        {"filesystem_size": "1G", "resizefs": False, "any_content": True, "attached": False},
        "any_content: true cannot go with filesystem_size",
    ),
    "no UUID": ({"uuid": "kata"}, "uuid: 'kata' is not a UUID"),
    "a label too long for ext4": (
        {"label": "a" * 17, "fstype": "ext4"},
        "is not a valid label for ext4: 1 to 16 characters",
    ),
    "a label of two lines": ({"label": "a\nb"}, "is not a valid label for btrfs"),
    "an empty label": ({"label": ""}, "is not a valid label for btrfs"),
    "an owner that nobody is": ({"owner": "nobody-of-that-name"}, "owner: there is no 'nobody-of-that-name'"),
    "a group that nobody is in": ({"group": "nobody-of-that-name"}, "group: there is no"),
    "a symbolic mode": ({"mode": "u=rw"}, "mode: 'u=rw' is not a valid mode"),
    "a decimal mode": ({"mode": "0800"}, "mode: '0800' is not a valid mode"),
    "a relative golden image": ({"clone_of": "web.img"}, "clone_of: 'web.img' is not the absolute path"),
    "a clone of itself": ({"clone_of": f"/disks/../{PATH}"}, "clone_of: is the path itself"),
    "options for a file system that is cloned": (
        {"clone_of": GOLDEN_PATH, "mkfs_options": ["-f"]},
        "mkfs_options: are for a new file system",
    ),
    "a device in mkfs_options": (
        {"mkfs_options": ["-f", "/dev/sda"]},
        "mkfs_options: '/dev/sda' may name another file or device",
    ),
    "an external journal": (
        {"mkfs_options": ["-J", "device=/dev/sda"]},
        "mkfs_options: 'device=/dev/sda' may name another",
    ),
    "a second word after an option": (
        {"mkfs_options": ["-m", "single", "sda"]},
        "mkfs_options: 'sda' may name another file or device",
    ),
    "a first word that is no option": ({"mkfs_options": ["sda"]}, "mkfs_options: 'sda' may name"),
    "a preallocated clone": (
        {"allocation": "preallocated", "clone_of": GOLDEN_PATH},
        "allocation: preallocated cannot go with clone_of",
    ),
    "trimming what is allocated": (
        {"allocation": "preallocated", "trim": True},
        "allocation: preallocated cannot go with trim",
    ),
    "trimming what is attached": ({"attached": True, "trim": True}, "trim: true cannot go with attached: true"),
    "sealing what is attached": ({"attached": True, "sealed": True}, "sealed: true cannot go with attached: true"),
    "sealing what is removed": ({"state": "absent", "sealed": True}, "sealed: true cannot go with state: absent"),
    "a mode that seals": ({"mode": "0400"}, "mode: 0400 allows no writing, which seals an image: set sealed: true"),
    "a mode that opens what is to be sealed": (
        {"mode": "0600", "sealed": True},
        "mode: 0600 allows writing, and sealed: true does not",
    ),
    "a label too long for xfs": (
        {"label": "a" * 13, "fstype": "xfs"},
        "is not a valid label for xfs: 1 to 12 characters",
    ),
    "any content of an image that is made": ({"any_content": True}, "any_content: true needs state: absent, or"),
    "any content and a size": (
        {"any_content": True, "attached": False, "size": "1G"},
        "any_content: true cannot go with size",
    ),
    "any content and a UUID": (
        {"any_content": True, "state": "absent", "uuid": UUID},
        "any_content: true cannot go with uuid",
    ),
    "a truth as mode": ({"mode": True}, "mode: 'True' is not a valid mode"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_that_cannot_be_meant_are_refused(case):
    options, message = BAD_OPTIONS[case]
    with pytest.raises(Refused) as refusal:
        parse({**OPTIONS, **options})
    assert message in str(refusal.value)


def test_options_become_what_is_wanted():
    options = {
        **OPTIONS,
        "size": "10G",
        "uuid": UUID.upper(),
        "label": "a b",
        "attached": True,
        "link": LINK,
        "owner": "root",
        "group": "12",
        "mode": "0640",
    }
    assert parse(options) == Wanted(PATH, "btrfs", 10 * G, "a b", UUID, True, LINK, 0, 12, 0o640)
    assert parse({**OPTIONS, "mode": 0o600}).mode == 0o600
    assert parse({**OPTIONS, "path": "/disks/../disks//kata.img"}).path == PATH
