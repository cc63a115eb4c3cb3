# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a machine where the machine that runs the tests cannot be like it: with docker clients that are
scripts.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import command as docker_command
from ansible_collections.nested.kata.plugins.module_utils._host import facts
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import Configuration, Docker, Holder
from ansible_collections.nested.kata.plugins.module_utils._host.facts import (
    config_file,
    is_podman,
    look_at_docker,
    look_at_resources,
    read_configuration,
    try_kvm,
    try_url,
)
from ansible_collections.nested.kata.plugins.module_utils._host.options import WantedAnswer, WantedPart

SERVER = {"Version": "26.1.5", "Components": [{"Name": "Engine"}]}
INFO = {
    "OperatingSystem": "Debian",
    "KernelVersion": "6.12",
    "DockerRootDir": "/srv/docker",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {}, "kata": {}},
}
CONTAINERS = [
    {"Name": "/kata", "Config": {"Labels": {"nested.kata.instance": "kata"}}, "State": {"Running": True}},
    {"Name": "/of-another-name", "Config": {"Labels": None}, "State": {"Running": True}},
]
NETWORKS = [{"Name": "kata", "Labels": {}}]


def client(tmp_path: Path, **answers: tuple[int, str, str]) -> str:
    """Write a docker client that answers each subcommand with (exit status, stdout, stderr)."""
    usual = {
        "context": (0, "unix:///var/run/docker.sock\n", ""),
        "version": (0, json.dumps(SERVER), ""),
        "info": (0, json.dumps(INFO), ""),
        "container": (1, json.dumps(CONTAINERS), "Error: No such container: blue\n"),
        "network": (0, json.dumps(NETWORKS), ""),
        "image": (0, "sha256:1", ""),
    }
    for command, (status, out, err) in {**usual, **answers}.items():
        (tmp_path / f"{command}.out").write_text(out)
        (tmp_path / f"{command}.err").write_text(err)
        (tmp_path / f"{command}.status").write_text(str(status))
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\ncd {tmp_path}\ncat $1.out\ncat $1.err >&2\nexit $(cat $1.status)\n'
    )
    docker.chmod(0o755)
    return str(docker)


def ask(path: str, **names: list[str]) -> Docker:
    return look_at_docker(path, names, ["debian:trixie-slim"])


def test_docker_is_asked_for_all_that_is_judged(tmp_path: Path) -> None:
    docker = ask(client(tmp_path), container=["kata", "blue"], network=["kata"], volume=[])
    assert (docker.version, docker.system, docker.kernel, docker.root, docker.rootless) == (
        "26.1.5",
        "Debian",
        "6.12",
        "/srv/docker",
        False,
    )
    assert docker.runtimes == ("runc", "kata")
    assert docker.holders == (
        Holder("container", "kata", frozenset({"nested.kata.instance"}), running=True),
        Holder("network", "kata", frozenset()),
    )
    assert docker.managed_runs is True
    assert docker.images == {"debian:trixie-slim"}
    assert "container inspect -- kata blue\n" in (tmp_path / "asked").read_text()
    assert "volume" not in (tmp_path / "asked").read_text()


# what the client answers otherwise, and a field of what is read with its value
ANSWERS = [
    ({"info": (0, json.dumps({**INFO, "SecurityOptions": ["name=seccomp", "name=rootless"]}), "")}, "rootless", True),
    ({"info": (0, json.dumps({**INFO, "SecurityOptions": None, "Runtimes": None}), "")}, "runtimes", ()),
    ({"version": (0, json.dumps({**SERVER, "Components": [{"Name": "Podman Engine"}]}), "")}, "podman", True),
    (
        {"version": (1, "null", "Cannot connect to the Docker daemon\nIs it running?\n")},
        "error",
        "Cannot connect to the Docker daemon",
    ),
    ({"version": (1, "", "")}, "error", "docker version ends with status 1"),
    ({"info": (1, "", "Error response from daemon\n")}, "error", "Error response from daemon"),
    ({"context": (1, "", 'context "x" does not exist\n')}, "error", 'context "x" does not exist'),
    ({"context": (0, "ssh://root@other\n", "")}, "error", "its client talks to ssh://root@other"),
    (
        {"container": (1, "[]", "Error response from daemon: it is on fire\n")},
        "error",
        "Error response from daemon: it is on fire",
    ),
    ({"image": (1, "", "No such image\n")}, "images", frozenset()),
]


@pytest.mark.parametrize(("answers", "field", "value"), ANSWERS, ids=[f"{case[1]}-{case[2]}" for case in ANSWERS])
def test_another_answer_is_another_fact(answers: dict, field: str, value: object, tmp_path: Path) -> None:
    assert getattr(ask(client(tmp_path, **answers), container=["kata"]), field) == value


def test_a_daemon_that_is_elsewhere_is_not_asked(tmp_path: Path) -> None:
    ask(client(tmp_path, context=(0, "tcp://192.0.2.1:2375\n", "")))
    assert [line.split()[0] for line in (tmp_path / "asked").read_text().splitlines()] == ["context"]


