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
from typing import Sequence

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
LISTENING_SECONDS = 30  # how long a tunnel's far end may take to start
DIAL_SECONDS = 5  # how long a TCP connection to a container of this machine may take
ACCEPTED_SECONDS = 15  # how long the far end may take to see the token; it waits for 10 itself
LINE_BYTES = 512


class Tunnel(Transport):
    """A TCP connection over the last hop for each stream of archives. Small archives and all requests go by exec.

    Exec starts the far end in the innermost hop with a one-time token, and stays: when either end is gone, the other
    one is notified there, even by a VM that was cut off and sends nothing any more.
    """

    def __init__(self, hops: Sequence[str], or_exec: bool) -> None:
        self.exec = Exec(hops)
        self.or_exec = or_exec  # whether archives go by exec where there can be no tunnel, and small ones always
        self.refused = False
        self.spare: socket.socket | None = None  # a tunnel that was not taken yet
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
                self.spare = self.dig()
            except Broken as error:
                if not self.or_exec:
                    raise Broken(f"transport is tunnel, and there is none: {error}") from error
                self.refused, self.taken = True, Taken("exec", f"no tunnel: {error}")
        return self.spare is not None

    def why(self) -> str | None:
        return self.exec.why()

    def close(self) -> None:
        if self.spare:
            self.spare.close()
        self.exec.close()

    def dig(self) -> socket.socket:
        """Return a stream through a new tunnel, or raise Broken with the reason why there can be none."""
        depth = len(self.exec.way.hops)
        far = self.exec.start(depth, (*TUNNEL, "listen"))
        network = self.network()
        near = self.exec.start(depth - 1, (*TUNNEL, "dial")) if depth > 1 and not network else None
        try:
            # The far end may be controlled by a tenant, who must not be able to choose the address: so the docker
            # daemon above it reports the address, and the far end only the port.
            address = self.address()
            stream, port = self.joined(far, near, network, address)
        except Broken as error:
            for child in filter(None, (far, near)):
                child.end()
            number, child = (depth - 1, near) if near and failed(near) else (depth, far)
            raise Broken(self.exec.way.blame(number, lacking(child.last_words() or str(error)))) from error
        finally:
            if network:
                network.close()
        threading.Thread(target=cut, args=(far, stream), daemon=True).start()
        whence = f", from the network of {self.exec.way.hops[0]}" if network else ""
        reason = f"TCP to port {port} of {address}, the address of {self.exec.way.hops[-1]}{whence}"
        self.taken = Taken("tunnel", reason)
        return stream

    def network(self) -> Network | None:
        """Return the network of the hop above the innermost one, where this process may enter it."""
        if len(self.exec.way.hops) != 2 or os.geteuid() != 0:
            return None
        answer = run(self.exec.way.process(1), self.exec.environment)
        found = re.fullmatch(r"([1-9]\d{0,9}) ([0-9a-f]{64})", answer.out.strip())
        return network_of(int(found.group(1)), found.group(2)) if found else None

    def address(self) -> str:
        """Return the address of the innermost hop."""
        answer = run(self.exec.way.addresses(len(self.exec.way.hops)), self.exec.environment)
        for word in answer.out.split() if answer.rc == 0 else ():
            with contextlib.suppress(ValueError):
                return str(ipaddress.IPv4Address(word))
        raise Broken("it has no IPv4 address of its own" if answer.rc == 0 else answer.line)

    def joined(
        self, far: Child, near: Child | None, network: Network | None, address: str
    ) -> tuple[socket.socket, int]:
        """Return a stream that the far end has accepted, and the port there."""
        token = secrets.token_hex(32).encode()
        send(far.stream, token + b"\n" + address.encode() + b"\n")
        port = int(heard(r"listening (\d{1,5})", LISTENING_SECONDS, far.stream))
        if near:
            stream = near.stream
            send(stream, f"{address} {port}\n".encode())
        else:
            stream = self.connected(network, address, port)
        try:
            send(stream, token)
            heard("(accepted)", ACCEPTED_SECONDS, far.stream, stream)
        except BaseException:
            stream.close()
            raise
        return stream, port

    def connected(self, network: Network | None, address: str, port: int) -> socket.socket:
        try:
            if network:
                stream = network.connect(address, port, DIAL_SECONDS)
            else:
                stream = socket.create_connection((address, port), DIAL_SECONDS)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, OverflowError) as error:
            whence = self.exec.way.hops[0] if network else "this machine"
            raise Broken(f"port {port} of {address} cannot be reached from {whence}: {error}") from error
        return stream


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
        raise Broken(text or "the tunnel ended before it was established")
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


def cut(far: Child, stream: socket.socket) -> None:
    """End a stream when its far end is gone without having carried everything."""
    if far.process.wait() != 0:
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
