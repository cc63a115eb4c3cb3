# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that keeps an instance running decides. It does so with a Docker in
tests/integration/test_kata_instance.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_runner import CHECKOUT

PROGRAM = CHECKOUT / "roles" / "kata_instance" / "files" / "instance.py"


def program() -> Any:
    spec = importlib.util.spec_from_file_location("nested_kata_instance", PROGRAM)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


keeper = program()


@pytest.mark.parametrize(
    ("restarts", "seconds"), [(0, 0), (1, 2), (2, 4), (3, 8), (7, 128), (8, 256), (9, 300), (10**9, 300)]
)
def test_each_restart_waits_twice_as_long_as_the_one_before_up_to_a_limit(restarts: int, seconds: float) -> None:
    assert keeper.pause_before(restarts, 2) == seconds


@pytest.mark.parametrize(
    ("policy", "statuses"), [("always", {0, 130, 137, 255, None}), ("on-failure", {137, 255, None}), ("no", set())]
)
def test_a_policy_starts_again_what_it_names(policy: str, statuses: set[int | None]) -> None:
    ended = {status: keeper.End("it ended", status) for status in (0, 130, 137, 255, None)}
    assert {status for status, end in ended.items() if keeper.starts_again(end, policy)} == statuses


def test_settings_of_an_earlier_release_have_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "db.env"
    path.write_text("# Written by Ansible\nDISK=/srv/db.img\nDISK_UUID=12-34\n")
    assert keeper.settings_of(path) == keeper.Settings("/srv/db.img", "12-34", "all", "always", 1, 10, 300, 120)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "PATH does not exist: run the role kata_instance"),
        ("DISK_UUID=1\n", "PATH has no DISK: run the role kata_instance"),
        ("DISK=/d\nWATCHDOG=often\n", "PATH: WATCHDOG is 'often', which is not a number"),
    ],
)
def test_invalid_settings_are_an_error_that_names_the_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "db.env"
    if text is not None:
        path.write_text(text)
    with pytest.raises(keeper.Refused) as error:
        keeper.settings_of(path)
    assert str(error.value) == message.replace("PATH", str(path))


def instance(tmp_path: Path, **settings: object) -> Any:
    """Return an instance whose directories are empty but for its settings."""
    places = keeper.Places(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    (places.etc / "instances").mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{key}={value}\n" for key, value in {"DISK": "/srv/db.img", **settings}.items())
    (places.etc / "instances" / "db.env").write_text(lines)
    return keeper.Instance("db", places, None, lambda: None)


def test_only_restarts_of_the_last_hour_count_and_only_the_last_ends_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, now = instance(tmp_path, RESTART_LIMIT=2), [1e9]
    monkeypatch.setattr(keeper.time, "time", lambda: now[0])
    assert [db.close(keeper.End("it ended", status)) for status in (1, 2)] == [1, 1]
    now[0] += 3601
    assert [db.close(keeper.End("it ended", status)) for status in (3, 4)] == [1, 1]
    assert db.close(keeper.End("it ended", 5)) == keeper.FINAL
    assert db.kept()["restarts"] == []
    assert db.close(keeper.End("it ended", 0)) == 1
    assert [one["status"] for one in db.kept()["ends"]] == [2, 3, 4, 5, 0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"restarts": 1, "ends": []}', '{"ends": []}'])
def test_a_damaged_record_is_an_empty_one(tmp_path: Path, content: str) -> None:
    db = instance(tmp_path)
    db.record.parent.mkdir(parents=True)
    db.record.write_text(content)
    assert db.kept() == {"restarts": [], "ends": []}
    assert db.close(keeper.End("it ended", 1)) == 1
    assert len(db.kept()["ends"]) == 1


def test_a_start_by_hand_forgets_the_restarts_and_keeps_the_ends(tmp_path: Path) -> None:
    db = instance(tmp_path)
    db.close(keeper.End("it ended", 1))
    db.forget_restarts()
    assert (db.kept()["restarts"], len(db.kept()["ends"])) == ([], 1)


def test_a_record_is_for_root_alone_and_follows_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = instance(tmp_path)
    db.close(keeper.End("it ended", 1))
    assert [path.stat().st_mode & 0o777 for path in (db.record.parent, db.record)] == [0o700, 0o600]
    (db.record.parent / ".db.json.part").symlink_to(tmp_path / "elsewhere")
    assert db.close(keeper.End("it ended", 1)) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    assert len(json.loads(db.record.read_text())["ends"]) == 1


@pytest.mark.parametrize(
    ("error", "running", "stopping", "ends"),
    [
        (keeper.Silent("docker inspect has not ended"), True, False, 0),
        (keeper.Silent("docker inspect has not ended"), False, False, 0),
        (keeper.Refused("the disk is in use"), True, False, 0),
        (keeper.Refused("the disk is in use"), False, False, 1),
        (keeper.Refused("docker stop fails"), True, True, 0),
    ],
)
def test_what_may_still_run_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, running: bool, stopping: bool, ends: int
) -> None:
    db = instance(tmp_path, RESTART="no" if not ends else "always")
    db.programs = types.SimpleNamespace(stopping=stopping)

    def fails() -> None:
        raise error

    monkeypatch.setattr(db, "locked_life", fails)
    monkeypatch.setattr(db, "state", lambda: {"Running": running})
    assert db.run(again=True) == 1
    assert len(db.kept()["ends"]) == ends


@pytest.mark.parametrize(
    ("shown", "asked"),
    [
        ("LoadState=loaded\nActiveState=active\nInvocationID=1\n", True),
        ("LoadState=loaded\nActiveState=deactivating\n", False),
        ("LoadState=loaded\nActiveState=inactive\n", False),
        ("LoadState=loaded\nActiveState=failed\n", False),
        ("LoadState=not-found\nActiveState=inactive\n", True),
        ("", True),
    ],
)
def test_a_docker_that_was_stopped_is_not_asked_since_its_socket_would_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, asked: bool
) -> None:
    db = instance(tmp_path)
    monkeypatch.setattr(keeper.os.path, "isdir", lambda path: path == "/run/systemd/system")
    db.programs = types.SimpleNamespace(run=lambda *command: keeper.Done(0, shown, ""))
    try:
        db.check_service()
    except keeper.Silent:
        assert not asked
    else:
        assert asked


def test_what_the_client_says_beside_an_answer_does_not_matter(tmp_path: Path) -> None:
    db = instance(tmp_path)
    answers = [
        keeper.Done(0, '{"Running": true, "Error": "No such container"}\n', "WARNING: Error loading config file\n"),
        keeper.Done(1, "\n", "Error: No such container: db\n"),
        keeper.Done(1, "", "Cannot connect to the Docker daemon\n"),
    ]
    db.programs = types.SimpleNamespace(run=lambda *command: answers.pop(0))
    assert db.state()["Running"] is True
    with pytest.raises(keeper.Gone):
        db.state()
    with pytest.raises(keeper.Silent, match="Cannot connect"):
        db.state()


def test_lines_of_others_are_made_visible_and_cut() -> None:
    assert keeper.visible("\x1b[2Jé\u202e\r") == r"\x1b[2J\xe9\u202e\r"
    assert len(keeper.visible("x" * 10_000)) == keeper.LONGEST_LINE


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"nested-kata-test-{os.getpid()}"
    address, given = (f"\0{name}", f"@{name}") if abstract else (str(tmp_path / "notify"),) * 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", given)
        keeper.notify("READY=1", "STATUS=running")
        assert heard.recv(1000) == b"READY=1\nSTATUS=running"
