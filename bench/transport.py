# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel against `docker exec` and against a plain copy over TCP, turn by turn, between this machine and a
container of its Docker.

All ways end at the same unix socket in the container, where a program swallows or makes bytes, so that no daemon's work
is timed; only the plain copies end at a TCP port of that program, or are what socat makes of one. With `--hops 2` a
container in the container is the end. Prints two tables of seconds, and MiB/s: bytes up and down, and how long it takes
until a stream is open and answers.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("tests/support", ".collections")]
from ansible_collections.nested.kata.plugins.module_utils._docker import tunnel
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Exec, Transport
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import Tunnel
from docker_in_docker import DAEMON_IMAGE, docker, load, nested_daemon
from tunnel_program import install, leading_to
from turns import needs, show

OUTER, INNER = "t-bench-tunnel-outer", "t-bench-tunnel-inner"
SINK, PORT, SOCAT_PORT = "/run/sink.sock", 5001, 5002
MEBIBYTE = 1 << 20

# A connection begins with u (bytes come, and are counted) or d and a length (as many go back). A docker client that
# asks first what it speaks with is answered as a daemon would.
SWALLOWER = f"""
import os, socket, threading
PIECE = os.urandom(1 << 20)
def serve(stream):
    first = stream.recv(1)
    if first in (b"G", b"H"):
        stream.recv(4096)
        stream.sendall(b"HTTP/1.1 200 OK\\r\\nApi-Version: 1.45\\r\\nContent-Length: 0\\r\\n"
                       b"Connection: close\\r\\n\\r\\n")
    elif first == b"d":
        for dummy in range(int(stream.recv(8, socket.MSG_WAITALL), 16)):
            stream.sendall(PIECE)
    else:
        buffer, count = bytearray(1 << 20), 0
        while got := stream.recv_into(buffer):
            count += got
        stream.sendall(b"%x" % count)
    stream.close()
def listen(server):
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],)).start()
unix = socket.socket(socket.AF_UNIX)
unix.bind({SINK!r})
unix.listen()
threading.Thread(target=listen, args=(socket.create_server(("", {PORT})),)).start()
print("ready", flush=True)
listen(unix)
"""


def up(stream: socket.socket, size: int) -> None:
    piece = os.urandom(MEBIBYTE)
    stream.sendall(b"u")
    for _dummy in range(size):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
    if stream.recv(16) != b"%x" % (size * MEBIBYTE):
        sys.exit("not all arrived")


def down(stream: socket.socket, size: int) -> None:
    stream.sendall(b"d%08x" % size)
    buffer, count = bytearray(MEBIBYTE), 0
    while got := stream.recv_into(buffer):
        count += got
    if count != size * MEBIBYTE:
        sys.exit("not all arrived")


class DialStdio(Exec):
    """Exec, to the swallower instead of the daemon."""

    def open(self, bulk: bool = False) -> socket.socket:
        return self.start(len(self.way.hops), ("docker", "--host", f"unix://{SINK}", "system", "dial-stdio")).stream


class Plain(Transport):
    def __init__(self, address: str, port: int) -> None:
        self.to = (address, port)

    def open(self, bulk: bool = False) -> socket.socket:
        return socket.create_connection(self.to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=400, help="MiB each way")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hops", type=int, choices=[1, 2], default=1)
    options = parser.parse_args()
    needs("socat", root=True, docker=True)
    hops = (OUTER, INNER)[: options.hops]
    with ExitStack() as stack:
        stack.enter_context(nested_daemon(OUTER))
        if options.hops == 2:
            load(DAEMON_IMAGE, OUTER)
            stack.enter_context(nested_daemon(INNER, hops=(OUTER,), bip="172.30.254.1/24"))
        for depth in range(options.hops):
            install(*hops[: depth + 1])
        reach = Exec(hops)
        stack.callback(reach.close)
        if reach.start(len(hops), ("python3", "-c", SWALLOWER)).stream.recv(5) != b"ready":
            sys.exit("the program in the container did not start")
        ways: dict[str, Transport] = {}
        if options.hops == 1:
            address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", OUTER)
            ways["plain TCP"] = Plain(address, PORT)
            copy = [
                "socat",
                "-b",
                str(MEBIBYTE),
                f"TCP-LISTEN:{SOCAT_PORT},bind=127.0.0.1,fork",
                f"TCP:{address}:{PORT}",
            ]
            with_socat = subprocess.Popen(copy)
            stack.callback(with_socat.kill)
            ways["socat"] = Plain("127.0.0.1", SOCAT_PORT)
        ways["docker exec"] = DialStdio(hops)
        ways["tunnel"] = Tunnel(hops, or_exec=False)
        tunnel.TUNNEL = tuple(leading_to(SINK, program=tunnel.PROGRAM, python="python3"))
        carried: dict[str, list[float]] = {f"{name}, {what.__name__}": [] for what in (up, down) for name in ways}
        opened: dict[str, list[float]] = {name: [] for name in ways}
        for _dummy in range(options.rounds):
            for name, way in ways.items():
                for what in (up, down):
                    began = time.perf_counter()
                    stream = way.open(bulk=True)
                    what(stream, 0)
                    opened[name].append(time.perf_counter() - began)
                    stream.close()
                    stream = way.open(bulk=True)
                    stream.settimeout(None)
                    began = time.perf_counter()
                    what(stream, options.size)
                    carried[f"{name}, {what.__name__}"].append(time.perf_counter() - began)
                    stream.close()
                    way.close()
        print(
            f"{options.size} MiB, {options.hops} hop(s), {options.rounds} rounds, {os.cpu_count()} processors, load"
            f" {os.getloadavg()[0]:.1f}"
        )
        first = next(iter(ways))
        for what in (up, down):
            show(
                {name: each for name, each in carried.items() if name.endswith(f", {what.__name__}")},
                f"{first}, {what.__name__}",
                first,
            )
        print(
            "MiB/s by the median: "
            + "; ".join(f"{name} {options.size / statistics.median(each):.0f}" for name, each in carried.items())
        )
        print("until a stream answers:")
        show(opened, first, first)


if __name__ == "__main__":
    main()
