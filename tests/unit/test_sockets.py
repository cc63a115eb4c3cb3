# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets of a Kata host: of which instances, for whom, and by which files."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.filter.instance_sockets import FilterModule as SocketFilters
from ansible_collections.nested.kata.plugins.filter.socket_files import FilterModule as FileFilters
from ansible_collections.nested.kata.plugins.plugin_utils.sockets import LONGEST_NAME
from inventories import inventory

instance_sockets = SocketFilters().filters()["instance_sockets"]
socket_files = FileFilters().filters()["socket_files"]

HOSTS = {
    "here": {},
    "proxy": {"ansible_nested_via": "here", "ansible_nested_hops": ["p"]},
    "there": {},
    "elsewhere": {"ansible_nested_via": "there", "ansible_nested_hops": ["q"]},
    "b.here": {"ansible_nested_via": "here", "ansible_nested_hops": ["b"]},
    "a.proxy": {"ansible_nested_via": "proxy", "ansible_nested_hops": ["a"], "kata_instance_group": "team_a"},
    "c.elsewhere": {"ansible_nested_via": "elsewhere", "ansible_nested_hops": ["c"]},
}
INSTANCES = ["b.here", "a.proxy", "c.elsewhere"]


def test_a_host_has_a_socket_for_each_instance_that_is_reached_from_it() -> None:
    hostvars = inventory(HOSTS)[1]
    assert instance_sockets(INSTANCES, "here", hostvars) == [
        {"name": "a", "hops": ["p", "a"], "group": "team_a"},
        {"name": "b", "hops": ["b"], "group": "nested-kata-b"},
    ]
    assert instance_sockets(INSTANCES, "there", hostvars) == [
        {"name": "c", "hops": ["q", "c"], "group": "nested-kata-c"}
    ]
    assert instance_sockets(INSTANCES, "elsewhere", hostvars) == [
        {"name": "c", "hops": ["c"], "group": "nested-kata-c"}
    ]
    assert instance_sockets([], "here", hostvars) == []


def test_an_instance_does_not_choose_its_group() -> None:
    manager, hostvars = inventory(HOSTS)
    manager.set_host_facts("b.here", {"kata_instance_group": "docker", "ansible_nested_hops": ["trap"]})
    (socket,) = instance_sockets(["b.here"], "here", hostvars)
    assert (socket["group"], socket["hops"]) == ("nested-kata-b", ["b"])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"x": {"ansible_nested_via": "here", "ansible_nested_hops": ["a"]}},
            "x and p > a would both have the socket a.sock on here: give one of the instances another name",
        ),
        (
            {"x": {"ansible_nested_via": "here", "ansible_nested_hops": ["a" * (LONGEST_NAME + 1)]}},
            f"x: its name has more than {LONGEST_NAME} characters, too many for a socket's path",
        ),
        (
            {"x": {"ansible_nested_via": "here", "ansible_nested_hops": ["Web.1"]}},
            "x: 'nested-kata-Web.1' cannot be a group of its Kata host: set kata_instance_group for it",
        ),
        (
            {"x": {"ansible_nested_via": "here", "ansible_nested_hops": ["x"], "kata_instance_group": "a\\nb"}},
            "cannot be a group",
        ),
    ],
)
def test_what_cannot_be_a_socket_is_an_error_that_names_the_instance(more: dict, reason: str) -> None:
    hostvars = inventory({**HOSTS, **more})[1]
    with pytest.raises(AnsibleFilterError) as caught:
        instance_sockets([*INSTANCES, *more], "here", hostvars)
    assert reason in str(caught.value)


def test_a_socket_is_made_by_a_unit_and_by_settings() -> None:
    settings, unit = socket_files([{"name": "a", "hops": ["p", "a"], "group": "team_a"}])
    assert settings["path"] == "/etc/nested-kata/sockets/a.json"
    assert json.loads(settings["content"]) == {"hops": ["p", "a"]}
    assert unit["path"] == "/etc/systemd/system/nested-kata-socket@a.socket"
    lines = unit["content"].splitlines()
    assert {"ListenStream=/run/nested-kata/a.sock", "SocketGroup=team_a", "SocketMode=0660"} <= {*lines}
    assert {one["socket"] for one in (settings, unit)} == {"a"}
