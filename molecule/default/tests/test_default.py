# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines, the proxy and the instances, looked at from inside."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from ansible_runner import MARK, wait_until
from docker_in_docker import docker

SCENARIO = Path(__file__).resolve().parent.parent
INVENTORY = SCENARIO / "inventory.yml"
PLAYBOOKS = SCENARIO.parent.parent / "playbooks"
PROVE = PLAYBOOKS / "files" / "prove.sh"
BASE = "debian:trixie-slim"
PROXY = "kata-in-docker.machine-proxy"
KATA = "/var/lib/nested-kata/kata/4.1.0"
KATA_CONFIG = "/etc/nested-kata/kata/kata/4.1.0"

# Instance, the target it runs on, its file system, and the storage driver that goes with it.
INSTANCES = [
    ("one.machine-host", "machine-host", "btrfs", "btrfs"),
    ("two.machine-host", "machine-host", "ext2/ext3", "overlay2"),
    ("kata.kata-in-docker.machine-proxy", "kata-in-docker.machine-proxy", "ext2/ext3", "overlay2"),
]
# The containers to go through to each host, as in the inventory.
HOST, MACHINE = f"t-molecule-host-{MARK}", f"t-molecule-proxy-{MARK}"
WAYS = {
    "machine-host": (HOST,),
    "machine-proxy": (MACHINE,),
    "machine-bare": (f"t-molecule-bare-{MARK}",),
    PROXY: (MACHINE, "kata-in-docker"),
    "one.machine-host": (HOST, "one"),
    "two.machine-host": (HOST, "two"),
    "kata.kata-in-docker.machine-proxy": (MACHINE, "kata-in-docker", "kata"),
}
MACHINES = ["machine-host", "machine-proxy", "kata-in-docker.machine-proxy", *(instance[0] for instance in INSTANCES)]


def ask(name: str, command: str, data: str = "") -> str:
    """Run a shell's command on a host of the inventory, and return its output. It takes milliseconds, where a task of
    Ansible takes seconds. The scenario's playbooks have shown that Ansible reaches the host.
    """
    *hops, container = WAYS[name]
    return docker("exec", "-i", container, "sh", "-c", command, hops=hops, data=data.encode())


def docker_info(name: str) -> dict:
    return json.loads(ask(name, "docker info --format '{{json .}}'"))


def ranges(name: str) -> list[ipaddress.IPv4Network]:
    """Return the address ranges that the Docker of a level takes: of its networks, and those that it takes new networks
    from.
    """
    subnets = ask(
        name,
        "docker network ls --quiet | xargs docker network inspect --format '{{range .IPAM.Config}}{{println"
        " .Subnet}}{{end}}'",
    ).split()
    pools = docker_info(name).get("DefaultAddressPools", [])
    found = {*subnets, *(pool["Base"] for pool in pools)}
    assert found, f"{name} has no network"
    return sorted(ipaddress.IPv4Network(one) for one in found if ":" not in one)


def devices_of(target: str, file: str) -> list[str]:
    """Return the loop devices that hold a file."""
    listed = ask(target, f"losetup --noheadings --output NAME --associated {file}").splitlines()
    # It also lists, as lost, a device that holds a file of the same name in another container of the machine.
    return [device for device in listed if "(lost)" not in device]


def device_of(target: str, instance: str) -> str:
    """Return the loop device of an instance's disk, or nothing."""
    return "\n".join(devices_of(target, f"/var/lib/nested-kata/disks/{instance}.img"))


def started(target: str, instance: str) -> str:
    """Return since when an instance runs; nothing where it does not, or while Docker is restarted."""
    show = "{{if .State.Running}}{{.State.StartedAt}}{{end}}"
    return ask(target, f"docker inspect --format '{show}' {instance} 2>/dev/null || true")


def wait_for(target: str, instance: str) -> None:
    """Return when the Docker of an instance answers."""
    ask(
        target,
        f"for i in $(seq 60); do docker exec {instance} docker version >/dev/null 2>&1 && exit 0; sleep 1; done;"
        " exit 1",
    )


