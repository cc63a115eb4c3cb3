# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs Ansible for real, as a person does, and hands back what it answered."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


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


def run_module(name: str, options: dict, *, check: bool = False, diff: bool = True, inventory: Path | None = None, host: str = "localhost") -> dict:
    """Run one module in a process of its own and return its result.

    Without an inventory it runs on this machine with the interpreter that runs the tests. The key
    `failed` is always there; a host that cannot be reached has `unreachable`.
    """
    command = [str(BIN / "ansible"), host, "-m", name if "." in name else f"nested.kata.{name}", *(["-a", json.dumps(options)] if options else [])]
    command += ["-i", str(inventory)] if inventory else ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    command += ["--check"] if check else []
    command += ["--diff"] if diff else []
    environment = ansible_environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1")
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env=environment)
    try:
        answer = json.loads(done.stdout[done.stdout.index("{"):])
    except ValueError:
        raise AssertionError(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}") from None
    result = answer["plays"][0]["tasks"][0]["hosts"][host]
    result.setdefault("failed", False)
    return result


def play(playbook: Path | str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook and return the finished process (exit status, stdout, stderr)."""
    return subprocess.run(
        [str(BIN / "ansible-playbook"), str(playbook), *arguments],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=ansible_environment(**environment),
    )
