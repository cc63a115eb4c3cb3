# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket of an instance, used by Docker's own client as if the daemon were local: one and two hops away."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_runner import CHECKOUT, MARK, wait_until
from docker_in_docker import DAEMON_IMAGE, docker, image_id, load, nested_daemon, wait_for_daemon
from tunnel_program import install

pytestmark = [pytest.mark.root, pytest.mark.docker]

OUTER, INNER = f"t-sock-{MARK}-outer", f"t-sock-{MARK}-inner"
ONE, TWO = (OUTER,), (OUTER, INNER)
BASE = "debian:trixie-slim"
MEBIBYTE = 1 << 20
# As systemd starts it: with the listening socket as descriptor 3, and its own number.
ACTIVATE = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(128)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-I", *sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def daemons() -> Iterator[None]:
    with nested_daemon(OUTER):
        install(OUTER)
        load(DAEMON_IMAGE, OUTER)
        load(BASE, OUTER)
        with nested_daemon(INNER, hops=ONE, bip="172.30.254.1/24"):
            install(*TWO)
            saved = subprocess.run(["docker", "save", BASE], stdout=subprocess.PIPE, check=True).stdout
            docker("load", "--quiet", hops=TWO, data=saved)
            yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with what lies beside it on a Kata host, and nothing else."""
    directory = tmp_path_factory.mktemp("socket")
    role = CHECKOUT / "roles/kata_socket"
    variables = yaml.safe_load((role / "vars/main.yml").read_text())
    variables.update(kata_socket_home=str(directory), role_path=str(role))

    def path(text: str) -> Path:
        while "{{" in text:
            text = re.sub(r"{{ (\w+) }}", lambda name: variables[name[1]], text)
        return Path(text)

    for part in variables["kata_socket_parts"]:
        if path(part["path"]).is_relative_to(directory):
            path(part["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path(part["source"]), path(part["path"]))
    return directory


class Socket:
    """The socket, and a docker client that uses it."""

    def __init__(self, directory: Path, parts: Path, hops: tuple[str, ...]) -> None:
        self.path, self.hops = str(directory / "kata.sock"), hops
        (directory / "settings.json").write_text(json.dumps({"hops": list(hops)}))
        command = [sys.executable, "-c", ACTIVATE, self.path, str(parts / "serve.py"), str(directory / "settings.json")]
        self.process = subprocess.Popen(command)
        wait_until(lambda: os.path.exists(self.path), "the socket", 10)

    def command(self, *words: str) -> list[str]:
        return ["docker", "--host", f"unix://{self.path}", *words]

    def docker(self, *words: str, status: int = 0, **options) -> str:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, **options)
        assert done.returncode == status, done.stdout + done.stderr
        return (done.stdout + done.stderr).strip()


@pytest.fixture(params=[pytest.param(ONE, marks=pytest.mark.thorough, id="one hop"), pytest.param(TWO, id="two hops")])
def instance(request: pytest.FixtureRequest, daemons: None, parts: Path, tmp_path: Path) -> Iterator[Socket]:
    found = Socket(tmp_path, parts, request.param)
    yield found
    for container in docker("ps", "--all", "--quiet", "--filter", "label=t-sock", hops=found.hops).split():
        docker("rm", "--force", container, hops=found.hops)
    found.process.kill()
    found.process.wait()


RUN = ("run", "--rm", "--label", "t-sock")


def test_the_client_reaches_the_inner_daemon(instance: Socket) -> None:
    assert instance.docker("info", "--format", "{{.ID}}") == docker("info", "--format", "{{.ID}}", hops=instance.hops)
    assert "Server" in instance.docker("version")


def test_what_is_written_to_a_container_comes_back_and_its_status_too(instance: Socket) -> None:
    data = os.urandom(MEBIBYTE).hex()
    assert instance.docker(*RUN, "--interactive", BASE, "cat", input=data) == data
    instance.docker(*RUN, BASE, "sh", "-c", "exit 7", status=7)
    # The end of the input reaches the container, and its answer the client.
    assert instance.docker(*RUN, "--interactive", BASE, "sh", "-c", "wc --bytes; echo end", input="12345") == "5\nend"


def test_exec_logs_and_events_follow_a_container(instance: Socket) -> None:
    name = instance.docker("run", "--detach", "--label", "t-sock", BASE, "sh", "-c", "echo one; sleep 2; echo two")
    with subprocess.Popen(
        instance.command("events", "--since", "1m", "--filter", f"container={name}"), stdout=-1, text=True
    ) as events:
        assert instance.docker("exec", name, "echo", "here") == "here"
        assert instance.docker("logs", "--follow", name) == "one\ntwo"
        wait_until(lambda: " exec_create: echo here " in events.stdout.readline(), "the command among the events", 20)
        wait_until(lambda: " die " in events.stdout.readline(), "the end of the container among the events", 20)
        events.kill()


def test_a_terminal_has_its_size_and_is_resized(instance: Socket) -> None:
    ours, theirs = pty.openpty()

    def wait_for(rows: int, columns: int) -> None:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        running.send_signal(signal.SIGWINCH)
        size = f"{rows} {columns}\r\n".encode()
        wait_until(lambda: select.select([ours], [], [], 1)[0] and size in os.read(ours, 1000), f"{rows} rows", 20)

    command = instance.command(*RUN, "--interactive", "--tty", BASE, "sh", "-c", "while sleep 0.1; do stty size; done")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        wait_for(33, 77)
        wait_for(44, 88)
        os.write(ours, b"\x03")
        assert running.wait(20) == 130
    os.close(ours)
    os.close(theirs)


def test_files_go_both_ways_and_are_the_same(instance: Socket, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(os.urandom(MEBIBYTE) * 100)
    name = instance.docker("create", "--label", "t-sock", BASE)
    instance.docker("cp", str(tmp_path / "there"), f"{name}:/file")
    instance.docker("cp", f"{name}:/file", str(tmp_path / "back"))
    there, back = (hashlib.file_digest((tmp_path / part).open("rb"), "sha256") for part in ("there", "back"))
    assert there.digest() == back.digest()


def test_an_image_is_built_with_a_context_of_its_own(instance: Socket, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(MEBIBYTE))
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nLABEL t-sock=1\nCOPY noise /\nRUN sha256sum /noise >/sum\n")
    instance.docker("build", "--tag", "t-sock:1", str(tmp_path))
    digest = hashlib.sha256((tmp_path / "noise").read_bytes()).hexdigest()
    assert instance.docker(*RUN, "t-sock:1", "cat", "/sum").split()[0] == digest
    with (
        subprocess.Popen(instance.command("save", "t-sock:1"), stdout=subprocess.PIPE) as saving,
        tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
    ):
        assert "manifest.json" in archive.getnames()
    assert image_id("t-sock:1", instance.hops)
    instance.docker("image", "rm", "--force", "t-sock:1")


def test_fifty_at_once_get_their_own_answers(instance: Socket) -> None:
    asking = [
        subprocess.Popen(instance.command("info", "--format", f"{number} {{{{.Driver}}}}"), stdout=-1, text=True)
        for number in range(50)
    ]
    answers = [each.communicate(timeout=100)[0].split() for each in asking]
    driver = docker("info", "--format", "{{.Driver}}", hops=instance.hops)
    assert answers == [[str(number), driver] for number in range(50)]


def test_a_client_that_dies_leaves_nothing_open_at_the_daemon(instance: Socket) -> None:
    def connections() -> int:
        *above, name = instance.hops
        # State 03 is a connection, of which this is the daemon's end (proc_pid_net(5)).
        sockets = [line.split() for line in docker("exec", name, "cat", "/proc/net/unix", hops=above).splitlines()]
        return sum(line[5] == "03" and line[-1].endswith("/docker.sock") for line in sockets)

    instance.docker("version")
    with subprocess.Popen(instance.command("events"), stdout=subprocess.DEVNULL) as watching:
        wait_until(lambda: connections() > 0, "the connection at the daemon", 20)
        watching.kill()
    with socket.socket(socket.AF_UNIX) as rude:
        rude.settimeout(20)
        rude.connect(instance.path)
        rude.sendall(b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
        assert rude.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: connections() == 0, f"no connection at the daemon, of {connections()}", 20)
    assert "Server" in instance.docker("version")


def test_a_daemon_that_is_not_there_is_named_and_the_next_connection_finds_it_again(instance: Socket) -> None:
    *above, name = instance.hops
    assert "Server" in instance.docker("version")
    docker("stop", "--time", "2", name, hops=above)
    try:
        why = instance.docker("ps", status=1)
        assert f"hop {len(instance.hops)} of {len(instance.hops)} ({name} " in why
        assert "is not running (exited)" in why
    finally:
        docker("start", name, hops=above)
        wait_for_daemon(OUTER)
        if name == OUTER:
            docker("start", INNER, hops=ONE)
        wait_for_daemon(*TWO)
    assert "Server" in instance.docker("version")


def test_where_there_can_be_no_tunnel_exec_is_taken(instance: Socket) -> None:
    *above, name = instance.hops
    docker("exec", name, "mv", "/usr/lib/nested-kata/tunnel.py", "/away", hops=above)
    try:
        assert instance.docker(*RUN, "--interactive", BASE, "cat", input="x" * 100_000) == "x" * 100_000
    finally:
        docker("exec", name, "mv", "/away", "/usr/lib/nested-kata/tunnel.py", hops=above)


def test_nothing_runs_when_nobody_is_connected(daemons: None, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts, tmp_path / "quick")
    program = tmp_path / "quick/serve.py"
    program.write_text(program.read_text().replace("IDLE_SECONDS = 30", "IDLE_SECONDS = 1"))
    instance = Socket(tmp_path, tmp_path / "quick", ONE)
    with subprocess.Popen(instance.command(*RUN, BASE, "sleep", "4"), stdout=subprocess.DEVNULL) as running:
        assert running.wait() == 0
    assert instance.process.wait(10) == 0
    wait_until(
        lambda: "tunnel.py" not in docker("exec", OUTER, "sh", "-c", "cat /proc/[0-9]*/cmdline"), "the end of it", 10
    )


def test_the_program_says_what_it_lacks(tmp_path: Path, parts: Path) -> None:
    def said(*arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", str(parts / "serve.py"), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr.strip()

    assert said() == (2, "usage: serve.py SETTINGS")
    assert said("x") == (1, "serve.py: there is no socket from systemd (LISTEN_FDS): start the unit of the socket")
