# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module daemon_config on a real dockerd. runc's own shim, at another path, is the runtime that it registers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from ansible_runner import MARK, run_module
from docker_in_docker import configure_without, has_runtime, nested_daemon, within

pytestmark = [pytest.mark.docker, pytest.mark.root]

NAME = f"t-daemon-config-{MARK}"
PATH = "/etc/docker/daemon.json"
OURS = "/var/lib/nested-kata"
SHIM = f"{OURS}/kata/4.1.0/containerd-shim-kata-v2"
KATA = {"runtimeType": SHIM}
BEFORE = (
    '{\n    "storage-driver": "overlay2",\n    "labels": [\n        "site=here"\n    ],\n    "bip":'
    ' "172.30.255.1/24"\n}\n'
)

inside = partial(within, NAME)
runs_kata = partial(has_runtime, NAME, "kata")


def content() -> str:
    return inside("cat", PATH)


def state() -> str:
    """What a second run must leave as it is: the file, its times, and the daemon's process and time of start."""
    file = f"stat --format '%i %y %z %a %U' {PATH}; ls -a /etc/docker"
    return inside("sh", "-c", f"{file}; cat /run/docker.pid; cut -d' ' -f22 /proc/$(cat /run/docker.pid)/stat")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dockerd with a shim in our directory; its inventory."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    inventory.write_text(
        json.dumps(
            {
                "all": {
                    "hosts": {
                        "daemon": {
                            "ansible_connection": "nested.kata.nested",
                            "ansible_nested_hops": [NAME],
                            "ansible_python_interpreter": "/usr/bin/python3",
                        }
                    }
                }
            }
        )
    )
    with nested_daemon(NAME, network=False):
        inside("sh", "-c", f"mkdir -p $(dirname {SHIM}) && cp $(command -v containerd-shim-runc-v2) {SHIM}")
        yield inventory


@pytest.fixture(autouse=True)
def fresh(daemon: Path) -> None:
    configure_without(NAME, "kata", BEFORE)
    inside("chmod", "640", PATH)


def run(daemon: Path, settings: dict, *, check: bool = False, **options: object) -> dict:
    return run_module("daemon_config", {"settings": settings, **options}, check=check, inventory=daemon, host="daemon")


def test_four_runs_register_a_runtime_which_a_running_container_does_not_notice(daemon: Path) -> None:
    wanted = {"runtimes": {"kata": KATA}}
    started = state().splitlines()[-1]
    check = run(daemon, wanted, check=True)
    assert (check["changed"], check["steps"], content()) == (True, ["write the file", "have dockerd read it"], BEFORE)
    real = run(daemon, wanted)
    assert (real["changed"], real["steps"], real["restart"]) == (True, check["steps"], [])
    assert (real["diff"]["before"], real["diff"]["after"]) == (BEFORE, content())
    assert json.loads(content()) == {**json.loads(BEFORE), "runtimes": {"kata": KATA}}
    assert content().startswith(BEFORE[: BEFORE.rindex('"') + 1])
    assert runs_kata()
    there = state()
    assert (there.splitlines()[-1], " 640 root" in there) == (started, True)
    again, again_in_check = run(daemon, wanted), run(daemon, wanted, check=True)
    assert (again["changed"], again["steps"], again_in_check["changed"], state()) == (False, [], False, there)


def test_what_was_added_goes_and_the_file_is_what_it_was(daemon: Path) -> None:
    run(daemon, {"runtimes": {"kata": KATA}})
    result = run(daemon, {"runtimes": {"kata": None}})
    assert (result["changed"], content(), runs_kata()) == (True, BEFORE, False)
    assert run(daemon, {"runtimes": {"kata": None}})["changed"] is False


def test_a_file_that_was_not_there_is_made_and_goes_again(daemon: Path) -> None:
    inside("rm", PATH)
    assert run(daemon, {"runtimes": {"kata": KATA}})["changed"] is True
    assert json.loads(content()) == {"runtimes": {"kata": KATA}}
    assert run(daemon, {"runtimes": {"kata": None}})["steps"] == [
        "write the file",
        "have dockerd read it",
        "remove the file",
    ]
    assert "daemon.json" not in inside("ls", "-a", "/etc/docker")
    assert run(daemon, {"runtimes": {"kata": None}})["changed"] is False


def test_a_run_that_ended_before_the_daemon_was_told_is_made_good(daemon: Path) -> None:
    """As kill -9 leaves it between the two steps."""
    inside("sh", "-c", f"cat >{PATH}", data=json.dumps({**json.loads(BEFORE), "runtimes": {"kata": KATA}}))
    result = run(daemon, {"runtimes": {"kata": KATA}})
    assert (result["steps"], result["msg"]) == (
        ["have dockerd read it"],
        "dockerd has not read it since it was changed",
    )
    assert runs_kata()


# what the file holds, what is asked for, what the error says
REFUSED = [
    (
        '{\n  // ours\n  "debug": true\n}\n',
        {"runtimes": {"kata": KATA}},
        "line 2 has a comment ('// ours'), which JSON and dockerd do not know",
    ),
    ("debug: true\n", {"runtimes": {"kata": KATA}}, "line 1 is not valid JSON"),
    (
        '{"runtimes": {"kata": {"path": "/opt/kata/shim"}}}',
        {"runtimes": {"kata": KATA}},
        "'kata' there is not managed by nested.kata (/opt/kata/shim, not below",
    ),
    (BEFORE, {"no-such-setting": 1}, "dockerd would not accept it with these settings: "),
    (
        BEFORE,
        {"runtimes": {"kata": {**KATA, "runtimeArgs": ["--debug"]}}},
        "dockerd did not reload it within 2 s (timeout); its log shows why; the file is",
    ),
    (BEFORE, {"runtimes": ["kata"]}, "settings: runtimes is list"),
]


@pytest.mark.parametrize(("text", "settings", "reason"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_changed(
    daemon: Path, text: str, settings: dict, reason: str
) -> None:
    inside("sh", "-c", f"cat >{PATH}", data=text)
    result = run(daemon, settings, timeout=2)
    assert (result["failed"], reason in result["msg"], "\n" in result["msg"]) == (True, True, False), result["msg"]
    assert (content(), runs_kata(), inside("ls", "-A", "/etc/docker")) == (text, False, "daemon.json\n")


def test_a_daemon_that_does_not_take_it_over_is_an_error_and_the_file_is_what_it_was(daemon: Path) -> None:
    """Another process of dockerd's name, that the file /run/docker.pid leads to, reloads nothing."""
    inside("sh", "-ec", "cp /run/docker.pid /tmp/right.pid; cp /bin/sleep /tmp/dockerd")
    inside("sh", "-ec", "(trap '' HUP; exec /tmp/dockerd 60) >/dev/null 2>&1 & echo $! >/run/docker.pid")
    try:
        result = run(daemon, {"runtimes": {"kata": KATA}}, timeout=2)
        assert "dockerd did not reload it within 2 s (timeout)" in result["msg"]
        assert (result["failed"], content()) == (True, BEFORE)
    finally:
        inside("cp", "/tmp/right.pid", "/run/docker.pid")


def test_settings_that_take_a_restart_are_named(daemon: Path) -> None:
    result = run(daemon, {"log-driver": "local", "labels": ["site=there"]})
    assert (result["changed"], result["restart"], result["steps"]) == (
        True,
        ["log-driver"],
        ["write the file", "have dockerd read it"],
    )
