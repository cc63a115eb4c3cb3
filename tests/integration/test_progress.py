# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees while a long task runs, with every connection, in real plays. The long task is a module of the
test's own.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import BIN, CHECKOUT, MARK, ansible_environment, play
from docker_in_docker import CONTAINER_IMAGE, build_images, docker
from sshd import own_sshd

# As any module of the collection joins in: it says how far it is, and has an action plugin of its name.
MODULE = """
#!/usr/bin/python
from __future__ import annotations
import os
import time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress

def main():
    options = {"name": {"type": "str"}}
    options |= {"seconds": {"type": "float"}, "still": {"type": "bool"}, "die": {"type": "bool"}}
    module = AnsibleModule(options, supports_check_mode=True)
    start, count = time.monotonic(), 0
    with Progress() as progress:
        while time.monotonic() - start < module.params["seconds"]:
            step = "still" if module.params["still"] else "step %d" % count
            progress.say("%s \\x1b[31m%s" % (module.params["name"], step))
            count += 1
            time.sleep(0.2)
        if module.params["die"]:
            os.kill(os.getpid(), 9)
    module.exit_json(changed=False, uid=os.getuid(), user=os.environ.get("OURS", ""))

main()
"""
ACTION = """
from __future__ import annotations
from ansible_collections.nested.kata.plugins.plugin_utils.progress import WatchedAction

class ActionModule(WatchedAction):
    pass
"""
PERIOD = {"nested_kata_progress_seconds": 1}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in (("library", MODULE), ("action_plugins", ACTION)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "slow.py").write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return tmp_path


def watch(
    directory: Path, hosts: dict, tasks: list[dict], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Play the tasks on the hosts and return the finished process."""
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    playbook = directory / "play.yml"
    playbook.write_text(
        json.dumps([{"name": "A play", "hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8"
    )
    return play(playbook, "-i", str(directory / "hosts.json"), *arguments, **environment)


def here(**more: object) -> dict:
    return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **PERIOD, **more}


def slow(**more: object) -> dict:
    options = {
        "name": more.pop("item", "it"),
        "seconds": more.pop("seconds", 4),
        "still": more.pop("still", False),
        "die": more.pop("die", False),
    }
    return {"name": "A long task", "slow": options, **more}


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of progress. The rest of stderr must be empty."""
    said = done.stderr.splitlines()
    assert [line for line in said if not line.startswith("    ... ")] == [], done.stderr
    return said


def assert_steps(said: list[str], beginning: str, least: int = 2) -> None:
    matches = [re.fullmatch(rf"    \.\.\. {re.escape(beginning)}\\x1b\[31mstep (\d+)", line) for line in said]
    assert all(matches), said
    steps = [int(match[1]) for match in matches]
    assert len(steps) >= least, said
    assert steps == sorted(set(steps))


def leftovers() -> list[str]:
    """Return the files of progress in which a module of these tests said something: the others are of plays beside this
    one.
    """
    found = []
    for path in Path("/tmp").glob("nested-kata-*.progress*"):
        with contextlib.suppress(FileNotFoundError):
            if "\x1b[31m" in path.read_text(encoding="utf-8"):
                found.append(path.name)
    return found


def test_a_line_is_shown_while_it_changes_and_never_twice(directory: Path) -> None:
    done = watch(directory, {"machine": here()}, [slow(), slow(still=True)])
    assert done.returncode == 0, done.stdout
    said = lines(done)
    assert said[-1] == "    ... machine: it \\x1b[31mstill"
    assert_steps(said[:-1], "machine: it ")
    assert "step" not in done.stdout
    assert leftovers() == []


def test_the_line_is_there_at_the_time_and_not_at_the_end(directory: Path) -> None:
    watch(directory, {"machine": here()}, [slow(seconds=0)])
    command = [str(BIN / "ansible-playbook"), "-i", str(directory / "hosts.json"), str(directory / "play.yml")]
    (directory / "play.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [slow(seconds=8)]}]), encoding="utf-8"
    )
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ansible_environment()
    ) as running:
        assert "machine: it" in running.stderr.readline()
        first = time.monotonic()
        running.stderr.read()
    assert time.monotonic() - first > 3


def test_several_hosts_loops_and_delegated_tasks_say_where_they_are(directory: Path) -> None:
    done = watch(
        directory,
        {"one": here(), "two": here()},
        [slow(item="{{ item }}", seconds=3, loop=["a", "b"]), slow(delegate_to="builder", run_once=True, vars=here())],
    )
    assert done.returncode == 0, done.stdout
    said = lines(done)
    for beginning in ("one: a ", "one: b ", "two: a ", "two: b ", "one -> builder: it "):
        assert_steps([line for line in said if line.startswith(f"    ... {beginning}")], beginning, 1)


