# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine image's program tunnel.py: real processes and sockets on this machine, and a daemon that only notes what
reaches it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import random
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_runner import wait_until
from tunnel_program import leading_to
from unix_server import UnixServer

SECONDS = 10
LARGE = 40_000_000


class Daemon(UnixServer):
    """Serves each connection by the function that the test sets, and as an echo until then."""

    def __init__(self, path: Path) -> None:
        self.serve: Callable[[socket.socket], None] = super().attend
        super().__init__(path)

    def attend(self, connection: socket.socket) -> None:
        self.serve(connection)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path / "docker.sock")
    yield found
    found.close()


class Serving:
    """The program in its mode `serve`, which waits for one connection."""

    def __init__(self, daemon: Daemon, wait: float = 10, splice: bool = True) -> None:
        command = [*leading_to(daemon.path, wait=wait, splice=splice), "serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.say(b"127.0.0.1\n")
        self.count = 0
        self.token, self.port = self.announce()

    def say(self, words: bytes) -> None:
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def hear(self) -> bytes:
        return self.process.stdout.readline()

    def announce(self) -> tuple[bytes, int]:
        """Announce one more connection, and return its token and the port."""
        self.count += 1
        token = secrets.token_hex(32).encode()
        self.say(b"%d %s\n" % (self.count, token))
        word, number, port = self.hear().split()
        assert (word, int(number)) == (b"listening", self.count)
        return token, int(port)

    def connect(self, *, first: bytes = b"") -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        stream.sendall(first)
        return stream

    def enter(self, first: bytes = b"") -> socket.socket:
        """Connect with the first token."""
        stream = self.connect(first=self.token + first)
        assert self.hear() == b"accepted 1\n"
        return stream

    def ended(self) -> tuple[int, str]:
        return self.process.wait(SECONDS), self.process.stderr.read().decode()

    def end(self) -> tuple[int, str]:
        self.process.stdin.close()
        return self.ended()


@pytest.fixture
def serving(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Serving]:
    found = Serving(daemon, splice=getattr(request, "param", True))
    yield found
    found.process.kill()
    found.process.wait()
    for pipe in (found.process.stdin, found.process.stdout, found.process.stderr):
        pipe.close()


def read_to_end(stream: socket.socket) -> bytes:
    return b"".join(iter(lambda: stream.recv(1 << 16), b""))


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


# Who is let in


def test_the_token_opens_the_way_to_the_daemon(daemon: Daemon, serving: Serving) -> None:
    with serving.enter(first=b"at once, ") as stream:
        stream.sendall(b"and later")
        stream.shutdown(socket.SHUT_WR)
        assert read_to_end(stream) == b"at once, and later"
    assert serving.end() == (0, "")
    assert daemon.connections == 1


def test_a_token_may_come_byte_by_byte(serving: Serving) -> None:
    stream = serving.connect()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in serving.token + b"x":
        stream.sendall(bytes([byte]))
    assert stream.recv(10) == b"x"


def test_the_token_is_in_no_argument_and_no_environment(serving: Serving) -> None:
    for name in ("cmdline", "environ"):
        assert serving.token not in Path(f"/proc/{serving.process.pid}/{name}").read_bytes()


STRANGERS = {
    "a wrong token": lambda token: secrets.token_hex(32).encode(),
    "a token with its last byte wrong": lambda token: token[:-1] + b"!",
    "a request": lambda token: b"GET /containers/json HTTP/1.1\r\nHost: docker\r\nUser-Agent: curl\r\n\r\n",
    "a token behind a space": lambda token: b" " + token,
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_dropped_and_the_right_one_may_still_come(daemon: Daemon, serving: Serving, name: str) -> None:
    with (
        serving.connect(first=STRANGERS[name](serving.token)) as stranger,
        contextlib.suppress(ConnectionResetError),
    ):
        assert stranger.recv(100) == b""
    assert daemon.connections == 0
    with serving.enter(first=b"x") as stream:
        assert stream.recv(10) == b"x"
    assert daemon.connections == 1


def scanned(serving: Serving) -> list[socket.socket]:
    for _dummy in range(100):
        serving.connect().close()
    return []


def scanned_half_open(serving: Serving) -> list[socket.socket]:
    for _dummy in range(100):
        stream = serving.connect()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
        stream.close()
    return []


QUIET = {
    "one says nothing": lambda serving: [serving.connect()],
    "fifty say nothing": lambda serving: [serving.connect() for dummy in range(50)],
    "one says half of it": lambda serving: [serving.connect(first=serving.token[:32])],
    "one ends after half of it": lambda serving: serving.connect(first=serving.token[:32]).close() or [],
    "a port scan": scanned,
    "a port scan by resets": scanned_half_open,
}


@pytest.mark.parametrize("name", QUIET)
def test_who_says_nothing_keeps_nobody_out_and_reaches_nothing(daemon: Daemon, serving: Serving, name: str) -> None:
    quiet = QUIET[name](serving)
    assert daemon.connections == 0
    with serving.enter(first=b"x") as stream:
        assert stream.recv(10) == b"x"
        for one in quiet:
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(10) == b""
    assert daemon.connections == 1


def test_there_is_no_second_connection(daemon: Daemon, serving: Serving) -> None:
    early = serving.connect()
    with serving.enter() as stream:
        assert refuses(serving.port)
        with contextlib.suppress(OSError):
            early.sendall(serving.token)
            assert early.recv(10) == b""
        stream.sendall(b"x")
        assert stream.recv(10) == b"x"
    assert daemon.connections == 1


def test_nothing_listens_after_the_wait(daemon: Daemon) -> None:
    serving = Serving(daemon, wait=0.5)
    silent = serving.connect()
    assert serving.hear() == b"refused 1 nobody came with the token within 0.5 s\n"
    wait_until(lambda: refuses(serving.port), "it to listen no longer", 5)
    assert silent.recv(10) == b""
    assert daemon.connections == 0


def test_it_ends_with_whoever_started_it_while_it_waits(daemon: Daemon, serving: Serving) -> None:
    assert serving.end() == (0, "")
    assert refuses(serving.port)


def test_it_ends_with_whoever_started_it_while_it_carries(daemon: Daemon, serving: Serving) -> None:
    stream = serving.enter()
    assert serving.end() == (0, "")
    assert stream.recv(10) == b""


def test_it_ends_before_it_listens_when_nobody_is_there_any_more(daemon: Daemon) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), "serve"], input=b"an address without an end", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("arguments", [(), ("neither",), ("serve", "x")])
def test_it_knows_two_ways_to_be_called(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "usage: tunnel.py serve|dial\n")


