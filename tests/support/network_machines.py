# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that are only a network: namespaces with addresses, cables, and a service at each address that answers.

Run as a program it is that service (`serve`), or a client that tries many of them at once (`try`).
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

PATIENCE = 1.5  # seconds until what has not answered is taken for unreachable
PORTS = (53, 80)
ANSWER = b"here"


class Goal(NamedTuple):
    """What a client tries."""

    protocol: str
    address: str
    port: int
    source: str = ""


class Machine:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *command: object) -> list[str]:
        """Return what runs a command in it."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command: object, data: str | None = None) -> str:
        """Run a command in it and return what it prints."""
        done = subprocess.run(self.command(*command), input=data, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name}: {' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, line: str) -> None:
        self.run("ip", *line.split())

    def reached(self, goals: Iterable[Goal]) -> set[Goal]:
        """Return those that answer."""
        answered = json.loads(self.run(sys.executable, __file__, "try", data=json.dumps(list(goals))))
        return {Goal(*one) for one in answered}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer at each of its addresses meanwhile."""
        with subprocess.Popen(self.command(sys.executable, __file__, "serve"), stdout=subprocess.PIPE) as server:
            assert server.stdout and server.stdout.readline() == b"ready\n"
            try:
                yield
            finally:
                server.kill()


@contextmanager
def machines(*names: str) -> Iterator[list[Machine]]:
    """Make namespaces, and remove them with all that is in them."""
    made: list[Machine] = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(Machine(name))
            # No duplicate address detection, which takes seconds in which an address does not work.
            made[-1].run(
                "sysctl",
                "-qw",
                "net.ipv4.ip_forward=1",
                "net.ipv6.conf.all.forwarding=1",
                "net.ipv6.conf.all.accept_dad=0",
                "net.ipv6.conf.default.accept_dad=0",
            )
            made[-1].ip("link set lo up")
        yield made
    finally:
        for one in made:
            subprocess.run(["ip", "netns", "delete", one.name], check=True)


def cable(one: Machine, port: str, other: Machine, other_port: str) -> None:
    """Connect two machines."""
    one.ip(f"link add {port} type veth peer name {other_port} netns {other.name}")
    for machine, name in ((one, port), (other, other_port)):
        machine.ip(f"link set {name} up")


def bridge(machine: Machine, name: str, port: str, *addresses: str) -> None:
    """Make a bridge with a port and addresses."""
    machine.ip(f"link add {name} type bridge")
    machine.ip(f"link set {port} master {name}")
    machine.ip(f"link set {name} up")
    for address in addresses:
        machine.ip(f"addr add {address} dev {name}")


# --- what runs in a namespace ---


def bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """Return a socket at an address, which may name its interface."""
    family, _kind, _protocol, _name, where = socket.getaddrinfo(address, port, type=kind)[0]
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(where)
    return made


def addresses() -> list[str]:
    """Return the addresses of this namespace; those that are link-local with their interface."""
    found = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout)
    return [
        f"{one['local']}%{link['ifname']}" if one["local"].startswith("fe80") else one["local"]
        for link in found
        for one in link["addr_info"]
    ]


def serve() -> None:
    """Answer until the end."""
    waiting = selectors.DefaultSelector()
    for address in addresses():
        for port in PORTS:
            tcp = bound(socket.SOCK_STREAM, address, port)
            tcp.listen()
            for one in (tcp, bound(socket.SOCK_DGRAM, address, port)):
                waiting.register(one, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _events in waiting.select():
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if one.type == socket.SOCK_STREAM:
                stream, _peer = one.accept()
                stream.sendall(ANSWER)
                stream.close()
            else:
                _data, peer = one.recvfrom(100)
                one.sendto(ANSWER, peer)


def attempt(goals: Sequence[Goal]) -> list[Goal]:
    """Return the goals that answer, all tried at the same time."""
    waiting, reached = selectors.DefaultSelector(), []
    for goal in goals:
        kind = socket.SOCK_STREAM if goal.protocol == "tcp" else socket.SOCK_DGRAM
        family, _kind, _protocol, _name, where = socket.getaddrinfo(goal.address, goal.port, type=kind)[0]
        one = bound(kind, goal.source, 0) if goal.source else socket.socket(family, kind)
        one.setblocking(False)
        try:
            one.connect(where)
            if kind == socket.SOCK_DGRAM:
                one.send(b"?")
        except BlockingIOError:
            pass
        except OSError:
            continue  # no route to the address
        waiting.register(one, selectors.EVENT_READ, goal)
    end = time.monotonic() + PATIENCE
    while waiting.get_map() and (left := end - time.monotonic()) > 0:
        for key, _events in waiting.select(left):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            waiting.unregister(one)
            try:
                if one.recv(100) == ANSWER:
                    reached.append(key.data)
            except OSError:
                continue
    return reached


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        print(json.dumps(attempt([Goal(*one) for one in json.load(sys.stdin)])))
