# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels to real daemons, in a container of this machine's and in one of that: with the program of the machine image,
over real networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import tunnel as tunnels
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Exec
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import PROGRAM, TUNNEL, Tunnel
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import Daemon
from ansible_runner import MARK, answer, run_module, started, wait_until
from docker_in_docker import DAEMON_IMAGE, docker, image_id, import_image, load, nested_daemon, wait_for_daemon, within
from tunnel_program import install

pytestmark = [pytest.mark.root, pytest.mark.docker]

OUTER, INNER, ALONE = f"t-tun-{MARK}-outer", f"t-tun-{MARK}-inner", f"t-tun-{MARK}-alone"
ONE, TWO = (OUTER,), (OUTER, INNER)
LABEL = f"nested.kata.test=transport-{MARK}"
MEBIBYTE = 1 << 20


def make_image(name: str, hops: tuple[str, ...] = (), size: int = 6 * MEBIBYTE) -> str:
    return import_image(name, hops, size=size, label=LABEL)


@pytest.fixture(scope="module")
def daemons() -> Iterator[None]:
    try:
        with nested_daemon(OUTER, debug=True):
            install(OUTER)
            load(DAEMON_IMAGE, OUTER)
            with nested_daemon(INNER, hops=ONE, bip="172.30.254.1/24", debug=True):
                install(*TWO)
                yield
    finally:
        for made in docker("images", "--quiet", "--filter", f"label={LABEL}").split():
            docker("rmi", "--force", made)


def listeners(*hops: str) -> list[str]:
    """Return the TCP sockets that listen in a container, but for Docker's resolver (state 0A in proc_net_tcp)."""
    table = docker("exec", hops[-1], "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6", hops=hops[:-1])
    return [line.split()[1] for line in table.splitlines() if line.split()[3] == "0A"]


def programs(*hops: str) -> str:
    return docker(
        "exec",
        hops[-1],
        "sh",
        "-c",
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[t]unnel.py [a-z]*' || true",
        hops=hops[:-1],
    )


@pytest.fixture(autouse=True)
def nothing_stays(daemons: None) -> Iterator[None]:
    yield
    for hops in (ONE, TWO):
        wait_until(
            lambda hops=hops: not programs(*hops) and not listeners(*hops),
            f"the end of the programs in {hops}: {programs(*hops)} {listeners(*hops)}",
            20,
        )


def move(name: str, source: tuple[str, ...] = (), destination: tuple[str, ...] = (), **way: str) -> dict:
    ends = {
        end: {"hops": list(hops), **(way if hops else {})}
        for end, hops in (("source", source), ("destination", destination))
    }
    return run_module("image_transfer", {"images": [name], **ends})


def ways(result: dict) -> dict:
    return {"source": result["transport"], "destination": result["destinations"][0]["transport"]}


# Images


@pytest.mark.parametrize(
    ("source", "destination", "tunnels"),
    [
        ((), ONE, ["destination"]),
        ((), TWO, ["destination"]),
        (TWO, (), ["source"]),
        (ONE, TWO, ["source", "destination"]),
    ],
    ids=["one hop", "two hops", "back", "from hop to hop"],
)
def test_an_image_goes_through_the_tunnel_and_an_unchanged_one_needs_none(
    source: tuple, destination: tuple, tunnels: list[str]
) -> None:
    name = f"t-tun-{MARK}/{len(source)}-{len(destination)}:1"
    made = make_image(name, source)
    real = move(name, source, destination)
    assert not real["failed"], real["msg"]
    assert image_id(name, destination) == made
    taken = ways(real)
    assert sorted(end for end, way in taken.items() if way["name"] == "tunnel") == sorted(tunnels)
    assert all(
        f", the address of {hops[-1]}" in taken[end]["reason"]
        for end, hops in (("source", source), ("destination", destination))
        if end in tunnels
    )

    again = move(name, source, destination)
    assert (again["failed"], again["changed"]) == (False, False)
    assert {ways(again)[end]["name"] for end in tunnels} == {"exec"}


def test_exec_is_taken_where_it_was_asked_for() -> None:
    make_image(f"t-tun-{MARK}/asked:1")
    result = move(f"t-tun-{MARK}/asked:1", destination=TWO, transport="exec")
    assert (result["failed"], result["changed"]) == (False, True)
    assert ways(result)["destination"] == {"name": "exec", "reason": "transport is exec"}


