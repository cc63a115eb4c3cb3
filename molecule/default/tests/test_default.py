# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines, the proxy and the instances, looked at through Ansible's own connections."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parent.parent
INVENTORY = SCENARIO / "inventory.yml"
PROVE = SCENARIO.parent.parent / "playbooks" / "files" / "prove.sh"
BASE = "debian:trixie-slim"

# Instance, the target it runs on, its file system, and the storage driver that goes with it.
INSTANCES = [
    ("one.machine-host", "machine-host", "btrfs", "btrfs"),
    ("two.machine-host", "machine-host", "ext2/ext3", "overlay2"),
    ("kata.kata-in-docker.machine-proxy", "kata-in-docker.machine-proxy", "btrfs", "btrfs"),
]
MACHINES = ["machine-host", "machine-proxy", "kata-in-docker.machine-proxy", *(instance[0] for instance in INSTANCES)]


def reach(name: str) -> testinfra.host.Host:
    return testinfra.get_host(f"ansible://{name}?force_ansible=True&ansible_inventory={INVENTORY}")


def ask(name: str, command: str) -> str:
    """Run a command on a host of the inventory, and return what it printed. Braces are Docker's, not Ansible's."""
    return reach(name).check_output(command.replace("{{", "{{ '{{' }}"))


def docker_info(name: str) -> dict:
    return json.loads(ask(name, "docker info --format '{{json .}}'"))


@pytest.mark.parametrize("name", MACHINES)
def test_systemd_is_pid_1_and_says_running(name: str) -> None:
    assert ask(name, "cat /proc/1/comm; systemctl is-system-running").split() == ["systemd", "running"]


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_instance_keeps_docker_on_its_own_disk_with_the_driver_that_fits(name: str, target: str, filesystem: str, driver: str) -> None:
    info = docker_info(name)
    assert (info["Driver"], info["DockerRootDir"]) == (driver, "/var/lib/docker")
    assert ask(name, "stat --file-system --format %T /var/lib/docker") == filesystem
    assert ask(name, "findmnt --noheadings --output SOURCE /var/lib/docker") == "/dev/docker-disk"
    assert json.loads(ask(name, "cat /etc/docker/daemon.json"))["storage-driver"] == driver


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_container_names_its_disk_by_a_link_and_sets_cpus_and_memory(name: str, target: str, filesystem: str, driver: str) -> None:
    short = name.split(".", maxsplit=1)[0]
    config = json.loads(ask(target, f"docker inspect {short}"))[0]["HostConfig"]
    assert [device["PathOnHost"] for device in config["Devices"]] == [f"/run/nested-kata/disks/{short}"]
    assert config["NanoCpus"] == 1_000_000_000
    assert config["Memory"] == 1024**3
    assert config["Privileged"] is False
    assert config["RestartPolicy"]["Name"] in ("", "no")


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_an_instance_is_a_unit_of_its_target(name: str, target: str, filesystem: str, driver: str) -> None:
    unit = f"nested-kata-instance@{name.split('.', maxsplit=1)[0]}.service"
    assert ask(target, f"systemctl is-active {unit}; systemctl is-enabled {unit}").split() == ["active", "enabled"]


@pytest.mark.parametrize("name", MACHINES)
def test_resolvers_are_never_the_embedded_dns_of_docker(name: str) -> None:
    resolvers = [line.split()[1] for line in ask(name, "cat /etc/resolv.conf").splitlines() if line.startswith("nameserver")]
    assert resolvers
    assert not [address for address in resolvers if address.startswith("127.")]


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_no_level_takes_the_addresses_of_another(name: str, target: str, filesystem: str, driver: str) -> None:
    pools = [docker_info(level).get("DefaultAddressPools", [{}])[0].get("Base") for level in (target, name)]
    assert pools[1] is not None
    assert pools[0] != pools[1]


def test_the_proxy_is_not_privileged_and_has_no_more_than_the_listed_capabilities() -> None:
    config = json.loads(ask("machine-proxy", "docker inspect kata-in-docker"))[0]["HostConfig"]
    assert config["Privileged"] is False
    assert config["CapDrop"] == ["ALL"]
    assert len(config["CapAdd"]) == 16
    assert not {"CAP_SYS_MODULE", "SYS_MODULE", "CAP_SYS_RESOURCE", "SYS_RESOURCE", "CAP_SYS_PTRACE", "SYS_PTRACE"} & set(config["CapAdd"])


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_inner_docker_builds_runs_and_connects_containers(name: str, target: str, filesystem: str, driver: str) -> None:
    host = reach(name)
    done = host.ansible("ansible.builtin.script", f"{PROVE} work {BASE}", check=False)
    assert done["rc"] == 0, done
    assert [line.rsplit(":", 1)[1].strip() for line in done["stdout_lines"]][1:] == ["ok", "ok", "ok"]


def test_a_volume_survives_a_clean_restart_and_a_cut_of_power() -> None:
    name, target = "one.machine-host", "machine-host"

    def written() -> str:
        return ask(name, "docker run --rm --volume nested-kata-proof:/data nested-kata/proof cat /data/written")

    before = written()
    ask(target, "systemctl restart nested-kata-instance@one.service")
    ask(target, "for i in $(seq 60); do docker exec one docker version >/dev/null 2>&1 && exit 0; sleep 1; done; exit 1")
    assert written() == before
    # A crash, for which killing the container stands here: the unit finds it dead and the loop device still attached.
    ask(target, "docker kill one && systemctl restart nested-kata-instance@one.service")
    ask(target, "for i in $(seq 60); do docker exec one docker version >/dev/null 2>&1 && exit 0; sleep 1; done; exit 1")
    assert written() == before


def test_instances_do_not_reach_each_other() -> None:
    address = ask("machine-host", "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' two")
    pinged = reach("one.machine-host").run(f"ping -c 1 -W 2 {address}")
    assert pinged.rc != 0


def test_stopping_an_instance_detaches_its_disk_and_starting_it_finds_it_again() -> None:
    target = "machine-host"
    ask(target, "systemctl stop nested-kata-instance@two.service")
    assert ask(target, "losetup --associated /var/lib/nested-kata/disks/two.img") == ""
    ask(target, "systemctl start nested-kata-instance@two.service")
    ask(target, "for i in $(seq 60); do docker exec two docker version >/dev/null 2>&1 && exit 0; sleep 1; done; exit 1")
    assert docker_info("two.machine-host")["Driver"] == "overlay2"


def test_a_bare_machine_got_a_docker_that_runs_without_systemd() -> None:
    name = "machine-bare"
    assert ask(name, "cat /proc/1/comm") != "systemd"
    ask(name, "docker pull --quiet debian:trixie-slim || tar --create --directory / bin sbin lib lib64 usr | docker import - debian:trixie-slim")
    assert ask(name, "docker run --rm debian:trixie-slim echo from a container") == "from a container"
