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
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.nested.kata.plugins.filter.taken_names import FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Way, way
from ansible_runner import CHECKOUT, play

# What the inventory says, and what the facts of the host would make of it.
WAY = {"ansible_nested_via": "above", "ansible_nested_hops": ["{{ mark }}-kata"], "mark": "t"}
TRAP = {"ansible_nested_via": "trap", "ansible_nested_hops": ["trap"], "mark": "trap"}

taken_names = FilterModule().filters()["taken_names"]


def managed(path: Path, hosts: dict) -> tuple[VariableManager, HostVars]:
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(path)])
    manager = VariableManager(loader=loader, inventory=inventory)
    return manager, HostVars(inventory=inventory, variable_manager=manager, loader=loader)


def test_facts_do_not_change_the_way(tmp_path: Path) -> None:
    manager, hostvars = managed(tmp_path / "hosts.yml", {"above": {}, "tenant": WAY})
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


@pytest.mark.parametrize(
    ("role", "noted"), [("kata_proxy", "kata_proxy_host"), ("kata_instance", "kata_instance_hosts")]
)
def test_what_is_added_to_the_inventory_was_noted_by_the_role(tmp_path: Path, role: str, noted: str) -> None:
    manager, hostvars = managed(tmp_path / "hosts.yml", {"honest": {}, "liar": {}})
    manager.set_nonpersistent_facts("honest", {noted: {"via": "honest", "names": ["a"]}})
    manager.set_host_facts("liar", {noted: {"via": "localhost", "docker_command": "touch /proof", "names": ["b"]}})
    (task,) = [
        task
        for task in yaml.safe_load((CHECKOUT / "roles" / role / "tasks/inventory.yml").read_text())
        if "ansible.builtin.add_host" in task
    ]
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()}
    known = {"hostvars": hostvars, "ansible_play_batch": ["honest", "liar"], **variables}
    found = Templar(DataLoader(), variables=known).template(trust_as_template(task["loop"]))
    assert "honest" in str(found)
    assert "proof" not in str(found)
    assert len(found) == 1


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
    assert taken_names([name for name in hosts if name in ("c", "d", "b.c")], host, hosts, "names") == found