def test_an_address_that_is_not_its_own_is_refused(daemon: Daemon) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), "serve"], input=b"192.0.2.77\n1 token\n", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"Cannot assign requested address" in done.stderr


def test_a_daemon_that_is_not_there_is_told(daemon: Daemon, serving: Serving) -> None:
    daemon.close()
    os.unlink(daemon.path)
    stream = serving.connect(first=serving.token)
    assert serving.hear() == f"refused 1 {daemon.path}: No such file or directory\n".encode()
    assert stream.recv(10) == b""


def test_each_connection_has_a_token_of_its_own_which_opens_once(daemon: Daemon, serving: Serving) -> None:
    daemon.serve = lambda connection: connection.sendall(b"heard " + connection.recv(100))
    tokens = [serving.token, *(serving.announce()[0] for _dummy in range(49))]
    assert len({*tokens}) == 50
    with contextlib.ExitStack() as opened:
        streams = [
            opened.enter_context(serving.connect(first=token + str(number).encode()))
            for number, token in enumerate(reversed(tokens))
        ]
        assert [stream.recv(100) for stream in streams] == [f"heard {number}".encode() for number in range(50)]
    assert sorted(int(serving.hear().split()[1]) for _dummy in range(50)) == [*range(1, 51)]
    assert refuses(serving.port)
    _token, serving.port = serving.announce()
    with serving.connect(first=tokens[0]) as stranger, contextlib.suppress(ConnectionResetError):
        assert stranger.recv(100) == b""
    assert daemon.connections == 50


def test_the_next_connection_gets_nothing_of_one_whose_peer_is_gone(daemon: Daemon, serving: Serving) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        if connection.recv(1) == b"1":
            begun.set()
            go_on.wait(SECONDS)
            with contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"first" * 100_000)
        connection.sendall(b"second")

    daemon.serve = serve
    with serving.enter(first=b"1") as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
        assert begun.wait(SECONDS)
    for _dummy in range(20):
        token, serving.port = serving.announce()
        with serving.connect(first=token + b"2") as stream:
            go_on.set()
            assert read_to_end(stream) == b"second"
        assert serving.hear().startswith(b"accepted ")


# What is carried

