# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of disk_image says what the machine has, and nothing that is only foreseen."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Content, Link, Loop
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._disk.plan import FILE, Found, Plan, foresee
from ansible_collections.nested.kata.plugins.module_utils._disk.result import result_of
from ansible_collections.nested.kata.plugins.module_utils._disk.steps import Attach, Delete, SetLink

PATH, LINK = "/disks/a.img", "/run/disks/a"
WANTED = Wanted(PATH, attached=True, link=LINK)
DETACHED = Found(kind=FILE, size=1 << 30, content=Content("btrfs", "1-2", "a"))
ATTACHED = replace(DETACHED, loops=(Loop("/dev/loop3", 1 << 30, direct_io=True),), link=Link("/dev/loop3"))


def test_a_device_that_the_kernel_will_choose_is_not_reported() -> None:
    plan = Plan((Attach(PATH), SetLink(LINK, PATH)), "it is not attached")
    result = result_of(WANTED, plan, DETACHED, foresee(DETACHED, plan))
    assert (result["changed"], result["device"], result["direct_io"], result["link"]) == (True, None, None, LINK)
    assert (result["diff"]["before"]["device"], result["diff"]["after"]["device"]) == (None, "a free loop device")


def test_an_attached_image_is_reported_with_its_device_and_link() -> None:
    result = result_of(WANTED, Plan((), "everything is as asked"), ATTACHED, ATTACHED)
    assert (result["changed"], result["device"], result["direct_io"], result["link"]) == (
        False,
        "/dev/loop3",
        True,
        LINK,
    )
    assert (result["steps"], result["msg"]) == ([], "everything is as asked")


def test_a_link_to_another_device_is_not_reported() -> None:
    assert result_of(WANTED, Plan((), ""), ATTACHED, replace(ATTACHED, link=Link("/dev/loop9")))["link"] is None


def test_nothing_is_left_of_an_image_that_is_removed() -> None:
    plan = Plan((Delete(PATH),), "the file is there")
    result = result_of(Wanted(PATH, absent=True), plan, DETACHED, foresee(DETACHED, plan))
    assert result["steps"] == [f"remove {PATH}"]
    assert {result[key] for key in ("size", "fstype", "uuid", "label", "device", "link")} == {None}
