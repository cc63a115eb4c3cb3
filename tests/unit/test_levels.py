# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, and the way to each instance."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nested.kata.plugins.filter.instance_hops import FilterModule as HopFilters
from ansible_collections.nested.kata.plugins.filter.levels import FilterModule as LevelFilters
from ansible_collections.nested.kata.plugins.filter.way import FilterModule as WayFilters
from inventories import inventory

way = WayFilters().filters()["way"]
instance_hops = HopFilters().filters()["instance_hops"]

GROUPS = {"kata_hosts": ["machine"], "kata_proxies": ["p.machine"], "kata_instances": ["kata.p.machine"]}


def levels(groups: dict, hosts: dict) -> dict:
    """Return the levels of hosts with these variables."""
    return LevelFilters().filters()["levels"](groups, inventory(hosts)[1])


def level(name: str, kind: str = "instance", **more: object) -> dict:
    """Return what the module instance_info says of a proxy or an instance."""
    memory = {"size": 4 << 30, "used": 700 << 20, "held": 3 << 29}
    said = {"kernel": "6.12", "version": "26.1.5", "driver": "btrfs", "running": 0, "memory": memory}
    runtime = "kata" if kind == "instance" else "runc"
    return {
        "name": name,
        "kind": kind,
        "state": "running",
        "reason": "",
        "runtime": runtime,
        "ends": [],
        **said,
        **more,
    }


def has(*there: dict) -> dict:
    return {"nested_kata_found": {"error": "", "levels": list(there)}}


def hostvars(**kata: object) -> dict:
    docker = {"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": 1}
    return {
        "machine": {
            "nested_kata_docker": {"rc": 0, "stdout": json.dumps(docker)},
            "nested_kata_kernel": {"rc": 0, "stdout": "6.12"},
            **has(level("p", "proxy", running=1)),
        },
        "p.machine": {
            "ansible_nested_via": "machine",
            "ansible_nested_hops": ["p"],
            **has(level("kata", **kata)),
        },
        "kata.p.machine": {"ansible_nested_via": "p.machine", "ansible_nested_hops": ["kata"]},
    }


def test_each_level_has_a_row_in_the_order_of_the_levels() -> None:
    found = levels(GROUPS, hostvars())
    assert found["rows"] == [
        ["machine", "machine", "running", "6.12", "26.1.5", "btrfs", 1, "-"],
        ["proxy", "p", "running", "6.12", "26.1.5", "btrfs", 1, "container"],
        ["instance", "kata", "running", "6.12", "26.1.5", "btrfs", 0, "VM (kata)"],
    ]
    assert [found[key] for key in ("broken", "ends", "disks", "missing", "standin")] == [[], [], [], [], False]


def test_an_instance_under_runc_is_not_taken_for_isolated() -> None:
    found = levels(GROUPS, hostvars(runtime="runc"))
    assert found["rows"][-1][-1] == "none: runc, the stand-in for Kata"
    assert found["standin"] is True


def test_those_of_no_inventory_have_rows_too() -> None:
    found = levels({"kata_hosts": ["machine"]}, {"machine": {**hostvars()["machine"], **has(level("ci"), level("db"))}})
    assert [row[:2] for row in found["rows"]] == [["machine", "machine"], ["instance", "ci"], ["instance", "db"]]


@pytest.mark.parametrize("state", ["stopped", "silent", "broken", "foreign"])
def test_one_that_does_not_run_as_it_should_has_a_row(state: str) -> None:
    found = levels(GROUPS, hostvars(state=state, reason="it \x1bhangs" if state == "silent" else ""))
    isolation = "-" if state == "foreign" else "VM (kata)"
    assert found["rows"][-1] == ["instance", "kata", state, "-", "-", "-", "-", isolation]
    assert found["broken"] == ([["kata", "it \\x1bhangs"]] if state == "silent" else [])
    assert [row[1] for row in found["memory"]] == (["kata"] if state in ("silent", "broken") else [])


def test_one_of_the_inventory_that_its_target_does_not_have_is_missing() -> None:
    hosts = {**hostvars(), "p.machine": {**hostvars()["p.machine"], **has(level("other"))}}
    assert [row[1:3] for row in levels(GROUPS, hosts)["rows"]] == [
        ["machine", "running"],
        ["p", "running"],
        ["other", "running"],
        ["kata", "missing"],
    ]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"unreachable": True, "msg": "Cannot\x07 connect"}, "Cannot\\x07 connect"),
        ({"error": "Docker is not there", "levels": []}, "Docker is not there"),
        ({"failed": True, "msg": "no Python"}, "no Python"),
    ],
)
def test_where_a_target_does_not_answer_nothing_is_known_of_what_is_there(result: dict, why: str) -> None:
    hosts = {**hostvars(), "p.machine": {**hostvars()["p.machine"], "nested_kata_found": result}}
    found = levels(GROUPS, hosts)
    assert found["rows"][-1] == ["instance", "kata", "unknown", "-", "-", "-", "-", "-"]
    assert found["broken"] == [["p", why]]


def test_a_level_that_was_not_looked_at_is_left_out() -> None:
    hosts = hostvars()
    del hosts["machine"]["nested_kata_docker"], hosts["p.machine"]["nested_kata_found"]
    assert [row[0] for row in levels(GROUPS, hosts)["rows"]] == ["proxy"]


def test_memory_is_what_was_given_what_the_guest_uses_and_what_the_target_holds() -> None:
    memory = {"size": 0, "used": None, "held": None}
    hosts = {**hostvars(), "p.machine": {**hostvars()["p.machine"], **has(level("kata"), level("ci", memory=memory))}}
    assert levels(GROUPS, hosts)["memory"] == [
        ["p", "kata", "4.00 GB", "700.00 MB", "1.50 GB"],
        ["p", "ci", "-", "-", "-"],
    ]


