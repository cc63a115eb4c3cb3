# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that keeps an instance running, on a machine without systemd, with a Docker that is stopped and started.

A container of runc stands in for the VM. What ends it is real: a signal to its init, memory that ran out, a question
that is never answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

import pytest
from ansible_runner import CHECKOUT, MARK, wait_until
from docker_in_docker import DAEMON_IMAGE, FLAGS, PREPARE, build_images, docker, load, wait_for_daemon, within
from loop_mounts import tool

pytestmark = [pytest.mark.root, pytest.mark.docker]

TARGET = f"t-keeper-{MARK}"
BASE = "debian:trixie-slim"
LIB, ETC, RUN = "/var/lib/nested-kata", "/etc/nested-kata", "/run/nested-kata"
KEEPER = f"{LIB}/bin/instance.py"
PROGRAMS = {
    KEEPER: CHECKOUT / "roles/kata_instance/files/instance.py",
    f"{LIB}/bin/loop.py": CHECKOUT / "plugins/module_utils/_disk/loop.py",
}
OPTIONS = ["--device", "/dev/loop-control", "--device-cgroup-rule", "b 7:* rmw", "--volume", "/var/lib/docker"]
DAEMON_JSON = '{"storage-driver": "overlay2", "bridge": "none", "iptables": false, "ip6tables": false}'
START_DOCKERD = "dockerd >>/var/log/dockerd.log 2>&1 &"
STOP_DOCKERD = "kill $(cat /run/docker.pid); while [ -e /run/docker.pid ]; do sleep 0.05; done"
FOREVER = "trap 'exit 0' TERM; sleep 1000 & wait"


def on_target(script: str, *arguments: str) -> str:
    return within(TARGET, "sh", "-ec", script, "sh", *arguments)


@pytest.fixture(scope="module")
def target() -> Iterator[None]:
    """Start a target with Docker. Its program for the firewall finds every table."""
    build_images(DAEMON_IMAGE)
    docker("rm", "-fv", TARGET, check=False)
    docker(
        "run",
        "-d",
        "--name",
        TARGET,
        *FLAGS,
        *OPTIONS,
        f"--env=DAEMON_JSON={DAEMON_JSON}",
        DAEMON_IMAGE,
        "sleep",
        "infinity",
    )
    try:
        on_target(
            """
            mkdir -p "$1/bin" "$1/firewall" "$1/disks" "$2/instances"
            touch "$1/firewall/firewall.py"
            """
            + PREPARE
            + START_DOCKERD,
            LIB,
            ETC,
        )
        for path, source in PROGRAMS.items():
            within(TARGET, "tee", path, data=source.read_text())
        wait_for_daemon(TARGET)
        load(BASE, TARGET)
        yield
    finally:
        docker("rm", "-fv", TARGET)


def settings(name: str, disk: str = "", **more: object) -> None:
    lines = {"DISK": f"{LIB}/disks/{disk or name}.img", "STOP_TIMEOUT": 5, "RESTART_PAUSE": 0.2, **more}
    within(
        TARGET, "tee", f"{ETC}/instances/{name}.env", data="".join(f"{key}={value}\n" for key, value in lines.items())
    )


@contextmanager
def instance(name: str, command: str = FOREVER, options: tuple[str, ...] = (), **more: object) -> Iterator[str]:
    """Make a container with a disk of its own, which nobody keeps running yet."""
    with NamedTemporaryFile() as disk:
        os.truncate(disk.name, 8 << 20)
        tool("mkfs.ext4", "-q", disk.name)
        docker("cp", disk.name, f"{TARGET}:{LIB}/disks/{name}.img")
    settings(name, **more)
    docker("create", "--name", name, "--network", "none", *options, BASE, "sh", "-c", command, hops=[TARGET])
    try:
        yield name
    finally:
        keeper("stop", name)
        docker("rm", "-f", name, hops=[TARGET])
        on_target(f"rm -f {LIB}/ends/{name}.json")


