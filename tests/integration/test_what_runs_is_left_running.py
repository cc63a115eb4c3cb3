# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy and an instance that run are left running by a run that wants them otherwise, which says how they differ.
Where they are to be made again, the new one comes first, and the earlier one comes back where the new one does not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, MARK, play
from host_state import output
from kept import MACHINE_IMAGE, locked

# Some thirty runs of the roles. The scenario default of molecule tries the main cases in every run of the tests.
pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.loop, pytest.mark.thorough]

PROXY = f"t-left-{MARK}"
BASE = "debian:trixie-slim"
ONE, TWO = "one", "two"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
NOTES = "/var/lib/nested-kata/differences"
TASKS = {
    "proxy": [{"name": "The proxy", "ansible.builtin.include_role": {"name": "nested.kata.kata_proxy"}}],
    "image": [{"name": "The image", "ansible.builtin.include_role": {"name": "nested.kata.machine_image"}}],
    "instances": [{"name": "The instances", "ansible.builtin.include_role": {"name": "nested.kata.kata_instance"}}],
}


class Runs:
    """Runs of the roles on this machine and on the proxy, with the same variables each time but for what is changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image = ""

    def run(self, *parts: str, options: tuple[str, ...] = (), **variables: object) -> subprocess.CompletedProcess[str]:
        """Run the roles of some parts: image, proxy, instances, status."""
        inventory = {
            "kata_hosts": {"hosts": {"machine": LOCAL}},
            "kata_proxies": {"children": {"kata_targets": {"hosts": {f"{PROXY}.machine": self.way("machine", PROXY)}}}},
            "kata_instances": {"hosts": {f"{ONE}.{PROXY}.machine": self.way(f"{PROXY}.machine", ONE)}},
            "all": {
                "vars": {
                    "machine_image_directory": str(self.directory),
                    "kata_proxy_name": PROXY,
                    "kata_proxy_images": [BASE],
                    "kata_proxy_shm_size": "1G",
                    "kata_instance_runtime": "runc",
                    "kata_instance_images": [],
                    "kata_instance_list": [{"name": ONE}],
                    "kata_instance_cpus": 1,
                    "kata_instance_memory": "512m",
                    "kata_instance_disk_size": "500M",
                    "kata_instance_disk_fstype": "ext4",
                    "kata_instance_start_timeout": 120,
                    **({"kata_proxy_image": self.image, "kata_instance_image": self.image} if self.image else {}),
                }
            },
        }
        plays = [
            {"name": part, "hosts": "kata_targets" if part == "instances" else "kata_hosts", "tasks": TASKS[part]}
            for part in parts
            if part != "status"
        ]
        status = [{"import_playbook": str(CHECKOUT / "playbooks" / "status.yml")}] if "status" in parts else []
        (self.directory / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        (self.directory / "play.yml").write_text(json.dumps(plays + status), encoding="utf-8")
        extra = ["--extra-vars", json.dumps(variables)]
        return play(
            self.directory / "play.yml",
            *("-i", str(self.directory / "hosts.yml"), *extra, *options),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
        )

    @staticmethod
    def way(via: str, hop: str) -> dict:
        return {
            "ansible_connection": "nested.kata.nested",
            "ansible_nested_via": via,
            "ansible_nested_hops": [hop],
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    def made(self, *parts: str, options: tuple[str, ...] = (), **variables: object) -> str:
        done = self.run(*parts, options=options, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def failed(self, *parts: str, **variables: object) -> str:
        done = self.run(*parts, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A proxy with an instance in it."""
    runs = Runs(tmp_path_factory.mktemp("left"))
    with locked(MACHINE_IMAGE):
        try:
            runs.made("image", "proxy", "instances", kata_proxy_images=[BASE, "{{ machine_image_reference }}"])
            runs.image = output("docker", "inspect", "--format", "{{.Config.Image}}", PROXY)
            yield runs
        finally:
            runs.image = ""
            runs.made("proxy", kata_proxy_state="absent", kata_proxy_purge=True)


def inner(*command: str) -> str:
    """Run a command in the proxy."""
    return output("docker", "exec", PROXY, *command)