# Python has os.splice from 3.10 on.
by_any_python = pytest.mark.parametrize("serving", [True, False], ids=["splice", "copy"], indirect=True)


def noise(seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    for _dummy in range(LARGE // 1_000_000):
        yield dice.randbytes(1_000_000)


def digest(pieces: Iterator[bytes]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def send(stream: socket.socket, seed: int) -> None:
    for piece in noise(seed):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)


@by_any_python
def test_much_goes_both_ways_at_once_and_arrives_unchanged(daemon: Daemon, serving: Serving) -> None:
    arrived: queue.Queue[str] = queue.Queue()  # put there by the daemon's thread, which may be late

    def serve(connection: socket.socket) -> None:
        sending = threading.Thread(target=send, args=(connection, 1))
        sending.start()
        arrived.put(digest(iter(lambda: connection.recv(1 << 20), b"")))
        sending.join()

    daemon.serve = serve
    with serving.enter() as stream:
        sending = threading.Thread(target=send, args=(stream, 2))
        sending.start()
        assert digest(iter(lambda: stream.recv(1 << 20), b"")) == digest(noise(1))
        sending.join()
    assert serving.end() == (0, "")
    assert arrived.get(timeout=SECONDS) == digest(noise(2))


@by_any_python
def test_a_peer_that_has_said_all_still_hears_the_answer(daemon: Daemon, serving: Serving) -> None:
    def serve(connection: socket.socket) -> None:
        question = read_to_end(connection)
        connection.sendall(b"heard " + question)

    daemon.serve = serve
    with serving.enter() as stream:
        stream.sendall(b"all")
        stream.shutdown(socket.SHUT_WR)
        assert read_to_end(stream) == b"heard all"


@by_any_python
def test_a_daemon_that_has_said_all_still_hears_the_peer(daemon: Daemon, serving: Serving) -> None:
    heard: queue.Queue[bytes] = queue.Queue()  # put there by the daemon's thread, which may be late

    def serve(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        heard.put(read_to_end(connection))

    daemon.serve = serve
    with serving.enter() as stream:
        assert stream.recv(10) == b""
        stream.sendall(b"late")
    assert heard.get(timeout=SECONDS) == b"late"
    assert serving.end() == (0, "")


@by_any_python
def test_a_daemon_that_hangs_up_early_has_its_answer_read_and_the_peer_stops(daemon: Daemon, serving: Serving) -> None:
    reason = b"no space left on device" * 1000

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(reason)

    daemon.serve = serve
    sent = 0
    with serving.enter() as stream:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 1000:
                stream.sendall(bytes(1 << 20))
                sent += 1
        assert sent < 100
        assert read_to_end(stream) == reason
    assert serving.end() == (0, "")


@by_any_python
def test_a_peer_that_goes_away_in_the_middle_of_an_answer_ends_it(daemon: Daemon, serving: Serving) -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(bytes(1 << 20))
        finally:
            over.set()

    daemon.serve = serve
    with serving.enter() as stream:
        assert stream.recv(1000)
    assert over.wait(SECONDS)
    assert serving.end() == (0, "")


# From a proxy


def dialling(daemon: Daemon) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*leading_to(daemon.path), "dial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_what_dials_carries_standard_input_there_and_the_answer_back(daemon: Daemon, serving: Serving) -> None:
    with dialling(daemon) as near:
        answer, told = near.communicate(
            f"127.0.0.1 {serving.port}\n".encode() + serving.token + b"all of it", timeout=SECONDS
        )
    assert (near.returncode, answer, told) == (0, b"all of it", b"")
    assert serving.end() == (0, "")


def test_what_dials_ends_with_the_answer_although_its_standard_input_goes_on(daemon: Daemon, serving: Serving) -> None:
    daemon.serve = lambda connection: connection.sendall(b"the answer")
    with dialling(daemon) as near:
        near.stdin.write(f"127.0.0.1 {serving.port}\n".encode() + serving.token)
        near.stdin.flush()
        assert near.stdout.read() == b"the answer"
        assert near.wait(SECONDS) == 0


def test_where_nobody_listens_what_dials_says_so(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with dialling(daemon) as near:
        told = near.communicate(f"127.0.0.1 {port}\n".encode(), timeout=SECONDS)[1].decode()
    assert near.returncode == 1
    assert told == f"tunnel: port {port} of 127.0.0.1 cannot be reached from here: [Errno 111] Connection refused\n"