def keeper(command: str, name: str, status: int = 0) -> str:
    """Run the program, and return what it wrote."""
    done = subprocess.run(
        ["docker", "exec", TARGET, "python3", KEEPER, command, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done
    return (done.stdout + done.stderr).strip()


def state(name: str) -> dict:
    return json.loads(docker("inspect", "--format", "{{json .State}}", name, hops=[TARGET]))


def ends(name: str) -> list[dict]:
    """Return what was kept of how it ended."""
    text = on_target('[ ! -e "$1" ] || cat "$1"', f"{LIB}/ends/{name}.json")
    return json.loads(text)["ends"] if text else []


def runs_anew(name: str, earlier: dict) -> bool:
    now = state(name)
    return now["Running"] and now["Pid"] != earlier["Pid"]


def keeper_process(name: str) -> str:
    return on_target('cat "$1"', f"{RUN}/instances/{name}.pid").strip()


@pytest.mark.usefixtures("target")
def test_a_machine_that_dies_is_back_and_why_it_died_is_kept() -> None:
    with instance("dies", f"echo 'last \\033[31mwords'; {FOREVER}"):
        assert keeper("supervise", "dies") == "dies runs"
        assert keeper("supervise", "dies") == ""
        before = state("dies")
        on_target(f"kill -KILL {before['Pid']}")
        wait_until(lambda: runs_anew("dies", before), "it to be back", 20)
        (kept,) = ends("dies")
        assert (kept["status"], kept["reason"]) == (137, "it ended (exit status 137)")
        assert kept["lines"] == ["last \\x1b[31mwords"]
        assert time.time() - time.mktime(time.strptime(kept["at"][:19], "%Y-%m-%dT%H:%M:%S")) < 120
        assert on_target(f"readlink {RUN}/disks/dies").startswith("/dev/loop")
        assert on_target(f"stat -c %a {LIB}/ends {LIB}/ends/dies.json").split() == ["700", "600"]
        assert keeper("stop", "dies") == "dies was stopped"
        assert keeper("stop", "dies") == ""
        assert not state("dies")["Running"]
        assert on_target(f"losetup --associated {LIB}/disks/dies.img; ls {RUN}/disks") == ""
        assert len(ends("dies")) == 1


@pytest.mark.usefixtures("target")
def test_one_that_runs_is_taken_over_by_the_next_process() -> None:
    with instance("taken"):
        keeper("supervise", "taken")
        before = state("taken")
        process = keeper_process("taken")
        on_target(f"kill -KILL {process}")
        keeper("supervise", "taken")
        assert keeper_process("taken") != process
        assert state("taken") == before
        assert ends("taken") == []


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize(
    ("policy", "status", "left"),
    [("no", 0, 0), ("no", 7, 3), ("on-failure", 0, 0), ("on-failure", 7, 1), ("always", 0, 1), ("always", 7, 1)],
)
def test_the_policy_decides_what_becomes_of_one_that_has_ended(policy: str, status: int, left: int) -> None:
    with instance("ends", f"sleep 0.5; exit {status}", RESTART=policy):
        said = keeper("run", "ends", left)
        assert said == f"ends: it ended (exit status {status})"


@pytest.mark.usefixtures("target")
def test_one_that_ends_at_once_is_given_up_in_the_end() -> None:
    with instance("fails", "exit 5", RESTART_LIMIT=2, RESTART_PAUSE=0.1):
        keeper("supervise", "fails")
        wait_until(lambda: len(ends("fails")) == 3, "it to have ended three times", 30)
        wait_until(lambda: keeper("stop", "fails") == "", "it to be given up", 10)
        assert [one["status"] for one in ends("fails")] == [5, 5, 5]
        # Somebody starts it: it counts anew, and keeps what it has kept.
        keeper("supervise", "fails")
        wait_until(lambda: [one["status"] for one in ends("fails")] == [5] * 5, "it to be tried again", 30)


@pytest.mark.usefixtures("target")
def test_one_whose_memory_ran_out_is_back() -> None:
    hungry = "if [ -e /tried ]; then exec sleep 1000; fi; touch /tried; exec tail /dev/zero"
    with instance("hungry", hungry, ("--memory", "24m")):
        keeper("supervise", "hungry")
        wait_until(lambda: ends("hungry") and state("hungry")["Running"], "it to be back", 60)
        assert [one["reason"] for one in ends("hungry")] == ["it was out of memory (exit status 137)"]


@pytest.mark.usefixtures("target")
def test_one_that_hangs_is_killed_and_back_and_one_that_answers_with_an_error_is_not() -> None:
    merged = "{{.GraphDriver.Data.MergedDir}}"
    with instance("hangs", WATCHDOG=2), instance("answers", FOREVER, WATCHDOG=1):
        docker("start", "answers", hops=[TARGET])
        docker("start", "hangs", hops=[TARGET])
        on_target(f"rm -f $(docker inspect --format '{merged}' answers)/usr/bin/true")
        on_target(f"printf '#!/bin/sh\nexec sleep 1000' >$(docker inspect --format '{merged}' hangs)/usr/bin/true")
        keeper("supervise", "answers")
        keeper("supervise", "hangs")
        other, before = state("answers"), state("hangs")
        wait_until(lambda: runs_anew("hangs", before), "it to be back", 90)
        assert [one["reason"] for one in ends("hangs")] == ["it hung (exit status 137)"]
        assert state("answers") == other


@pytest.mark.usefixtures("target")
def test_two_never_start_with_one_disk() -> None:
    with instance("owner"), instance("thief"):
        settings("thief", disk="owner")
        keeper("supervise", "owner")
        assert f"{LIB}/disks/owner.img is locked" in keeper("run", "thief", 1)
        keeper("stop", "owner")
        # As the hypervisor of a VM that Docker takes for dead.
        device = on_target(f"losetup --find --show {LIB}/disks/owner.img").strip()
        on_target(f"sleep 1000 <>{device} & echo $! >/tmp/thief")
        said = keeper("run", "owner", 1)
        assert f"{LIB}/disks/owner.img is in use: {device} is open in process" in said
        assert not state("owner")["Running"]
        on_target(f"kill $(cat /tmp/thief); losetup --detach {device}")
        settings("thief")


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("live_restore", [False, True])
def test_when_docker_is_restarted_all_are_back_or_run_on_and_none_is_doubled(live_restore: bool) -> None:
    with instance("kept", RESTART="no"):
        on_target(STOP_DOCKERD)
        on_target(f"dockerd {'--live-restore ' * live_restore}>>/var/log/dockerd.log 2>&1 &")
        wait_for_daemon(TARGET)
        try:
            keeper("supervise", "kept")
            before = state("kept")
            on_target(STOP_DOCKERD)
            time.sleep(2)  # for which nothing may be taken for an end
            on_target(f"dockerd {'--live-restore ' * live_restore}>>/var/log/dockerd.log 2>&1 &")
            wait_for_daemon(TARGET)
            wait_until(lambda: state("kept")["Running"], "it to run", 20)
            time.sleep(2)
            now = state("kept")
            assert (now["Pid"] == before["Pid"]) == live_restore
            assert now["Running"]
            assert ends("kept") == []
            assert docker("ps", "--format", "{{.Names}}", hops=[TARGET]) == "kept"
            # It watches the new daemon's as it did the earlier one's.
            on_target(f"kill -KILL {now['Pid']}")
            wait_until(lambda: bool(ends("kept")), "its end to be noticed", 20)
        finally:
            on_target(STOP_DOCKERD)
            on_target(START_DOCKERD)
            wait_for_daemon(TARGET)