def lose_program(*hops: str) -> None:
    docker("exec", hops[-1], "mv", PROGRAM, f"{PROGRAM}.away", hops=hops[:-1])


MISSING = f"it has no {PROGRAM}: it is not made from the machine image, or from an older one"


def test_where_the_program_is_missing_exec_is_taken_or_the_module_fails() -> None:
    name = f"t-tun-{MARK}/lacking:1"
    made = make_image(name)
    lose_program(*TWO)
    try:
        demanded = move(name, destination=TWO, transport="tunnel")
        arrived = image_id(name, TWO)
        result = move(name, destination=TWO)
    finally:
        install(*TWO)
    missing = f"hop 2 of 2 ({INNER} in {OUTER}): {MISSING}"
    assert (
        demanded["msg"]
        == f"destination {OUTER} > {INNER}: loading {name}: transport is tunnel, and there is none: {missing}"
    )
    assert (demanded["changed"], arrived) == (False, "")
    assert (result["failed"], result["changed"]) == (False, True)
    assert ways(result)["destination"] == {"name": "exec", "reason": f"no tunnel: {missing}"}
    assert image_id(name, TWO) == made


def test_the_network_of_the_hop_above_is_entered_or_else_a_program_there_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(tunnel: Tunnel) -> bytes:
        with tunnel.open(bulk=True) as stream:
            stream.sendall(request("t-two"))
            return stream.recv(12)

    lose_program(*ONE)
    try:
        tunnel = Tunnel(TWO, or_exec=False)
        assert answered(tunnel) == b"HTTP/1.1 404"
        assert tunnel.taken.reason.endswith(f", the address of {INNER}, from the network of {OUTER}")
        tunnel.close()
        monkeypatch.setattr(tunnels, "network_of", lambda *_dummy: None)
        with pytest.raises(Broken, match=re.escape(f"hop 1 of 2 ({OUTER} on this machine): {MISSING}")):
            Tunnel(TWO, or_exec=False).open(bulk=True)
    finally:
        install(*ONE)
    tunnel = Tunnel(TWO, or_exec=False)
    assert answered(tunnel) == b"HTTP/1.1 404"
    assert tunnel.taken.reason.endswith(f", the address of {INNER}")
    tunnel.close()


def test_a_hop_without_a_network_is_reached_by_exec() -> None:
    make_image(f"t-tun-{MARK}/alone:1")
    with nested_daemon(ALONE, network=False):
        install(ALONE)
        result = move(f"t-tun-{MARK}/alone:1", destination=(ALONE,))
    assert (result["failed"], result["changed"]) == (False, True)
    reason = f"no tunnel: hop 1 of 1 ({ALONE} on this machine): it has no IPv4 address of its own"
    assert ways(result)["destination"] == {"name": "exec", "reason": reason}


def test_a_firewall_in_between_is_told_and_exec_taken() -> None:
    make_image(f"t-tun-{MARK}/walled:1")
    wall = ("INPUT", "-p", "tcp", "-j", "REJECT")
    within(OUTER, "iptables", "-I", *wall)
    try:
        result = move(f"t-tun-{MARK}/walled:1", destination=ONE)
    finally:
        within(OUTER, "iptables", "-D", *wall)
    assert (result["failed"], result["changed"]) == (False, True)
    assert (
        "cannot be reached from this machine: [Errno 111] Connection refused" in ways(result)["destination"]["reason"]
    )


def test_a_socket_has_no_transport_to_choose() -> None:
    result = run_module(
        "image_transfer", {"images": ["x:1"], "destination": {"socket": "/x.sock", "transport": "tunnel"}}
    )
    assert result["failed"]
    assert (
        result["msg"] == "destination: transport tunnel and socket exclude each other: a transport leads through hops"
    )


