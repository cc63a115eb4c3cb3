# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams to a daemon: sockets and processes, no Docker."""
from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playing import wait_until
from tunnel_program import leading_to
from unix_server import UnixServer

from ansible_collections.nested.kata.plugins.module_utils import transport
from ansible_collections.nested.kata.plugins.module_utils.daemon import Endpoint
from ansible_collections.nested.kata.plugins.module_utils.hops import Answer, Way
from ansible_collections.nested.kata.plugins.module_utils.transport import Broken, Child, Exec, Taken, Tunnel, UnixSocket, no_daemon


def test_a_socket_without_permission_is_told_with_the_group(tmp_path: Path) -> None:
    told = UnixSocket(str(tmp_path)).refusal(PermissionError(13, "Permission denied"))
    assert f"no permission for {tmp_path}" in told
    assert "must be in group" in told


def test_a_child_that_does_not_end_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GONE_SECONDS", 0.2)
    child = Child(["sh", "-c", "trap '' TERM; echo last words >&2; while :; do sleep 0.05; done"], {"PATH": os.environ["PATH"]})
    time.sleep(0.2)
    child.end()
    assert child.process.returncode == -9
    assert child.last_words() == "last words"


def test_only_the_last_of_what_a_child_complains_about_is_kept() -> None:
    child = Child([sys.executable, "-c", "import sys; sys.stderr.write(('x' * 99 + '\\n') * 10000 + 'the end\\n')"], {})
    child.process.wait(10)
    child.end()
    assert child.last_words() == "the end"
    assert len(child._stderr) <= transport.STDERR_BYTES


@pytest.mark.parametrize("given_answer, finding", [
    (Answer(0, "26.1.5\n", ""), None),
    (Answer(127, 'OCI runtime exec failed: exec: "docker": executable file not found in $PATH: unknown\n', ""),
     "it has no docker client: install docker-cli in it"),
    (Answer(1, "\n", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"),
     "the docker daemon in it does not answer: start dockerd there"),
    (Answer(1, "", "first\nlast words\n"), "the docker daemon in it: last words"),
    (Answer(1, "", ""), "the docker daemon in it: exit status 1"),
])
def test_the_innermost_hop_is_told_apart_from_its_daemon(given_answer: Answer, finding: str | None) -> None:
    told = no_daemon(Way("this machine", ("docker",), ("outer", "inner")), given_answer)
    assert told == (finding and f"hop 2 of 2 (inner in outer): {finding}")


def test_the_first_hop_is_reached_through_this_machines_own_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    found = Exec(["outer"])
    assert "DOCKER_CONTEXT" not in found.environment
    assert found.environment["KEPT"] == "yes"
    assert found.way.docker == ("docker", "--host", "unix:///var/run/docker.sock")


@pytest.mark.parametrize("option, leads", [
    ({"socket": "/x.sock", "transport": "auto"}, UnixSocket),
    ({"hops": [], "transport": "tunnel"}, UnixSocket),
    ({"hops": ["x"]}, Tunnel),
    ({"hops": ["x"], "transport": "auto"}, Tunnel),
    ({"hops": ["x"], "transport": "tunnel"}, Tunnel),
    ({"hops": ["x"], "transport": "exec"}, Exec),
])
def test_hops_are_what_a_transport_is_chosen_for(option: dict, leads: type) -> None:
    assert isinstance(Endpoint.parse(option).transport(), leads)


def test_only_auto_may_fall_back_to_exec() -> None:
    assert [Endpoint.parse({"hops": ["x"], "transport": by}).transport().or_exec for by in ("auto", "tunnel")] == [True, False]


def test_a_daemon_is_the_same_whatever_leads_to_it() -> None:
    assert Endpoint.parse({"hops": ["x"], "transport": "exec"}) == Endpoint.parse({"hops": ["x"]})


def test_a_transport_for_a_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="^transport exec and socket exclude each other: a transport leads through hops$"):
        Endpoint.parse({"socket": "/x.sock", "transport": "exec"})


