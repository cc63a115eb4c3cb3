# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry connections to this machine's Docker daemon past `docker exec`, which is slow into a VM.

`tunnel.py serve`, started by `docker exec -i` where the daemon is, reads lines: the address to listen on, and then
`NUMBER TOKEN` for each connection that is to come. It says `listening NUMBER PORT`, takes the one connection that
begins with the token, says `accepted NUMBER`, and carries bytes until both sides have ended. Where the daemon does not
listen, or nobody came within 10 seconds, it says `refused NUMBER` and why. It listens only while it waits for a token,
and ends, with all connections, when its standard input ends: with whoever started it.

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
PEERS = 64  # that may be connected at a time and have not said a token yet
TOKEN_BYTES = 64
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
    if not hasattr(os, "splice"):  # before Python 3.10
        copy(source, sink)
        return
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


def copy(source: int, sink: int) -> None:
    """Do the same by way of this process."""
    while True:
        try:
            rest = memoryview(os.read(source, PIECE))
        except ConnectionResetError:
            return
        if not rest:
            return
        while rest:
            rest = rest[os.write(sink, rest) :]


def unsent(peer: socket.socket) -> int:
    """Return how many bytes the other side has not confirmed yet (tcp(7), SIOCOUTQ)."""
    return struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]


def join(peer: socket.socket, daemon: socket.socket) -> None:
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
        answered.set()
    except OSError:
        # The peer is gone, and nobody else waits for the daemon.
        for stream in (peer, daemon):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
    asking.join()  # nothing may use a descriptor that is closed: its number is the next connection's


class Gate:
    """Listens while tokens are waited for, and lets in who has one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.server: socket.socket | None = None
        self.tokens: dict[bytes, tuple[int, float]] = {}  # the number of each connection to come, and until when
        self.peers: dict[socket.socket, bytes] = {}  # what those have said that have not said a token yet
        self.ready = selectors.DefaultSelector()
        self.ready.register(0, selectors.EVENT_READ)
        self.said = b""  # of a line of standard input
        self.saying = threading.Lock()

    def say(self, *words: object) -> None:
        with self.saying:
            print(*words, flush=True)

    def watch(self) -> None:
        """Let in who is announced, until standard input ends."""
        while True:
            until = min((until for _number, until in self.tokens.values()), default=None)
            for key, _dummy in self.ready.select(None if until is None else max(0, until - time.monotonic())):
                if key.fileobj == 0:
                    piece = os.read(0, 1 << 16)
                    if not piece:
                        return
                    self.hear(piece)
                elif key.fileobj is self.server:
                    self.meet()
                elif key.fileobj in self.peers:
                    self.listen(key.fileobj)
            for token in [token for token, (_number, until) in self.tokens.items() if until <= time.monotonic()]:
                number, _until = self.tokens.pop(token)
                self.say("refused", number, f"nobody came with the token within {WAIT_SECONDS} s")
            if not self.tokens and self.server:
                self.close()

    def hear(self, piece: bytes) -> None:
        """Take lines of standard input, each a connection to come."""
        *lines, self.said = (self.said + piece).split(b"\n")
        if len(self.said) > LINE_BYTES:
            raise Refused("a line of standard input is too long")
        for line in lines:
            number, token = line.split()
            if not self.server:
                self.server = socket.create_server((self.address, 0), backlog=BACKLOG)
                self.server.setblocking(False)
                self.ready.register(self.server, selectors.EVENT_READ)
            self.tokens[token] = int(number), time.monotonic() + WAIT_SECONDS
            self.say("listening", int(number), self.server.getsockname()[1])

    def meet(self) -> None:
        if len(self.peers) == PEERS:
            self.drop(next(iter(self.peers)))  # the one that has been silent for longest
        try:
            peer = self.server.accept()[0]
        except OSError:
            return  # it has hung up already
        peer.setblocking(False)
        self.peers[peer] = b""
        self.ready.register(peer, selectors.EVENT_READ)

    def listen(self, peer: socket.socket) -> None:
        try:
            piece = peer.recv(TOKEN_BYTES - len(self.peers[peer]))
        except OSError:
            piece = b""
        self.peers[peer] += piece
        said = self.peers[peer]
        if piece and len(said) < TOKEN_BYTES:
            return
        # All are compared, so that the time does not tell which one it began like.
        token = max((token for token in self.tokens if compare_digest(token, said)), default=b"")
        if token:
            self.ready.unregister(peer)
            del self.peers[peer]
            peer.setblocking(True)
            number, _until = self.tokens.pop(token)
            if not self.tokens:
                self.close()
            threading.Thread(target=self.let_in, args=(peer, number), daemon=True).start()
        else:
            self.drop(peer)

    def drop(self, peer: socket.socket) -> None:
        self.ready.unregister(peer)
        del self.peers[peer]
        peer.close()

    def close(self) -> None:
        """Listen no longer."""
        for peer in [*self.peers]:
            self.drop(peer)
        self.ready.unregister(self.server)
        self.server.close()
        self.server = None

    def let_in(self, peer: socket.socket, number: int) -> None:
        with peer, socket.socket(socket.AF_UNIX) as daemon:
            try:
                daemon.connect(DOCKER)
            except OSError as problem:
                self.say("refused", number, f"{DOCKER}: {problem.strerror}")
                return
            with contextlib.suppress(PermissionError):  # without CAP_NET_ADMIN
                daemon.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.say("accepted", number)
            join(peer, daemon)


def serve() -> None:
    Gate(read_line()).watch()
    os._exit(0)  # whatever the connections are at


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
    ways = {"serve": serve, "dial": dial}
    if len(arguments) != 1 or arguments[0] not in ways:
        print("usage: tunnel.py serve|dial", file=sys.stderr)
        return 2
    try:
        ways[arguments[0]]()
    except (Refused, OSError, ValueError) as problem:
        print(f"tunnel: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
