# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line in which a module says how far it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import progress
from ansible_collections.nested.kata.plugins.module_utils._common.progress import LONGEST, VARIABLE, Progress


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "line"))
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    return tmp_path / "line"


def test_the_last_line_is_in_the_file_which_goes_with_the_module(path: Path) -> None:
    with Progress() as told:
        assert VARIABLE not in os.environ
        assert not path.exists()
        told.say("one")
        told.say("two" * 100)
        assert path.read_text(encoding="utf-8") == ("two" * 100)[:LONGEST]
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(path.parent) == [path.name]
    assert os.listdir(path.parent) == []


def test_it_is_written_once_a_second_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PERIOD", 60.0)
    with Progress() as told:
        told.say("one")
        told.say("two")
        assert path.read_text(encoding="utf-8") == "one"


def test_what_somebody_else_put_in_its_place_is_neither_followed_nor_overwritten(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    path.with_name("line.new").symlink_to(victim)
    told = Progress()
    told.say("one")
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not path.exists()


def test_a_module_that_nobody_watches_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with Progress() as told:
        told.say("one")
    assert os.listdir(tmp_path) == []


def test_a_line_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/line")
    with Progress() as told:
        told.say("one")
        told.say("two")
