# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of kata_instance_list, and what is derived from them."""

from __future__ import annotations

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.nested.kata.plugins.filter.instance_disks import FilterModule as DiskFilters
from ansible_collections.nested.kata.plugins.filter.instance_entries import FilterModule as EntryFilters
from ansible_collections.nested.kata.plugins.filter.removable_instances import FilterModule as RemovalFilters
from ansible_collections.nested.kata.plugins.plugin_utils.merge import merged
from ansible_runner import CHECKOUT

instance_entries = EntryFilters().filters()["instance_entries"]
instance_disks = DiskFilters().filters()["instance_disks"]
removable_instances = RemovalFilters().filters()["removable_instances"]

DEFAULTS = {"memory": "4g", "disk": {"size": "20G", "fstype": "btrfs"}, "images": ["debian"]}
# what an entry sets, what differs from the defaults then
ENTRIES = [
    ({}, {}),
    ({"memory": "1g"}, {"memory": "1g"}),
    ({"disk": {"size": "5G"}}, {"disk": {"size": "5G", "fstype": "btrfs"}}),
    ({"disk": {"clone_of": "golden"}}, {"disk": {"size": "20G", "fstype": "btrfs", "clone_of": "golden"}}),
    ({"images": []}, {"images": []}),
    ({"state": "absent", "purge": True}, {"state": "absent", "purge": True}),
]


@pytest.mark.parametrize(("entry", "differs"), ENTRIES)
def test_an_entry_gets_what_it_leaves_out_and_nothing_else_changes(entry: dict, differs: dict) -> None:
    defaults = {**DEFAULTS, "disk": dict(DEFAULTS["disk"])}
    assert instance_entries([{"name": "web", **entry}], defaults) == [
        {"state": "present", "purge": False, **DEFAULTS, "name": "web", **differs}
    ]
    assert defaults == DEFAULTS


def test_without_defaults_an_entry_is_present_and_keeps_its_disk() -> None:
    assert instance_entries([{"name": "web"}]) == [{"name": "web", "state": "present", "purge": False}]


@pytest.mark.parametrize(
    ("tables", "result"),
    [
        ([], {}),
        ([{"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}], {"a": {"b": 1, "c": [2]}}),
        ([{"a": 1}, {"a": {"b": 1}}], {"a": {"b": 1}}),
        ([{"a": {"b": 1}}, {"a": 1}, {"d": None}], {"a": 1, "d": None}),
    ],
)
def test_tables_are_merged_deeply_and_the_rest_is_replaced(tables: list[dict], result: dict) -> None:
    assert merged(*tables) == result


def test_disks_are_sparse_as_large_as_they_may_become_and_have_the_names_of_their_instances() -> None:
    entries = [
        {"name": "a"},
        {"name": "b", "disk": {"size": "1T"}},
        {"name": "c", "disk": {"size": "1T", "max_size": "2T"}},
        {"name": "d", "disk": {"max_size": ""}},
    ]
    sizes = {"a": "20G", "b": "1T", "c": "2T", "d": "20G"}
    assert instance_disks(instance_entries(entries, DEFAULTS), "/disks") == [
        {"path": f"/disks/{name}.img", "size": size, "sparse": True, "purpose": name} for name, size in sizes.items()
    ]


SETTINGS, DISKS = "/etc/nested-kata/instances", "/var/lib/nested-kata/disks"
LEFT = {
    "an instance": ([("web", "web")], ["web"], ["web"], ["web"]),
    "one whose name has dots": ([("a.b", "a.b")], ["a.b"], ["a.b"], ["a.b"]),
    "a container of an image that was made from one": ([("mine", "web")], [], [], []),
    "the same, where the instance is there too": ([("mine", "web"), ("web", "web")], ["web"], ["web"], ["web"]),
    "a container that only bears the label": ([("web", "web")], [], [], []),
    "a stranger that has the name": ([("web", None)], ["web"], ["web"], []),
    "a proxy and others": ([("proxy", None), ("mine", None)], [], [], []),
    "one without a container": ([], ["web"], ["web"], ["web"]),
    "one of which only the disk is left": ([], [], ["web"], ["web"]),
    "a container that makes a golden disk": ([("nested-kata-golden-x",) * 2], [], [], ["nested-kata-golden-x"]),
    "one whose settings were not written yet": ([("web", "web")], [], ["web"], ["web"]),
    "a container that is being removed": ([("", "web")], [], [], []),
    "several": ([("b", "b"), ("a", "a")], ["b", "a"], ["c", "b"], ["a", "b", "c"]),
}


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_of_instances_is_removed_and_nothing_else(case: str, purge: bool) -> None:
    found, settings, disks, names = LEFT[case]
    containers = [
        {"Names": [f"/{name}"] if name else None, "Labels": label and {"nested.kata.instance": label}}
        for name, label in found
    ]
    settings = [f"{SETTINGS}/{name}.env" for name in settings]
    disks = [f"{DISKS}/{name}.img" for name in disks]
    entries = removable_instances(containers, settings=settings, disks=disks, purge=purge)
    assert entries == [{"name": name, "state": "absent", "purge": purge} for name in names]


@pytest.mark.parametrize(
    ("on", "order"),
    [
        ({"a": "b", "b": "c", "c": "d"}, "abcd"),  # each on the own network of the next one
        ({"d": "c", "c": "b", "b": "a"}, "dcba"),
        ({"b": "a", "d": "a"}, "bcda"),
        ({"a": "b", "b": "a", "c": "d"}, "cdab"),  # one of a circle is refused, and named
        ({"b": "stranger"}, "abcd"),
    ],
)
def test_instances_on_the_network_of_another_one_are_removed_before_it(on: dict[str, str], order: str) -> None:
    containers = [
        {
            "Names": [f"/{name}"],
            "Labels": {"nested.kata.instance": name},
            "NetworkSettings": {"Networks": {f"nested-kata-{on.get(name, name)}": {}}},
        }
        for name in "abcd"
    ]
    entries = removable_instances(containers, settings=[f"{SETTINGS}/{name}.env" for name in "abcd"], disks=[])
    assert [entry["name"] for entry in entries] == list(order)


@pytest.mark.parametrize(
    ("found", "option", "pool"),
    [
        ({}, "", "planned"),
        ({"web": {"made_from": {}}}, "", "planned"),
        ({"other": {"made_from": {"label nested.kata.address_pool": ["10.9.0.0/16"]}}}, "", "planned"),
        ({"web": {"made_from": {"label nested.kata.address_pool": ["10.1.0.0/16"]}}}, "", "10.1.0.0/16"),
        ({"web": {"made_from": {"label nested.kata.address_pool": ["10.1.0.0/16"]}}}, "10.2.0.0/16", "10.2.0.0/16"),
    ],
)
def test_an_instance_keeps_the_addresses_that_its_label_has(found: dict, option: str, pool: str) -> None:
    roles = yaml.safe_load((CHECKOUT / "roles/kata_instance/vars/main.yml").read_text())
    names = ("kata_instance_existing", "kata_instance_made", "kata_instance_pool")
    templar = Templar(
        loader=DataLoader(),
        variables={
            **{name: trust_as_template(roles[name]) for name in names},
            "kata_instance": {"name": "web"},
            "kata_instance_address_pool": option,
            "kata_instance_pool_planned": option or "planned",
            "internal_machine_found": found,
        },
    )
    assert templar.template(trust_as_template("{{ kata_instance_pool }}")) == pool
