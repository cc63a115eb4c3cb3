# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of `docker create`, and those by which the roles compare the containers that people have."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.nested.kata.plugins.filter.docker_create_args import FilterModule
from ansible_collections.nested.kata.plugins.lookup import level_environment
from ansible_runner import CHECKOUT
from inventories import trusted

LOOKUPS = (level_environment,)
docker_create_args = FilterModule().filters()["docker_create_args"]

# the options, the arguments
GOOD = [
    ([], []),
    ([{}], []),
    ([{"cap-drop": "ALL"}], ["--cap-drop", "ALL"]),
    ([{"cap-add": ["A", "B"], "env": []}], ["--cap-add", "A", "--cap-add", "B"]),
    (
        [{"device": "a", "env": "X="}, {"device": ["b", "a"]}],
        ["--device", "a", "--env", "X=", "--device", "b", "--device", "a"],
    ),
    ([{"memory": 4294967296, "cpus": "1.5"}], ["--memory", 4294967296, "--cpus", "1.5"]),
]


@pytest.mark.parametrize(("groups", "arguments"), GOOD)
def test_options_become_arguments_in_their_order_and_keep_their_type(groups: list[dict], arguments: list) -> None:
    assert docker_create_args(groups) == arguments


@pytest.mark.parametrize("value", [None, True, {"a": 1}, [["a"]], [None]])
def test_a_value_that_is_none_is_an_error_that_names_the_option(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match=r"docker_create_args: env: .* is not a valid value"):
        docker_create_args([{"env": value}])


def value_of(name: str, role: str, variables: dict) -> object:
    """Return a variable of a role, as its defaults and variables have it."""
    files = [
        trusted(yaml.safe_load((CHECKOUT / "roles" / role / part / "main.yml").read_text()))
        for part in ("defaults", "vars")
    ]
    templar = Templar(loader=DataLoader(), variables={**files[0], **files[1], **variables})
    return templar.template(trust_as_template(f"{{{{ {name} | default([]) }}}}"))


def arguments_of(role: str, variables: dict) -> list:
    """Return a role's arguments for `docker create`."""
    options, more = (value_of(name, role, variables) for name in (f"{role}_options", f"{role}_extra_args"))
    return docker_create_args(options) + more


FACTS = {"ansible_facts": {"memtotal_mb": 8000, "processor_vcpus": 4, "env": {}}, "inventory_hostname": "machine"}
MOUNT = "type=bind,source={},target=/usr/lib/nested-kata/resolv.conf,readonly"
RESOLVERS = {"internal_common_resolvers_mounts": [MOUNT.format("/etc/resolv.conf")]}
PROXY = {
    **FACTS,
    **RESOLVERS,
    "role_path": "/roles/kata_proxy",
    "internal_machine_found": {"kata-in-docker": {"made_from": {}}},
    "kata_proxy_volumes": ["/srv:/srv"],
    "kata_proxy_resolvers": ["192.0.2.1", "192.0.2.2"],
    "kata_proxy_addresses": {"target": "10.213.64.0/18"},
    "kata_proxy_devices_there": ["/dev/kvm"],
}
INSTANCE = {
    **FACTS,
    **RESOLVERS,
    "kata_instance_disk_uuid": "5b0f0f5e-0000-4000-8000-000000000001",
    "kata_instance_pool": "10.213.128.0/18",
    "internal_machine_found": {"web": {"made_from": {}}},
    "kata_instance": {"name": "web", "cpus": 2, "memory": 1073741824, "runtime": "kata", "network": ""},
    "kata_instance_extra_args": ["--publish", "8080:80"],
}
# What the releases so far made of these. They noted a hash over the arguments in their order, so that with other ones
# all their containers would be reported as different.
HASHES = {"kata_proxy": "66569520ad143505", "kata_instance": "1b005ce963b7dc92"}


@pytest.mark.parametrize(("role", "variables"), [("kata_proxy", PROXY), ("kata_instance", INSTANCE)])
def test_the_containers_that_people_have_stay_as_they_are(role: str, variables: dict) -> None:
    assert hashlib.sha256(json.dumps(arguments_of(role, variables)).encode()).hexdigest()[:16] == HASHES[role]


