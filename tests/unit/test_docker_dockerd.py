# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file daemon.json on this machine, and whether a daemon has read it: files only, no dockerd."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker import dockerd
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd import (
    Dockerd,
    has_read,
    look,
    mark_of,
    text_of,
    unit_of,
    validate,
)

TEXT = '{"debug": true}\n'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(dockerd, "READ", str(tmp_path / "read"))
    monkeypatch.setattr(dockerd, "PIDFILE", str(tmp_path / "docker.pid"))
    (tmp_path / "daemon.json").write_text(TEXT)
    os.utime(tmp_path / "daemon.json", (1000, 1000))
    return str(tmp_path / "daemon.json")


def test_a_byte_order_mark_is_skipped_as_by_dockerd(path: str) -> None:
    Path(path).write_bytes(b"\xef\xbb\xbf{}")
    assert text_of(path) == "{}"


def test_a_file_that_is_no_utf_8_is_refused_with_the_byte(path: str) -> None:
    Path(path).write_bytes(b'{"a": "\xff"}')
    with pytest.raises(Refused, match=r"^byte 7 is not valid UTF-8: correct it"):
        text_of(path)


@pytest.mark.parametrize(
    "pid", [None, "", "no number", pytest.param(str(os.getpid()), id="of another process"), "4194999"]
)
def test_without_a_running_dockerd_nothing_has_read_the_file(path: str, pid: str | None) -> None:
    if pid is not None:
        Path(dockerd.PIDFILE).write_text(pid)
    found = look(path)
    assert (found.text, found.read) == (TEXT, None)


def test_a_daemon_has_read_the_file_that_was_there_when_it_started(path: str) -> None:
    assert has_read(Dockerd(1, 1002.0), path, TEXT)
    assert not has_read(Dockerd(1, 1000.5), path, TEXT)


def test_a_daemon_has_read_the_text_that_this_module_made_it_read(path: str) -> None:
    daemon = Dockerd(1, 500.0)
    Path(dockerd.READ).write_text(mark_of(daemon, path, TEXT))
    assert has_read(daemon, path, TEXT)
    assert not has_read(daemon, path, "{}")
    assert not has_read(Dockerd(2, 500.0), path, TEXT)
    assert not has_read(daemon, f"{path}.other", TEXT)


def test_a_missing_file_was_read_unless_this_module_has_removed_it_since(path: str) -> None:
    daemon = Dockerd(1, 500.0)
    os.unlink(path)
    assert has_read(daemon, path, None)
    Path(dockerd.READ).write_text(mark_of(daemon, path, TEXT))
    assert not has_read(daemon, path, None)
    Path(dockerd.READ).write_text(mark_of(daemon, path, None))
    assert has_read(daemon, path, None)


def test_the_command_line_is_that_of_the_running_daemon_or_of_its_unit(path: str, tmp_path: Path) -> None:
    assert look(path).arguments == ()
    assert look(path, lambda: ["dockerd", "-H", "fd://"]).arguments == ("dockerd", "-H", "fd://")
    shutil.copy("/bin/sleep", tmp_path / "dockerd")
    with subprocess.Popen([tmp_path / "dockerd", "60"]) as running:
        Path(dockerd.PIDFILE).write_text(str(running.pid))
        # The kernel names a process that it starts before it notes the command line (fs/exec.c, begin_new_exec).
        while not Path(f"/proc/{running.pid}/cmdline").read_text().startswith(str(tmp_path / "dockerd")):
            time.sleep(0.01)
        found = look(path, lambda: ["another"])
        running.kill()
    assert found.arguments == (str(tmp_path / "dockerd"), "60")
    assert Dockerd(running.pid, 0.0).arguments() == []


class Module(SimpleNamespace):
    """What runs commands for the module: those that are here, each with what it prints."""

    def get_bin_path(self, name: str, opt_dirs: list | None = None) -> str | None:
        return name if name in self.commands else None

    def run_command(self, command: list) -> tuple[int, str, str]:
        return 0, self.commands[command[0]], ""


def test_the_unit_is_asked_where_systemd_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// ; ignore_errors=no }\n"
    monkeypatch.setattr(dockerd, "SYSTEMD", str(tmp_path))
    assert unit_of(Module(commands={"systemctl": shown})) == ["/usr/sbin/dockerd", "-H", "fd://"]
    assert unit_of(Module(commands={})) == []
    monkeypatch.setattr(dockerd, "SYSTEMD", str(tmp_path / "none"))
    assert unit_of(Module(commands={"systemctl": shown})) == []


def test_a_dockerd_that_does_not_validate_is_asked_for_its_flags(path: str) -> None:
    old = Module(commands={"dockerd": "Options:\n  -D, --debug         Enable debug mode\n      --label list\n"})
    validate(old, path, '{"debug": true, "labels": ["a=b"], "runtimes": {}}')
    with pytest.raises(Refused, match=r"^dockerd does not know cdi-spec-dirs, Debug: correct it; nothing was changed$"):
        validate(old, path, '{"cdi-spec-dirs": [], "debug": true, "Debug": true}')
    validate(Module(commands={}), path, '{"cdi-spec-dirs": []}')