@pytest.mark.parametrize("hops", [ONE, TWO], ids=["one hop", "two hops"])
def test_much_comes_out_of_the_tunnel_as_it_went_in(hops: tuple[str, ...], tmp_path: Path) -> None:
    name = f"t-tun-{MARK}/large:1"
    made = make_image(name, size=200 * MEBIBYTE)
    layer = docker("image", "inspect", "--format", "{{index .RootFS.Layers 0}}", name)
    # dockerd compares the digest of each layer with that in the configuration, and the id is the digest of that.
    there = move(name, destination=hops, transport="tunnel")
    assert (there["failed"], image_id(name, hops)) == (False, made)
    with Daemon(Endpoint(hops=hops, by="tunnel")) as found, (tmp_path / "archive").open("wb") as archive:
        archive.writelines(found.save(name))
        assert found.transport.taken.name == "tunnel"
    with tarfile.open(tmp_path / "archive") as archive:
        largest = max(archive, key=lambda member: member.size)
        assert f"sha256:{hashlib.file_digest(archive.extractfile(largest), 'sha256').hexdigest()}" == layer


def test_few_bytes_go_by_exec() -> None:
    made = make_image(f"t-tun-{MARK}/few:1", size=MEBIBYTE)
    result = move(f"t-tun-{MARK}/few:1", destination=ONE)
    assert (result["failed"], result["changed"], image_id(f"t-tun-{MARK}/few:1", ONE)) == (False, True, made)
    assert ways(result)["destination"]["name"] == "exec"


# What breaks


@pytest.mark.parametrize(
    ("victim", "at"), [(INNER, f"hop 2 of 2 ({INNER} in {OUTER})"), (OUTER, f"hop 1 of 2 ({OUTER} on this machine)")]
)
@pytest.mark.parametrize("cut", [False, True], ids=["killed", "cut off and killed"])
def test_a_hop_that_dies_in_the_middle_is_named(victim: str, at: str, cut: bool) -> None:
    """Cut off, nothing says goodbye on the network, as with a VM whose power fails."""
    hops = ONE if victim == INNER else ()
    result: dict = {}
    sending = threading.Thread(target=lambda: result.update(move(DAEMON_IMAGE, destination=TWO, transport="tunnel")))
    docker("rmi", DAEMON_IMAGE, hops=TWO, check=False)
    sending.start()
    try:
        wait_until(lambda: half_loaded(*TWO), "20 MB at the destination")
        if cut:
            docker(
                "exec",
                victim,
                "sh",
                "-c",
                "for port in /sys/class/net/*; do ip link set ${port##*/} down; done",
                hops=hops,
                check=False,
            )
        docker("kill", victim, hops=hops)
        start = time.monotonic()
        sending.join(60)
        took = time.monotonic() - start
    finally:
        docker("start", victim, hops=hops)
        wait_for_daemon(OUTER)
        if victim == OUTER:
            docker("start", INNER, hops=ONE)
        wait_for_daemon(*TWO)
        sending.join()
    assert took < 30  # seconds; what is waited for a silent one is 60
    assert result["failed"]
    assert result["msg"] == f"destination {OUTER} > {INNER}: loading {DAEMON_IMAGE}: {at}: is not running (exited)"
    assert image_id(DAEMON_IMAGE, TWO) == ""


def half_loaded(*hops: str) -> bool:
    size = docker("exec", hops[-1], "du", "-sm", "/var/lib/docker/tmp", hops=hops[:-1], check=False).split()
    return bool(size) and size[0].isdecimal() and int(size[0]) >= 20


def test_a_module_that_is_killed_in_the_middle_leaves_no_program_and_the_next_run_converges() -> None:
    docker("rmi", DAEMON_IMAGE, hops=TWO, check=False)
    options = {"images": [DAEMON_IMAGE], "destination": {"hops": list(TWO), "transport": "tunnel"}}
    sending = started("image_transfer", options)
    wait_until(lambda: half_loaded(*TWO), "20 MB at the destination")
    sending.kill()
    sending.communicate()
    wait_until(lambda: not programs(*ONE) and not programs(*TWO), "the end of the programs", 10)
    assert image_id(DAEMON_IMAGE, TWO) == ""
    assert answer(started("image_transfer", options), 120)["changed"]
    assert image_id(DAEMON_IMAGE, TWO) == image_id(DAEMON_IMAGE)


# Who comes to the port