# On another day the machine has other facts, and the container what was chosen for it once.
LATER = {
    "ansible_facts": {"memtotal_mb": 16000, "processor_vcpus": 1, "env": {}},
    "internal_common_resolvers_mounts": [
        MOUNT.format("/run/systemd/resolve/resolv.conf"),
        MOUNT.format("/etc/resolv.conf"),
    ],
}
KEPT = {
    "shm-size": ["7G"],
    "cpus": ["2"],
    "device": ["/dev/loop-control", "/dev/kvm"],
    "mount": [MOUNT.format("/etc/resolv.conf")],
}


def values(arguments: list, option: str) -> list:
    return [value for name, value in pairwise(arguments) if name == f"--{option}"]


def test_what_facts_chose_for_a_proxy_stays_whatever_the_facts_are_now() -> None:
    known = {"internal_machine_found": {"kata-in-docker": {"made_from": KEPT}}}
    before = {**PROXY, **known}
    assert arguments_of("kata_proxy", {**before, **LATER, "kata_proxy_devices_there": []}) == arguments_of(
        "kata_proxy", before
    )
    fresh = arguments_of("kata_proxy", {**PROXY, **LATER, "kata_proxy_devices_there": []})
    assert values(fresh, "shm-size") == ["15G"]
    assert values(fresh, "device") == ["/dev/loop-control"]
    assert values(fresh, "mount") == [MOUNT.format("/run/systemd/resolve/resolv.conf")]
    asked = arguments_of(
        "kata_proxy", {**before, "kata_proxy_shm_size": "3G", "kata_proxy_devices": ["/dev/vhost-net"]}
    )
    assert (values(asked, "shm-size"), values(asked, "device")) == (["3G"], ["/dev/loop-control"])


def test_what_facts_chose_for_an_instance_stays_whatever_the_facts_are_now() -> None:
    plain = {**INSTANCE, "kata_instance": {**INSTANCE["kata_instance"], "cpus": ""}}
    before = {**plain, "internal_machine_found": {"web": {"made_from": KEPT}}}
    assert arguments_of("kata_instance", {**before, **LATER}) == arguments_of("kata_instance", before)
    fresh = arguments_of("kata_instance", {**plain, **LATER})
    assert (values(fresh, "cpus"), values(arguments_of("kata_instance", plain), "cpus")) == (["1"], ["2"])
    assert values(arguments_of("kata_instance", {**INSTANCE, **LATER}), "cpus") == ["2"]


def test_a_file_with_resolvers_that_serves_no_more_is_not_kept() -> None:
    known = {"internal_machine_found": {"web": {"made_from": {"mount": [MOUNT.format("/run/resolvconf")]}}}}
    assert values(arguments_of("kata_instance", {**INSTANCE, **known}), "mount") == [MOUNT.format("/etc/resolv.conf")]


BEHIND = {"ansible_facts": {**FACTS["ansible_facts"], "env": {"http_proxy": "http://192.0.2.10:3128"}}}


@pytest.mark.parametrize(
    ("role", "variables", "name"), [("kata_proxy", PROXY, "kata-in-docker"), ("kata_instance", INSTANCE, "web")]
)
@pytest.mark.usefixtures("lookups")
def test_a_container_keeps_its_proxy_server_until_another_one_is_named(role: str, variables: dict, name: str) -> None:
    variables = {**variables, "kata_proxy_addresses": {"target": "10.213.64.0/18", "space": "10.213.0.0/16"}}
    direct = "10.213.0.0/16" if role == "kata_proxy" else "10.213.128.0/18"
    new = {"internal_machine_found": {name: {"exists": False, "made_from": {}, "environment": {}}}}
    made = value_of(f"{role}_environment", role, {**variables, **new, **BEHIND})
    assert (made["http_proxy"], made["NO_PROXY"]) == ("http://192.0.2.10:3128", f"localhost,127.0.0.1,::1,{direct}")
    for environment in ({}, made):
        there = {"internal_machine_found": {name: {"exists": True, "made_from": {}, "environment": environment}}}
        for facts in (FACTS, BEHIND):
            assert value_of(f"{role}_environment", role, {**variables, **there, **facts}) == environment
        named = {**variables, **there, "nested_kata_http_proxy": "http://proxy"}
        assert value_of(f"{role}_environment", role, named)["http_proxy"] == "http://proxy"
