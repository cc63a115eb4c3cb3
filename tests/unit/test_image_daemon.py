# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK over our streams, against a daemon that answers by a script: real sockets and processes, no Docker."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import pace
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import LARGEST
from ansible_collections.nested.kata.plugins.module_utils._docker import client as sdk_client
from ansible_collections.nested.kata.plugins.module_utils._docker import messages, streams
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image import daemon
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import Daemon, DaemonError
from scripted_daemon import HOSTILE, ScriptedDaemon, answer

IMAGE = {"Id": "sha256:" + "1" * 64, "RootFS": {"Layers": ["sha256:" + "a" * 64]}, "Config": {}}


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


@pytest.mark.parametrize(
    ("version", "platform"),
    [({"Os": "linux", "Arch": "arm64"}, "linux/arm64"), ({"Os": "linux", "Arch": None}, "linux"), ({}, "")],
)
def test_the_platform_of_a_daemon_is_told_with_its_version(
    scripted: ScriptedDaemon, version: dict, platform: str
) -> None:
    scripted.answers["/version"] = answer({"ApiVersion": "1.41", **version})
    with reach(scripted) as found:
        assert found.platform() == platform
    assert scripted.asked == ["/version"]


def test_a_platform_that_is_no_text_is_an_error_where_it_is_asked_for(scripted: ScriptedDaemon) -> None:
    scripted.answers["/version"] = answer({"ApiVersion": "1.41", "Os": ["linux"], "Arch": {}})
    with reach(scripted) as found, pytest.raises(DaemonError, match="no Docker daemon answers like that: Os is not"):
        found.platform()


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


def test_a_source_that_gives_a_byte_now_and_then_is_given_up(
    scripted: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SLOWEST", (0.5, 1 << 14))
    scripted.answers["/images/a:1/get"] = HOSTILE["a byte now and then"]
    with (
        reach(scripted, silence=0.3) as found,
        pytest.raises(DaemonError, match=r"saving a:1: less than 16 KiB/s in [01] s of waiting for it"),
    ):
        b"".join(found.save("a:1"))


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


# A daemon that lies


class Counted:
    """The bytes that a daemon's connections sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: ScriptedDaemon) -> None:
        self.sent = 0
        attend = server.attend

        def counted(connection: socket.socket) -> None:
            attend(Counting(connection, self))  # type: ignore[arg-type]

        monkeypatch.setattr(server, "attend", counted)


class Counting:
    """A connection, the bytes of which are counted."""

    def __init__(self, connection: socket.socket, counted: Counted) -> None:
        self._connection, self._counted = connection, counted

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data)
        self._counted.sent += len(data)

    def makefile(self, mode: str) -> object:
        return self._connection.makefile(mode)


def after_the_body(
    server: ScriptedDaemon, answered: bytes | Callable[[socket.socket, BinaryIO], object]
) -> Callable[[socket.socket, BinaryIO], object]:
    """Answer when the body of the request was read."""

    def act(connection: socket.socket, stream: BinaryIO) -> object:
        server.read_body(stream)
        return answered(connection, stream) if callable(answered) else connection.sendall(answered)

    return act


QUESTIONS: dict[str, tuple[bytes, Callable[[Daemon], object]]] = {
    "/version": (answer({"ApiVersion": "1.41"}), lambda one: None),
    "/images/x:1/json": (answer(IMAGE), lambda one: one.image("x:1")),
    "/images/json": (answer([{"Id": "x:1", "RepoTags": ["x:1"]}]), lambda one: (one.tags(), one.layers())),
    "/info": (answer({"DriverStatus": [["a", "b"]]}), lambda one: one.has_containerd_store()),
    "/images/load": (answer({"stream": "Loaded image: x:1"}), lambda one: list(one.load("x:1", iter([b"archive"])))),
}
# Answers that are harmless to some questions.
HARMLESS = {
    "/images/json": {"a list", "null"},
    "/info": {"null", "other types", "layers that are numbers", "a path"},
    "/images/load": {"a list", "null", "a text", "other types", "layers that are numbers", "a path"},
}


# A load may take long: what follows its request is limited where several destinations take an image (fan_out.py).
ASKED = [
    (question, answered)
    for question in QUESTIONS
    for answered in HOSTILE
    if question != "/images/load" or "now and then" not in answered
]


@pytest.mark.parametrize(("question", "answered"), ASKED)
def test_whatever_a_daemon_answers_is_its_failure_and_takes_neither_time_nor_memory(
    scripted: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, question: str, answered: str
) -> None:
    without_end = "now and then" in answered or answered == "to be continued"
    monkeypatch.setattr(sdk_client, "ANSWER_SECONDS", 1.0 if without_end else 30.0)
    monkeypatch.setattr(messages, "LARGEST_STREAM", 1 << 24)
    counted = Counted(monkeypatch, scripted)
    scripted.answers.update({path: usual for path, (usual, _ask) in QUESTIONS.items()})
    scripted.answers[question] = HOSTILE[answered]
    scripted.answers["/images/load"] = after_the_body(scripted, scripted.answers["/images/load"])
    start = time.monotonic()
    tracemalloc.start()
    try:
        with Daemon(Endpoint(socket=scripted.path), silence=2) as one:
            QUESTIONS[question][1](one)
        complaint = ""
    except DaemonError as error:
        complaint = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (complaint == "") == (answered in HARMLESS.get(question, ()))
    assert complaint.isprintable()
    assert len(complaint) <= 1000
    assert time.monotonic() - start < 25
    assert peak < 4 * LARGEST
    assert counted.sent < 2 * LARGEST