def in_one(*command: str) -> str:
    """Run a command in the instance."""
    return inner("docker", "exec", ONE, *command)


FORMAT = "{{.Name}} {{.Id}} {{.State.Running}} {{.State.StartedAt}}"


def proxies() -> list[str]:
    """Return the proxy, and what exists beside it: name, id, whether and since when it runs."""
    names = output("docker", "ps", "--all", "--quiet", "--filter", f"name={PROXY}").split()
    return output("docker", "inspect", "--format", FORMAT, *names).splitlines()


def instances() -> list[str]:
    return inner("sh", "-c", f"docker ps --all --quiet | xargs docker inspect --format '{FORMAT}'").splitlines()


def memory() -> str:
    """Return the memory of the instance, as the roles take it."""
    return f"{int(inner('docker', 'inspect', '--format', '{{.HostConfig.Memory}}', ONE)) >> 20}m"


@pytest.mark.parametrize("options", [pytest.param((), id="run"), pytest.param(("--check", "--diff"), id="check mode")])
def test_a_proxy_and_an_instance_that_run_are_left_running_and_each_difference_is_reported(
    runs: Runs, options: tuple[str, ...]
) -> None:
    before = proxies(), instances()
    in_one("sh", "-c", "echo mine >/root/mine")
    changed = {
        "kata_proxy_shm_size": "2G",
        "kata_instance_memory": "600m",
        "kata_instance_extra_args": ["--env", "MORE=1"],
    }
    shown = runs.made("proxy", "instances", "status", options=options, **changed)
    assert "shm-size: 1 GiB -> 2 GiB" in shown
    assert "memory: 512 MiB -> 600 MiB" in shown
    assert "env MORE: nothing -> 1" in shown
    assert shown.count("left as it is (kata_") == 2
    assert shown.count("changed=0") == shown.count("changed=")
    table = [" ".join(line.split()).strip(' ",') for line in shown.splitlines()]
    assert f"machine {PROXY} shm-size 1 GiB 2 GiB" in table
    assert f"{PROXY} {ONE} memory 512 MiB 600 MiB" in table
    assert f"{PROXY} {ONE} env MORE - 1" in table
    assert (proxies(), instances()) == before
    assert in_one("cat", "/root/mine") == "mine"


def test_what_facts_of_the_day_chose_is_no_difference(runs: Runs) -> None:
    before = proxies(), instances()
    today = {
        "kata_proxy_shm_size": "",
        "kata_instance_cpus": "",
        "kata_proxy_memory": "3G",
        "kata_proxy_devices_there": [],
    }
    shown = runs.made("proxy", "instances", "status", **today)
    assert "differs from what is wanted" not in shown
    assert "would have" not in shown
    assert (proxies(), instances()) == before


def test_an_instance_is_made_again_on_its_disk_where_that_is_asked_for(runs: Runs) -> None:
    in_one("sh", "-c", "echo mine >/var/lib/docker/mine; echo mine >/root/mine")
    before = instances()
    shown = runs.made("instances", kata_instance_memory="640m", kata_instance_recreate="always")
    assert "made again (kata_instance_recreate=always)" in shown
    (after,) = instances()
    assert after.split()[1] not in before[0]
    assert after.split()[::2] == [f"/{ONE}", "true"]
    assert in_one("cat", "/var/lib/docker/mine") == "mine"
    assert memory() == "640m"
    assert inner("sh", "-c", f"ls {NOTES} || true") == ""


@pytest.mark.parametrize("more", [pytest.param([], id="alone"), pytest.param([TWO], id="beside another")])
def test_the_earlier_instance_is_back_where_the_new_one_does_not_start_and_no_other_is_made_again(
    runs: Runs, more: list[str]
) -> None:
    wanted = {"kata_instance_list": [{"name": name} for name in (ONE, *more)], "kata_instance_memory": "640m"}
    if more:
        runs.made("instances", **wanted)
    in_one("sh", "-c", "echo mine >/root/mine")
    before = sorted(instances())
    shown = runs.failed(
        *("instances",),
        **wanted,
        kata_instance_recreate="always",
        kata_instance_extra_args=["--device", "/dev/no-such-device"],
    )
    assert f"1 of {1 + len(more)} instances" in shown
    assert "the earlier one is back in its place" in shown
    assert "no-such-device" in shown
    after = sorted(instances())
    # The first one was stopped and is started again, another one was not touched.
    assert [line.split()[:3] for line in after] == [line.split()[:3] for line in before]
    assert after[1:] == before[1:]
    assert in_one("cat", "/root/mine") == "mine"
    assert inner("systemctl", "is-active", f"nested-kata-instance@{ONE}") == "active"
    if more:
        runs.made("instances", **wanted)
        absent = [{"name": name, "state": "absent", "purge": True} for name in more]
        runs.made("instances", kata_instance_list=[{"name": ONE}, *absent], kata_instance_memory="640m")


