# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP over the last hop, for archives, which `docker exec` carries slowly into a VM.

A program of the machine image, /usr/lib/nested-kata/tunnel.py, is the far end of each stream. The near end is this
process: on the network of the container one hop above, where that is a container of this machine. Where this process
may not enter that network, or the container is further away, the near end is the same program there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import select
import socket
import threading
import time
import weakref
from typing import Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.network import Network, network_of
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import (
    Broken,
    Child,
    Exec,
    Taken,
    Transport,
    run,
)

PROGRAM = "/usr/lib/nested-kata/tunnel.py"
FEW_BYTES = 4 << 20  # exec carries this much into a VM while a tunnel is made (bench/transport.py)
TUNNEL = ("python3", "-IS", PROGRAM)  # isolated and without site-packages, which starts it faster
LISTENING_SECONDS = 30  # how long a tunnel's far end may take to start, or to listen
DIAL_SECONDS = 5  # how long a TCP connection to a container of this machine may take
ACCEPTED_SECONDS = 15  # how long the far end may take to see the token; it waits for 10 itself
LINE_BYTES = 512
ENDED = "the tunnel ended before it was established"


class FarEnd:
    """The program in the innermost hop, where all streams of a tunnel end. Threads may share it.

    Exec starts it, and stays: each stream is announced there with a one-time token, and when either side is gone, the
    other one is notified there, even by a VM that was cut off and sends nothing any more.
    """

    def __init__(self, ways: Exec) -> None:
        self._exec = ways
        self._depth = len(ways.way.hops)
        self._lock = threading.Lock()
        self._last = 0  # the number of the last stream that was announced
        self._waiting: dict[int, socket.socket] = {}  # whoever waits for news of a stream, by its number
        self._streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.gone = False
        self._nonsense = b""  # what the program said when it was taken to be gone
        self._child = ways.start(self._depth, (*TUNNEL, "serve"))
        self._network = self._network_above()
        try:
            # The program may be controlled by a tenant, who must not be able to choose the address: so the docker
            # daemon above it reports the address, and the program only ports.
            self.address = self._address()
        except Broken as error:
            self.close()
            raise Broken(self._exec.way.blame(self._depth, str(error))) from error
        send(self._child.stream, f"{self.address}\n".encode())
        threading.Thread(target=self._listen, name="tunnel", daemon=True).start()

    def _network_above(self) -> Network | None:
        """Return the network of the hop above the innermost one, where this process may enter it."""
        if self._depth != 2 or os.geteuid() != 0:
            return None
        answer = run(self._exec.way.process(1), self._exec.environment)
        found = re.fullmatch(r"([1-9]\d{0,9}) ([0-9a-f]{64})", answer.out.strip())
        return network_of(int(found.group(1)), found.group(2)) if found else None

    def _address(self) -> str:
        """Return the address of the innermost hop."""
        answer = run(self._exec.way.addresses(self._depth), self._exec.environment)
        for word in answer.out.split() if answer.rc == 0 else ():
            with contextlib.suppress(ValueError):
                return str(ipaddress.IPv4Address(word))
        raise Broken("it has no IPv4 address of its own" if answer.rc == 0 else answer.line)

    def _listen(self) -> None:
        """Hand on what the program says, until it is gone, and all streams with it."""
        with contextlib.suppress(OSError), self._child.stream.makefile("rb", buffering=LINE_BYTES) as lines:
            while self._hand_on(lines.readline(LINE_BYTES)):
                pass
        with self._lock:
            self.gone = True
            for ear in (*self._waiting.values(), *self._streams):
                with contextlib.suppress(OSError):
                    ear.shutdown(socket.SHUT_RDWR)

    def _hand_on(self, line: bytes) -> bool:
        """Hand on a line to whoever waits for it. All hear one that makes no sense, which is the last."""
        said = re.fullmatch(rb"(\w+) (\d{1,9})( .*)?\n", line)
        number = int(said[2]) if said else 0
        sound = said is not None and 0 < number <= self._last
        with self._lock:
            if not sound:
                self._nonsense = line
            ears = [self._waiting.get(number)] if sound else [*self._waiting.values()]
            for ear in filter(None, ears):
                with contextlib.suppress(OSError):  # it has more lines already than it can want
                    ear.sendall(said[1] + (said[3] or b"") + b"\n" if said and sound else line)
        return sound

    def connect(self) -> tuple[socket.socket, Taken]:
        """Return a stream that the program has accepted, and the way that it takes; or raise Broken with the reason why
        there can be none.
        """
        near = None
        try:
            with self._announced() as (token, news):
                port = int(heard(r"listening (\d{1,5})", LISTENING_SECONDS, news))
                if self._depth > 1 and not self._network:
                    near = self._exec.start(self._depth - 1, (*TUNNEL, "dial"))
                    send(near.stream, f"{self.address} {port}\n".encode())
                stream = near.stream if near else self._connected(port)
                try:
                    send(stream, token)
                    heard("(accepted)", ACCEPTED_SECONDS, news, stream)
                    with self._lock:
                        self._streams.add(stream)
                except BaseException:
                    stream.close()
                    raise
        except Broken as error:
            for child in (near, self._child if self.gone else None):
                if child:
                    self._exec.end(child)  # only then its last words are complete
            number, child = (self._depth - 1, near) if near and failed(near) else (self._depth, self._child)
            raise Broken(self._exec.way.blame(number, lacking(child.last_words() or str(error)))) from error
        whence = f", from the network of {self._exec.way.hops[0]}" if self._network else ""
        reason = f"TCP to port {port} of {self.address}, the address of {self._exec.way.hops[-1]}{whence}"
        return stream, Taken("tunnel", reason)

    @contextlib.contextmanager
    def _announced(self) -> Iterator[tuple[bytes, socket.socket]]:
        """Yield the token of a stream that was announced to the program, and where its news come."""
        token = secrets.token_hex(32).encode()
        news, ear = socket.socketpair()
        ear.setblocking(False)
        with news, ear:
            with self._lock:
                if self.gone:
                    raise Broken(text_of(self._nonsense) or ENDED)
                number = self._last = self._last + 1
                self._waiting[number] = ear
                send(self._child.stream, b"%d %s\n" % (number, token))
            try:
                yield token, news
            finally:
                with self._lock:
                    del self._waiting[number]

    def _connected(self, port: int) -> socket.socket:
        try:
            if self._network:
                stream = self._network.connect(self.address, port, DIAL_SECONDS)
            else:
                stream = socket.create_connection((self.address, port), DIAL_SECONDS)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, OverflowError) as error:
            whence = self._exec.way.hops[0] if self._network else "this machine"
            raise Broken(f"port {port} of {self.address} cannot be reached from {whence}: {error}") from error
        return stream

    def close(self) -> None:
        """End the program and all streams."""
        self._child.end()
        if self._network:
            self._network.close()
            self._network = None