# Tunnels: the real program at both ends, behind a docker client that runs it here


class Hops:
    """A docker client on PATH. What it does for each kind of call is a line of shell; `called` notes the calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemon = UnixServer(directory / "docker.sock")
        program = leading_to(self.daemon.path, wait=1)
        (directory / "tunnel.py").write_text(program[-1])
        run = f"exec {sys.executable} -IS {directory / 'tunnel.py'}"
        self.does = {
            "*IPAddress*": "echo 127.0.0.1",
            "*tunnel.py*listen": f"{run} listen",
            "*tunnel.py*dial": f"{run} dial",
            "*dial-stdio": "exec cat",
            "*inspect*": "echo running",
            "*": "echo 26.1",
        }

    def write(self) -> None:
        cases = "\n".join(f'  {pattern.replace(" ", chr(92) + " ")}) {line} ;;' for pattern, line in self.does.items())
        client = self.directory / "bin" / "docker"
        client.parent.mkdir(exist_ok=True)
        client.write_text(f'#!/bin/sh\necho "$*" >>{self.directory}/called\ncase "$*" in\n{cases}\nesac\n')
        client.chmod(0o755)

    def called(self, word: str) -> list[str]:
        return [line for line in (self.directory / "called").read_text().splitlines() if word in line]


@pytest.fixture
def hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hops]:
    found = Hops(tmp_path)
    found.write()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(transport, "SOCKET", found.daemon.path)
    yield found
    found.daemon.close()


def echoed(stream: socket.socket, data: bytes = b"x" * 100_000) -> bool:
    stream.settimeout(10)
    stream.sendall(data)
    return received(stream, len(data)) == data


def received(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := stream.recv(count - len(data))):
        data += piece
    return data


@pytest.fixture
def tunnel(request: pytest.FixtureRequest, hops: Hops) -> Iterator[Tunnel]:
    found = Tunnel(getattr(request, "param", ("inner",)), or_exec=True)
    yield found
    found.close()


@pytest.mark.parametrize("tunnel", [("inner",), ("outer", "inner")], ids=["this process dials", "the hop above dials"], indirect=True)
def test_archives_go_through_a_tunnel_and_questions_by_exec(hops: Hops, tunnel: Tunnel) -> None:
    assert echoed(tunnel.open())
    assert tunnel.taken == Taken("exec", "nothing of 4 MiB or more was to be carried")
    stream = tunnel.open(bulk=True)
    assert stream.family == (socket.AF_INET if len(tunnel.exec.way.hops) == 1 else socket.AF_UNIX)
    assert echoed(stream)
    assert tunnel.taken.name == "tunnel"
    assert tunnel.taken.reason.endswith(" of 127.0.0.1, the address of inner")
    assert len(hops.called("dial-stdio")) == 1
    assert [line.split("python3")[0] for line in hops.called("dial\n".strip()) if "tunnel.py" in line] == (
        [] if len(tunnel.exec.way.hops) == 1 else [f"--host unix://{hops.daemon.path} exec -i outer "]
    )
    children = tunnel.exec.children
    stream.close()
    tunnel.close()
    assert [child.process.returncode is not None for child in children] == [True] * len(children)


def test_every_stream_has_a_token_of_its_own_and_no_call_shows_it(hops: Hops, tunnel: Tunnel, tmp_path: Path) -> None:
    hops.does["*tunnel.py*listen"] = f"exec tee -a {tmp_path}/told | {hops.does['*tunnel.py*listen'].removeprefix('exec ')}"
    hops.write()
    for dummy in range(2):
        assert echoed(tunnel.open(bulk=True))
    tokens = [line for line in (tmp_path / "told").read_text().splitlines() if line != "127.0.0.1"]
    assert [len(bytes.fromhex(token)) for token in tokens] == [32, 32]
    assert tokens[0] != tokens[1]
    assert not any(token in (tmp_path / "called").read_text() for token in tokens)


@pytest.mark.parametrize("transport_of, size, parts", [
    (lambda: UnixSocket("/x"), None, False),
    (lambda: Exec(["x"]), None, False),
    (lambda: Tunnel(["x"], or_exec=True), None, True),
    (lambda: Tunnel(["x"], or_exec=True), 4 << 20, True),
    (lambda: Tunnel(["x"], or_exec=True), (4 << 20) - 1, False),
    (lambda: Tunnel(["x"], or_exec=False), 1, True),
])
def test_few_bytes_are_not_worth_a_tunnel(transport_of, size: int | None, parts: bool) -> None:
    assert transport_of().parts(size) is parts


NO_PROGRAM = "echo \"python3: can't open file '/usr/lib/nested-kata/tunnel.py': [Errno 2] No such file or directory\" >&2; exit 2"
NO_PYTHON = 'echo \'OCI runtime exec failed: exec failed: exec: "python3": executable file not found in $PATH: unknown\'; exit 127'
LACKING = "it has no /usr/lib/nested-kata/tunnel.py: it is not made from the machine image, or from an older one"
IN = "hop 2 of 2 (inner in outer): "

# What a hop does instead, and why there is no tunnel then.
NO_TUNNEL = {
    "no program in the innermost": ({"*tunnel.py*listen": NO_PROGRAM}, IN + LACKING),
    "no Python in the innermost": ({"*tunnel.py*listen": NO_PYTHON}, IN + LACKING),
    "no program above": ({"*tunnel.py*dial": NO_PROGRAM}, "hop 1 of 2 (outer on this machine): " + LACKING),
    "no Python above": ({"*tunnel.py*dial": NO_PYTHON}, "hop 1 of 2 (outer on this machine): " + LACKING),
    "no address": ({"*IPAddress*": "echo; echo fd00::2"}, IN + "it has no IPv4 address of its own"),
    "no answer about it": ({"*IPAddress*": "echo 'no such object: inner' >&2; exit 1"}, IN + "no such object: inner"),
    "an address that is not there": ({"*IPAddress*": "echo 192.0.2.77"}, IN + "tunnel: [Errno 99] Cannot assign requested address"),
    "a port where nobody listens": (
        {"*tunnel.py*listen": "echo listening 1; exec cat >/dev/null"},
        "hop 1 of 2 (outer on this machine): tunnel: port 1 of 127.0.0.1 cannot be reached from here: [Errno 111] Connection refused",
    ),
    "another address than its own": ({"*tunnel.py*listen": "echo listening 192.0.2.1 22; exec cat >/dev/null"}, IN + "listening 192.0.2.1 22"),
    "a port that is none": ({"*tunnel.py*listen": "echo listening 99999; exec cat >/dev/null"}, "hop 1 of 2 (outer on this machine): tunnel: "),
    "much talk": ({"*tunnel.py*listen": "head -c 2000 /dev/zero | tr '\\0' y; exec cat >/dev/null 2>&1"}, IN + "yyyyy"),
    "no talk": ({"*tunnel.py*listen": "exec cat >/dev/null"}, IN + "the far end of the tunnel said nothing for 0.7 s"),
    "an end at once": ({"*tunnel.py*listen": "exit 0"}, IN + "the tunnel ended before it was there"),
}


@pytest.mark.parametrize("tunnel", [("outer", "inner")], indirect=True)
@pytest.mark.parametrize("name", NO_TUNNEL)
def test_where_there_can_be_no_tunnel_exec_is_taken_and_the_reason_told(hops: Hops, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(transport, "LISTENING_SECONDS", 0.7 if name == "no talk" else 10)
    does, reason = NO_TUNNEL[name]
    hops.does.update(does)
    hops.write()
    assert echoed(tunnel.open(bulk=True))
    assert tunnel.taken.name == "exec"
    assert tunnel.taken.reason.startswith(f"no tunnel: {reason}")
    tried = len(hops.called("listen"))
    assert echoed(tunnel.open(bulk=True))
    assert len(hops.called("listen")) == tried == 1
    with pytest.raises(Broken, match="^transport is tunnel, and there is none: hop "):
        Tunnel(("outer", "inner"), or_exec=False).open(bulk=True)


def test_a_port_where_nobody_listens_is_told_where_this_process_dials(hops: Hops) -> None:
    hops.does["*tunnel.py*listen"] = "echo listening 1; exec cat >/dev/null"
    hops.write()
    with pytest.raises(Broken, match=r"hop 1 of 1 \(inner on this machine\): port 1 of 127.0.0.1 cannot be reached from this machine: .*refused"):
        Tunnel(("inner",), or_exec=False).open(bulk=True)


def test_who_answers_in_place_of_the_far_end_is_not_believed(hops: Hops, monkeypatch: pytest.MonkeyPatch) -> None:
    """The far end says that the token came, and it is the only one who can: what says so on the connection has taken its address."""
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        hops.does["*tunnel.py*listen"] = f"echo listening {impostor.getsockname()[1]}; exec cat >/dev/null"
        hops.write()

        def lie() -> None:
            connection = impostor.accept()[0]
            connection.recv(64)
            connection.sendall(b"accepted\n")

        threading.Thread(target=lie, daemon=True).start()
        with pytest.raises(Broken, match="instead of a tunnel: accepted"):
            Tunnel(("inner",), or_exec=False).open(bulk=True)


@pytest.mark.parametrize("tunnel", [("inner",), ("outer", "inner")], ids=["one hop", "two hops"], indirect=True)
def test_a_far_end_that_dies_ends_the_stream_at_once_and_the_hop_is_named(hops: Hops, tunnel: Tunnel) -> None:
    stream = tunnel.open(bulk=True)
    stream.settimeout(10)
    hops.does["*inspect*inner"] = "echo exited"
    hops.does = dict(sorted(hops.does.items(), key=lambda item: len(item[0]), reverse=True))
    hops.write()
    start = time.monotonic()
    tunnel.exec.children[0].process.kill()
    assert stream.recv(10) == b""
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            stream.sendall(b"x")
    assert time.monotonic() - start < 5
    assert tunnel.why() == transport.Way("this machine", (), tunnel.exec.way.hops).blame(len(tunnel.exec.way.hops), "is not running (exited)")


def test_a_connection_that_the_far_end_ended_well_is_read_to_its_end(hops: Hops, tunnel: Tunnel) -> None:
    stream = tunnel.open(bulk=True)
    stream.settimeout(10)
    stream.sendall(b"x" * 100_000)
    stream.shutdown(socket.SHUT_WR)
    tunnel.exec.children[0].process.wait(10)
    assert received(stream, 100_000) == b"x" * 100_000
    assert stream.recv(10) == b""


def test_nothing_is_left_of_a_tunnel_that_is_closed(hops: Hops, tunnel: Tunnel) -> None:
    stream = tunnel.open(bulk=True)
    port = stream.getpeername()[1]
    (far,) = [child.process for child in tunnel.exec.children]
    tunnel.close()
    assert far.returncode is not None
    assert stream.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("tunnel")], "the end of its thread", 5)


def test_a_hop_that_is_dying_while_it_says_that_it_runs_is_the_one_that_is_named(hops: Hops, tmp_path: Path) -> None:
    says = f"if [ -e {tmp_path}/asked ]; then echo exited; else touch {tmp_path}/asked; echo running; fi"
    hops.does = {"*exec*inspect*inner": "echo cannot exec in a stopped state >&2; exit 126", "*inspect*outer": says, "*": "exit 1"}
    hops.write()
    assert Exec(("outer", "inner")).why() == "hop 1 of 2 (outer on this machine): is not running (exited)"
