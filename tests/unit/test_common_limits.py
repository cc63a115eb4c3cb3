# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command within limits of its output is the command itself, until it writes too much."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.limits import limited


def run(script: str, at_once: bool = False, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = limited(["sh", "-c", script], out=1000, err=100, at_once=at_once)
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("at_once", [False, True])
def test_input_outputs_and_status_pass(at_once: bool) -> None:
    done = run("cat; echo err >&2; exit 7", at_once, data=b"\0\xff\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\0\xff\n", b"err\n")


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("script", "out", "err"), [("exec yes", 1000, 0), ("exec yes >&2", 0, 100)])
def test_as_much_as_is_allowed_passes_and_then_the_command_ends(at_once: bool, script: str, out: int, err: int) -> None:
    done = run(script, at_once)
    assert done.returncode != 0
    assert (len(done.stdout), len(done.stderr)) == (out, err)


def test_a_prompt_passes_before_its_command_goes_on() -> None:
    command = limited(["sh", "-c", "printf password:; read answer; echo $answer"], out=1000, err=100, at_once=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.read(9) == b"password:"
        process.stdin.write(b"secret\n")
        assert process.stdout.read(7) == b"secret\n"
