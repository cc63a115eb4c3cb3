# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels: the real program at both ends, behind a docker client that runs it here."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import tunnel as tunnels
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import Way
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Exec, Taken, UnixSocket
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import Tunnel
from ansible_runner import wait_until
from docker_client import DockerClient, docker_client


@pytest.fixture
def hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerClient]:
    with docker_client(tmp_path, monkeypatch) as client:
        yield client


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
def tunnel(request: pytest.FixtureRequest, hops: DockerClient) -> Iterator[Tunnel]:
    found = Tunnel(getattr(request, "param", ("inner",)), or_exec=True)
    yield found
    found.close()


@pytest.mark.parametrize(
    "tunnel", [("inner",), ("outer", "inner")], ids=["this process dials", "the hop above dials"], indirect=True
)
def test_archives_go_through_a_tunnel_and_questions_by_exec(hops: DockerClient, tunnel: Tunnel) -> None:
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


def test_every_stream_has_a_token_of_its_own_and_no_call_shows_it(
    hops: DockerClient, tunnel: Tunnel, tmp_path: Path
) -> None:
    hops.does["*tunnel.py*serve"] = f"tee -a {tmp_path}/told | {hops.does['*tunnel.py*serve'].removeprefix('exec ')}"
    hops.write()
    for _dummy in range(2):
        assert echoed(tunnel.open(bulk=True))
    address, *announced = (tmp_path / "told").read_text().splitlines()
    assert address == "127.0.0.1"
    tokens = [line.split()[1] for line in announced]
    assert [len(bytes.fromhex(token)) for token in tokens] == [32, 32]
    assert tokens[0] != tokens[1]
    assert not any(token in (tmp_path / "called").read_text() for token in tokens)


@pytest.mark.parametrize(
    ("transport_of", "size", "parts"),
    [
        (lambda: UnixSocket("/x"), None, False),
        (lambda: Exec(["x"]), None, False),
        (lambda: Tunnel(["x"], or_exec=True), None, True),
        (lambda: Tunnel(["x"], or_exec=True), 4 << 20, True),
        (lambda: Tunnel(["x"], or_exec=True), (4 << 20) - 1, False),
        (lambda: Tunnel(["x"], or_exec=False), 1, True),
    ],
)
def test_few_bytes_are_not_worth_a_tunnel(transport_of, size: int | None, parts: bool) -> None:
    assert transport_of().parts(size) is parts


NO_PROGRAM = (
    "echo \"python3: can't open file '/usr/lib/nested-kata/tunnel.py': [Errno 2] No such file or directory\" >&2;"
    " exit 2"
)
NO_PYTHON = (
    "echo 'OCI runtime exec failed: exec failed: exec: \"python3\": executable file not found in $PATH: unknown';"
    " exit 127"
)
LACKING = "it has no /usr/lib/nested-kata/tunnel.py: it is not made from the machine image, or from an older one"
IN = "hop 2 of 2 (inner in outer): "

# What a hop does instead, and why there is no tunnel then.
NO_TUNNEL = {
    "no program in the innermost": ({"*tunnel.py*serve": NO_PROGRAM}, IN + LACKING),
    "no Python in the innermost": ({"*tunnel.py*serve": NO_PYTHON}, IN + LACKING),
    "no program above": ({"*tunnel.py*dial": NO_PROGRAM}, "hop 1 of 2 (outer on this machine): " + LACKING),
    "no Python above": ({"*tunnel.py*dial": NO_PYTHON}, "hop 1 of 2 (outer on this machine): " + LACKING),
    "no address": ({"*IPAddress*": "echo; echo fd00::2"}, IN + "it has no IPv4 address of its own"),
    "no answer about it": ({"*IPAddress*": "echo 'no such object: inner' >&2; exit 1"}, IN + "no such object: inner"),
    "an address that is not there": (
        {"*IPAddress*": "echo 192.0.2.77"},
        IN + "tunnel: [Errno 99] Cannot assign requested address",
    ),
    "a port where nobody listens": (
        {"*tunnel.py*serve": "read a; read b; echo listening 1 1; exec cat >/dev/null"},
        (
            "hop 1 of 2 (outer on this machine): tunnel: port 1 of 127.0.0.1 cannot be reached from here: [Errno 111]"
            " Connection refused"
        ),
    ),
    "another address than its own": (
        {"*tunnel.py*serve": "echo listening 192.0.2.1 22; exec cat >/dev/null"},
        IN + "listening 192.0.2.1 22",
    ),
    "a port that is none": (
        {"*tunnel.py*serve": "read a; read b; echo listening 1 99999; exec cat >/dev/null"},
        "hop 1 of 2 (outer on this machine): tunnel: ",
    ),
    "much talk": ({"*tunnel.py*serve": "head -c 2000 /dev/zero | tr '\\0' y; exec cat >/dev/null 2>&1"}, IN + "yyyyy"),
    "no talk": ({"*tunnel.py*serve": "exec cat >/dev/null"}, IN + "the far end of the tunnel sent nothing for 0.7 s"),
    "an end at once": ({"*tunnel.py*serve": "exit 0"}, IN + "the tunnel ended before it was established"),
}


