# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found on a host, where docker, systemd and Debian's package manager are scripts."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._host import state
from ansible_collections.nested.kata.plugins.module_utils._host.state import (
    AT_ONCE,
    Wanted,
    answers,
    importable,
    installed,
    look_at_docker,
    look_at_files,
    look_at_units,
    parse,
    read_texts,
)
from docker_client import DockerClient, docker_client

LISTS = ("containers", "images", "volumes", "paths", "texts", "units", "packages", "libraries")
NOTHING: dict[str, object] = {**{option: [] for option in LISTS}, "commands": {}}
NAMES = ("containers", "images", "volumes", "units", "packages")
BAD: list[tuple[dict, str]] = [
    *(({option: ["/a", "b/c"]}, f"{option}: 'b/c' is not an absolute path") for option in ("paths", "texts")),
    ({"paths": [""]}, "paths: '' is not an absolute path"),
    *(({option: ["a", ""]}, f"{option}: '' is not a valid name") for option in NAMES),
    ({"packages": ["a", "-f"]}, "packages: '-f' is not a valid name"),
    *(
        ({"commands": {"web": command}}, "commands: that of web is not a list of a program and its arguments")
        for command in ("true", [], {"a": 1}, None)
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, dummy in BAD])
def test_an_option_that_cannot_be_meant_is_named_with_its_value(options: dict, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse({**NOTHING, **options})
    assert str(refusal.value) == message


def test_what_is_wanted_is_what_the_options_name() -> None:
    options = {option: [f"/{option}"] for option in LISTS}
    assert parse({**options, "commands": {"web": ["true", "-x"]}}) == Wanted(
        **options, commands={"web": ["true", "-x"]}
    )


# --- Docker ---

DOCKER = {
    "version *": json.dumps({"Version": "26.1.5"}),
    "info *": json.dumps({"Runtimes": {"runc": {}, "kata": {}}}),
    "container inspect -- web none": json.dumps([{"Name": "/web"}]),
    "network ls --no-trunc --quiet": "1\n2",
    "network inspect -- 1 2": json.dumps([{"Name": "bridge"}, {"Name": "web"}]),
    "image inspect -- debian:x": json.dumps([{"Id": "sha256:1"}]),
    "image inspect *": "[]",
    "volume inspect -- data": json.dumps([{"Name": "data"}]),
}
WANTED = Wanted(containers=["web", "none"], images=["debian:x", "none", "debian:x"], volumes=["data"])
UNKNOWN = {"containers": [], "networks": [], "images": {}, "volumes": []}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerClient]:
    with docker_client(tmp_path, monkeypatch) as found:
        yield found


def asked(client: DockerClient, wanted: Wanted = WANTED, **does: str) -> dict:
    """Return what is found with a client that does something else for the commands that begin with a word."""
    usual = {pattern: f"echo {shlex.quote(output)}" for pattern, output in DOCKER.items()}
    usual["image inspect *"] += "; echo 'Error: No such image: none' >&2; exit 1"
    others = {f"{word} *": line for word, line in does.items()}
    client.does = {**others, **usual, **others, "*": "exit 99"}  # the first one that fits counts
    client.write()
    return look_at_docker(wanted, str(client.directory / "bin" / "docker"))


def test_docker_is_asked_for_all_that_is_wanted_and_for_all_networks(client: DockerClient) -> None:
    assert asked(client) == {
        "docker": {"error": "", "version": "26.1.5", "runtimes": ["kata", "runc"]},
        "containers": [{"Name": "/web"}],
        "networks": [{"Name": "bridge"}, {"Name": "web"}],
        "images": {"debian:x": {"Id": "sha256:1"}},
        "volumes": [{"Name": "data"}],
    }
    assert client.called("image") == ["image inspect -- debian:x", "image inspect -- none"]


def test_a_docker_that_names_no_runtimes_has_none(client: DockerClient) -> None:
    assert asked(client, info="echo '{}'")["docker"]["runtimes"] == []


@pytest.mark.parametrize("word", ["version", "info", "container", "network", "image", "volume"])
def test_where_docker_fails_there_is_nothing_but_the_reason(word: str, client: DockerClient) -> None:
    assert asked(client, **{word: "echo on fire >&2; exit 1"}) == {"docker": {"error": "on fire"}, **UNKNOWN}


