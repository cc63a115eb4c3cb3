# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry one connection to this machine's Docker daemon past `docker exec`, which is slow into a VM.

`tunnel.py listen`, started by `docker exec -i` where the daemon is, reads two lines: a one-time token, and the address
to listen on. It says `listening PORT`, takes the one connection that begins with the token, says `accepted`, and
carries bytes until both sides have ended. It ends too when nobody came within 10 seconds, or when its standard input
ends: with whoever started it.

`tunnel.py dial`, started by `docker exec -i` one level above, reads a line `ADDRESS PORT`, and carries its standard
input to there and what comes back to its standard output.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import socket
import struct
import sys
import termios
import threading
import time
from hmac import compare_digest

DOCKER = "/var/run/docker.sock"
WAIT_SECONDS = 10
DIAL_SECONDS = 5
PEERS = 16  # that may be connected at a time and have not said the token yet
BACKLOG = 128  # so that a port scan does not hold up the right one
LINE_BYTES = 256
# Room in pipes and before the daemon's socket: with the kernel's defaults each piece wakes somebody up, which costs
# more than the bytes.
PIECE = 1 << 20
SOCKET_BYTES = 1 << 22
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python has no name for it
F_SETPIPE_SZ = 1031  # linux/fcntl.h; in module fcntl since Python 3.10


class Refused(Exception):
    """Why there is no tunnel, in one line."""


def read_line() -> str:
    """Read a line of standard input and nothing beyond it: what follows may be carried by splice."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)  # whoever started this is gone, and nobody is left to be told
        if len(line) == LINE_BYTES:
            raise Refused("standard input does not begin with a line")
        line += byte
    return line.decode("ascii").strip()


def widen(pipe: int) -> None:
    # Refused where it is no pipe, and to a user whose pipes hold a lot already: pipe(7).
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIECE)


def carry(source: int, sink: int) -> None:
    """Move bytes from one descriptor to another until the source ends, without a copy of them in this process."""
    drain, fill = os.pipe()
    try:
        widen(fill)
        while True:
            try:
                held = os.splice(source, fill, PIECE)
            except ConnectionResetError:  # so ends a side that hung up before it had read everything
                return
            if not held:
                return
            while held:
                held -= os.splice(drain, sink, held)
    finally:
        os.close(drain)
        os.close(fill)


def admitted(server: socket.socket, token: bytes) -> socket.socket:
    """Return the connection that begins with the token. All others are dropped, those that say nothing at the end."""
    said: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + WAIT_SECONDS
    with selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        ready.register(0, selectors.EVENT_READ)

        def drop(peer: socket.socket) -> None:
            ready.unregister(peer)
            del said[peer]
            peer.close()

        while (left := deadline - time.monotonic()) > 0:
            for key, _dummy in ready.select(left):
                peer = key.fileobj
                if peer == 0:
                    if not os.read(0, LINE_BYTES):
                        sys.exit(1)
                elif peer is server:
                    if len(said) == PEERS:
                        drop(next(iter(said)))  # the one that has been silent for longest
                    peer = server.accept()[0]
                    peer.setblocking(False)
                    said[peer] = b""
                    ready.register(peer, selectors.EVENT_READ)
                elif peer in said:
                    try:
                        piece = peer.recv(len(token) - len(said[peer]))
                    except OSError:
                        piece = b""
                    said[peer] += piece
                    if len(said[peer]) == len(token) and compare_digest(said[peer], token):
                        for other in [other for other in said if other is not peer]:
                            drop(other)
                        peer.setblocking(True)
                        return peer
                    if not piece or len(said[peer]) == len(token):
                        drop(peer)
    raise Refused(f"nobody came with the token within {WAIT_SECONDS} s")


def unsent(peer: socket.socket) -> int:
    """Return how many bytes the other side has not confirmed yet (tcp(7), SIOCOUTQ)."""
    return struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]


def serve(peer: socket.socket, daemon: socket.socket) -> None:
    """Carry bytes both ways. Each direction ends by itself, and its end is passed on."""
    answered = threading.Event()

    def ask() -> None:
        try:
            carry(peer.fileno(), daemon.fileno())
            daemon.shutdown(socket.SHUT_WR)
        except OSError:
            # The daemon hung up before it had everything. Its answer must be there before the peer is cut off,
            # and a peer that still writes would not read it: so what it writes is let go until then.
            while not (answered.is_set() and unsent(peer) == 0):
                if select.select([peer], [], [], 0.05)[0] and not peer.recv(PIECE):
                    break

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        carry(daemon.fileno(), peer.fileno())
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the peer is gone, and nobody else waits for the daemon
    answered.set()
    asking.join()


def end_with_starter() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, LINE_BYTES):
            pass
    os._exit(1)


def listen() -> None:
    token, address = read_line().encode(), read_line()
    with socket.create_server((address, 0), backlog=BACKLOG) as server:
        print(f"listening {server.getsockname()[1]}", flush=True)
        peer = admitted(server, token)
    # From here on nothing listens.
    threading.Thread(target=end_with_starter, daemon=True).start()
    with peer, socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(DOCKER)
        with contextlib.suppress(PermissionError):  # without CAP_NET_ADMIN
            daemon.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("accepted", flush=True)
        serve(peer, daemon)


def dial() -> None:
    address, port = read_line().split()
    try:
        far = socket.create_connection((address, int(port)), DIAL_SECONDS)
    except OSError as problem:
        raise Refused(f"port {port} of {address} cannot be reached from here: {problem}") from None
    with far:
        far.settimeout(None)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        widen(0)
        widen(1)

        def ask() -> None:
            with contextlib.suppress(OSError):
                carry(0, far.fileno())
                far.shutdown(socket.SHUT_WR)

        threading.Thread(target=ask, daemon=True).start()
        # `docker exec` passes the end of standard output on only when the process ends, as `docker system dial-stdio`
        # does.
        carry(far.fileno(), 1)


def main(arguments: list[str]) -> int:
    ways = {"listen": listen, "dial": dial}
    if len(arguments) != 1 or arguments[0] not in ways:
        print("usage: tunnel.py listen|dial", file=sys.stderr)
        return 2
    try:
        ways[arguments[0]]()
    except (Refused, OSError, ValueError) as problem:
        print(f"tunnel: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
