# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes with Docker: which Kata, its runtimes, and the kernel modules."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.docker_for_kata import FilterModule as FitFilters
from ansible_collections.nested.kata.plugins.filter.docker_runtimes import FilterModule as RuntimeFilters
from ansible_collections.nested.kata.plugins.filter.kernel_module_sign import FilterModule as SignFilters

docker_for_kata = FitFilters().filters()["docker_for_kata"]
docker_runtimes = RuntimeFilters().filters()["docker_runtimes"]
kernel_module_sign = SignFilters().filters()["kernel_module_sign"]


@pytest.mark.parametrize(
    ("docker", "kata"),
    [
        ("25.0.5", None),
        ("20.10.24+dfsg1", None),
        ("dev", None),
        ("26.0.0", "3.30"),
        ("26.1.5+dfsg1", "3.30"),
        ("29.4.9", "3.30"),
        ("29.5.0", "3.32"),
        ("30.0.0", "3.32"),
    ],
)
def test_the_oldest_kata_for_a_docker(docker: str, kata: str | None) -> None:
    assert docker_for_kata(docker)["kata"] == kata


def test_what_goes_together_is_told_from_the_oldest_docker_on() -> None:
    found = docker_for_kata("26.0.0")
    assert found["oldest"] == found["pairs"][0][0] == "26"
    assert found["pairs"] == [["26", "3.30"], ["29.5", "3.32"]]


def test_runtimes_are_registered_and_those_not_wanted_are_removed() -> None:
    found = docker_runtimes(["kata", "big"], shim="/s", home="/etc/k", version="4.1.0", unwanted=["old", "big"])
    assert found == {
        "old": None,
        "kata": {"runtimeType": "/s", "options": {"ConfigPath": "/etc/k/kata/4.1.0/configuration.toml"}},
        "big": {"runtimeType": "/s", "options": {"ConfigPath": "/etc/k/big/4.1.0/configuration.toml"}},
    }


@pytest.mark.parametrize(
    ("module", "sign"),
    [
        ("vhost_vsock", "/dev/vhost-vsock"),
        ("vhost_net", "/dev/vhost-net"),
        ("tun", "/dev/net/tun"),
        ("loop", "/dev/loop-control"),
        ("kvm", "/sys/module/kvm"),
        ("overlay", "/sys/module/overlay"),
    ],
)
def test_a_module_s_sign_is_its_device_where_it_alone_brings_one(module: str, sign: str) -> None:
    assert kernel_module_sign(module) == sign
