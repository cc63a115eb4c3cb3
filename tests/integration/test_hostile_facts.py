# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python of a container answers every module with facts that would choose where the next command runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.plugins.loader import connection_loader
from ansible_runner import BIN, CHECKOUT, MARK, ansible_environment
from docker_in_docker import CONTAINER_IMAGE, build_images, docker, within
from hostile_python import hostile_python

pytestmark = [pytest.mark.root, pytest.mark.docker]

TENANT, OTHER = f"nested-kata-test-tenant-{MARK}", f"nested-kata-test-other-{MARK}"
NESTED = {"ansible_connection": "nested.kata.nested", "ansible_python_interpreter": "/usr/bin/python3"}

# What a host takes from a fact, by the name of the fact. PROOF is a file that only this machine's root can make.
EXECUTE = "sh -c 'touch PROOF; exec docker \"$@\"' docker"
ATTACKS = {
    "ansible_nested_docker_command": EXECUTE,
    "ansible_nested_via": "trap",
    "ansible_nested_parent": "ssh",
    "ansible_nested_hops": [OTHER],
    "ansible_nested_user": "nobody",
    "ansible_pipelining": True,
    "ansible_paramiko_proxy_command": "touch PROOF",
    "ansible_control_path": "/tmp/control",
    "ansible_remote_tmp": "/tmp/remote",
    "ansible_async_dir": "/tmp/async",
    "ansible_shell_type": "powershell",
    "ansible_shell_executable": "/bin/bash",
    "ansible_sudo_exe": "/bin/sudo",
    "ansible_become_user": "nobody",
    "ansible_python_interpreter": "/bin/python3",
    "ansible_interpreter_python_fallback": ["/bin/python3"],
    "ansible_connection": "local",
    "ansible_host": "192.0.2.1",
    "inventory_hostname": "../../elsewhere",
    "group_names": ["kata_hosts"],
}

# An option of one connection plugin alone: by its parent. ansible-core 2.21 has no paramiko_ssh.
PARENTS = {"ansible_paramiko_proxy_command": "paramiko_ssh", "ansible_control_path": "ssh"}
for alone in [fact for fact, parent in PARENTS.items() if not connection_loader.find_plugin(parent)]:
    del ATTACKS[alone], PARENTS[alone]

