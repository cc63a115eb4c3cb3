# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a unix socket of this machine to the Docker daemon of an instance.

    serve.py SETTINGS

The socket comes from systemd, as sd_listen_fds(3) has it. SETTINGS is a JSON file whose `hops` are the containers to go
through, outermost first. The program ends when nobody has been connected for a while, and systemd starts it for the
next one. Who may connect is for the socket's owner, group and mode to say.

Beside it lie the parts of the collection that open streams to nested daemons, and the machine image's tunnel.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Child, Exec
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import FarEnd
from tunnel import join

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
IDLE_SECONDS = 30
MOST = 500  # connections at a time
REQUEST_BYTES = 1 << 16  # of a request that is refused
REFUSAL_SECONDS = 5
DIAL_STDIO = ("docker", "system", "dial-stdio")


class Gateway:
    """Leads each connection to the daemon: through a tunnel, or by `docker exec` where there can be none."""

    def __init__(self, listener: socket.socket, hops: list[str], idle: float = IDLE_SECONDS) -> None:
        self.listener = listener
        self.exec = Exec(hops)
        self.idle = idle
        self.far: FarEnd | None = None
        self.no_tunnel = False
        self.beginning = threading.Lock()
        self.counting = threading.Lock()
        self.connections = 0
        self.ended = time.monotonic()  # when the last connection did

    def run(self) -> None:
        """Return when nobody has been connected for a while."""
        while self.connections or time.monotonic() - self.ended < self.idle:
            if select.select([self.listener], [], [], min(self.idle, 1))[0]:
                client = self.listener.accept()[0]
                with self.counting:
                    self.connections += 1
                threading.Thread(target=self.attend, args=(client,), daemon=True).start()

    def attend(self, client: socket.socket) -> None:
        """Lead a connection to the daemon, and its client to the reason where that cannot be."""
        try:
            with client:
                try:
                    if self.connections > MOST:
                        raise Broken(f"{MOST} connections are open: close some of them")
                    self.lead(client)
                except (Broken, OSError) as error:
                    refuse(client, str(error))
        finally:
            with self.counting:
                self.connections -= 1
                self.ended = time.monotonic()

    def lead(self, client: socket.socket) -> None:
        stream, child = self.stream()
        try:
            stream.settimeout(None)
            join(client, stream)
        finally:
            stream.close()
            if child:
                child.end()

    def stream(self) -> tuple[socket.socket, Child | None]:
        """Return a stream to the daemon, and the process that carries it where there is one."""
        if not self.no_tunnel:
            with contextlib.suppress(Broken):
                return self.far_end().connect()[0], None
        fault = self.exec.why()
        if fault:
            raise Broken(fault)
        self.no_tunnel = True
        child = self.exec.start(len(self.exec.way.hops), DIAL_STDIO)
        return child.stream, child

    def far_end(self) -> FarEnd:
        with self.beginning:
            if not self.far or self.far.gone:
                self.far = FarEnd(self.exec)
            return self.far


def refuse(client: socket.socket, why: str) -> None:
    """Answer the first request of a client as a daemon does that cannot serve it."""
    body = json.dumps({"message": why}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    client.settimeout(REFUSAL_SECONDS)
    with contextlib.suppress(OSError):
        asked = client.recv(REQUEST_BYTES)
        client.sendall(f"{head}Connection: close\r\n\r\n".encode() + (b"" if asked.startswith(b"HEAD ") else body))
        client.shutdown(socket.SHUT_WR)
        # Whoever hangs up with something unread takes the answer away from the client (unix(7), ECONNRESET).
        while client.recv(REQUEST_BYTES):
            pass


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: serve.py SETTINGS", file=sys.stderr)
        return 2
    if os.environ.get("LISTEN_FDS") != "1" or os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("serve.py: there is no socket from systemd (LISTEN_FDS): start the unit of the socket", file=sys.stderr)
        return 1
    try:
        hops = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))["hops"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"serve.py: {arguments[0]} has no hops ({error!r}): run the role kata_socket", file=sys.stderr)
        return 1
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    Gateway(socket.socket(fileno=FIRST_DESCRIPTOR), hops).run()
    os._exit(0)  # whatever its threads are at


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
