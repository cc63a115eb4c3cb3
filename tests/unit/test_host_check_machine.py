# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processor, modules, drivers and cgroups are read."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host.check_machine import (
    cpu_flags,
    misc_names,
    module_names,
    read_cgroup,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu vmx sse\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n",
            {"fpu", "vmx", "sse"},
        ),
        ("processor\t: 0\nvmx flags\t: vnmi ept\nflags\t\t: fpu svm\n", {"fpu", "svm"}),
        ("processor\t: 0\nFeatures\t: fp asimd\n", set()),
        ("", set()),
    ],
)
def test_flags_are_those_of_the_first_processor(text: str, names: set[str]) -> None:
    assert cpu_flags(text) == names


MODULES_DEP = """\
kernel/drivers/vhost/vhost_net.ko.xz: kernel/drivers/net/tun.ko.xz kernel/drivers/vhost/vhost.ko.xz
kernel/drivers/vhost/vhost.ko.xz:
kernel/drivers/net/tun.ko.zst:
kernel/net/snd-pcm.ko:
"""


def test_modules_are_those_that_modules_dep_has_in_front() -> None:
    assert module_names(MODULES_DEP) == {"vhost_net", "vhost", "tun", "snd_pcm"}
    assert module_names("") == set()


def test_drivers_are_the_second_column_of_proc_misc() -> None:
    assert misc_names("238 vhost-net\n 200 tun\n\n232 kvm\n") == {"vhost-net", "tun", "kvm"}


V2 = "28 24 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n"
    "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


@pytest.mark.parametrize(
    ("mountinfo", "version", "holds", "lacks"),
    [
        (V2, 2, {"cpu", "memory"}, {"pids"}),
        (V1, 1, {"cpu", "cpuacct", "memory"}, {"pids"}),
        ("", 0, set(), {"cpu"}),
        ("nonsense\n", 0, set(), {"cpu"}),
    ],
)
def test_cgroups_are_version_2_only_where_it_is_mounted_for_all(
    mountinfo: str, version: int, holds: set, lacks: set
) -> None:
    cgroup = read_cgroup(mountinfo, "cpu memory\n")
    assert cgroup.version == version
    assert holds <= cgroup.controllers
    assert not lacks & cgroup.controllers
