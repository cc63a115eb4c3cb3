# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, and the way to each instance."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nested.kata.plugins.filter.containers_on import FilterModule as ContainerFilters
from ansible_collections.nested.kata.plugins.filter.instance_hops import FilterModule as HopFilters
from ansible_collections.nested.kata.plugins.filter.levels import FilterModule as LevelFilters
from ansible_collections.nested.kata.plugins.filter.way import FilterModule as WayFilters

levels = LevelFilters().filters()["levels"]
containers_on = ContainerFilters().filters()["containers_on"]
way = WayFilters().filters()["way"]
instance_hops = HopFilters().filters()["instance_hops"]

GROUPS = {"kata_hosts": ["machine"], "kata_proxies": ["p.machine"], "kata_instances": ["kata.p.machine"]}


def known(running: int, via: str = "", hops: tuple[str, ...] = (), **more: object) -> dict:
    """Return the variables of a host whose Docker was reached."""
    docker = {
        "rc": 0,
        "stdout": json.dumps({"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": running}),
    }
    return {
        "nested_kata_docker": docker,
        "nested_kata_kernel": {"rc": 0, "stdout": "6.12"},
        **({"ansible_nested_via": via, "ansible_nested_hops": list(hops)} if hops else {}),
        **more,
    }


def hostvars(runtime: str = "kata") -> dict:
    return {
        "machine": known(1, **containers("/p runc")),
        "p.machine": known(1, "machine", ("p",), **containers("/other runc", f"/kata {runtime}")),
        "kata.p.machine": known(0, "p.machine", ("kata",), **containers("/kata kata")),
    }


def containers(*lines: str) -> dict:
    return {"nested_kata_runtimes": {"stdout_lines": list(lines)}}


def test_each_level_has_a_row_in_the_order_of_the_levels() -> None:
    found = levels(GROUPS, hostvars())
    assert found["rows"] == [
        ["machine", "machine", "6.12", "26.1.5", "btrfs", 1, "-"],
        ["proxy", "p", "6.12", "26.1.5", "btrfs", 1, "container"],
        ["instance", "kata", "6.12", "26.1.5", "btrfs", 0, "VM (kata)"],
    ]
    assert (found["disks"], found["missing"], found["standin"]) == ([], [], False)


def test_an_instance_under_runc_is_not_taken_for_isolated() -> None:
    found = levels(GROUPS, hostvars("runc"))
    assert found["rows"][-1][-1] == "none: runc, the stand-in for Kata"
    assert found["standin"] is True


def test_an_instance_that_the_level_above_does_not_know_is_not_taken_for_isolated() -> None:
    hosts = hostvars()
    hosts["p.machine"].update(containers("", "/kata", "/other runc"))
    assert levels(GROUPS, hosts)["rows"][-1][-1] == "unknown"


def test_a_level_that_was_not_looked_at_is_left_out() -> None:
    hosts = hostvars()
    del hosts["p.machine"]["nested_kata_docker"]
    assert [row[0] for row in levels(GROUPS, hosts)["rows"]] == ["machine", "instance"]


def docker(stdout: str, kernel: str = "6.12") -> dict:
    return {"nested_kata_kernel": {"rc": 0, "stdout": kernel}, "nested_kata_docker": {"rc": 0, "stdout": stdout}}


