# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file daemon.json on this machine, and whether a daemon has read it: files only, no dockerd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker import dockerd
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd import (
    Dockerd,
    has_read,
    look,
    mark_of,
    text_of,
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
