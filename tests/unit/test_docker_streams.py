# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams to a daemon: sockets and processes, no Docker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import streams
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import Answer, Way
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Child, Exec, UnixSocket, no_daemon
from docker_client import docker_client


def test_a_socket_without_permission_is_told_with_the_group(tmp_path: Path) -> None:
    told = UnixSocket(str(tmp_path)).refusal(PermissionError(13, "Permission denied"))
    assert f"no permission for {tmp_path}" in told
    assert "must be in group" in told


def test_a_child_that_does_not_end_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GONE_SECONDS", 0.2)
    child = Child(
        ["sh", "-c", "trap '' TERM; echo last words >&2; while :; do sleep 0.05; done"], {"PATH": os.environ["PATH"]}
    )
    time.sleep(0.2)
    child.end()
    assert child.process.returncode == -9
    assert child.last_words() == "last words"


def test_only_the_last_of_what_a_child_complains_about_is_kept() -> None:
    child = Child([sys.executable, "-c", "import sys; sys.stderr.write(('x' * 99 + '\\n') * 10000 + 'the end\\n')"], {})
    child.process.wait(10)
    child.end()
    assert child.last_words() == "the end"
    assert len(child._stderr) <= streams.STDERR_BYTES


@pytest.mark.parametrize(
    ("given_answer", "finding"),
    [
        (Answer(0, "26.1.5\n", ""), None),
        (
            Answer(127, 'OCI runtime exec failed: exec: "docker": executable file not found in $PATH: unknown\n', ""),
            "it has no docker client: install docker-cli in it",
        ),
        (
            Answer(
                1,
                "\n",
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
            ),
            "the docker daemon in it does not answer: start dockerd there",
        ),
        (Answer(1, "", "first\nlast words\n"), "the docker daemon in it: last words"),
        (Answer(1, "", ""), "the docker daemon in it: exit status 1"),
    ],
)
def test_the_innermost_hop_is_told_apart_from_its_daemon(given_answer: Answer, finding: str | None) -> None:
    told = no_daemon(Way("this machine", ("docker",), ("outer", "inner")), given_answer)
    assert told == (finding and f"hop 2 of 2 (inner in outer): {finding}")


def test_the_first_hop_is_reached_through_this_machines_own_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    found = Exec(["outer"])
    assert "DOCKER_CONTEXT" not in found.environment
    assert found.environment["KEPT"] == "yes"
    assert found.way.docker == ("docker", "--host", "unix:///var/run/docker.sock")


def test_an_innermost_hop_that_dies_between_two_questions_is_reported_with_its_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    says = f"if [ -e {tmp_path}/asked ]; then echo exited; else touch {tmp_path}/asked; echo running; fi"
    with docker_client(tmp_path, monkeypatch) as client:
        gone = "echo 'Error response from daemon: Container 0123456789ab is not running' >&2; exit 1"
        client.does = {
            "*exec*inner*version*": gone,
            "*inspect*inner": says,
            "*inspect*outer": "echo running",
            "*": "exit 1",
        }
        client.write()
        assert Exec(("outer", "inner")).why() == "hop 2 of 2 (inner in outer): is not running (exited)"


def test_a_hop_that_is_dying_while_it_says_that_it_runs_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    says = f"if [ -e {tmp_path}/asked ]; then echo exited; else touch {tmp_path}/asked; echo running; fi"
    with docker_client(tmp_path, monkeypatch) as client:
        client.does = {
            "*exec*inspect*inner": "echo cannot exec in a stopped state >&2; exit 126",
            "*inspect*outer": says,
            "*": "exit 1",
        }
        client.write()
        assert Exec(("outer", "inner")).why() == "hop 1 of 2 (outer on this machine): is not running (exited)"