INFO = {"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": 1}
BROKEN = {
    "it was not reached": (
        {"nested_kata_docker": {"unreachable": True, "msg": "no such container"}},
        "no such container",
    ),
    "its kernel is not told": ({"nested_kata_docker": {}, "nested_kata_kernel": {"msg": "Timed out"}}, "Timed out"),
    "its Docker fails": (
        {**docker(""), "nested_kata_docker": {"rc": 1, "msg": "non-zero return code", "stderr_lines": ["\x1b[2Jx"]}},
        "\\x1b[2Jx",
    ),
    "nothing": (docker(""), "not valid JSON"),
    "a list": (docker("[]"), "is not an object"),
    "a deep list": (docker("[" * 100_000), "not valid JSON"),
    "other types": (docker(json.dumps({**INFO, "Driver": ["btrfs"]})), "Driver is not a text"),
    "a number that is none": (docker(json.dumps({**INFO, "ContainersRunning": "many"})), "ContainersRunning is many"),
    "a negative number": (docker(json.dumps({**INFO, "ContainersRunning": -1})), "ContainersRunning is -1"),
    "a result with an item that is none": ({"nested_kata_docker": {"rc": 1, "results": [1]}}, "no reason given"),
    "a result with lines that are none": (
        {"nested_kata_docker": {"rc": 1, "msg": "non-zero return code", "stderr_lines": [1], "stdout_lines": 2}},
        "1",
    ),
    "no text": ({**docker(""), "nested_kata_docker": {"rc": 0, "stdout": 5}}, "what its Docker says is not a text: 5"),
    "no answer": ({**docker(""), "nested_kata_docker": {"rc": 0}}, "what its Docker says is not a text"),
    "too little": (docker("{}"), "ServerVersion is not a text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_instance_that_gives_no_useful_answer_is_shown_as_broken_beside_the_others(case: str) -> None:
    facts, why = BROKEN[case]
    hosts = hostvars()
    hosts["kata.p.machine"].pop("nested_kata_kernel")
    hosts["kata.p.machine"].update(facts)
    found = levels(GROUPS, hosts)
    assert found["rows"][-1] == ["instance", "kata", "-", "broken", "-", "-", "VM (kata)"]
    assert [row[3] for row in found["rows"][:-1]] == ["26.1.5", "26.1.5"]
    ((name, reason),) = found["broken"]
    assert name == "kata"
    assert why in reason
    assert reason.isprintable()


def test_what_an_instance_says_of_itself_is_visible_and_short() -> None:
    hosts = hostvars()
    said = json.dumps({**INFO, "ServerVersion": "26\x1b[31m\u202e", "Driver": "b" * 1000})
    hosts["kata.p.machine"].update(docker(said, "6.12\x07"))
    row = levels(GROUPS, hosts)["rows"][-1]
    assert row[2:4] == ["6.12\\x07", "26\\x1b[31m\\u202e"]
    assert len(row[4]) == 60


def test_an_inventory_without_the_groups_has_no_level() -> None:
    empty: dict = {"rows": [], "broken": [], "disks": [], "differences": [], "missing": [], "standin": False}
    assert levels({"all": ["x"]}, {}) == empty


def test_disks_are_those_of_machines_and_proxies_with_sizes_to_read() -> None:
    image = {
        "path": "/var/lib/nested-kata/disks/kata.img",
        "size": 20 << 30,
        "allocated": 1 << 30,
        "shared": 0,
        "growth": 19 << 30,
    }
    everywhere = {name: {**facts, "nested_kata_disks": {"images": [image]}} for name, facts in hostvars().items()}
    cells = ["disks/kata.img", "20.00 GB", "1.00 GB", "0.00 Bytes", "19.00 GB"]
    assert levels(GROUPS, everywhere)["disks"] == [["machine", *cells], ["p", *cells]]


def test_what_was_left_as_it_is_is_shown_with_both_values() -> None:
    memory = {"item": "memory", "is": ["4 GiB"], "would_be": ["8 GiB"]}
    devices = {"item": "device", "is": [], "would_be": ["/dev/kvm", "/dev/vhost-net"]}
    notes = {"stdout_lines": [json.dumps({"name": name, "differences": [memory, devices]}) for name in ("web", "db")]}
    found = levels(GROUPS, {**hostvars(), "p.machine": known(1, "machine", ("p",), nested_kata_differences=notes)})
    assert found["differences"] == [
        ["p", name, *cells]
        for name in ("db", "web")
        for cells in (["memory", "4 GiB", "8 GiB"], ["device", "-", "/dev/kvm, /dev/vhost-net"])
    ]


def test_what_is_missing_for_kata_are_the_errors_of_the_machines() -> None:
    findings = [
        {"id": "kvm", "ok": False, "severity": "error", "remedy": "load it"},
        {"id": "memory", "ok": False, "severity": "warning", "remedy": "more"},
        {"id": "tun", "ok": True, "severity": "error", "remedy": ""},
    ]
    assert levels(GROUPS, {**hostvars(), "machine": known(0, kata_preflight_look={"findings": findings})})[
        "missing"
    ] == ["kvm: load it"]


WAYS = {
    "here": {},
    "proxy": {"ansible_nested_via": "here", "ansible_nested_hops": ["p"]},
    "there": {},
    "elsewhere": {"ansible_nested_via": "there", "ansible_nested_hops": ["q"]},
    "a": {"ansible_nested_via": "here", "ansible_nested_hops": ["a"]},
    "b": {"ansible_nested_via": "proxy", "ansible_nested_hops": ["b"]},
    "c": {"ansible_nested_via": "elsewhere", "ansible_nested_hops": ["c"]},
}


def test_containers_of_a_host_are_reached_by_one_hop_from_it() -> None:
    deep = {"deep": {"ansible_nested_via": "here", "ansible_nested_hops": ["p", "b"]}}
    assert containers_on([*WAYS, "deep"], "here", {**WAYS, **deep}) == ["p", "a"]
    assert containers_on(WAYS, "b", WAYS) == []


def test_the_way_of_a_host_that_is_no_container_is_empty() -> None:
    assert way("b", WAYS) == {"via": "proxy", "hops": ["b"]}
    assert way("here", WAYS) == {"via": "", "hops": []}


def test_an_instance_is_reached_from_its_machine_and_from_no_other() -> None:
    assert instance_hops(["a", "b", "c"], "here", WAYS) == [{"hops": ["a"]}, {"hops": ["p", "b"]}]
    assert instance_hops(["a", "b", "c"], "there", WAYS) == [{"hops": ["q", "c"]}]
    assert instance_hops([], "here", WAYS) == []