class Waiting:
    """The far end of a tunnel into the outer daemon, started as the module starts it, with nobody connected yet."""

    def __init__(self) -> None:
        self.exec = Exec(ONE)
        self.address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", OUTER)
        self.token = secrets.token_hex(32).encode()
        self.far = self.exec.start(1, (*TUNNEL, "serve"))
        self.far.stream.settimeout(30)
        self.said = self.far.stream.makefile("rb")
        self.far.stream.sendall(self.address.encode() + b"\n1 " + self.token + b"\n")
        self.port = int(self.said.readline().removeprefix(b"listening 1 "))

    def connect(self, first: bytes = b"") -> socket.socket:
        stream = socket.create_connection((self.address, self.port), 10)
        stream.sendall(first)
        return stream


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    found = Waiting()
    yield found
    found.said.close()
    found.exec.close()


def request(image: str) -> bytes:
    return f"GET /v1.41/images/{image}/json HTTP/1.1\r\nHost: docker\r\n\r\n".encode()


def heard_of(image: str) -> bool:
    """Say whether the outer daemon was asked for this image: with `debug` it logs each request (on its standard
    error).
    """
    logs = subprocess.run(
        ["docker", "logs", OUTER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout
    return f"/images/{image}/json" in logs


def test_it_listens_on_its_own_address_only_and_not_before_or_after() -> None:
    assert listeners(*ONE) == []
    waiting = Waiting()
    try:
        octets = bytes(reversed(socket.inet_aton(waiting.address))).hex().upper()
        assert listeners(*ONE) == [f"{octets}:{waiting.port:04X}"]
        with waiting.connect(waiting.token) as stream:
            assert waiting.said.readline() == b"accepted 1\n"
            assert listeners(*ONE) == []
            with pytest.raises(ConnectionRefusedError):
                waiting.connect()
            stream.sendall(request("t-right"))
            assert stream.recv(100).startswith(b"HTTP/1.1 404 ")
        wait_until(lambda: heard_of("t-right"), "the request in the log", 10)
    finally:
        waiting.exec.close()


def test_strangers_reach_nothing_while_it_waits_and_the_right_one_still_comes(waiting: Waiting) -> None:
    wrong = secrets.token_hex(32).encode()
    with contextlib.ExitStack() as open_streams:
        silent = [open_streams.enter_context(waiting.connect()) for dummy in range(40)]
        for first in (wrong + request("t-wrong"), request("t-plain") + bytes(100)):
            with waiting.connect(first) as stranger, contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
        for _dummy in range(200):
            waiting.connect().close()
        late = open_streams.enter_context(waiting.connect(waiting.token[:63]))
        right = open_streams.enter_context(waiting.connect(waiting.token))
        assert waiting.said.readline() == b"accepted 1\n"
        right.sendall(request("t-right-among-strangers"))
        assert right.recv(100).startswith(b"HTTP/1.1 404 ")
        for stranger in (*silent, late):
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                stranger.sendall(waiting.token[-1:] + request("t-late"))
                assert stranger.recv(100) == b""
    wait_until(lambda: heard_of("t-right-among-strangers"), "the request in the log", 10)
    assert not any(heard_of(image) for image in ("t-wrong", "t-plain", "t-late"))


def test_it_listens_no_longer_after_ten_seconds_without_the_right_one(waiting: Waiting) -> None:
    start = time.monotonic()
    with waiting.connect() as silent:
        assert waiting.said.readline() == b"refused 1 nobody came with the token within 10 s\n"
        assert 8 < time.monotonic() - start < 25
        assert silent.recv(10) == b""
    assert listeners(*ONE) == []


def test_the_token_is_seen_by_nobody_on_the_machine_or_in_the_hop(waiting: Waiting) -> None:
    of_the_client = [Path(f"/proc/{waiting.far.process.pid}/{name}") for name in ("cmdline", "environ")]
    seen = b"".join(path.read_bytes() for path in of_the_client)
    assert b"tunnel.py" in seen
    in_the_hop = within(OUTER, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "tunnel.py" in in_the_hop
    assert waiting.token not in seen
    assert waiting.token.decode() not in in_the_hop


def test_a_tunnel_that_is_demanded_to_a_hop_that_is_not_there_names_it() -> None:
    with pytest.raises(Broken, match=r"hop 2 of 2 .*No such container: t-tun-no"):
        Tunnel((OUTER, "t-tun-no"), or_exec=False).open(bulk=True)
