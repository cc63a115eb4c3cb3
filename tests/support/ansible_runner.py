# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs Ansible for real, as a person does, and hands back what it answered."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# In the names of what tests make in this machine's Docker: those of several checkouts are told apart, and a run finds
# what a killed one left.
MARK = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:6]


def ansible_environment(**extra: str) -> dict[str, str]:
    """Return an environment in which Ansible takes this checkout's configuration and speaks JSON."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"),
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="false",
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
    )
    environment.update(extra)
    return environment


# What a parent ignores, as nohup and a shell do for what runs in the background, is ignored by every program below it
# too.
HEEDING_SIGNALS = ("/usr/bin/env", "--default-signal=HUP,INT,PIPE,TERM")

ALONE = """
import json, sys
from importlib import import_module
from ansible.module_utils.testing import patch_module_args
module = import_module(f"ansible_collections.nested.kata.plugins.modules.{sys.argv[1]}")
with patch_module_args(json.loads(sys.argv[2])):
    module.main()
"""


def module_command(name: str, options: dict) -> list[str]:
    """Return a command that runs a module as a process of its own, as on a target: to be killed, or timed. It prints
    its result.
    """
    return [sys.executable, "-c", ALONE, name, json.dumps(options)]


def module_environment(**extra: str) -> dict[str, str]:
    """Return the environment for module_command."""
    return ansible_environment(**{"PYTHONPATH": str(CHECKOUT / ".collections"), **extra})


def started(name: str, options: dict, **environment: str) -> subprocess.Popen[str]:
    """Start a module without Ansible around it, which is quicker, and can be killed and interrupted."""
    return subprocess.Popen(
        [*HEEDING_SIGNALS, *module_command(name, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=module_environment(**environment),
        cwd="/",
    )


def answer(running: subprocess.Popen[str], seconds: float) -> dict:
    """Wait until a module that was started ends, and return its result."""
    output, errors = running.communicate(timeout=seconds)
    assert output, errors
    return {"failed": False, **json.loads(output)}


def wait_until(
    holds: Callable[[], bool], what: str, seconds: float = 60, pause: float = 0.05, log: Callable[[], str] = str
) -> None:
    """Return when it holds, which is asked again after each pause. Where it does not in time, the error shows the log
    too.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}\n{log()}".rstrip()
        time.sleep(pause)


def run_module(
    name: str,
    options: dict,
    *,
    check: bool = False,
    diff: bool = True,
    inventory: Path | None = None,
    host: str = "localhost",
) -> dict:
    """Run one module in a process of its own and return its result.

    Without an inventory it runs on this machine with the interpreter that runs the tests. The key
    `failed` is always there; a host that cannot be reached has `unreachable`.
    """
    command = [
        str(BIN / "ansible"),
        host,
        "-m",
        name if "." in name else f"nested.kata.{name}",
        *(["-a", json.dumps(options)] if options else []),
    ]
    command += (
        ["-i", str(inventory)]
        if inventory
        else ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    )
    command += ["--check"] if check else []
    command += ["--diff"] if diff else []
    environment = ansible_environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1")
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env=environment)
    try:
        answer = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        raise AssertionError(
            f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        ) from None
    result = answer["plays"][0]["tasks"][0]["hosts"][host]
    result.setdefault("failed", False)
    return result


def play(playbook: Path | str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook and return the finished process (exit status, stdout, stderr)."""
    return subprocess.run(
        [str(BIN / "ansible-playbook"), str(playbook), *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        env=ansible_environment(**environment),
    )