@pytest.mark.parametrize("tunnel", [("outer", "inner")], indirect=True)
@pytest.mark.parametrize("name", NO_TUNNEL)
def test_where_there_can_be_no_tunnel_exec_is_taken_and_the_reason_told(
    hops: DockerClient, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tunnels, "LISTENING_SECONDS", 0.7 if name == "no talk" else 10)
    does, reason = NO_TUNNEL[name]
    hops.does.update(does)
    hops.write()
    assert echoed(tunnel.open(bulk=True))
    assert tunnel.taken.name == "exec"
    assert tunnel.taken.reason.startswith(f"no tunnel: {reason}")
    tried = len(hops.called("serve"))
    assert echoed(tunnel.open(bulk=True))
    assert len(hops.called("serve")) == tried == 1
    with pytest.raises(Broken, match=r"^transport is tunnel, and there is none: hop "):
        Tunnel(("outer", "inner"), or_exec=False).open(bulk=True)


def test_a_port_where_nobody_listens_is_told_where_this_process_dials(hops: DockerClient) -> None:
    hops.does["*tunnel.py*serve"] = "read a; read b; echo listening 1 1; exec cat >/dev/null"
    hops.write()
    with pytest.raises(
        Broken,
        match=(
            r"hop 1 of 1 \(inner on this machine\): port 1 of 127.0.0.1 cannot be reached from this machine: .*refused"
        ),
    ):
        Tunnel(("inner",), or_exec=False).open(bulk=True)


def test_who_answers_in_place_of_the_far_end_is_not_believed(
    hops: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far end says that the token came, and it is the only one who can: what says so on the connection has taken
    its address.
    """
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        hops.does["*tunnel.py*serve"] = (
            f"read a; read b; echo listening 1 {impostor.getsockname()[1]}; exec cat >/dev/null"
        )
        hops.write()

        def lie() -> None:
            connection = impostor.accept()[0]
            connection.recv(64)
            connection.sendall(b"accepted\n")

        threading.Thread(target=lie, daemon=True).start()
        with pytest.raises(Broken, match="instead of a tunnel: accepted"):
            Tunnel(("inner",), or_exec=False).open(bulk=True)


@pytest.mark.parametrize("tunnel", [("inner",), ("outer", "inner")], ids=["one hop", "two hops"], indirect=True)
def test_a_far_end_that_dies_ends_the_stream_at_once_and_the_hop_is_named(hops: DockerClient, tunnel: Tunnel) -> None:
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
    assert tunnel.why() == Way("this machine", (), tunnel.exec.way.hops).blame(
        len(tunnel.exec.way.hops), "is not running (exited)"
    )


def test_a_connection_that_the_far_end_ended_well_is_read_to_its_end(hops: DockerClient, tunnel: Tunnel) -> None:
    stream = tunnel.open(bulk=True)
    stream.settimeout(10)
    stream.sendall(b"x" * 100_000)
    stream.shutdown(socket.SHUT_WR)
    assert received(stream, 100_000) == b"x" * 100_000
    assert stream.recv(10) == b""


def test_nothing_is_left_of_a_tunnel_that_is_closed(hops: DockerClient, tunnel: Tunnel) -> None:
    stream = tunnel.open(bulk=True)
    port = stream.getpeername()[1]
    (far,) = [child.process for child in tunnel.exec.children]
    tunnel.close()
    assert far.returncode is not None
    assert stream.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("tunnel")],
        "the end of its thread",
        5,
    )