def test_two_instances_are_made_again_at_the_same_time_and_a_stopped_one_without_being_asked(runs: Runs) -> None:
    both = {"kata_instance_list": [{"name": ONE}, {"name": TWO}], "kata_instance_memory": "640m"}
    runs.made("instances", **both)
    ids = [line.split()[1] for line in sorted(instances())]
    inner("systemctl", "stop", f"nested-kata-instance@{TWO}")
    runs.made("instances", **{**both, "kata_instance_memory": "650m"})
    after = [line.split()[1:3] for line in sorted(instances())]
    assert after[0] == [ids[0], "true"]
    assert (after[1][0] != ids[1], after[1][1]) == (True, "true")
    runs.made(
        "instances", **{**both, "kata_instance_memory": "700m"}, kata_instance_serial=2, kata_instance_recreate="always"
    )
    last = [line.split()[1:3] for line in sorted(instances())]
    assert {one for one, _running in last}.isdisjoint({one for one, _running in after})
    assert [running for _one, running in last] == ["true", "true"]


def copied(name: str, image: str) -> None:
    """Make a container in the proxy that looks like one of the instance's that never started."""
    label = inner("docker", "inspect", "--format", '{{index .Config.Labels "nested.kata.arguments"}}', ONE)
    inner("docker", "create", "--name", name, "--hostname", ONE, "--label", f"nested.kata.arguments={label}", image)


@pytest.mark.parametrize(
    "moment", ["before they changed places", "between the two names", "before the earlier one went"]
)
def test_what_an_interrupted_run_left_is_finished_and_the_tenant_s_container_is_there(runs: Runs, moment: str) -> None:
    in_one("sh", "-c", "echo mine >/root/mine")
    mine, unchanged = inner("docker", "inspect", "--format", "{{.Id}}", ONE), memory()
    copied(f"{ONE}.nested-kata-{'old' if moment == 'before the earlier one went' else 'new'}", runs.image)
    if moment == "between the two names":
        inner("systemctl", "stop", f"nested-kata-instance@{ONE}")
        inner("docker", "rename", ONE, f"{ONE}.nested-kata-old")
    runs.made("instances", kata_instance_memory=unchanged)
    assert [line.split()[:3] for line in instances() if f"/{TWO} " not in line] == [[f"/{ONE}", mine, "true"]]
    assert in_one("cat", "/root/mine") == "mine"


def test_a_container_of_somebody_else_with_such_a_name_is_refused_before_anything_is_done(runs: Runs) -> None:
    before = instances()
    inner("docker", "create", "--name", f"{ONE}.nested-kata-old", runs.image)
    try:
        shown = runs.failed("instances", kata_instance_recreate="always", kata_instance_memory="800m")
        assert f"{ONE}.nested-kata-old, not managed by nested.kata" in " ".join(shown.split())
        assert set(before) < set(instances())
    finally:
        inner("docker", "rm", f"{ONE}.nested-kata-old")


NETWORK = "{{.Id}} {{json .Options}} {{len .Containers}}"


def network(name: str) -> str:
    """Return the id of a network in the proxy, its driver's options, and how many running containers are on it."""
    return inner("docker", "network", "inspect", "--format", NETWORK, name)