class Tunnel(Transport):
    """A TCP connection over the last hop for each stream of archives. Small archives and all requests go by exec."""

    def __init__(self, hops: Sequence[str], or_exec: bool) -> None:
        self.exec = Exec(hops)
        self.or_exec = or_exec  # whether archives go by exec where there can be no tunnel, and small ones always
        self.refused = False
        self.far: FarEnd | None = None
        self.spare: socket.socket | None = None  # a stream that was not taken yet
        self.taken = Taken("exec", f"nothing of {FEW_BYTES >> 20} MiB or more was to be carried")

    def begin(self) -> None:
        self.exec.begin()

    def parts(self, size: int | None) -> bool:
        return not self.or_exec or size is None or size >= FEW_BYTES

    def open(self, bulk: bool = False) -> socket.socket:
        if bulk and self.tunnelled() and self.spare is not None:
            stream, self.spare = self.spare, None
            return stream
        return self.exec.open()

    def tunnelled(self) -> bool:
        if not self.spare and not self.refused:
            try:
                if not self.far or self.far.gone:
                    self.far = FarEnd(self.exec)
                self.spare, self.taken = self.far.connect()
            except Broken as error:
                if self.far:
                    self.far.close()
                if not self.or_exec:
                    raise Broken(f"transport is tunnel, and there is none: {error}") from error
                self.refused, self.taken = True, Taken("exec", f"no tunnel: {error}")
        return self.spare is not None

    def why(self) -> str | None:
        return self.exec.why()

    def close(self) -> None:
        if self.spare:
            self.spare.close()
        if self.far:
            self.far.close()
        self.exec.close()


def send(stream: socket.socket, data: bytes) -> None:
    # A program that ended has reported why: this is read next.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.sendall(data)


def heard(pattern: str, seconds: float, speaker: socket.socket, silent: socket.socket | None = None) -> str:
    """Return the pattern's group in the next line of the speaker. Until then the other stream must be silent."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n") and len(line) < LINE_BYTES:
        ready = select.select([speaker, silent] if silent else [speaker], [], [], max(0, deadline - time.monotonic()))[
            0
        ]
        if not ready:
            raise Broken(f"the far end of the tunnel sent nothing for {seconds:g} s")
        try:
            piece = ready[0].recv(1 if ready[0] is speaker else LINE_BYTES)
        except ConnectionResetError:
            piece = b""  # as at the end of the stream: the other side had not read everything
        except OSError as error:
            raise Broken(f"the way to the tunnel broke: {error}") from error
        if ready[0] is silent:
            # Nothing is sent there before the token, so this is Docker's message about a program that does not run, or
            # an impostor's.
            raise Broken(
                f"instead of a tunnel: {text_of(piece)}" if piece else "the connection ended before it was accepted"
            )
        if not piece:
            break
        line += piece
    text = text_of(line)
    found = re.fullmatch(pattern, text)
    if not found:
        raise Broken(text or ENDED)
    return found.group(1)


def failed(child: Child) -> bool:
    """Return whether a child ended by itself. Docker reports programs that it cannot run on standard output."""
    return bool(child.last_words()) or child.process.returncode in (126, 127)


def text_of(data: bytes) -> str:
    return shown(data.decode("utf-8", "replace"))


def lacking(words: str) -> str:
    """Return why the program of a tunnel does not run, according to the message in its place."""
    if re.search("can't open file|executable file not found|no such file or directory", words):
        return f"it has no {PROGRAM}: it is not made from the machine image, or from an older one"
    return words
