# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked by the command docker, with a client that answers by a script."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import command
from ansible_collections.nested.kata.plugins.module_utils._docker.command import NoAnswer, ask, inspect, run
from docker_client import DockerClient, docker_client

THERE = [{"Name": "/web", "Config": {"Labels": {"a": "\u00e4"}}}]
FIRE = "Error response from daemon: it is on fire"
WARNING = "WARNING: Error loading config file: /root/.docker/config.json: permission denied"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerClient]:
    with docker_client(tmp_path, monkeypatch) as found:
        yield found


def doing(client: DockerClient, line: str) -> str:
    """Have the client do only this, and return its path."""
    client.does = {"*": line}
    client.write()
    return str(client.directory / "bin" / "docker")


def answering(client: DockerClient, status: int, output: str, *errors: str) -> str:
    lines = "; ".join(f"echo {shlex.quote(line)} >&2" for line in errors)
    return doing(client, f"printf %s {shlex.quote(output)}; {lines or ':'}; exit {status}")


def test_the_client_gets_the_arguments_as_they_are_and_its_status_is_no_error(client: DockerClient) -> None:
    done = run(doing(client, 'printf "<%s>" "$@"; echo err >&2; exit 7'), "exec", "a b", "*", "")
    assert (done.returncode, done.stdout, done.stderr) == (7, "<exec><a b><*><>", "err\n")


def test_the_output_is_the_answer_and_its_warnings_are_not(client: DockerClient) -> None:
    assert ask(answering(client, 0, "26.1\n", WARNING), "version") == "26.1\n"


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (["Cannot connect to the Docker daemon", "Is it running?"], "Cannot connect to the Docker daemon"),
        (["", "  late  "], "late"),
        ([WARNING, "Cannot connect to the Docker daemon"], "Cannot connect to the Docker daemon"),
        ([], "docker version ends with status 9"),
    ],
)
def test_a_client_that_fails_is_no_answer_but_the_first_line_of_its_error(
    errors: list[str], message: str, client: DockerClient
) -> None:
    with pytest.raises(NoAnswer) as failure:
        ask(answering(client, 9, "null", *errors), "version", "--format", "{{json .Server}}")
    assert str(failure.value) == message


def test_things_are_inspected_by_one_command(client: DockerClient) -> None:
    assert inspect(answering(client, 0, json.dumps(THERE)), "container", ["web", "db"]) == THERE
    assert client.called("") == ["container inspect -- web db"]


# What clients of several releases write about a name that none has, and about their own settings.
HARMLESS = [
    ("container", "Error: No such container: db"),
    ("container", "Error response from daemon: No such container: db"),
    ("container", "Error response from daemon: Multiple IDs found with provided prefix: db"),
    ("network", "Error response from daemon: network db not found"),
    ("image", "Error response from daemon: no such image: db: No such image: db:latest"),
    ("image", "Error response from daemon: invalid reference format: repository name (DB) must be lowercase"),
    ("network", "Error response from daemon: 2 matches found based on ID prefix: network db is ambiguous"),
    ("volume", "Error response from daemon: get db: no such volume"),
]
LOOKUP = "error during connect: Get http://docker:2375: dial tcp: lookup docker: no such host"


@pytest.mark.parametrize(("kind", "line"), HARMLESS)
def test_what_does_not_exist_is_left_out(kind: str, line: str, client: DockerClient) -> None:
    assert inspect(answering(client, 1, json.dumps(THERE), WARNING, line), kind, ["web", "db"]) == THERE
    assert inspect(answering(client, 1, "[]\n", line, line), kind, ["db", "db"]) == []
    assert inspect(answering(client, 1, "", line), kind, ["db"]) == []


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ([FIRE, "and more"], FIRE),
        ([HARMLESS[0][1], FIRE], FIRE),
        ([WARNING, FIRE], FIRE),
        ([LOOKUP], LOOKUP),
        ([WARNING], "docker container inspect ends with status 1"),
        ([], "docker container inspect ends with status 1"),
    ],
)
def test_another_error_is_no_answer_also_where_something_was_found(
    errors: list[str], message: str, client: DockerClient
) -> None:
    with pytest.raises(NoAnswer) as failure:
        inspect(answering(client, 1, json.dumps(THERE), *errors), "container", ["web", "db"])
    assert str(failure.value) == message


def test_what_is_not_utf_8_is_an_error_like_any_other(client: DockerClient) -> None:
    with pytest.raises(NoAnswer, match="caf\ufffd"):
        ask(doing(client, "printf 'caf\\351\\n' >&2; exit 1"), "version")


def test_what_a_client_that_succeeds_writes_beside_its_answer_is_no_error(client: DockerClient) -> None:
    assert inspect(answering(client, 0, json.dumps(THERE), FIRE), "container", ["web"]) == THERE


def test_where_nothing_is_named_no_process_starts(client: DockerClient) -> None:
    path = answering(client, 1, "", FIRE)
    assert inspect(path, "container", []) == []
    assert not (client.directory / "called").exists()


def test_a_client_that_hangs_is_ended_and_is_no_answer(client: DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SECONDS", 0.2)
    path = doing(client, "exec sleep 60")
    start = time.monotonic()
    with pytest.raises(NoAnswer, match=r"^docker info took longer than 0\.2 s$"):
        ask(path, "info", "--format", "{{json .}}")
    with pytest.raises(NoAnswer, match=r"^docker container took longer than 0\.2 s$"):
        inspect(path, "container", ["web"])
    assert time.monotonic() - start < 30