# The configuration of a checkout, with pipelining and without injected facts, and Ansible's defaults.
CONFIGURATIONS = {
    "checkout": {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
    "defaults": {},
}


def answer(stdout: str = "", **facts: object) -> dict:
    return {"changed": False, "rc": 0, "stdout": stdout, "stderr": "", "ansible_facts": facts}


def name_of(fact: str) -> str:
    return f"by-{fact.replace('_', '-')}"


def ansible(program: str, directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible in a directory, with Ansible's defaults unless the environment says otherwise."""
    (directory / "ansible.cfg").touch()
    defaults = {
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections"),
    }
    return subprocess.run(
        [str(BIN / program), *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=ansible_environment(**{**defaults, **environment}),
    )


def play_all(directory: Path, plays: list, hosts: dict, **environment: str) -> dict:
    """Run plays and return {host: [result of each task that ran there]}."""
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (directory / "play.yml").write_text(json.dumps(plays))
    done = ansible(
        "ansible-playbook",
        directory,
        "-i",
        "hosts.yml",
        "play.yml",
        **{"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", **environment},
    )
    assert "{" in done.stdout, done.stdout + done.stderr
    found: dict = {}
    for one in json.loads(done.stdout[done.stdout.index("{") :])["plays"]:
        for task in one["tasks"]:
            for host, result in task["hosts"].items():
                found.setdefault(host, []).append(result)
    return found


@pytest.fixture(scope="module")
def tenant():
    facts = {name_of(fact): [answer(**{fact: value})] for fact, value in ATTACKS.items()}
    facts["indirect"] = [answer(site_docker=EXECUTE)]
    facts["nested"] = [answer(ansible_facts={"ansible_nested_docker_command": EXECUTE}, nested_via="trap")]
    facts["discovery"] = [answer(discovered_interpreter_python="/x", ansible_discovered_interpreter_python="/y")]
    build_images(CONTAINER_IMAGE)
    docker("rm", "-f", OTHER, check=False)
    try:
        docker("run", "-d", "--init", "--name", OTHER, CONTAINER_IMAGE)
        with hostile_python(TENANT, json.loads(json.dumps(facts).replace("PROOF", f"/root/{TENANT}"))):
            yield
    finally:
        docker("rm", "-f", OTHER, check=False)


@pytest.fixture
def proof():
    path = f"/root/{TENANT}"
    yield lambda: os.path.exists(path)
    if os.path.exists(path):
        os.unlink(path)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_fact_of_the_tenant_never_chooses_the_way(tenant, proof, tmp_path, configuration):
    hosts = {
        name_of(fact): {**NESTED, "ansible_nested_hops": [TENANT], "refused": fact, "attack": name_of(fact)}
        for fact in ATTACKS
    }
    for fact, parent in PARENTS.items():
        hosts[name_of(fact)]["parent"] = parent
    hosts["trap"] = {"ansible_connection": "local", "ansible_python_interpreter": "/bin/false"}
    play = {
        "hosts": "all:!trap",
        "gather_facts": False,
        "environment": {"ATTACK": "{{ attack }}"},
        "tasks": [
            {"command": "true"},
            {
                "command": "true",
                "become": "{{ 'become' in refused or 'sudo' in refused }}",
                "vars": {"ansible_nested_parent": "{{ parent | default('local') }}"},
            },
        ],
    }
    found = play_all(tmp_path, [play], hosts, **CONFIGURATIONS[configuration])
    assert not proof()
    for name, variables in hosts.items():
        if name != "trap":
            first, second = found[name]
            assert first["rc"] == 0
            assert second.get("failed"), (name, second)
            assert second["msg"].splitlines()[0].endswith("--flush-cache"), second["msg"]
            assert f"of {name} " in second["msg"] or variables["refused"] == "ansible_host"
            assert variables["refused"] in second["msg"]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_fact_does_not_choose_the_way_by_another_variable(tenant, proof, tmp_path, configuration):
    hosts = {
        "indirect": {
            **NESTED,
            "ansible_nested_hops": [TENANT],
            "ansible_nested_docker_command": "{{ site_docker }}",
            "site_docker": "docker",
        }
    }
    play = {
        "hosts": "indirect",
        "gather_facts": False,
        "environment": {"ATTACK": "indirect"},
        "tasks": [{"command": "true"}] * 2,
    }
    _first, second = play_all(tmp_path, [play], hosts, **CONFIGURATIONS[configuration])["indirect"]
    assert not proof()
    if configuration == "checkout":
        assert second["rc"] == 0  # the fact does not hide the inventory's variable there
    else:
        assert "indirect" in second["msg"]
        assert "define it in the inventory" in second["msg"]
        assert "site_docker" in second["msg"]


def test_facts_of_the_host_above_do_not_choose_the_way_either(tenant, proof, tmp_path):
    attack = name_of("ansible_nested_docker_command")
    hosts = {
        "above": {**NESTED, "ansible_nested_hops": [TENANT]},
        "below": {**NESTED, "ansible_nested_via": "above", "ansible_nested_hops": ["any"]},
    }
    plays = [
        {"hosts": name, "gather_facts": False, "environment": {"ATTACK": attack}, "tasks": [{"command": "true"}]}
        for name in hosts
    ]
    found = play_all(tmp_path, plays, hosts)
    assert not proof()
    assert found["above"][0]["rc"] == 0
    assert "the facts of above have ansible_nested_docker_command" in found["below"][0]["msg"]


def test_facts_within_facts_and_of_discovery_have_no_effect(tenant, proof, tmp_path):
    hosts = {
        "nested": {**NESTED, "ansible_nested_hops": [TENANT]},
        "discovery": {
            "ansible_connection": "nested.kata.nested",
            "ansible_nested_hops": [TENANT],
            "ansible_python_interpreter": "auto_silent",
        },
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"ATTACK": "{{ inventory_hostname }}"},
        "tasks": [
            {"command": "true"},
            {"command": "true", "register": "again"},
            {"debug": {"var": "ansible_facts.discovered_interpreter_python"}},
        ],
    }
    found = play_all(tmp_path, [play], hosts)
    assert not proof()
    assert found["nested"][1].get("failed")  # a fact of the same name without the prefix is refused as well
    assert found["discovery"][2]["ansible_facts.discovered_interpreter_python"] == "/usr/bin/python3"


def test_what_the_author_sets_keeps_its_effect(tenant, tmp_path):
    way = {"ansible_nested_docker_command": "env docker", "ansible_remote_tmp": "/tmp/mine"}
    hosts = {
        "by-inventory": {**NESTED, **way, "ansible_nested_hops": "{{ [of_inventory] }}", "of_inventory": OTHER},
        "by-set-fact": {**NESTED, "ansible_nested_hops": [OTHER]},
        "by-play": {**NESTED},
        "by-cache": {**NESTED, "ansible_nested_hops": [OTHER]},
    }
    reach = {"ansible_nested_hops": [OTHER], **way}
    plays = [
        {
            "hosts": "by-inventory",
            "tasks": [
                {"command": "hostname"},
                {"add_host": {"name": "by-add-host", **NESTED, **reach}},
            ],
        },
        {"hosts": "by-add-host", "tasks": [{"command": "hostname"}]},
        {"hosts": "by-play", "vars": reach, "tasks": [{"command": "hostname"}]},
        {
            "hosts": "by-set-fact",
            "gather_facts": False,
            "tasks": [{"set_fact": way}, {"setup": {}}, {"command": "hostname"}],
        },
        {
            "hosts": "by-cache",
            "tasks": [{"set_fact": {"ansible_nested_user": "root", "cacheable": True}}, {"command": "hostname"}],
        },
    ]
    found = play_all(tmp_path, plays, hosts)
    name = docker("exec", OTHER, "hostname")
    for host in ("by-inventory", "by-add-host", "by-set-fact", "by-play"):
        assert [result["stdout"] for result in found[host] if "stdout" in result] == [name], found[host]
    assert "ansible_nested_user" in found["by-cache"][-1]["msg"]


def test_status_of_an_installed_collection_runs_nothing_where_the_tenant_wants_it(tmp_path):
    info = json.dumps({"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": 0})
    for arguments in (
        ["build", str(CHECKOUT)],
        ["install", "--no-deps", "-p", "installed", "nested-kata-0.1.0.tar.gz"],
    ):
        done = ansible("ansible-galaxy", tmp_path, "collection", *arguments, ANSIBLE_COLLECTIONS_PATH="installed")
        assert done.returncode == 0, done.stdout + done.stderr
    trap = tmp_path / "python3"
    trap.write_text(f'#!/bin/sh\ntouch {tmp_path}/sprung\nexec /usr/bin/python3 "$@"\n')
    trap.chmod(0o755)
    hosts = {
        "all": {
            "hosts": {"trap": {"ansible_connection": "local", "ansible_python_interpreter": str(trap)}},
            "children": {
                "kata_hosts": {
                    "hosts": {
                        "localhost": {
                            "ansible_connection": "local",
                            "ansible_python_interpreter": str(BIN / "python"),
                        }
                    }
                },
                "kata_instances": {
                    "hosts": {
                        "tenant.localhost": {
                            **NESTED,
                            "ansible_nested_via": "localhost",
                            "ansible_nested_hops": [TENANT],
                        }
                    }
                },
            },
        }
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    way = {"ansible_nested_via": "trap", "ansible_nested_hops": ["--help"], "inventory_hostname": "trap"}
    with hostile_python(TENANT, {"status": [answer("6.12"), answer(info, **way)]}):
        done = ansible(
            "ansible-playbook",
            tmp_path,
            "-i",
            "hosts.yml",
            "nested.kata.status",
            ANSIBLE_COLLECTIONS_PATH="installed",
        )
        assert within(TENANT, "cat", "/answers/status/count") == "0\n"
    assert not (tmp_path / "sprung").exists(), done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if '"instance ' in line]
    assert [row[1:3] for row in rows] == [[TENANT, "missing"]], done.stdout + done.stderr
