# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that asks a container, run with a docker client that lies."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.filter.asked_of import STDERR, STDOUT, FilterModule

asked_of = FilterModule().filters()["asked_of"]


def asked(directory: Path, does: str, *command: str, **options: int) -> subprocess.CompletedProcess[str]:
    client = directory / "docker"
    client.write_text(f"#!/bin/sh\n{does}\n")
    client.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    argv = asked_of(command, "ci", **options)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_runs_as_it_is_and_its_output_and_status_come_back(tmp_path: Path) -> None:
    done = asked(tmp_path, 'printf "<%s>" "$@"; echo err >&2; exit 7', "sh", "-c", 'echo "$0" * ; x', "")
    assert (done.returncode, done.stderr) == (7, "err\n")
    assert done.stdout == '<exec><ci><sh><-c><echo "$0" * ; x><>'


@pytest.mark.parametrize("writes", ["cat", "cat >&2", "cat | tee /dev/stderr"])
def test_as_much_as_is_allowed_comes_back(tmp_path: Path, writes: str) -> None:
    done = asked(tmp_path, f"head -c {STDERR} /dev/zero | tr '\\0' x | {writes}")
    assert done.returncode == 0
    assert {len(done.stdout), len(done.stderr)} <= {0, STDERR}
    assert done.stdout or done.stderr


@pytest.mark.parametrize("does", ["exec sleep 600", "trap '' TERM; while :; do sleep 1; done"])
def test_one_that_takes_too_long_is_ended(tmp_path: Path, does: str) -> None:
    start = time.monotonic()
    done = asked(tmp_path, f"echo begun; {does}", seconds=1)
    assert done.returncode in (124, 137)
    assert done.stdout == "begun\n"
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("does", ["exec yes", "exec yes >&2", "exec yes | tee /dev/stderr"])
def test_one_that_writes_without_end_is_ended(tmp_path: Path, does: str) -> None:
    done = asked(tmp_path, does)
    assert done.returncode != 0
    assert len(done.stdout) <= STDOUT
    assert len(done.stderr) <= STDERR


def test_one_that_fails_is_repeated_until_it_succeeds(tmp_path: Path) -> None:
    does = f'echo x >>{tmp_path}/calls; echo "$3 $(wc -l <{tmp_path}/calls)"; [ "$(wc -l <{tmp_path}/calls)" = 3 ]'
    done = asked(tmp_path, does, "ready?", within=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready? 3\n", "")


@pytest.mark.parametrize("does", ["echo no; echo why >&2; exit 3", "echo no; echo why >&2; exec sleep 600"])
def test_one_that_fails_for_too_long_ends_with_its_last_output(tmp_path: Path, does: str) -> None:
    start = time.monotonic()
    done = asked(tmp_path, does, seconds=1, within=2)
    assert done.returncode in (3, 124)
    assert sorted(done.stdout.splitlines()) == ["no", "why"]
    assert time.monotonic() - start < 30