QUIET = {
    "check mode": (slow(seconds=3), ["--check"], PERIOD),
    "a background task": (slow(seconds=3, **{"async": 60, "poll": 1}), [], PERIOD),
    "a secret task": (slow(seconds=3, no_log=True), [], PERIOD),
    "a person who wants none": (slow(seconds=3), [], {"nested_kata_progress_seconds": 0}),
    "a task that is done before": (slow(seconds=2), [], {"nested_kata_progress_seconds": 5}),
}


@pytest.mark.parametrize("case", QUIET)
def test_nothing_is_shown_in(directory: Path, case: str) -> None:
    task, arguments, variables = QUIET[case]
    done = watch(directory, {"machine": here(**variables)}, [task], *arguments)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert leftovers() == []


def test_a_period_that_is_none_is_refused(directory: Path) -> None:
    done = watch(directory, {"machine": here(nested_kata_progress_seconds="often")}, [slow()])
    assert done.returncode == 2
    assert "nested_kata_progress_seconds is 'often': make it a number of seconds" in done.stdout + done.stderr


def test_the_environment_of_the_task_stays(directory: Path) -> None:
    task = slow(
        seconds=0, environment={"OURS": "kept"}, register="result", until="result.user == 'kept'", retries=2, delay=0
    )
    done = watch(
        directory,
        {"machine": here()},
        [task, {"ansible.builtin.assert": {"that": ["result.user == 'kept'", "result.attempts == 1"]}}],
    )
    assert done.returncode == 0, done.stdout


def test_a_module_that_is_killed_fails_as_ever_and_leaves_no_file(directory: Path) -> None:
    done = watch(directory, {"machine": here()}, [slow(die=True)])
    assert done.returncode == 2
    assert "machine: it" in done.stderr
    assert leftovers() == []


def test_a_reader_that_cannot_read_fails_nothing(directory: Path) -> None:
    """There is no program that it could read with."""
    shell = directory / "sh"
    shell.write_text(
        '#!/bin/sh\ncase "$2" in *"cat /tmp/nested-kata-"*) echo broken >&2; kill -9 $$;; esac\nexec /bin/sh "$@"\n',
        encoding="utf-8",
    )
    shell.chmod(0o755)
    done = watch(directory, {"machine": here(ansible_shell_executable=str(shell))}, [slow()])
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""


@pytest.mark.root
def test_it_is_shown_when_the_module_becomes_somebody_else(directory: Path) -> None:
    # what nobody may read is on the way to the interpreter of the tests
    become = here(
        ansible_python_interpreter="/usr/bin/python3",
        ansible_become_user="nobody",
        ansible_become_method="ansible.builtin.su",
        ansible_become_flags="-s /bin/sh",
        ansible_remote_tmp="/tmp",
    )
    done = watch(
        directory,
        {"machine": become},
        [slow(become=True, register="result"), {"ansible.builtin.assert": {"that": "result.uid != 0"}}],
    )
    assert done.returncode == 0, done.stdout
    assert_steps(lines(done), "machine: it ")
    assert leftovers() == []


# --- over connections ---


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    name = f"nested-kata-test-progress-{MARK}"
    build_images()
    docker("rm", "-fv", name, check=False)
    docker("run", "-d", "--init", "--network", "none", "--name", name, CONTAINER_IMAGE)
    try:
        yield name
    finally:
        docker("rm", "-fv", name)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """This machine, by an sshd of our own."""
    place = tmp_path_factory.mktemp("ssh")
    with own_sshd(place) as port:
        yield {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(place / "user"),
            "ansible_host_key_checking": False,
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_python_interpreter": sys.executable,
            **PERIOD,
        }


@pytest.mark.root
@pytest.mark.docker
@pytest.mark.ssh
def test_it_is_shown_over_ssh_and_into_containers_and_from_a_host_that_a_task_is_delegated_to(
    directory: Path, sshd: dict, container: str
) -> None:
    nested = {
        "ansible_connection": "nested.kata.nested",
        "ansible_nested_hops": [container],
        "ansible_python_interpreter": "/usr/bin/python3",
        **PERIOD,
    }
    hosts = {
        "machine": {**sshd, "ansible_connection": "ssh"},
        "container": nested,
        "through": {**nested, "ansible_nested_via": "machine"},
        "user": {
            **nested,
            "ansible_nested_user": "worker",
            "ansible_become": True,
            "ansible_become_password": "open sesame",
        },
    }
    task = {"when": "inventory_hostname == 'machine'", "delegate_to": "through"}
    done = watch(directory, hosts, [slow(seconds=8), slow(seconds=8, item="there", **task)])
    assert done.returncode == 0, done.stdout
    said = lines(done)
    for host in hosts:
        assert_steps([line for line in said if line.startswith(f"    ... {host}: ")], f"{host}: it ")
    assert_steps([line for line in said if "->" in line], "machine -> through: there ")
    assert leftovers() == []
    assert docker("exec", container, "ls", "/tmp") == ""