def run(playbook: Path, *arguments: str, status: int = 0) -> str:
    """Run a playbook that ends with a status, and return what was said in one line."""
    done = subprocess.run(
        [shutil.which("ansible-playbook"), "--inventory", str(INVENTORY), str(playbook), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def role(tmp_path: Path, name: str, host: str, status: int = 0, **variables: object) -> str:
    """Run a role on a host, and return what was said."""
    playbook = tmp_path / "role.yml"
    playbook.write_text(
        json.dumps(
            [{"name": "Try", "hosts": host, "gather_facts": True, "vars": variables, "roles": [f"nested.kata.{name}"]}]
        ),
        encoding="utf-8",
    )
    return run(playbook, status=status)


def room_in(name: str) -> int:
    """Return the MiB of the file system that an instance's Docker has."""
    return int(ask(name, "df --block-size=1M --output=size /var/lib/docker | tail -1"))


@pytest.mark.parametrize("name", MACHINES)
def test_systemd_is_pid_1_and_says_running(name: str) -> None:
    assert ask(name, "cat /proc/1/comm; systemctl is-system-running").split() == ["systemd", "running"]


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_instance_keeps_docker_on_its_own_disk_with_the_driver_that_fits(
    name: str, target: str, filesystem: str, driver: str
) -> None:
    info = docker_info(name)
    assert (info["Driver"], info["DockerRootDir"]) == (driver, "/var/lib/docker")
    assert ask(name, "stat --file-system --format %T /var/lib/docker") == filesystem
    assert ask(name, "findmnt --noheadings --output SOURCE /var/lib/docker") == "/dev/docker-disk"
    assert json.loads(ask(name, "cat /etc/docker/daemon.json"))["storage-driver"] == driver


@pytest.mark.parametrize("name", [instance[0] for instance in INSTANCES])
def test_a_socket_of_the_kata_host_leads_its_group_to_the_instance_and_nowhere_else(name: str) -> None:
    host, short = f"machine-{'proxy' if 'proxy' in name else 'host'}", name.split(".", maxsplit=1)[0]
    who = f"docker --host unix:///run/nested-kata/{short}.sock info --format '{{{{.ID}}}}'"
    assert ask(host, who) == docker_info(name)["ID"]
    assert ask(host, f"docker --context nested-kata-{short} info --format '{{{{.ID}}}}'") == docker_info(name)["ID"]
    assert ask(host, f"stat --format '%U %G %a' /run/nested-kata/{short}.sock") == f"root nested-kata-{short} 660"
    ask(host, f"useradd --groups nested-kata-{short} member-{short}")
    try:
        as_member = f"setpriv --reuid member-{short} --regid member-{short} --init-groups"
        assert ask(host, f"{as_member} {who}") == docker_info(name)["ID"]
        others = "ls /run/nested-kata/*.sock /run/docker.sock | grep -v /" + short + ".sock"
        for other in ask(host, others).split():
            refused = ask(host, f"{as_member} docker --host unix://{other} version 2>&1 || true")
            assert "permission denied" in refused.lower()
    finally:
        ask(host, f"userdel member-{short}")


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_container_names_its_disk_by_a_link_and_sets_cpus_and_memory(
    name: str, target: str, filesystem: str, driver: str
) -> None:
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
    resolvers = [
        line.split()[1] for line in ask(name, "cat /etc/resolv.conf").splitlines() if line.startswith("nameserver")
    ]
    assert resolvers
    assert not [address for address in resolvers if address.startswith("127.")]


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_no_level_takes_the_addresses_of_another(name: str, target: str, filesystem: str, driver: str) -> None:
    inner, outer = ranges(name), ranges(target)
    assert docker_info(name)["DefaultAddressPools"]
    assert [(str(one), str(other)) for one in inner for other in outer if one.overlaps(other)] == []


def test_the_proxy_is_not_privileged_and_has_no_more_than_the_listed_capabilities() -> None:
    config = json.loads(ask("machine-proxy", "docker inspect kata-in-docker"))[0]["HostConfig"]
    assert config["Privileged"] is False
    assert config["CapDrop"] == ["ALL"]
    assert len(config["CapAdd"]) == 16
    assert not {
        "CAP_SYS_MODULE",
        "SYS_MODULE",
        "CAP_SYS_RESOURCE",
        "SYS_RESOURCE",
        "CAP_SYS_PTRACE",
        "SYS_PTRACE",
    } & set(config["CapAdd"])


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_the_inner_docker_builds_runs_and_connects_containers(
    name: str, target: str, filesystem: str, driver: str
) -> None:
    proof = ask(name, f"bash -s work {BASE}", PROVE.read_text(encoding="utf-8"))
    assert [line.rsplit(":", 1)[1].strip() for line in proof.splitlines()][1:] == ["ok", "ok", "ok"]


def test_a_volume_survives_a_clean_restart_and_a_cut_of_power() -> None:
    name, target = "one.machine-host", "machine-host"

    def written() -> str:
        return ask(name, "docker run --rm --volume nested-kata-proof:/data nested-kata/proof cat /data/written")

    before = written()
    ask(target, "systemctl restart nested-kata-instance@one.service")
    wait_for(target, "one")
    assert written() == before
    # A crash, for which killing the container's init stands here. Its unit starts it again.
    first = started(target, "one")
    ask(target, "kill -KILL $(docker inspect --format '{{.State.Pid}}' one)")
    wait_until(lambda: started(target, "one") not in ("", first), "it to be back")
    wait_for(target, "one")
    assert written() == before
    assert ask(target, "systemctl is-active nested-kata-instance@one.service") == "active"
    last = json.loads(ask(target, "cat /var/lib/nested-kata/ends/one.json"))["ends"][-1]
    assert (last["status"], last["reason"]) == (137, "it ended (exit status 137)")


def test_instances_are_back_when_docker_was_restarted_and_no_end_is_noted() -> None:
    target, instances, ends = "machine-host", ("one", "two"), "cat /var/lib/nested-kata/ends/*.json"
    noted, first = ask(target, ends), {name: started(target, name) for name in instances}
    ask(target, "systemctl restart docker")
    for name in instances:
        wait_until(lambda name=name: started(target, name) not in ("", first[name]), f"{name} to be back")
        wait_for(target, name)
    assert ask(target, ends) == noted
    states = "systemctl show --property=SubState --value nested-kata-instance@one nested-kata-instance@two"
    assert ask(target, states).split() == ["running", "running"]


def test_what_a_tenant_wrote_into_daemon_json_holds_where_it_may_when_docker_was_restarted() -> None:
    name, mtu = "one.machine-host", "com.docker.network.driver.mtu"
    of_eth0 = int(ask(name, "cat /sys/class/net/eth0/mtu"))
    kept, taken = {"base": "192.168.240.0/20", "size": 26}, {"base": str(ranges(name)[-1]), "size": 28}
    own = {
        "mtu": of_eth0 - 100,
        "default-network-opts": {"bridge": {mtu: str(of_eth0 + 1)}, "ipvlan": {"ipvlan_mode": "l3"}},
        "default-address-pools": [kept, taken],
        "labels": ["team=a"],
    }
    try:
        ask(name, "cat >/etc/docker/daemon.json && systemctl restart docker", json.dumps(own, indent=4))
        assert int(ask(name, "cat /sys/class/net/docker0/mtu")) == of_eth0 - 100
        assert docker_info(name)["Labels"] == ["team=a"]
        ask(name, "docker network create own")
        made = json.loads(ask(name, "docker network inspect own"))[0]
        assert ipaddress.ip_network(made["IPAM"]["Config"][0]["Subnet"]).subnet_of(ipaddress.ip_network(kept["base"]))
        assert made["Options"][mtu] == str(of_eth0)
        written = json.loads(ask(name, "cat /etc/docker/daemon.json"))
        assert written["default-network-opts"]["ipvlan"] == {"ipvlan_mode": "l3"}
        said = ask(name, "journalctl --unit nested-kata-docker --output cat")
        assert (
            f"default-network-opts.bridge.{mtu} {of_eth0 + 1} does not fit eth0, which has {of_eth0}: changed" in said
        )
        assert f"default-address-pools {taken['base']} overlaps " in said
        # One letter too many, and the way back.
        ask(name, "echo x >>/etc/docker/daemon.json; systemctl restart docker && exit 1; true")
        last = ask(name, "journalctl --unit nested-kata-docker --output cat --lines 8")
        assert "Docker is not started: /etc/docker/daemon.json: " in last
    finally:
        ask(name, "rm /etc/docker/daemon.json; systemctl restart docker; docker network rm own")


def test_instances_do_not_reach_each_other() -> None:
    address = ask(
        "machine-host", "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' two"
    )
    status = ask("one.machine-host", f"ping -c 1 -W 2 {address} >/dev/null; echo $?")
    assert status == "1"  # no answer; 2 would be another error


@pytest.mark.parametrize(("name", "target", "filesystem", "driver"), INSTANCES)
def test_an_instance_reaches_its_resolver_but_no_service_of_its_target_or_of_the_machine_above(
    name: str, target: str, filesystem: str, driver: str
) -> None:
    above = {target, target.rpartition(".")[2]}
    addresses = {address for one in above for address in ask(one, "hostname -I").split()}
    knock = "timeout 2 bash -c '</dev/tcp/{}/8099' 2>/dev/null"
    tries = "\n".join(f"{knock.format(address)} && echo {address}" for address in sorted(addresses))
    serve = "import http.server as h; h.HTTPServer(('0.0.0.0', 8099), h.SimpleHTTPRequestHandler).serve_forever()"
    try:
        for one in above:
            ask(one, f'setsid python3 -c "{serve}" >/dev/null 2>&1 </dev/null &')
            ask(one, f"until {knock.format('127.0.0.1')}; do sleep 0.1; done")
        assert ask(name, f"{tries}\ntrue") == ""
    finally:
        for one in above:
            # A machine sees the processes of its containers, and may have ended their servers: pkill finds none.
            ask(one, "pkill -f '[s]erve_forever' || [ $? = 1 ]")
    assert ask(name, "getent hosts deb.debian.org || getent ahosts deb.debian.org")


def test_the_firewall_outlives_a_flush_and_a_restart_of_docker() -> None:
    tables = "nft list tables inet | grep nested-kata | sort"
    before = ask("machine-host", tables)
    assert before.split("\n") == ["table inet nested-kata.one", "table inet nested-kata.two"]
    assert ask("machine-proxy", tables) == "table inet nested-kata.kata-in-docker"
    ask("machine-proxy", "nft flush ruleset; systemctl restart docker")
    ask("machine-proxy", "until docker exec kata-in-docker docker exec kata docker version; do sleep 1; done")
    assert ask("machine-proxy", tables) == "table inet nested-kata.kata-in-docker"


def test_stopping_an_instance_detaches_its_disk_and_starting_it_finds_it_again() -> None:
    target = "machine-host"
    ask(target, "systemctl stop nested-kata-instance@two.service")
    assert device_of(target, "two") == ""
    ask(target, "systemctl start nested-kata-instance@two.service")
    wait_for(target, "two")
    assert docker_info("two.machine-host")["Driver"] == "overlay2"


def test_disks_that_get_other_loop_devices_are_still_each_instance_s_own() -> None:
    target, instances = "machine-host", ("one", "two")

    def devices() -> dict[str, str]:
        return {name: device_of(target, name) for name in instances}

    def kept() -> dict[str, list[str]]:
        what = (
            "blkid --probe --match-tag UUID --output value /dev/docker-disk; docker info --format '{{.ID}}'; docker"
            " images --quiet --no-trunc"
        )
        return {name: ask(f"{name}.{target}", what).split() for name in instances}

    before, first = kept(), devices()
    assert all(first.values())
    ask(target, "systemctl stop nested-kata-instance@one.service nested-kata-instance@two.service")
    assert devices() == dict.fromkeys(instances, "")
    # As after a boot with more disks than before: their devices are taken, by these files, or by work beside this test,
    # which may give one back. The first to start gets the first device that is free, so it is the one with the last.
    taken = {device: f"/tmp/t-taken-{Path(device).name}" for device in first.values()}
    try:
        for device, file in taken.items():
            ask(target, f"truncate --size 1M {file}; losetup {device} {file} || losetup {device}")
        for name in sorted(instances, key=lambda one: int(first[one].removeprefix("/dev/loop")), reverse=True):
            ask(target, f"systemctl start nested-kata-instance@{name}.service")
        for name in instances:
            wait_for(target, name)
        again = devices()
        assert all(again.values())
        assert again != first
        assert kept() == before
    finally:
        for file in taken.values():
            for device in devices_of(target, file):
                ask(target, f"losetup --detach {device}")
            ask(target, f"rm {file}")
    assert set(before["one"]).isdisjoint(before["two"][:2])


def test_docker_may_take_longer_to_stop_than_a_proxy_where_there_is_one_and_only_there() -> None:
    show = "systemctl show docker.service --property NeedDaemonReload --property TimeoutStopUSec"
    assert set(ask("machine-proxy", show).splitlines()) == {"TimeoutStopUSec=3min 30s", "NeedDaemonReload=no"}
    assert set(ask("machine-host", show).splitlines()) == {"TimeoutStopUSec=1min 30s", "NeedDaemonReload=no"}
    assert ask("machine-proxy", "docker inspect --format '{{.Config.StopTimeout}}' kata-in-docker") == "180"


def test_a_proxy_that_is_removed_gives_back_its_own_time_limit_and_no_other(tmp_path: Path) -> None:
    directory = "/etc/systemd/system/docker.service.d"
    other = f"{directory}/10-nested-kata-t-other.conf"
    ask("machine-proxy", f"printf '[Service]\\nTimeoutStopSec=300\\n' >{other} && systemctl daemon-reload")
    role(tmp_path, "kata_proxy", "machine-proxy", kata_proxy_name="t-other", kata_proxy_state="absent")
    assert ask("machine-proxy", f"ls {directory}") == "10-nested-kata-kata-in-docker.conf"
    assert ask("machine-proxy", "systemctl show docker.service --property TimeoutStopUSec --value") == "3min 30s"


def test_a_golden_disk_is_sealed_has_a_manifest_and_no_builder_is_left() -> None:
    target, directory = "machine-host", "/var/lib/nested-kata/golden"
    image, manifest = ask(target, f"ls {directory}").split()
    assert (image, manifest) == (f"{manifest[: -len('.json')]}.img", manifest)
    assert ask(target, f"stat --format %a {directory}/{image}") == "400"
    told = json.loads(ask(target, f"cat {directory}/{manifest}"))
    assert told["images"] == {BASE: ask(target, f"docker image inspect --format '{{{{.Id}}}}' {BASE}")}
    assert (told["name"], told["driver"], told["fstype"]) == ("base", "overlay2", "ext4")
    assert ask(target, "docker ps --all --format '{{.Names}}'").split() == ["two", "one"]
    assert devices_of(target, f"{directory}/{image}") == []


def test_a_clone_of_a_golden_disk_has_its_images_and_a_uuid_of_its_own_and_is_as_large_as_asked() -> None:
    name, target = "two.machine-host", "machine-host"
    golden = json.loads(ask(target, "cat /var/lib/nested-kata/golden/*.json"))
    assert ask(name, f"docker image inspect --format '{{{{.Id}}}}' {BASE}") == golden["images"][BASE]
    uuid = ask(name, "blkid --probe --match-tag UUID --output value /dev/docker-disk")
    assert uuid == ask(target, "awk -F= '/^DISK_UUID/ {print $2}' /etc/nested-kata/instances/two.env")
    assert uuid != golden["uuid"]
    assert 1800 < room_in(name) <= 2048
    assert docker_info(name)["ID"] != docker_info("one.machine-host")["ID"]


def test_kata_is_registered_beside_what_the_proxy_s_docker_was_told_before() -> None:
    config = json.loads(ask(PROXY, "cat /etc/docker/daemon.json"))
    assert config["runtimes"] == {
        "kata": {
            "runtimeType": f"{KATA}/runtime-rs/bin/containerd-shim-kata-v2",
            "options": {"ConfigPath": f"{KATA_CONFIG}/configuration.toml"},
        }
    }
    assert config["default-address-pools"]
    assert config["storage-driver"] == docker_info(PROXY)["Driver"]


def test_the_drop_in_has_the_release_s_own_paths_safe_settings_and_what_the_inventory_says() -> None:
    drop_in = tomllib.loads(ask(PROXY, f"cat {KATA_CONFIG}/config.d/50-nested-kata.toml"))
    qemu = drop_in["hypervisor"]["qemu"]
    assert (qemu["path"], qemu["virtio_fs_daemon"]) == (f"{KATA}/bin/qemu-system-x86_64", f"{KATA}/libexec/virtiofsd")
    assert (qemu["enable_annotations"], qemu["seccomp_sandbox"][:3], qemu["default_memory"]) == ([], "on,", 1024)
    assert (qemu["overhead_vcpus"], qemu["reclaim_guest_freed_memory"]) == (0.0, False)
    assert qemu["virtio_fs_cache"] == "always"
    needed = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
    assert qemu["kernel_params"] == f"{needed} init=/usr/bin/kata-agent"
    # Found in none, where 2 would be that it could not look.
    assert ask(PROXY, f"grep -rl /opt/kata {KATA_CONFIG}/config.d; echo $?") == "1"


def test_the_instance_in_the_proxy_runs_on_the_shim_of_the_release() -> None:
    assert ask(PROXY, "docker inspect --format '{{.HostConfig.Runtime}}' kata") == "kata"
    shims = ask(PROXY, "readlink /proc/[0-9]*/exe | sort --unique | grep containerd-shim").split()
    assert shims == [f"{KATA}/runtime-rs/bin/containerd-shim-kata-v2"]


def test_the_python_of_a_target_refuses_every_hostile_archive_as_ours_does(tmp_path: Path) -> None:
    collection = tmp_path / "ansible_collections" / "nested" / "kata" / "plugins"
    shutil.copytree(PLAYBOOKS.parent / "plugins" / "module_utils", collection / "module_utils")
    for name in ("hostile_tars.py", "unpack_hostile_tars.py"):
        shutil.copy(PLAYBOOKS.parent / "tests" / "support" / name, tmp_path)
    packed = subprocess.run(["tar", "-cz", "-C", tmp_path, "."], capture_output=True, check=True).stdout
    program = "PYTHONPATH=$here python3 $here/unpack_hostile_tars.py"
    unpack = f"here=$(mktemp -d) && base64 -d | tar -xz -C $here && {program}; rm -r $here"
    said = ask("machine-host", unpack, base64.b64encode(packed).decode())
    assert re.fullmatch(r"\d+ archives on Python 3\.13", said.strip()), said


def test_nothing_of_the_archive_is_left_beside_the_release() -> None:
    assert ask(PROXY, f"ls -A {KATA.rsplit('/', 1)[0]}").split() == ["4.1.0"]


@pytest.mark.parametrize(
    ("name", "filtered"),
    [
        ("kata-in-docker.machine-proxy", "2"),
        ("kata.kata-in-docker.machine-proxy", "2"),
        ("one.machine-host", "0"),
    ],
)
def test_a_proxy_and_all_that_runs_in_it_is_held_by_its_seccomp_profile(name: str, filtered: str) -> None:
    assert ask(name, "awk '/^Seccomp:/ {print $2}' /proc/1/status") == filtered


def test_a_bare_machine_got_no_more_packages_than_docker_needs() -> None:
    installed = ask("machine-bare", "dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n'").splitlines()
    assert "apparmor installed" in installed
    assert "git installed" not in installed


def test_a_bare_machine_got_a_docker_that_runs_without_systemd() -> None:
    name = "machine-bare"
    assert ask(name, "cat /proc/1/comm") != "systemd"
    ask(
        name,
        "docker pull --quiet debian:trixie-slim || tar --create --directory / bin sbin lib lib64 usr | docker import -"
        " debian:trixie-slim",
    )
    assert ask(name, "docker run --rm debian:trixie-slim echo from a container") == "from a container"


# --- what runs, and is wanted otherwise; the file tests/integration/test_what_runs_is_left_running.py tries more ---


def containers(target: str) -> list[str]:
    """Return all containers on a target: name, id, whether and since when each runs."""
    show = "{{.Name}} {{.Id}} {{.State.Running}} {{.State.StartedAt}}"
    return sorted(ask(target, f"docker ps --all --quiet | xargs docker inspect --format '{show}'").splitlines())


def image_of(target: str, container: str) -> str:
    return ask(target, f"docker inspect --format '{{{{.Config.Image}}}}' {container}")


def test_a_proxy_that_runs_is_left_running_and_the_status_tells_how_it_differs(tmp_path: Path) -> None:
    before = containers("machine-proxy")
    image = image_of("machine-proxy", "kata-in-docker")
    said = role(
        *(tmp_path, "kata_proxy", "machine-proxy"),
        kata_proxy_image=image,
        kata_proxy_images=[image, BASE],
        kata_proxy_shm_size="2G",
    )
    assert re.search(r"shm-size: \S+ GiB -> 2 GiB", said)
    assert "left as it is (kata_proxy_recreate=stopped)" in said
    assert "changed=0" in said
    assert containers("machine-proxy") == before
    assert re.search(r"kata-in-docker +shm-size +\S+ GiB +2 GiB", run(PLAYBOOKS / "status.yml"))


def test_a_running_instance_gets_more_room_while_a_container_in_it_writes(tmp_path: Path) -> None:
    target, name = "machine-host", "one.machine-host"
    before = containers(target)
    assert (room_in(name), ask(target, "stat --format %s /var/lib/nested-kata/disks/one.img")) == (2048, str(3 << 30))
    copying = "dd if=/dev/urandom bs=1M count=20 of=/data/new conv=fsync 2>/dev/null; mv /data/new /data/last"
    writing = f"while :; do {copying}; done"
    ask(name, f"docker run --detach --name writes --volume /data {BASE} sh -c '{writing}'")
    entries = [
        {"name": "one", "disk": {"size": "2500M"}},
        {"name": "two", "disk": {"size": "2500M"}, "network": "bridge"},
    ]
    wanted = {"kata_instance_image": image_of(target, "one"), "kata_instance_disk_fstype": "btrfs"}
    entries[1]["disk"]["fstype"] = "ext4"
    said = role(tmp_path, "kata_instance", target, **wanted, kata_instance_list=entries)
    # btrfs at once, ext4 at its next start
    assert (room_in(name), room_in("two.machine-host") <= 2048) == (2500, True)
    assert "The disk of two is wanted with 2500M" in said
    assert "The disk of one is wanted" not in said
    assert re.search(r"two +disk, until a restart", run(PLAYBOOKS / "status.yml"))
    assert "changed=0" in role(tmp_path, "kata_instance", target, **wanted, kata_instance_list=entries)
    ask(target, "systemctl restart nested-kata-instance@two")
    wait_for(target, "two")
    assert 2300 < room_in("two.machine-host") <= 2500
    assert containers(target)[0] == before[0]
    assert ask(name, "docker inspect --format '{{.State.Running}}' writes") == "true"
    ask(name, "docker rm --force --volumes writes")


def test_an_instance_is_made_again_on_its_disk_where_that_is_asked_for_and_another_is_left_running(
    tmp_path: Path,
) -> None:
    target, image = "machine-host", image_of("machine-host", "one")
    one, two = containers(target)
    ask("one.machine-host", "echo mine >/var/lib/docker/mine")
    wanted = {"kata_instance_image": image, "kata_instance_memory": "1100m"}
    said = role(
        *(tmp_path, "kata_instance", target),
        **{**wanted, "kata_instance_recreate": "always", "kata_instance_list": [{"name": "one"}]},
    )
    assert "memory: 1 GiB -> 1100 MiB" in said
    assert "made again (kata_instance_recreate=always)" in said
    again, other = containers(target)
    assert other == two
    assert (again.split()[::2], again.split()[1] != one.split()[1]) == (["/one", "true"], True)
    assert ask("one.machine-host", "cat /var/lib/docker/mine") == "mine"
    assert ask(target, "docker inspect --format '{{.HostConfig.Memory}}' one") == str(1100 << 20)


def test_the_earlier_instance_is_back_where_the_new_one_does_not_start(tmp_path: Path) -> None:
    target = "machine-host"
    one, two = containers(target)
    ask("one.machine-host", "echo mine >/root/mine")
    said = role(
        *(tmp_path, "kata_instance", target, 2),
        kata_instance_image=image_of(target, "one"),
        kata_instance_memory="1100m",
        kata_instance_recreate="always",
        kata_instance_list=[{"name": "one"}],
        kata_instance_extra_args=["--device", "/dev/no-such-device"],
    )
    assert "no-such-device" in said
    assert "the earlier one is back in its place" in said
    back, other = containers(target)
    assert (back.split()[:3], other) == (one.split()[:3], two)
    assert ask("one.machine-host", "cat /root/mine") == "mine"
    assert ask(target, "systemctl is-active nested-kata-instance@one.service") == "active"


def test_a_kata_host_is_rid_of_sockets_and_of_nothing_else(tmp_path: Path) -> None:
    host = "machine-host"
    role(tmp_path, "kata_socket", host, kata_socket_state="absent", kata_socket_instances=["two.machine-host"])
    assert ask(host, "echo /run/nested-kata/*.sock") == "/run/nested-kata/one.sock"
    assert (
        ask(host, "docker --context nested-kata-one info --format '{{.ID}}'") == docker_info("one.machine-host")["ID"]
    )
    role(tmp_path, "kata_socket", host, kata_socket_state="absent")
    places = (
        "/run/nested-kata/*.sock /var/lib/nested-kata/socket /etc/nested-kata/sockets /root/.docker/contexts/meta/*"
    )
    assert ask(host, f"ls -d {places} 2>/dev/null; find /etc/systemd -name '*nested-kata-socket*'") == ""
    assert ask(host, "getent group | grep nested-kata- || true") == ""
    assert " changed=0 " in role(tmp_path, "kata_socket", host, kata_socket_state="absent")


def test_a_target_is_rid_of_its_instances_and_of_nothing_else_first_without_and_then_with_their_disks() -> None:
    target, disks = "machine-host", "find /var/lib/nested-kata -name '*.img' -printf '%f\\n' | sort"
    golden, *instances = ask(target, disks).split()
    assert instances == ["one.img", "two.img"]
    ask(target, f"docker create --name t-theirs --label nested.kata.instance=one {BASE} true")
    run(PLAYBOOKS / "remove.yml", "--limit", target)
    assert [line.split()[0] for line in containers(target)] == ["/t-theirs"]
    assert ask(target, disks).split() == [golden, *instances]
    assert ask(target, "docker network ls --quiet --filter label=nested.kata.instance") == ""
    assert [device_of(target, name) for name in ("one", "two")] == ["", ""]
    run(PLAYBOOKS / "remove.yml", "--limit", target, "--extra-vars", "nested_kata_purge=true")
    assert ask(target, disks) == ""
    assert [line.split()[0] for line in containers(target)] == ["/t-theirs"]
