# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback that run.sh prints with, in real plays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible_runner import play


def say(tmp_path: Path, tasks: list[dict]) -> tuple[str, str, int]:
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        json.dumps([{"name": "A play", "hosts": "localhost", "gather_facts": False, "tasks": tasks}]), encoding="utf-8"
    )
    done = play(playbook, ANSIBLE_STDOUT_CALLBACK="nested.kata.steps")
    return done.stdout, done.stderr, done.returncode


def test_a_quick_task_is_silent_and_a_long_one_gives_signs_of_life(tmp_path: Path) -> None:
    out, err, status = say(
        tmp_path,
        [
            {"name": "A quick task", "ansible.builtin.command": "true"},
            {"name": "A long task", "ansible.builtin.command": "sleep 12"},
        ],
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "==> A play"
    assert lines[1].startswith("    ... A long task, 1")
    assert lines[2].startswith("    A long task: 1")
    assert len(lines) == 3


def test_a_task_that_tells_how_far_it_is_gives_no_other_signs_of_life(tmp_path: Path) -> None:
    """A download from a pipe that is written to slowly, as any long task of the collection."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        ["sh", "-c", f"for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do head -c 1048576 /dev/zero; sleep 1; done >{pipe}"]
    ) as writer:
        task = {
            "nested.kata.download": {
                "urls": [pipe.as_uri()],
                "path": str(tmp_path / "file"),
                "checksum": f"sha256:{'0' * 64}",
                "retries": 0,
            }
        }
        out, err, status = say(tmp_path, [{"name": "A long task", "ignore_errors": True, **task}])
        writer.kill()
    assert status == 0
    assert out == "==> A play\n"
    assert [line.split(" MiB")[0].rstrip("0123456789") for line in err.splitlines()] == [
        "    ... localhost: file "
    ] * len(err.splitlines())
    assert 2 <= len(err.splitlines()) <= 4


def test_messages_are_printed_line_by_line_also_from_a_loop(tmp_path: Path) -> None:
    out, _dummy, status = say(
        tmp_path,
        [
            {"ansible.builtin.debug": {"msg": ["one", "two"]}},
            {"ansible.builtin.debug": {"msg": "item {{ item }}"}, "loop": [1, 2]},
        ],
    )
    assert (status, out.splitlines()) == (0, ["==> A play", "one", "two", "item 1", "item 2"])


def test_a_failure_that_is_rescued_is_not_shown_and_the_last_one_is_one_message(tmp_path: Path) -> None:
    out, err, status = say(
        tmp_path,
        [
            {
                "block": [{"name": "First", "ansible.builtin.command": "false"}],
                "rescue": [{"name": "Tell why", "ansible.builtin.fail": {"msg": "the reason"}}],
            }
        ],
    )
    assert status == 2
    assert "FAILED on localhost: Tell why\nthe reason" in err
    assert "First" not in out + err


def test_the_failure_of_a_command_ends_with_what_it_said(tmp_path: Path) -> None:
    _dummy, err, status = say(tmp_path, [{"name": "List", "ansible.builtin.command": "ls /t-none"}])
    assert status == 2
    assert "FAILED on localhost: List" in err
    assert "/t-none" in err.splitlines()[-1]
