# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a host as Ansible's own inventory, fact cache and hostvars have it, and names that belong to another
host.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.filter.noted import FilterModule as NotedFilters
from ansible_collections.nested.kata.plugins.filter.taken_names import FilterModule as NameFilters
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Way, way
from ansible_runner import CHECKOUT, play
from inventories import inventory, trusted

# What the inventory says, and what the facts of the host would make of it.
WAY = {"ansible_nested_via": "above", "ansible_nested_hops": ["{{ mark }}-kata"], "mark": "t"}
TRAP = {"ansible_nested_via": "trap", "ansible_nested_hops": ["trap"], "mark": "trap"}

taken_names = NameFilters().filters()["taken_names"]
noted = NotedFilters().filters()["noted"]


def test_facts_do_not_change_the_way() -> None:
    manager, hostvars = inventory({"above": {}, "tenant": trusted(WAY)})
    manager.set_host_facts("tenant", TRAP)
    assert way("tenant", hostvars) == Way("above", ("t-kata",))
    assert way("above", hostvars) == Way("", ())
    assert hostvars["tenant"]["ansible_facts"]["mark"] == "trap"
    manager.set_nonpersistent_facts("tenant", {"ansible_nested_via": "set-fact"})
    assert way("tenant", hostvars).via == "set-fact"


@pytest.mark.parametrize("injected", ["true", "false"])
def test_facts_do_not_change_it_in_a_play(tmp_path: Path, injected: str) -> None:
    hosts = {"above": {}, "tenant": WAY}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "lie.py").write_text(
        f"#!{sys.executable}\nprint({json.dumps({'ansible_facts': TRAP})!r})\n"
    )
    found = "{{ ('tenant' | nested.kata.way(hostvars)) | to_json }} {{ hostvars.tenant.ansible_nested_via }}"
    tasks = [{"lie": {}}, {"ansible.builtin.debug": {"msg": found}}]
    lies = [{"hosts": "tenant", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(lies))
    done = play(
        tmp_path / "play.yml",
        "-i",
        str(tmp_path / "hosts.yml"),
        ANSIBLE_INJECT_FACT_VARS=injected,
        ANSIBLE_STDOUT_CALLBACK="ansible.posix.json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)["plays"][0]["tasks"][1]["hosts"]["tenant"]["msg"]
    assert said == '{"via": "above", "hops": ["t-kata"]} ' + ("trap" if injected == "true" else "above")


def test_what_a_host_says_by_facts_was_not_noted() -> None:
    manager, hostvars = inventory({"above": {"seen": 42}, "honest": {}, "both": {}, "liar": {}, "silent": {}})
    manager.set_nonpersistent_facts("honest", {"seen": "noted"})
    manager.set_nonpersistent_facts("both", {"seen": "noted too"})
    manager.set_host_facts("both", {"seen": "trap"})
    manager.set_host_facts("liar", {"seen": "trap"})
    assert noted(["silent", "liar", "both", "honest", "above"], hostvars, "seen") == ["noted too", "noted", 42]


@pytest.mark.parametrize("role", ["kata_proxy", "kata_instance"])
def test_what_is_added_to_the_inventory_was_noted_by_the_role(role: str) -> None:
    tasks = yaml.safe_load((CHECKOUT / "roles" / role / "tasks/inventory.yml").read_text())
    (loop,) = [task["loop"] for task in tasks if "ansible.builtin.add_host" in task]
    assert loop.startswith("{{ ansible_play_batch | nested.kata.noted(hostvars, ")


def test_variables_in_which_facts_cannot_be_told_apart_are_refused() -> None:
    hostvars = inventory({"tenant": {}})[1]
    with pytest.raises(
        AnsibleFilterError, match=r"^hostvars: a dict, in which facts and variables cannot be told apart: "
    ):
        way("tenant", dict(hostvars))


def wanted(**names: dict[str, str]) -> dict:
    return {host.replace("_", "."): {"names": found} for host, found in names.items()}


@pytest.mark.parametrize(
    ("hosts", "host", "found"),
    [
        (wanted(c={"db": "db.c"}), "c", []),
        (
            {**wanted(c={"db": "db.c", "web": "web.c"}), "db.c": {"ansible_password": "secret"}},
            "c",
            ["db would be db.c in the inventory, as is another host"],
        ),
        ({**wanted(c={"db": "db.c"}), "db.c": {"ansible_nested_via": "c", "ansible_nested_hops": ["db"]}}, "c", []),
        (
            {**wanted(c={"db": "db.c"}), "db.c": {"ansible_nested_via": "d", "ansible_nested_hops": ["db"]}},
            "c",
            ["db would be db.c in the inventory, as is another host"],
        ),
        (
            wanted(c={"a.b": "a.b.c"}, b_c={"a": "a.b.c"}),
            "c",
            ["a.b would be a.b.c in the inventory, as is a on b.c"],
        ),
        (
            wanted(c={"a.b": "a.b.c"}, b_c={"a": "a.b.c"}),
            "b.c",
            ["a would be a.b.c in the inventory, as is a.b on c"],
        ),
        ({**wanted(c={"a": "a.c"}), "d": {}}, "d", []),
    ],
)
def test_a_name_of_another_host_is_taken(hosts: dict, host: str, found: list[str]) -> None:
    hostvars = inventory(hosts)[1]
    assert taken_names([name for name in hosts if name in ("c", "d", "b.c")], host, hostvars, "names") == found