@pytest.mark.parametrize(
    ("word", "output", "reason"),
    [
        ("version", "null", "its version is not a text: None"),
        ("version", '{"Version": 5}', "its version is not a text: 5"),
        ("version", "podman", "the answer is not valid JSON"),
        ("info", "[1]", "docker info is not an object: [1]"),
        ("info", '{"Runtimes": []}', "its runtimes is not an object: []"),
    ],
)
def test_a_docker_that_answers_something_else_does_not_answer(
    word: str, output: str, reason: str, client: DockerClient
) -> None:
    found = asked(client, **{word: f"echo {shlex.quote(output)}"})
    assert reason in found["docker"].pop("error")
    assert found == {"docker": {}, **UNKNOWN}


def test_without_a_client_there_is_nothing_but_the_reason() -> None:
    assert look_at_docker(WANTED, None) == {"docker": {"error": "there is no command docker"}, **UNKNOWN}


def test_docker_is_left_alone_where_it_is_not_wanted(client: DockerClient) -> None:
    assert asked(client, replace(WANTED, docker=False)) == {"docker": {"error": "it was not asked"}, **UNKNOWN}
    assert not (client.directory / "called").exists()


# --- files ---


def test_files_are_described_and_directories_with_what_is_directly_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LARGEST_HASHED", 4)
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    Path("below/deeper/deepest").mkdir(parents=True)
    for name, content in (("file", "four"), ("below/large", "fives"), ("below/.hidden", "")):
        Path(name).write_text(content)
    Path("below/link").symlink_to("deeper")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    modes = {"file": 0o640, "below": 0o1755, "below/large": 0o4755, "below/.hidden": 0o600, "below/deeper": 0o700}
    for name, mode in {**modes, "fifo": 0o600, "socket": 0o660}.items():
        Path(name).chmod(mode)
    names = ("file", "below", "dangling", "fifo", "socket", "none", "none/file", "file/below")
    found = dict(look_at_files([*(f"{tmp_path}/{name}" for name in names), "/dev/null", "/proc/self/mem"]))
    assert found.pop("/dev/null")["type"] == "character"
    assert found.pop("/proc/self/mem") == {"type": "file", "mode": "0600", "size": 0}  # that cannot be read
    for one in found.values():
        assert one.pop("size") >= 0 if one["type"] == "directory" else "size" in one
    assert {path.removeprefix(f"{tmp_path}/"): one for path, one in found.items()} == {
        "file": {"type": "file", "mode": "0640", "size": 4, "sha256": hashlib.sha256(b"four").hexdigest()},
        "below": {"type": "directory", "mode": "1755"},
        "below/.hidden": {"type": "file", "mode": "0600", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        "below/deeper": {"type": "directory", "mode": "0700"},
        "below/large": {"type": "file", "mode": "4755", "size": 5},
        "below/link": {"type": "link", "mode": "0777", "size": 6, "target": "deeper"},
        "dangling": {"type": "link", "mode": "0777", "size": 7, "target": "nowhere"},
        "fifo": {"type": "fifo", "mode": "0600", "size": 0},
        "socket": {"type": "socket", "mode": "0660", "size": 0},
    }


def test_a_directory_that_a_link_leads_to_comes_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "below").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = dict(look_at_files([f"{tmp_path}/link"]))
    assert {path: one["type"] for path, one in found.items()} == {
        f"{tmp_path}/link": "link",
        f"{tmp_path}/link/below": "directory",
    }


def test_a_directory_whose_content_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "below").mkdir()
    assert "listed" not in dict(look_at_files([str(tmp_path)]))[str(tmp_path)]
    monkeypatch.setattr(state.os, "listdir", refuse)
    found = dict(look_at_files([str(tmp_path)]))
    assert list(found) == [str(tmp_path)]
    assert found[str(tmp_path)]["listed"] is False


def test_texts_are_those_of_the_files_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LARGEST_TEXT", 8)
    contents = {"plain": b"a\r\n\xc3\xa4\n", "latin": b"caf\xe9\n", "long": b"123456789", "empty": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "fifo")
    paths = [f"{tmp_path}/{name}" for name in (*contents, "none", ".", "plain/none", "fifo")]
    with open(os.open(tmp_path / "fifo", os.O_RDWR), "wb"):  # so that there is somebody to wait for
        found = dict(read_texts(paths))
    assert found == dict(zip(paths, ["a\r\n\u00e4\n", "caf\ufffd\n", "12345678", ""]))