def test_a_network_keeps_the_mtu_that_it_was_made_with_and_nobody_is_disconnected(runs: Runs) -> None:
    before = network(f"nested-kata-{ONE}"), instances()
    assert before[0].endswith(" 1")
    mtu = inner("cat", "/sys/class/net/eth0/mtu")
    inner("ip", "link", "set", "dev", "eth0", "mtu", str(int(mtu) - 80))
    try:
        runs.made("instances", kata_instance_memory=memory())
    finally:
        inner("ip", "link", "set", "dev", "eth0", "mtu", mtu)
    assert (network(f"nested-kata-{ONE}"), instances()) == before


def test_a_network_of_somebody_else_is_not_taken_over_and_not_removed(runs: Runs) -> None:
    both = {"kata_instance_list": [{"name": ONE}, {"name": "three"}], "kata_instance_memory": memory()}
    inner("docker", "network", "create", "--opt", "com.docker.network.driver.mtu=1400", "nested-kata-three")
    inner(
        "docker", "run", "--detach", "--name", "t-theirs", "--network", "nested-kata-three", BASE, "sleep", "infinity"
    )
    before = network("nested-kata-three")
    try:
        shown = " ".join(runs.failed("instances", **both).split())
        assert "1 of 2 instances" in shown
        assert "The network nested-kata-three on" in shown
        assert "is not managed by nested.kata and was not touched" in shown
        runs.made("instances", kata_instance_list=[{"name": "three", "state": "absent", "purge": True}])
        assert network("nested-kata-three") == before
    finally:
        inner("docker", "rm", "--force", "t-theirs")
        inner("docker", "network", "rm", "nested-kata-three")


@pytest.mark.parametrize("command", [["docker", "run", "--detach"], ["docker", "create"]], ids=["runs", "is stopped"])
def test_an_instance_is_not_removed_while_somebody_else_is_on_its_network(runs: Runs, command: list[str]) -> None:
    three = {"name": "three", "disk": {"size": "300M"}}
    runs.made("instances", kata_instance_list=[three], kata_instance_memory="700m")
    inner(*command, "--name", "t-theirs", "--network", "nested-kata-three", BASE, "sleep", "infinity")
    before = instances()
    absent = {"kata_instance_list": [{**three, "state": "absent", "purge": True}]}
    try:
        shown = " ".join(runs.failed("instances", **absent).split())
        assert "three on " in shown
        assert "was not removed: t-theirs would lose the network nested-kata-three" in shown
        assert instances() == before
    finally:
        inner("docker", "rm", "--force", "t-theirs")
    runs.made("instances", **absent)
    assert "three" not in " ".join(instances())
    assert "nested-kata-three" not in inner("docker", "network", "ls")


def test_a_proxy_is_not_removed_while_somebody_else_is_on_its_network(runs: Runs) -> None:
    theirs = f"t-theirs-{MARK}"
    output("docker", "create", "--name", theirs, "--network", PROXY, BASE, "sleep", "infinity")
    before = proxies()
    try:
        shown = " ".join(runs.failed("proxy", kata_proxy_state="absent").split())
        assert f"was not removed: {theirs} would lose the network {PROXY}" in shown
        assert proxies() == before
    finally:
        output("docker", "rm", theirs)


def test_the_earlier_proxy_is_back_where_the_new_one_does_not_start(runs: Runs) -> None:
    output("docker", "exec", PROXY, "sh", "-c", "echo mine >/root/mine")
    before = proxies()
    shown = runs.failed("proxy", kata_proxy_recreate="always", kata_proxy_image=BASE, kata_proxy_start_timeout=120)
    assert "the earlier one is back in its place" in shown
    after = proxies()
    assert [line.split()[:3] for line in after] == [line.split()[:3] for line in before]
    assert output("docker", "exec", PROXY, "cat", "/root/mine") == "mine"


def test_a_proxy_is_made_again_with_its_instances_where_that_is_asked_for(runs: Runs) -> None:
    before = proxies()
    shown = runs.made(
        "proxy", "instances", kata_proxy_recreate="always", kata_proxy_shm_size="2G", kata_instance_memory=memory()
    )
    assert "made again (kata_proxy_recreate=always)" in shown
    (after,) = proxies()
    assert after.split()[1] not in before[0]
    assert output("docker", "inspect", "--format", "{{.HostConfig.ShmSize}}", PROXY) == str(2 << 30)
    assert in_one("cat", "/var/lib/docker/mine") == "mine"
