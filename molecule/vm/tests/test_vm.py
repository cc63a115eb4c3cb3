# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine with an instance of its own and one in its proxy, before and after another reboot, looked at by ssh."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from qemu_machine import ssh

MACHINE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "machine")
BASE = "debian:trixie-slim"
KATA = "/var/lib/nested-kata/kata/4.1.0"
PROXY = "docker exec -i kata-in-docker "

# The way from the machine to the target, what its instance is called, and to the instance.
TARGETS = {"host": "", "proxy": PROXY}
BACK_SECONDS = 600

pytestmark = pytest.mark.parametrize("target", TARGETS)


def tell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(ssh(MACHINE, command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def ask(command: str) -> str:
    done = tell(command)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def in_instance(target: str, command: str) -> str:
    return ask(f"{TARGETS[target]}docker exec -i kata {command}")


def info(way: str) -> dict:
    return json.loads(ask(f"{way} docker info --format '{{{{json .}}}}'"))


def test_every_level_runs_systemd_on_cgroup_2_and_says_running(target: str) -> None:
    for way in (TARGETS[target], f"{TARGETS[target]}docker exec -i kata "):
        assert ask(f"{way}cat /proc/1/comm; {way}systemctl is-system-running").split() == ["systemd", "running"]
        assert info(way)["CgroupVersion"] == "2"


def test_docker_of_the_target_has_apparmor_where_the_machine_has_it(target: str) -> None:
    assert ("name=apparmor" in info(TARGETS[target])["SecurityOptions"]) is (target == "host")


def test_the_instance_runs_on_the_release_s_shim_and_its_disk_is_a_device_of_its_own(target: str) -> None:
    config = json.loads(ask(f"{TARGETS[target]}docker inspect kata"))[0]["HostConfig"]
    assert (config["Runtime"], config["Privileged"]) == ("kata", False)
    assert [device["PathOnHost"] for device in config["Devices"]] == ["/run/nested-kata/disks/kata"]
    assert in_instance(target, "findmnt --noheadings --output SOURCE,FSTYPE /var/lib/docker").split() == [
        "/dev/docker-disk",
        "ext4",
    ]
    assert info(f"{TARGETS[target]}docker exec -i kata ")["Driver"] == "overlay2"
    registered = json.loads(ask(f"{TARGETS[target]}cat /etc/docker/daemon.json"))["runtimes"]["kata"]
    assert registered["runtimeType"] == f"{KATA}/runtime-rs/bin/containerd-shim-kata-v2"


def test_the_inner_docker_runs_containers_and_keeps_a_volume(target: str) -> None:
    in_instance(target, f"docker run --rm --volume kept:/data {BASE} sh -c 'echo {target} >/data/written'")
    assert in_instance(target, f"docker run --rm --network none --volume kept:/data {BASE} cat /data/written") == target


def test_the_modules_that_kata_needs_load_at_boot(target: str) -> None:
    """Those of the machine, whichever is the target."""
    loaded = ask("lsmod").split()
    assert {"vhost_vsock", "vhost_net", "tun", "loop"} <= set(loaded), target
    assert ask("cat /etc/modules-load.d/nested-kata.conf")


@pytest.fixture(scope="module")
def rebooted() -> None:
    """Reboot once, for all that is to be looked at afterwards."""
    boot = ask("cat /proc/sys/kernel/random/boot_id")
    tell("systemctl reboot")
    end = time.monotonic() + BACK_SECONDS
    while (
        tell("cat /proc/sys/kernel/random/boot_id").stdout.strip() in ("", boot)
        or tell("systemctl is-system-running --wait").returncode
    ):
        assert time.monotonic() < end, (
            f"not back within {BACK_SECONDS} s: {tell('systemctl --failed --no-legend').stdout}"
        )
        time.sleep(2)


@pytest.mark.usefixtures("rebooted")
def test_a_reboot_brings_the_instance_back_with_its_own_disk(target: str) -> None:
    end = time.monotonic() + BACK_SECONDS
    way = f"{TARGETS[target]}docker exec -i kata "
    while tell(f"{way}docker version").returncode:
        assert time.monotonic() < end, tell(f"{TARGETS[target]}docker ps --all").stdout
        time.sleep(2)
    assert in_instance(target, f"docker run --rm --network none --volume kept:/data {BASE} cat /data/written") == target


@pytest.mark.usefixtures("rebooted")
def test_after_a_reboot_no_way_leads_from_the_instance_to_its_target(target: str) -> None:
    """Tried at the address that is the instance's gateway, where the target serves a port to itself."""
    ask(f"{TARGETS[target]}sh -c 'exec setsid --fork python3 -m http.server 8099 >/dev/null 2>&1 </dev/null'")
    (route,) = json.loads(in_instance(target, "ip -json route show default"))
    attempt = f"python3 -c 'import socket; socket.create_connection((\"{route['gateway']}\", 8099), 5)'"
    end = time.monotonic() + 60
    while tell(f"{TARGETS[target]}{attempt}").returncode:
        assert time.monotonic() < end, "the target does not reach its own port"
        time.sleep(1)
    assert "TimeoutError" in tell(f"{TARGETS[target]}docker exec -i kata {attempt}").stderr
