# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a host as Ansible's own inventory, fact cache and hostvars have it, and names that belong to another
host.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible import constants as C
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.nested.kata.plugins.filter.taken_names import FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Way, way

taken_names = FilterModule().filters()["taken_names"]


def managed(path: Path, hosts: dict) -> tuple[VariableManager, HostVars]:
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(path)])
    manager = VariableManager(loader=loader, inventory=inventory)
    return manager, HostVars(inventory=inventory, variable_manager=manager, loader=loader)


@pytest.mark.parametrize("injected", [True, False])
def test_facts_do_not_change_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injected: bool) -> None:
    monkeypatch.setattr(C, "INJECT_FACTS_AS_VARS", injected)
    hosts = {
        "above": {},
        "tenant": {"ansible_nested_via": "above", "ansible_nested_hops": ["{{ mark }}-kata"], "mark": "t"},
    }
    manager, hostvars = managed(tmp_path / "hosts.yml", hosts)
    facts = {"ansible_nested_via": "trap", "ansible_nested_hops": ["trap"], "mark": "trap"}
    manager.set_host_facts("tenant", facts)
    assert hostvars["tenant"]["ansible_nested_via"] == ("trap" if injected else "above")
    assert way("tenant", hostvars) == Way("above", ("t-kata",))
    assert way("above", hostvars) == Way("", ())
    assert injected is C.INJECT_FACTS_AS_VARS
    manager.set_nonpersistent_facts("tenant", {"ansible_nested_via": "set-fact"})
    assert way("tenant", hostvars).via == "set-fact"


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