# --- units, packages, libraries ---

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Write a program that does what a line of shell says, and is alone on PATH with the others of the test."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name: str, line: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return write


SHOWN = """Names=alias.service b.service
NeedDaemonReload=yes
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

Names=a.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
NeedDaemonReload=no
"""
UNITS = {
    "b.service": {"load": "loaded", "active": "active", "sub": "running", "enabled": "enabled", "reload": "yes"},
    "a.service": {"load": "not-found", "active": "inactive", "sub": "dead", "enabled": "", "reload": "no"},
}


@pytest.mark.parametrize(("runs", "found"), [(True, UNITS), (False, {})])
def test_units_have_their_states_in_the_order_of_their_names_where_systemd_runs(
    runs: bool, found: dict, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("systemctl", f"echo \"$*\" >>{tmp_path}/asked\nprintf %s '{SHOWN}'")
    monkeypatch.setattr(state.os.path, "isdir", lambda path: runs and path == "/run/systemd/system")
    assert look_at_units(["b.service", "none@.service", "a.service"]) == found
    assert look_at_units([]) == {}
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    properties = "Names,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload"
    assert asked == f"show --property={properties} -- b.service none@.service a.service\n" * runs


def test_a_package_counts_where_all_of_it_is_installed(program: Program) -> None:
    said = "nftables installed\\nnftables config-files\\nbtrfs-progs config-files\\ne2fsprogs half-installed\\n"
    program("dpkg-query", f"printf '{said}'; echo 'no packages found matching xfsprogs' >&2; exit 1")
    assert installed(["xfsprogs", "e2fsprogs", "btrfs-progs", "nftables"]) == ["nftables"]


@pytest.mark.usefixtures("program")
def test_without_debian_s_package_manager_nothing_is_installed() -> None:
    assert installed(["nftables"]) == []


def test_a_library_is_more_than_a_directory_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t_bare").mkdir()
    (tmp_path / "t_whole").mkdir()
    (tmp_path / "t_whole" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    libraries = ("json", "no_such_library_at_all", "t_bare", "t_whole", "no_such.sub", ".x", "__main__")
    assert {library for library in libraries if importable(library)} == {"json", "t_whole"}


# --- commands ---


def test_the_answer_of_a_command_is_its_exit_status_and_both_its_outputs() -> None:
    assert answers(
        {
            "fails": ["sh", "-c", "echo out; echo err >&2; exit 3"],
            "no UTF-8": ["printf", r"caf\351"],
            "not a shell": ["printf", "<%s>", "$HOME *", ""],
            "killed": ["sh", "-c", "kill -9 $$"],
        }
    ) == {
        "fails": {"rc": 3, "stdout": "out\n", "stderr": "err\n"},
        "no UTF-8": {"rc": 0, "stdout": "caf\ufffd", "stderr": ""},
        "not a shell": {"rc": 0, "stdout": "<$HOME *><>", "stderr": ""},
        "killed": {"rc": -9, "stdout": "", "stderr": ""},
    }
    assert answers({}) == {}


def test_a_command_that_cannot_be_run_is_an_error_that_names_the_option_and_the_command() -> None:
    with pytest.raises(Refused, match=r"^commands: /none of web cannot be run: No such file or directory$"):
        answers({"fits": ["true"], "web": ["/none", 5]})


def test_more_commands_than_run_at_the_same_time_are_all_answered_each_for_itself() -> None:
    names = [str(number) for number in range(2 * AT_ONCE + 1)]
    found = answers({name: ["echo", name] for name in names})
    assert [(name, one["stdout"]) for name, one in found.items()] == [(name, f"{name}\n") for name in names]


@pytest.mark.parametrize(("at_once", "seconds", "status"), [(2, "60", 0), (1, "0.5", 124)])
def test_as_many_commands_run_at_the_same_time_as_may(
    at_once: int, seconds: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reads what the second one writes: in a FIFO, whose ends wait for each other."""
    monkeypatch.setattr(state, "AT_ONCE", at_once)
    os.mkfifo(tmp_path / "fifo")
    found = answers(
        {
            "reads": ["timeout", seconds, "cat", f"{tmp_path}/fifo"],
            "writes": ["timeout", seconds, "sh", "-c", f"echo written >{tmp_path}/fifo"],
        }
    )
    assert {name: one["rc"] for name, one in found.items()} == {"reads": status, "writes": status}
    assert found["reads"]["stdout"] == "written\n" * (at_once == 2)