def test_the_last_end_of_an_instance_is_shown() -> None:
    ends = [
        {"at": "2026-11-30T11:00:00+00:00", "reason": "it ended (exit status 1)", "status": 1, "lines": []},
        {"at": "2026-11-30T12:34:56+00:00", "reason": "it hung", "status": 137, "lines": ["one", "l\x1bast"]},
    ]
    assert levels(GROUPS, hostvars(ends=ends))["ends"] == [["p", "kata", "2026-11-30 12:34:56", "it hung", "l\\x1bast"]]
    assert levels(GROUPS, hostvars(ends=ends[:1]))["ends"][0][-1] == "-"


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
def test_a_machine_that_gives_no_useful_answer_is_shown_as_broken_beside_the_others(case: str) -> None:
    facts, why = BROKEN[case]
    hosts = hostvars()
    hosts["machine"].pop("nested_kata_kernel")
    hosts["machine"].update(facts)
    found = levels(GROUPS, hosts)
    assert found["rows"][0] == ["machine", "machine", "broken", "-", "-", "-", "-", "-"]
    assert [row[2] for row in found["rows"][1:]] == ["running", "running"]
    ((name, reason),) = found["broken"]
    assert name == "machine"
    assert why in reason
    assert reason.isprintable()


def test_what_a_machine_says_of_itself_is_visible_and_short() -> None:
    hosts = hostvars()
    said = json.dumps({**INFO, "ServerVersion": "26\x1b[31m\u202e", "Driver": "b" * 1000})
    hosts["machine"].update(docker(said, "6.12\x07"))
    row = levels(GROUPS, hosts)["rows"][0]
    assert row[3:5] == ["6.12\\x07", "26\\x1b[31m\\u202e"]
    assert len(row[5]) == 60


def test_an_inventory_without_the_groups_has_no_level() -> None:
    tables = ("rows", "broken", "memory", "ends", "disks", "differences", "missing")
    assert levels({"all": ["x"]}, {}) == {**{table: [] for table in tables}, "standin": False}


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


@pytest.mark.parametrize(("disk", "grew"), [(None, False), (10 << 30, True), (18 << 30, True), (19 << 30, False)])
def test_a_disk_that_its_guest_does_not_see_grown_yet_differs(disk: int | None, grew: bool) -> None:
    image = {"path": "/var/lib/nested-kata/disks/kata.img", "allocated": 0, "shared": 0, "growth": 0}
    hosts = hostvars(disk=disk)
    hosts["p.machine"]["nested_kata_disks"] = {"images": [{**image, "size": 20 << 30}]}
    rows = [["p", "kata", "disk, until a restart", f"{(disk or 0) >> 30}.00 GB", "20.00 GB"]]
    assert levels(GROUPS, hosts)["differences"] == rows * grew


@pytest.mark.parametrize(
    ("disk", "wanted", "size"),
    [(10 << 30, 20 << 30, "20.00"), (10 << 30, 60 << 30, "40.00"), (10 << 30, None, "40.00"), (20 << 30, 20 << 30, "")],
)
def test_a_file_system_that_is_not_as_large_as_wanted_differs(disk: int, wanted: int | None, size: str) -> None:
    image = {"path": "/var/lib/nested-kata/disks/kata.img", "allocated": 0, "shared": 0, "growth": 0, "size": 40 << 30}
    hosts = hostvars(disk=disk, disk_wanted=wanted)
    hosts["p.machine"]["nested_kata_disks"] = {"images": [image]}
    rows = [["p", "kata", "disk, until a restart", "10.00 GB", f"{size} GB"]]
    assert levels(GROUPS, hosts)["differences"] == (rows if size else [])


def test_what_was_left_as_it_is_is_shown_with_both_values() -> None:
    memory = {"item": "memory", "is": ["4 GiB"], "would_be": ["8 GiB"]}
    devices = {"item": "device", "is": [], "would_be": ["/dev/kvm", "/dev/vhost-net"]}
    notes = {"stdout_lines": [json.dumps({"name": name, "differences": [memory, devices]}) for name in ("web", "db")]}
    notes["stdout_lines"] += ["{", "[]", '{"name": "web"}', "5"]
    hosts = hostvars()
    hosts["p.machine"]["nested_kata_differences"] = notes
    found = levels(GROUPS, hosts)
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
    hosts = hostvars()
    hosts["machine"]["kata_preflight_look"] = {"findings": findings}
    assert levels(GROUPS, hosts)["missing"] == ["kvm: load it"]


WAYS = inventory(
    {
        "here": {},
        "proxy": {"ansible_nested_via": "here", "ansible_nested_hops": ["p"]},
        "there": {},
        "elsewhere": {"ansible_nested_via": "there", "ansible_nested_hops": ["q"]},
        "a": {"ansible_nested_via": "here", "ansible_nested_hops": ["a"]},
        "b": {"ansible_nested_via": "proxy", "ansible_nested_hops": ["b"]},
        "c": {"ansible_nested_via": "elsewhere", "ansible_nested_hops": ["c"]},
    }
)[1]


def test_the_way_of_a_host_that_is_no_container_is_empty() -> None:
    assert way("b", WAYS) == {"via": "proxy", "hops": ["b"]}
    assert way("here", WAYS) == {"via": "", "hops": []}


def test_an_instance_is_reached_from_its_machine_and_from_no_other() -> None:
    assert instance_hops(["a", "b", "c"], "here", WAYS) == [{"hops": ["a"]}, {"hops": ["p", "b"]}]
    assert instance_hops(["a", "b", "c"], "there", WAYS) == [{"hops": ["q", "c"]}]
    assert instance_hops([], "here", WAYS) == []
