# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of what Docker and the guests say. Both are asked in tests/integration/test_instance_info.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.command import NoAnswer
from ansible_collections.nested.kata.plugins.module_utils._host.instances import (
    Places,
    described,
    ends_of,
    heard,
    look,
    memory_held,
    state_of,
)

ID = "ab" * 32
INFO = {"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": 3}
MEMORY = {"size": 1 << 30, "used": None, "held": None}


def container(name: str = "ci", running: bool = True, label: str = "instance", **labels: str) -> dict:
    return {
        "Id": ID,
        "Name": f"/{name}",
        "Config": {"Labels": {f"nested.kata.{label}": name, **labels}},
        "State": {"Running": running, "StartedAt": "2026-11-30T12:00:00Z", "ExitCode": 137},
        "HostConfig": {"Runtime": "kata", "Memory": 1 << 30},
    }


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """The places of a target on which the instance ci was made."""
    for name in ("settings", "ends"):
        (tmp_path / name).mkdir()
    (tmp_path / "settings" / "ci.env").touch()
    return Places(str(tmp_path / "settings"), str(tmp_path / "ends"), "/proc")


def answer(stdout: str, rc: int = 0, stderr: str = "") -> dict:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def guest(info: object = None, memory: str = "MemTotal 1024\nMemAvailable 1000\n", kernel: str = "6.12") -> dict:
    return answer(f"{kernel}\n{memory}{json.dumps(INFO if info is None else info)}\n")


def test_what_a_guest_says_is_taken_apart() -> None:
    assert heard(guest(), MEMORY) == {
        "kernel": "6.12",
        "version": "26.1.5",
        "driver": "btrfs",
        "running": 3,
        "memory": {**MEMORY, "used": 24 * 1024},
        "disk": None,
    }
    assert heard(guest(memory="Disk 21474836480\n"), MEMORY)["disk"] == 20 << 30


@pytest.mark.parametrize(
    "memory", ["", "MemTotal 1024\n", "MemTotal x\nMemAvailable 5\n", f"MemTotal {'9' * 99}\n", "A 1\nB 2\n"]
)
def test_a_guest_that_does_not_say_its_memory_is_not_broken_for_that(memory: str) -> None:
    assert heard(guest(memory=memory), MEMORY)["memory"] == MEMORY


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (answer("", 1, "Cannot connect\x1b[31m to Docker\n"), "Cannot connect\\x1b[31m to Docker"),
        (answer("out of\nmemory\n", 1), "memory"),
        (answer("", 126), "it answers with exit status 126"),
        (answer(""), "what its Docker says is not valid JSON"),
        (answer("6.12\n"), "what its Docker says is not valid JSON"),
        (guest([]), "what its Docker says is not an object"),
        (guest({**INFO, "Driver": 1}), "Driver is not a text: 1"),
        (guest({**INFO, "ContainersRunning": -1}), "ContainersRunning is -1"),
        (answer("6.12\n" + "[" * 100_000), "levels"),
    ],
)
def test_a_guest_that_gives_no_useful_answer_is_broken_and_why_is_visible(
    said: dict, reason: str, places: Places
) -> None:
    found = described(container(), places, said, None)
    assert (found["state"], found["version"], found["running"]) == ("broken", "", 0)
    assert reason in found["reason"]
    assert found["reason"].isprintable()


@pytest.mark.parametrize("status", [124, 137])
def test_a_guest_that_gives_no_answer_is_silent(status: int, places: Places) -> None:
    with pytest.raises(NoAnswer):
        heard(answer("", status), MEMORY)
    assert described(container(), places, answer("", status), None)["state"] == "silent"


def test_what_a_guest_says_of_itself_is_short_and_visible() -> None:
    found = heard(guest({**INFO, "Driver": "b" * 1000}, kernel="6.12\x07"), MEMORY)
    assert (found["kernel"], len(found["driver"])) == ("6.12\\x07", 60)


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (container(), "running"),
        (container(running=False), "stopped"),
        (container("ci.nested-kata-old", False, **{"nested.kata.instance": "ci"}), "foreign"),
        (container("copy", **{"nested.kata.instance": "ci"}), "foreign"),
        (container("other"), "foreign"),
        (container("p", label="proxy"), "running"),
        (container("p", label="proxy", **{"nested.kata.proxy": "q"}), "foreign"),
    ],
)
def test_a_label_alone_makes_no_instance(one: dict, state: str, places: Places) -> None:
    assert state_of(one, places) == state


def test_one_that_is_stopped_has_its_exit_status_and_why_it_ended(places: Places) -> None:
    ends = [{"at": "2026", "reason": "it ended", "status": 137, "lines": ["x"]}]
    Path(places.ends, "ci.json").write_text(json.dumps({"restarts": [], "ends": ends}))
    found = described(container(running=False), places, None, None)
    assert (found["exit_status"], found["ends"], found["runtime"]) == (137, ends, "kata")
    assert described(container(), places, guest(), 5)["memory"] == {"size": 1 << 30, "used": 24 * 1024, "held": 5}


@pytest.mark.parametrize(
    ("text", "size"),
    [("DISK=/d\nDISK_SIZE=4096\n", 4096), ("DISK_SIZE=all\n", None), ("DISK=/d\n", None), ("\0", None)],
)
def test_how_large_a_file_system_is_to_be_is_in_the_settings(text: str, size: int | None, places: Places) -> None:
    Path(places.settings, "ci.env").write_text(text)
    assert described(container(), places, None, None)["disk_wanted"] == size


@pytest.mark.parametrize("text", ["", "[]", '{"ends": [1]}', '{"ends": [{"at": 1}]}', '{"ends": 5}'])
def test_a_damaged_record_of_ends_is_an_empty_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "ci.json").write_text(text)
    assert ends_of(str(tmp_path / "ci.json")) == []
    assert ends_of(str(tmp_path / "none.json")) == []


def test_memory_is_that_of_all_processes_of_a_machine_and_of_none_without_a_hypervisor(tmp_path: Path) -> None:
    other = "cd" * 32
    for process, command, kib in (
        ("10", f"/opt/kata/bin/qemu-system-x86_64 -name sandbox-{ID}", 100),
        ("11", f"/opt/kata/libexec/virtiofsd --shared /run/kata/{ID}/shared", 20),
        ("12", f"/usr/bin/containerd-shim-runc-v2 -id {other} qemu", 5),
        ("13", "", 7),
    ):
        (tmp_path / process).mkdir()
        (tmp_path / process / "cmdline").write_text(command.replace(" ", "\0"))
        (tmp_path / process / "smaps_rollup").write_text(f"Rss: {kib * 2} kB\nPss:      {kib} kB\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "14").mkdir()
    assert memory_held([ID, other], str(tmp_path)) == {ID: 120 * 1024}


def test_without_docker_there_is_the_reason() -> None:
    assert look(None, 5) == {"error": "there is no command docker", "levels": []}
