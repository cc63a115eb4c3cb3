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


class Listening:
    """The program in its mode `listen`."""

    def __init__(self, daemon: Daemon, wait: float = 10) -> None:
        self.token = secrets.token_hex(32).encode()
        command = [*leading_to(daemon.path, wait=wait), "listen"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.process.stdin.write(self.token + b"\n127.0.0.1\n")
        self.process.stdin.flush()
        word, port = self.process.stdout.readline().split()
        assert word == b"listening"
        self.port = int(port)

    def connect(self, *, first: bytes = b"") -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        stream.sendall(first)
        return stream

    def enter(self, first: bytes = b"") -> socket.socket:
        """Connect with the token."""
        stream = self.connect(first=self.token + first)
        assert self.process.stdout.readline() == b"accepted\n"
        return stream

    def ended(self) -> tuple[int, str]:
        return self.process.wait(SECONDS), self.process.stderr.read().decode()


@pytest.fixture
def listening(daemon: Daemon) -> Iterator[Listening]:
    found = Listening(daemon)
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


def test_the_token_opens_the_way_and_the_end_of_the_connection_is_the_end_of_all(
    daemon: Daemon, listening: Listening
) -> None:
    with listening.enter(first=b"at once, ") as stream:
        stream.sendall(b"and later")
        stream.shutdown(socket.SHUT_WR)
        assert read_to_end(stream) == b"at once, and later"
    assert listening.ended() == (0, "")
    assert daemon.connections == 1


def test_a_token_may_come_byte_by_byte(listening: Listening) -> None:
    stream = listening.connect()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in listening.token + b"x":
        stream.sendall(bytes([byte]))
    assert stream.recv(10) == b"x"


def test_the_token_is_in_no_argument_and_no_environment(listening: Listening) -> None:
    for name in ("cmdline", "environ"):
        assert listening.token not in Path(f"/proc/{listening.process.pid}/{name}").read_bytes()


STRANGERS = {
    "a wrong token": lambda token: secrets.token_hex(32).encode(),
    "a token with its last byte wrong": lambda token: token[:-1] + b"!",
    "a request": lambda token: b"GET /containers/json HTTP/1.1\r\nHost: docker\r\nUser-Agent: curl\r\n\r\n",
    "a token behind a space": lambda token: b" " + token,
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_dropped_and_the_right_one_may_still_come(
    daemon: Daemon, listening: Listening, name: str
) -> None:
    with (
        listening.connect(first=STRANGERS[name](listening.token)) as stranger,
        contextlib.suppress(ConnectionResetError),
    ):
        assert stranger.recv(100) == b""
    assert daemon.connections == 0
    with listening.enter(first=b"x") as stream:
        assert stream.recv(10) == b"x"
    assert daemon.connections == 1


def scanned(listening: Listening) -> list[socket.socket]:
    for _dummy in range(100):
        listening.connect().close()
    return []


def scanned_half_open(listening: Listening) -> list[socket.socket]:
    for _dummy in range(100):
        stream = listening.connect()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
        stream.close()
    return []


QUIET = {
    "one says nothing": lambda listening: [listening.connect()],
    "fifty say nothing": lambda listening: [listening.connect() for dummy in range(50)],
    "one says half of it": lambda listening: [listening.connect(first=listening.token[:32])],
    "one ends after half of it": lambda listening: listening.connect(first=listening.token[:32]).close() or [],
    "a port scan": scanned,
    "a port scan by resets": scanned_half_open,
}


@pytest.mark.parametrize("name", QUIET)
def test_who_says_nothing_keeps_nobody_out_and_reaches_nothing(daemon: Daemon, listening: Listening, name: str) -> None:
    quiet = QUIET[name](listening)
    assert daemon.connections == 0
    with listening.enter(first=b"x") as stream:
        assert stream.recv(10) == b"x"
        for one in quiet:
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(10) == b""
    assert daemon.connections == 1


def test_there_is_no_second_connection(daemon: Daemon, listening: Listening) -> None:
    early = listening.connect()
    with listening.enter() as stream:
        assert refuses(listening.port)
        with contextlib.suppress(OSError):
            early.sendall(listening.token)
            assert early.recv(10) == b""
        stream.sendall(b"x")
        assert stream.recv(10) == b"x"
    assert daemon.connections == 1


def test_nothing_listens_after_the_wait(daemon: Daemon) -> None:
    listening = Listening(daemon, wait=0.5)
    silent = listening.connect()
    assert listening.ended() == (1, "tunnel: nobody came with the token within 0.5 s\n")
    assert refuses(listening.port)
    assert silent.recv(10) == b""
    assert daemon.connections == 0


def test_it_ends_with_whoever_started_it_while_it_waits(daemon: Daemon, listening: Listening) -> None:
    listening.process.stdin.close()
    assert listening.ended() == (1, "")
    assert refuses(listening.port)


def test_it_ends_with_whoever_started_it_while_it_carries(daemon: Daemon, listening: Listening) -> None:
    stream = listening.enter()
    listening.process.stdin.close()
    assert listening.ended() == (1, "")
    assert stream.recv(10) == b""


def test_it_ends_before_it_listens_when_nobody_is_there_any_more(daemon: Daemon) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), "listen"], input=b"a token without an end", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("arguments", [(), ("neither",), ("listen", "x")])
def test_it_knows_two_ways_to_be_called(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "usage: tunnel.py listen|dial\n")