def test_a_daemon_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_command, "SECONDS", 0.2)
    docker = Path(client(tmp_path))
    docker.write_text("#!/bin/sh\n[ $1 = context ] && exec echo unix:///var/run/docker.sock\nexec sleep 30\n")
    assert ask(str(docker)).error == "docker version took longer than 0.2 s"


def test_no_client_is_no_docker() -> None:
    docker = look_at_docker(None, {}, [])
    assert (docker.client, docker.error) == ("", "there is no command docker")


def test_podman_is_known_by_its_script_and_by_its_link(tmp_path: Path) -> None:
    (tmp_path / "podman").write_bytes(b"\x7fELF")
    (tmp_path / "link").symlink_to(tmp_path / "podman")
    (tmp_path / "script").write_text(
        '#!/bin/sh\n[ -e /etc/containers/nodocker ] || echo "Emulate Docker CLI using podman." >&2\nexec'
        ' /usr/bin/podman "$@"\n'
    )
    (tmp_path / "docker").write_bytes(b"\x7fELF podman")
    assert {name: is_podman(str(tmp_path / name)) for name in ("link", "script", "docker", "none")} == {
        "link": True,
        "script": True,
        "docker": False,
        "none": False,
    }
    assert look_at_docker(str(tmp_path / "script"), {}, []).podman is True


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], "/etc/docker/daemon.json"),
        (["-H", "fd://"], "/etc/docker/daemon.json"),
        (["--config-file", "/a.json", "-D"], "/a.json"),
        (["--config-file=/b.json"], "/b.json"),
    ],
)
def test_daemon_json_is_where_dockerd_was_told(arguments: list[str], path: str) -> None:
    assert config_file(arguments) == path


def test_a_daemon_json_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "good").write_text("{}")
    none, directory, latin, good = (str(tmp_path / name) for name in ("none", ".", "latin", "good"))
    assert [read_configuration(path) for path in (none, directory, latin, good)] == [
        Configuration(none),
        Configuration(directory, error="Is a directory"),
        Configuration(latin, error="byte 7 is not valid UTF-8"),
        Configuration(good, text="{}"),
    ]


def resources(*parts: WantedPart, root: Path) -> list[tuple[int, int]]:
    found = look_at_resources(parts, None, None, (), str(root), frozenset(), 1.0)
    return [(part.size, part.missing) for part in found.parts]


def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * (1 << 20))
    os.truncate(tmp_path / "disk.img", 1 << 30)
    taken = (tmp_path / "disk.img").stat().st_blocks * 512
    size = 1 << 30
    assert 0 < taken < 1 << 21
    assert resources(
        WantedPart(str(tmp_path / "disk.img"), size, "begun"),
        WantedPart("disk.img", size, "relative"),
        WantedPart("other.img", size, "none yet"),
        WantedPart("kata", size, "made", creates="disk.img"),
        WantedPart("kata", size, "not made", creates="kata"),
        WantedPart("disk.img", 4096, "full"),
        root=tmp_path,
    ) == [(size, size - taken), (size, size - taken), (size, size), (size, 0), (size, size), (4096, 0)]


def test_the_clock_is_compared_when_it_is_asked_for(tmp_path: Path) -> None:
    skew = look_at_resources((), None, time.time() - 100, (), "", frozenset(), 1.0).skew
    assert 99.9 < skew < 105
    assert look_at_resources((), None, None, (), "", frozenset(), 1.0).skew is None


def test_files_are_reached_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("x")
    assert try_url(f"{tmp_path}/a file", 1) == try_url(f"file://{tmp_path}/a%20file", 1) == ""
    assert (
        try_url(str(tmp_path), 1)
        == try_url(f"{tmp_path}/none", 1)
        == try_url(f"file://{tmp_path}/none", 1)
        == "no such file"
    )


def test_nothing_is_asked_for_what_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "try_url", lambda url, timeout: pytest.fail(url))
    (tmp_path / "kata").mkdir()
    wanted = [
        WantedAnswer(("http://a.example.org",), "a", creates=str(tmp_path / "kata")),
        WantedAnswer(("http://b.example.org",), "b", image="debian:x"),
        WantedAnswer(("http://c.example.org",), "c", creates="kata"),
    ]
    found = look_at_resources((), None, None, wanted, str(tmp_path), frozenset({"debian:x"}), 1.0).answers
    assert [(answer.purpose, answer.tried, answer.reached) for answer in found] == [
        ("a", False, True),
        ("b", False, True),
        ("c", False, True),
    ]


def test_what_takes_too_long_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "try_url", lambda url, timeout: time.sleep(30) or "")
    began = time.monotonic()
    (answer,) = look_at_resources(
        (),
        None,
        None,
        [WantedAnswer(("http://a.example.org", "http://me:secret@b.example.org/x"), "a")],
        "",
        frozenset(),
        0.1,
    ).answers
    assert time.monotonic() - began < 5
    assert (answer.reached, answer.failures) == (
        False,
        ("http://a.example.org: no answer within 0.1 s", "http://b.example.org/x: no answer within 0.1 s"),
    )


def test_kvm_that_does_not_run_says_at_which_step() -> None:
    kvm = try_kvm("/dev/null")
    assert kvm.seconds is None
    assert kvm.step
    assert kvm.reason
