# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module daemon_config on a real dockerd. runc's own shim, at another path, is the runtime that it registers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from ansible_runner import MARK, module_command, module_environment, run_module
from daemon_json_cases import REFUSED as WRONG
from daemon_json_cases import TAKEN as RIGHT
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
    (
        '{"log-driver": "json-file", "log-opts": {"max-size": "10m"}}',
        {"log-opts": {"max-file": 3}},
        'settings: log-opts.max-file is the number 3, and dockerd takes only a text: write "3" with the quotes',
    ),
    ('{"debug": 1}', {"live-restore": True}, "debug is the number 1, and dockerd takes only true or false: write true"),
    ('{"labels": ["team=\\ud83d"], "debug": false}', {"debug": True}, "labels[0] has half a character"),
    ('{\n  "debug": false,\n  "mtu": NaN\n}\n', {"debug": True}, "line 3 is not valid JSON (NaN is no number of JSON)"),
    (BEFORE, {"debug": 1}, "settings: debug is the number 1, and dockerd takes only true or false"),
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


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"\xef\xbb\xbf{}", "\ufeff{}\n".encode("utf-16-le"), b'{"runtimes": null}'],
    ids=["empty", "null", "byte order mark", "UTF-16", "no runtimes"],
)
def test_what_dockerd_takes_for_a_configuration_is_taken(daemon: Path, data: bytes) -> None:
    command = ["docker", "exec", "-i", NAME, "sh", "-ec", f"cat >{PATH}; dockerd --validate --config-file {PATH}"]
    subprocess.run(command, input=data, check=True, capture_output=True)
    result = run(daemon, {"runtimes": {"kata": KATA}})
    assert (result["failed"], json.loads(content())) == (False, {"runtimes": {"kata": KATA}})
    assert runs_kata()


VALIDATE = """
import json, subprocess, sys
for text in json.load(sys.stdin):
    with open("/tmp/case.json", "w") as file:
        file.write(text)
    done = subprocess.run(["dockerd", "--validate", "--config-file", "/tmp/case.json"], capture_output=True, text=True)
    print(json.dumps([done.returncode == 0, done.stderr]))
"""
# What this Docker does not know yet, and what it refuses only when it starts.
LATER = "nri-opts"
AT_THE_START = ("registry-mirrors", ["ftp://mirror"])


def test_what_is_taken_and_what_is_refused_is_so_for_a_real_dockerd(daemon: Path) -> None:
    cases = [(True, key, value) for key, values in RIGHT.items() for value in values]
    cases += [(False, key, value) for key, values in WRONG.items() for value in values]
    cases = [(right, key, value) for right, key, value in cases if key != LATER and (key, value) != AT_THE_START]
    assert len(cases) > 100
    told = inside(
        "python3", "-c", VALIDATE, data=json.dumps([json.dumps({key: value}) for _right, key, value in cases])
    )
    for (right, key, value), line in zip(cases, told.splitlines(), strict=True):
        assert json.loads(line)[0] is right, (key, value, line)


def test_a_mount_point_and_a_link_stay_what_they_are(daemon: Path) -> None:
    inside("sh", "-ec", f"cp {PATH} /tmp/mounted.json && mount --bind /tmp/mounted.json {PATH}")
    try:
        assert run(daemon, {"runtimes": {"kata": KATA}})["changed"] is True
        assert inside("cat", "/tmp/mounted.json") == content() != BEFORE
        assert run(daemon, {"runtimes": {"kata": None}})["changed"] is True
        assert inside("cat", "/tmp/mounted.json") == content() == BEFORE
    finally:
        inside("umount", PATH)
    inside("sh", "-ec", f"mv {PATH} /tmp/linked.json && ln -s /tmp/linked.json {PATH}")
    try:
        assert run(daemon, {"runtimes": {"kata": KATA}})["changed"] is True
        assert inside("sh", "-c", f"readlink {PATH}; ls -A /etc/docker") == "/tmp/linked.json\ndaemon.json\n"
        assert json.loads(inside("cat", "/tmp/linked.json"))["runtimes"] == {"kata": KATA}
    finally:
        inside("rm", PATH)


def test_a_key_that_is_a_flag_of_the_running_dockerd_is_refused(daemon: Path) -> None:
    """A shell of that name stands for a dockerd that was started with the flag."""
    inside("sh", "-ec", "cp /run/docker.pid /tmp/right.pid; mkdir /tmp/flagged; cp /bin/sh /tmp/flagged/dockerd")
    start = '/tmp/flagged/dockerd -c "sleep 60; :" x -H fd:// >/dev/null 2>&1 & echo $! >/run/docker.pid'
    inside("sh", "-ec", rf"{start}; until tr '\0' ' ' </proc/$!/cmdline | grep -q ^/tmp/flagged/; do sleep 0.01; done")
    try:
        result = run(daemon, {"hosts": ["fd://", "tcp://127.0.0.1:2375"]}, timeout=2)
        assert (result["failed"], content()) == (True, BEFORE)
        assert "dockerd is started with -H fd://, and does not start with hosts in this file too: " in result["msg"]
    finally:
        inside("sh", "-ec", "kill $(cat /run/docker.pid); cp /tmp/right.pid /run/docker.pid")


def test_this_machines_own_dockerd_of_whatever_version_knows_what_it_would_not_start_with(tmp_path: Path) -> None:
    """Docker 20.10 does not validate a file. No daemon is reached: it has another /run."""
    path = tmp_path / "daemon.json"
    path.write_text(BEFORE)
    for settings in ({"no-such-setting": 1}, {"proxies": {"no-such-proxy": ""}}):
        done = subprocess.run(
            [
                *("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /run; exec "$@"', "sh"),
                *module_command("daemon_config", {"settings": settings, "path": str(path)}),
            ],
            env=module_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout)
        assert result["failed"] and "no-such-" in result["msg"], result
        assert (path.read_text(), [file.name for file in tmp_path.iterdir()]) == (BEFORE, ["daemon.json"])