def test_an_address_that_is_not_its_own_is_refused(daemon: Daemon) -> None:
    done = subprocess.run(
        [*leading_to(daemon.path), "listen"], input=b"token\n192.0.2.77\n", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"Cannot assign requested address" in done.stderr


def test_a_daemon_that_is_not_there_is_told(daemon: Daemon, listening: Listening) -> None:
    daemon.close()
    os.unlink(daemon.path)
    stream = listening.connect(first=listening.token)
    status, told = listening.ended()
    assert (status, listening.process.stdout.read()) == (1, b"")
    assert "No such file or directory" in told
    assert stream.recv(10) == b""


# What is carried


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


def test_much_goes_both_ways_at_once_and_arrives_unchanged(daemon: Daemon, listening: Listening) -> None:
    arrived: queue.Queue[str] = queue.Queue()  # put there by the daemon's thread, which may be late

    def serve(connection: socket.socket) -> None:
        sending = threading.Thread(target=send, args=(connection, 1))
        sending.start()
        arrived.put(digest(iter(lambda: connection.recv(1 << 20), b"")))
        sending.join()

    daemon.serve = serve
    with listening.enter() as stream:
        sending = threading.Thread(target=send, args=(stream, 2))
        sending.start()
        assert digest(iter(lambda: stream.recv(1 << 20), b"")) == digest(noise(1))
        sending.join()
    assert listening.ended() == (0, "")
    assert arrived.get(timeout=SECONDS) == digest(noise(2))


def test_a_peer_that_has_said_all_still_hears_the_answer(daemon: Daemon, listening: Listening) -> None:
    def serve(connection: socket.socket) -> None:
        question = read_to_end(connection)
        connection.sendall(b"heard " + question)

    daemon.serve = serve
    with listening.enter() as stream:
        stream.sendall(b"all")
        stream.shutdown(socket.SHUT_WR)
        assert read_to_end(stream) == b"heard all"


def test_a_daemon_that_has_said_all_still_hears_the_peer(daemon: Daemon, listening: Listening) -> None:
    heard: queue.Queue[bytes] = queue.Queue()  # put there by the daemon's thread, which may be late

    def serve(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        heard.put(read_to_end(connection))

    daemon.serve = serve
    with listening.enter() as stream:
        assert stream.recv(10) == b""
        stream.sendall(b"late")
    assert listening.ended() == (0, "")
    assert heard.get(timeout=SECONDS) == b"late"


def test_a_daemon_that_hangs_up_early_has_its_answer_read_and_the_peer_stops(
    daemon: Daemon, listening: Listening
) -> None:
    reason = b"no space left on device" * 1000

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(reason)

    daemon.serve = serve
    sent = 0
    with listening.enter() as stream:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 1000:
                stream.sendall(bytes(1 << 20))
                sent += 1
        assert sent < 100
        assert read_to_end(stream) == reason
    assert listening.ended() == (0, "")


def test_a_peer_that_goes_away_in_the_middle_of_an_answer_ends_it(daemon: Daemon, listening: Listening) -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(bytes(1 << 20))
        finally:
            over.set()

    daemon.serve = serve
    with listening.enter() as stream:
        assert stream.recv(1000)
    assert over.wait(SECONDS)
    listening.process.wait(SECONDS)


# From a proxy


def dialling(daemon: Daemon) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*leading_to(daemon.path), "dial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_what_dials_carries_standard_input_there_and_the_answer_back(daemon: Daemon, listening: Listening) -> None:
    with dialling(daemon) as near:
        answer, told = near.communicate(
            f"127.0.0.1 {listening.port}\n".encode() + listening.token + b"all of it", timeout=SECONDS
        )
    assert (near.returncode, answer, told) == (0, b"all of it", b"")
    assert listening.ended() == (0, "")


def test_what_dials_ends_with_the_answer_although_its_standard_input_goes_on(
    daemon: Daemon, listening: Listening
) -> None:
    daemon.serve = lambda connection: connection.sendall(b"the answer")
    with dialling(daemon) as near:
        near.stdin.write(f"127.0.0.1 {listening.port}\n".encode() + listening.token)
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
