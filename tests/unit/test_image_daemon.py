# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK over our streams, against a daemon that answers by a script: real sockets and processes, no Docker."""

from __future__ import annotations

import json
import os
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import streams
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image import daemon
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import Daemon, DaemonError
from unix_server import UnixServer

IMAGE = {"Id": "sha256:" + "1" * 64, "RootFS": {"Layers": ["sha256:" + "a" * 64]}, "Config": {}}


def answer(body: bytes | dict | list, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]).encode() + data


class ScriptedDaemon(UnixServer):
    """Answers each path by a function of the connection; what it was asked and what bodies came is kept."""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, bytes | Callable[[socket.socket, object], None]] = {
            "/version": answer({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
        }
        super().__init__(path)

    def attend(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while True:
                line = stream.readline().decode()
                if not line:
                    return
                path = line.split()[1].partition("?")[0]
                while stream.readline() not in (b"\r\n", b""):
                    pass
                self.asked.append(path)
                unknown = answer({"message": f"no script for {path}"}, "500 Oops")
                scripted = next((found for name, found in self.answers.items() if path.endswith(name)), unknown)
                if callable(scripted):
                    if scripted(connection, stream) == "hang up":
                        return
                else:
                    connection.sendall(scripted)

    def read_body(self, stream) -> bool:
        """Read a chunked body; return whether it came to its end."""
        body = b""
        while True:
            size = int(stream.readline() or b"-1", 16)
            if size == 0:
                stream.readline()
            if size <= 0:
                self.bodies.append(body)
                return size == 0
            body += stream.read(size)
            stream.readline()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    server = ScriptedDaemon(tmp_path / "docker.sock")
    yield server
    server.close()


@pytest.fixture
def docker(tmp_path: Path, scripted: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker client on PATH whose dial-stdio leads to the scripted daemon, and which says what it was called
    with.
    """
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text(
        textwrap.dedent(f"""\
        #!{sys.executable} -IS
        import os, socket, sys, threading
        open({str(tmp_path / "called")!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
        if sys.argv[-1] != "dial-stdio":
            sys.exit(os.system({str(tmp_path / "probe")!r} + " " + " ".join(sys.argv[1:])) >> 8)
        if any(name.startswith("DOCKER_") for name in os.environ):
            sys.exit("DOCKER_ variables reached the client")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect({scripted.path!r})
        def up():
            while True:
                data = os.read(0, 65536)
                if not data:
                    break
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        threading.Thread(target=up, daemon=True).start()
        while True:
            data = sock.recv(65536)
            if not data:
                break
            os.write(1, data)
    """)
    )
    client.chmod(0o755)
    probe = tmp_path / "probe"
    probe.write_text('#!/bin/sh\ncase "$*" in *inspect*) echo running;; *) echo 26.1;; esac\n')
    probe.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    monkeypatch.setattr(streams, "SOCKET", scripted.path)
    return tmp_path


def reach(scripted: ScriptedDaemon, **options: float) -> Daemon:
    return Daemon(Endpoint(socket=scripted.path), title="destination", **options)


def processes_of(name: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if name in line:
                found.append(line)
    return found


# Questions


def test_the_version_of_the_api_is_in_every_path(scripted: ScriptedDaemon) -> None:
    scripted.answers["/images/a:1/json"] = answer(IMAGE)
    with reach(scripted) as found:
        assert found.image("a:1").id == IMAGE["Id"]
    assert scripted.asked == ["/version", "/v1.41/images/a:1/json"]
    assert scripted.connections == 1


def test_an_image_that_is_not_there_is_none_and_any_other_error_is_told(scripted: ScriptedDaemon) -> None:
    scripted.answers["/images/a:1/json"] = answer({"message": "No such image: a:1"}, "404 Not Found")
    scripted.answers["/images/b:1/json"] = answer({"message": "the store\n is broken"}, "500 Internal Server Error")
    with reach(scripted) as found:
        assert found.image("a:1") is None
        with pytest.raises(DaemonError) as error:
            found.image("b:1")
    assert str(error.value) == f"destination {scripted.path}: inspecting b:1: the store is broken"


def test_tags_are_the_names_of_images_that_have_one(scripted: ScriptedDaemon) -> None:
    scripted.answers["/images/json"] = answer(
        [{"RepoTags": ["b:1", "a:1"]}, {"RepoTags": None}, {"RepoTags": ["<none>:<none>"]}]
    )
    with reach(scripted) as found:
        assert found.tags() == ["a:1", "b:1"]


@pytest.mark.parametrize(
    ("status", "containerd"),
    [
        ([["driver-type", "io.containerd.snapshotter.v1"]], True),
        ([["Backing Filesystem", "extfs"]], False),
        (None, False),
    ],
)
def test_the_store_of_a_daemon_is_told_by_its_driver(
    scripted: ScriptedDaemon, status: list | None, containerd: bool
) -> None:
    scripted.answers["/info"] = answer({"DriverStatus": status})
    with reach(scripted) as found:
        assert found.has_containerd_store() is containerd


def test_what_is_no_daemon_is_told(scripted: ScriptedDaemon) -> None:
    scripted.answers["/version"] = b"SSH-2.0-OpenSSH_9.2\r\n"
    with pytest.raises(DaemonError) as error:
        reach(scripted)
    assert "SSH-2.0-OpenSSH_9.2" in str(error.value)
    assert "\n" not in str(error.value)


# Sockets


def test_a_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"there is no socket .*/nowhere.sock: start dockerd, or name"):
        Daemon(Endpoint(socket=str(tmp_path / "nowhere.sock")))


def test_a_socket_without_a_listener_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "dead.sock")
    socket.socket(socket.AF_UNIX).bind(path)
    with pytest.raises(DaemonError, match=r"nobody listens on .*/dead.sock"):
        Daemon(Endpoint(socket=path))


# Archives


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def test_an_archive_arrives_whole_and_in_bounded_pieces(scripted: ScriptedDaemon) -> None:
    archive = os.urandom(5_000_000)
    scripted.answers["/images/a:1/get"] = chunked(archive[:10], archive[10:4_000_000], archive[4_000_000:])
    with reach(scripted) as found:
        pieces = list(found.save("a:1"))
    assert b"".join(pieces) == archive
    assert max(map(len, pieces)) <= daemon.PIECE


def test_an_archive_that_breaks_off_is_an_error(scripted: ScriptedDaemon) -> None:
    def break_off(connection: socket.socket, stream) -> str:
        connection.sendall(chunked(b"x" * 100_000, end=False))
        connection.shutdown(socket.SHUT_RDWR)
        return "hang up"

    scripted.answers["/images/a:1/get"] = break_off
    with reach(scripted) as found, pytest.raises(DaemonError, match="saving a:1: the connection ended in the middle"):
        list(found.save("a:1"))


def test_an_error_that_the_source_wrote_behind_its_archive_is_told(scripted: ScriptedDaemon) -> None:
    scripted.answers["/images/a:1/get"] = chunked(
        bytes(100_000), b'{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}\r\n'
    )
    with reach(scripted) as found, pytest.raises(DaemonError, match=r"saving a:1: layer is gone$"):
        list(found.save("a:1"))


def test_what_is_loaded_arrives_whole_and_the_messages_come_back(scripted: ScriptedDaemon) -> None:
    def load(connection: socket.socket, stream) -> None:
        assert scripted.read_body(stream)
        connection.sendall(chunked(b'{"status":"Loading layer"}\r\n{"stream":', b'"Loaded image: a:1\\n"}\r\n'))

    scripted.answers["/images/load"] = load
    with reach(scripted) as found:
        told = list(found.load("a:1", iter([b"one", b"two"])))
    assert scripted.bodies == [b"onetwo"]
    assert told == [{"status": "Loading layer"}, {"stream": "Loaded image: a:1\n"}]


def test_a_source_that_fails_leaves_the_load_without_its_end(scripted: ScriptedDaemon) -> None:
    ended: list[bool] = []

    def load(connection: socket.socket, stream) -> str:
        ended.append(scripted.read_body(stream))
        return "hang up"

    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise DaemonError("source: it died")

    scripted.answers["/images/load"] = load
    with reach(scripted) as found, pytest.raises(DaemonError, match=r"^source: it died$"):
        list(found.load("a:1", pieces()))
    deadline = time.monotonic() + 5
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [False]


def endless(taken: list[int]) -> Iterator[bytes]:
    for number in range(1000):
        taken.append(number)
        yield bytes(1 << 20)


@pytest.mark.parametrize("hops", [(), ("outer",)], ids=["socket", "hop"])
def test_the_answer_of_a_daemon_that_hangs_up_early_is_read(
    scripted: ScriptedDaemon, docker: Path, hops: tuple[str, ...]
) -> None:
    def refuse(connection: socket.socket, stream) -> str:
        stream.read(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        told = b'{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}\r\n'
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(told), told))
        return "hang up"

    scripted.answers["/images/load"] = refuse
    taken: list[int] = []
    with Daemon(Endpoint(socket=scripted.path, hops=hops)) as found:
        assert next(found.load("a:1", endless(taken)))["error"] == "no space left on device"
    assert len(taken) < 20


@pytest.mark.parametrize("reply", [b"", chunked(b'{"stream":"fine"}')], ids=["nothing", "a success"])
def test_a_daemon_that_hangs_up_without_a_complaint_has_not_loaded(scripted: ScriptedDaemon, reply: bytes) -> None:
    def hang_up(connection: socket.socket, stream) -> str:
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_RDWR)
        return "hang up"

    scripted.answers["/images/load"] = hang_up
    told = "loading a:1: (it hung up before it had the whole archive|the connection ended in the middle)"
    with reach(scripted) as found, pytest.raises(DaemonError, match=told):
        list(found.load("a:1", endless([])))


def test_a_daemon_that_says_nothing_is_given_up(scripted: ScriptedDaemon) -> None:
    silent = threading.Event()
    scripted.answers["/images/a:1/get"] = lambda connection, stream: silent.wait(10) and "hang up"
    start = time.monotonic()
    with (
        reach(scripted, silence=0.5) as found,
        pytest.raises(DaemonError, match=r"saving a:1: nothing was read or written for 0.5 s"),
    ):
        list(found.save("a:1"))
    silent.set()
    assert time.monotonic() - start < 5


def test_a_daemon_that_takes_nothing_is_given_up(scripted: ScriptedDaemon) -> None:
    silent = threading.Event()
    scripted.answers["/images/load"] = lambda connection, stream: silent.wait(10) and "hang up"
    with (
        reach(scripted, silence=0.5) as found,
        pytest.raises(DaemonError, match=r"loading a:1: nothing was read or written for 0.5 s"),
    ):
        list(found.load("a:1", endless([])))
    silent.set()


# Hops


def test_hops_carry_the_api_and_every_child_is_gone_afterwards(scripted: ScriptedDaemon, docker: Path) -> None:
    archive = os.urandom(3_000_000)
    scripted.answers["/images/a:1/get"] = chunked(archive)
    scripted.answers["/images/a:1/json"] = answer(IMAGE)
    with Daemon(Endpoint(hops=("outer", "inner"), by="exec")) as found:
        assert found.image("a:1").id == IMAGE["Id"]
        assert b"".join(found.save("a:1")) == archive
        children = [child.process for child in found.transport.children]
        assert [child.poll() for child in children] == [None]
    assert [child.returncode for child in children] == [0]
    assert (
        docker / "called"
    ).read_text() == f"--host unix://{scripted.path} exec -i outer docker exec -i inner docker system dial-stdio\n"


@pytest.mark.parametrize("by", ["exec", "auto"])
def test_a_way_that_has_begun_is_the_one_that_the_first_question_takes(
    scripted: ScriptedDaemon, docker: Path, by: str
) -> None:
    scripted.answers["/images/a:1/json"] = answer(IMAGE)
    endpoint = Endpoint(hops=("outer", "inner"), by=by)
    way = endpoint.transport()
    way.begin()
    with Daemon(endpoint, transport=way) as found:
        assert found.image("a:1").id == IMAGE["Id"]
    assert len((docker / "called").read_text().splitlines()) == 1


def test_a_way_that_cannot_begin_is_told_when_it_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    endpoint = Endpoint(hops=("outer",))
    way = endpoint.transport()
    way.begin()
    with pytest.raises(
        DaemonError,
        match=r"outer: hops start with docker's command line client, which does not run here .*: install docker-cli",
    ):
        Daemon(endpoint, transport=way)


def test_closing_in_the_middle_of_an_answer_ends_the_child(scripted: ScriptedDaemon, docker: Path) -> None:
    scripted.answers["/images/a:1/get"] = chunked(bytes(20_000_000))
    start = time.monotonic()
    with Daemon(Endpoint(hops=("outer",), by="exec")) as found:
        pieces = found.save("a:1")
        next(pieces)
        child = found.transport.children[0].process
    assert child.returncode is not None
    assert time.monotonic() - start < streams.GONE_SECONDS


def test_a_client_that_is_not_on_path_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DaemonError,
        match=r"^destination outer > inner: hops start with docker's command line client.*install docker-cli$",
    ):
        Daemon(Endpoint(hops=("outer", "inner")), title="destination")


def test_a_stream_that_dies_names_the_hop_that_is_gone(scripted: ScriptedDaemon, docker: Path) -> None:
    (docker / "probe").write_text('#!/bin/sh\ncase "$*" in *inspect*inner*) echo exited;; *) echo running;; esac\n')
    scripted.answers["/version"] = lambda connection, stream: "hang up"
    with pytest.raises(DaemonError) as error:
        Daemon(Endpoint(hops=("outer", "inner")), title="destination")
    assert str(error.value) == "destination outer > inner: hop 2 of 2 (inner in outer): is not running (exited)"
