# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Duplex byte streams to the docker daemon behind a socket or at the end of hops.

A Transport is all that its user knows: `open()` is a connected stream socket, `why()` says after a stream broke what is wrong with
the way, `close()` ends everything. Ssh and Tls lead to another machine, and two kinds lead through hops. Exec works everywhere, but into
a VM `docker exec` moves 8 KiB per round trip. Tunnel takes TCP over the last hop, for archives; the program at its far end is tunnel.py
of the machine image.
"""
from __future__ import annotations

import contextlib
import getpass
import grp
import ipaddress
import os
import re
import secrets
import select
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence, Tuple

from ansible_collections.nested.kata.plugins.module_utils.context import SOCKET, SshHost, TlsHost
from ansible_collections.nested.kata.plugins.module_utils.hops import Answer, Way, fault, missing

ANSWER_SECONDS = 60  # how long a daemon may take to answer a question
PROBE_SECONDS = 30  # how long a command may take that only looks why a stream broke
DYING_SECONDS = 2  # how long a container that was killed may say that it runs
GONE_SECONDS = 5  # how long a child may take to end by itself once its stream is closed
STDERR_BYTES = 4096
TLS_SECONDS = 20  # how long it may take to be connected to a daemon on TCP
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"

PROGRAM = "/usr/lib/nested-kata/tunnel.py"
FEW_BYTES = 4 << 20  # what exec carries into a VM while a tunnel is made (bench/transport.py)
TUNNEL = ("python3", "-IS", PROGRAM)  # isolated and without site-packages, which starts it faster
LISTENING_SECONDS = 30  # how long a tunnel's far end may take to start
DIAL_SECONDS = 5  # how long a TCP connection to a container of this machine may take
ACCEPTED_SECONDS = 15  # how long the far end may take to see the token; it waits for 10 itself
LINE_BYTES = 512


class Broken(Exception):
    """What is wrong with a stream or the way to a daemon."""


@dataclass(frozen=True)
class Taken:
    """The way that archives take (socket, ssh, tls, exec or tunnel), and why this one."""

    name: str
    reason: str


class Transport:
    """Brings duplex byte streams to one daemon."""

    taken: Taken  # it may change when the first stream for archives is opened

    def begin(self) -> None:
        """Start what takes a while until the first stream is there. What goes wrong is told when that is opened."""

    def open(self, bulk: bool = False) -> socket.socket:
        """Return a connected stream socket; every call is a connection of its own. `bulk`: it is for archives, not for questions only."""
        raise NotImplementedError

    def parts(self, size: Optional[int]) -> bool:
        """Return whether an archive of that many bytes (None: nobody knows) takes another way than questions, a stream opened with `bulk`."""
        return False

    def tunnelled(self) -> bool:
        """Return whether a tunnel carries archives of unknown size; it is there then."""
        return False

    def why(self) -> Optional[str]:
        """Return what is wrong with the way to the daemon, looked up after a stream broke; None: nothing that can be seen."""
        raise NotImplementedError

    def close(self) -> None:
        """End every stream and everything that was started for it."""


class UnixSocket(Transport):
    taken = Taken("socket", "a unix socket of this machine leads to it")

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, bulk: bool = False) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(ANSWER_SECONDS)
            stream.connect(self.path)
        except OSError as error:
            stream.close()
            raise Broken(self.refusal(error)) from error
        return stream

    def refusal(self, error: OSError) -> str:
        if isinstance(error, FileNotFoundError):
            return f"there is no socket {self.path}: start dockerd, or name the socket that it listens on"
        if isinstance(error, PermissionError):
            return f"no permission for {self.path}: {getpass.getuser()} must be in group {self.group()}, or use become"
        if isinstance(error, ConnectionRefusedError):
            return f"nobody listens on {self.path}: start dockerd"
        return f"cannot connect to {self.path}: {error.strerror or error}"

    def group(self) -> str:
        try:
            return grp.getgrgid(os.stat(self.path).st_gid).gr_name
        except (OSError, KeyError):
            return "docker"

    def why(self) -> Optional[str]:
        try:
            self.open().close()
        except Broken as error:
            return str(error)
        return None


class Child:
    """A process whose standard input and output are one stream socket; its last words on stderr are kept."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.stream, theirs = socket.socketpair()
        try:
            # A session of its own: Ctrl-C ends it by closing its stream, as everything else does.
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment, start_new_session=True)
        except OSError:
            self.stream.close()
            raise
        finally:
            theirs.close()
        self._stderr = b""
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        pipe = self.process.stderr
        for line in iter(lambda: pipe.readline(STDERR_BYTES), b""):
            self._stderr = (self._stderr + line)[-STDERR_BYTES:]
        pipe.close()

    def end(self) -> None:
        """Close the stream, which ends the process, and reap it."""
        with contextlib.suppress(OSError):
            # A response that nobody read to its end still holds the socket open: close() alone would not be seen.
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()
        for hasten in (lambda: None, self.process.terminate, self.process.kill):
            hasten()
            try:
                self.process.wait(GONE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(GONE_SECONDS)

    def last_words(self) -> str:
        lines = [line.strip() for line in self._stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def run(command: Sequence[str], environment: Mapping[str, str]) -> Answer:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {PROBE_SECONDS} s")
    return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


class Ssh(Transport):
    """`docker system dial-stdio` on another machine, reached by ssh."""

    def __init__(self, host: SshHost) -> None:
        self.host = host
        self.taken = Taken("ssh", f"{host.url} leads to it")
        self.children: List[Child] = []

    def open(self, bulk: bool = False) -> socket.socket:
        try:
            child = Child(self.host.dial(), os.environ)
        except OSError as error:
            raise Broken(f"{self.host.url} is reached by ssh, which does not run here ({error.strerror}): install openssh-client") from error
        self.children.append(child)
        return child.stream

    def why(self) -> Optional[str]:
        for child in self.children:
            child.end()  # only then all that it said is there
        words = next((words for words in map(Child.last_words, reversed(self.children)) if words), None)
        return words and f"{self.host.url}: {words.rstrip('.')}: see to it that 'docker --host {self.host.url} version' works here without a question"

    def close(self) -> None:
        for child in self.children:
            child.end()
        self.children = []


class Tls(Transport):
    """A TCP connection to a daemon whose certificate is verified, and which may verify ours."""

    def __init__(self, host: TlsHost) -> None:
        self.host = host
        self.taken = Taken("tls", f"{host.url} leads to it")

    def open(self, bulk: bool = False) -> socket.socket:
        context = self.context()
        try:
            stream = socket.create_connection((self.host.host, self.host.port), TLS_SECONDS)
        except OSError as error:
            raise Broken(f"{self.host.url} cannot be reached ({error.strerror or error}): start dockerd there, or correct the context") from error
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(stream, server_hostname=self.host.host)
        except OSError as error:
            stream.close()
            raise Broken(self.refusal(error)) from error

    def context(self) -> ssl.SSLContext:
        files: Tuple[str, ...] = (self.host.ca,)
        try:
            context = ssl.create_default_context(cafile=self.host.ca)
            # Python 3.13 began to want extensions that Docker's client does without, and so do many certificates that were made for it.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.host.pair:
                files = self.host.pair
                # A key with a password is an error: without this one, OpenSSL would ask whoever sits at the terminal.
                context.load_cert_chain(*files, password="")
        except OSError as error:
            remedy = "put another one into the context" if len(files) == 1 else "put others into the context, and a key without a password"
            raise Broken(f"{' and '.join(files)} cannot be used ({reason(error)}): {remedy}") from error
        return context

    def refusal(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.host.url} shows a certificate that does not hold ({error.verify_message}): correct it, or the context's ca.pem"
        if isinstance(error, ssl.SSLError) and re.search("ALERT.*(CERTIFICATE|UNKNOWN_CA)", error.reason or ""):
            ours = "our certificate" if self.host.pair else "us without a certificate"
            return f"{self.host.url} refuses {ours} ({error.reason}): put one into the context that its CA has signed"
        return f"{self.host.url} cannot be spoken to by TLS ({reason(error)}): start dockerd there with --tlsverify, or correct the context"

    def why(self) -> Optional[str]:
        try:
            with self.open() as stream:
                # That our certificate is refused is said only in place of the first answer.
                stream.sendall(PING)
                stream.recv(1)
        except Broken as error:
            return str(error)
        except OSError as error:
            return self.refusal(error)
        return None


def reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


class Exec(Transport):
    """`docker system dial-stdio` in the innermost hop, reached by one `docker exec -i` per hop."""

    taken = Taken("exec", "transport is exec")

    def __init__(self, hops: Sequence[str]) -> None:
        self.way = Way("this machine", ("docker", "--host", f"unix://{SOCKET}"), tuple(hops))
        # The first hop is a container of this machine's own daemon, whatever DOCKER_HOST or a context say.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.children: List[Child] = []
        self.begun: Optional[socket.socket] = None  # a stream that nobody has taken yet

    def begin(self) -> None:
        with contextlib.suppress(Broken):
            self.begun = self.open()

    def start(self, depth: int, argv: Sequence[str]) -> Child:
        """Start a command in the container of that depth."""
        self.children = [child for child in self.children if child.process.poll() is None]
        try:
            child = Child(self.way.into(depth, [*argv]), self.environment)
        except OSError as error:
            raise Broken(f"hops start with docker's command line client, which does not run here ({error.strerror}): install docker-cli") from error
        self.children.append(child)
        return child

    def open(self, bulk: bool = False) -> socket.socket:
        begun, self.begun = self.begun, None
        return begun or self.start(len(self.way.hops), ("docker", "system", "dial-stdio")).stream

    def why(self) -> Optional[str]:
        finding = UnixSocket(SOCKET).why()
        if finding:
            return finding
        for number in range(1, len(self.way.hops) + 1):
            state = run(self.way.state(number), self.environment)
            running = run(self.way.neighbours(number), self.environment).out.split() if missing(state) else []
            finding = fault(self.way, number, state, running)
            if finding:
                return (self.dying(number - 1) if number > 1 and state.rc != 0 and not missing(state) else None) or finding
        answer = run(self.way.into(len(self.way.hops), ["docker", "version", "--format", "{{.Server.Version}}"]), self.environment)
        return no_daemon(self.way, answer) or next((words for words in map(Child.last_words, reversed(self.children)) if words), None)

    def dying(self, number: int) -> Optional[str]:
        """Return what is wrong with a hop that said it runs, and in which nothing could be run: for a moment a dying one says so."""
        deadline = time.monotonic() + DYING_SECONDS
        while time.monotonic() < deadline:
            finding = fault(self.way, number, run(self.way.state(number), self.environment), [])
            if finding:
                return finding
            time.sleep(0.1)
        return None

    def close(self) -> None:
        for child in self.children:
            child.end()
        self.children = []


class Tunnel(Transport):
    """A TCP connection over the last hop for each stream of archives. Few bytes, as all questions are, go by exec.

    Exec starts the far end in the innermost hop with a one-time token, and stays: whichever end goes away, the other one learns of
    it there, even from a VM that was cut off and sends nothing any more. The near end is this process, or dials one hop above.
    """

    def __init__(self, hops: Sequence[str], or_exec: bool) -> None:
        self.exec = Exec(hops)
        self.or_exec = or_exec  # whether archives go by exec where there can be no tunnel, and small ones always
        self.refused = False
        self.spare: Optional[socket.socket] = None  # a tunnel that nobody has taken yet
        self.taken = Taken("exec", f"nothing of {FEW_BYTES >> 20} MiB or more was to be carried")

    def begin(self) -> None:
        self.exec.begin()

    def parts(self, size: Optional[int]) -> bool:
        return not self.or_exec or size is None or size >= FEW_BYTES

    def open(self, bulk: bool = False) -> socket.socket:
        if bulk and self.tunnelled():
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

    def why(self) -> Optional[str]:
        return self.exec.why()

    def close(self) -> None:
        if self.spare:
            self.spare.close()
        self.exec.close()

    def dig(self) -> socket.socket:
        """Return a stream through a new tunnel, or raise Broken with the reason why there can be none."""
        depth = len(self.exec.way.hops)
        far = self.exec.start(depth, (*TUNNEL, "listen"))
        near = self.exec.start(depth - 1, (*TUNNEL, "dial")) if depth > 1 else None
        try:
            # The far end may be a tenant's, who must not be able to have anything else dialled: so the address comes from
            # the docker daemon above it, and only the port is the far end's to say.
            address = self.address()
            stream, port = self.joined(far, near, address)
        except Broken as error:
            for child in filter(None, (far, near)):
                child.end()
            number, child = (depth - 1, near) if near and failed(near) else (depth, far)
            raise Broken(self.exec.way.blame(number, lacking(child.last_words() or str(error)))) from error
        threading.Thread(target=cut, args=(far, stream), daemon=True).start()
        self.taken = Taken("tunnel", f"TCP to port {port} of {address}, the address of {self.exec.way.hops[-1]}")
        return stream

    def address(self) -> str:
        """Return the address of the innermost hop."""
        answer = run(self.exec.way.addresses(len(self.exec.way.hops)), self.exec.environment)
        for word in answer.out.split() if answer.rc == 0 else ():
            with contextlib.suppress(ValueError):
                return str(ipaddress.IPv4Address(word))
        raise Broken("it has no IPv4 address of its own" if answer.rc == 0 else answer.line)

    def joined(self, far: Child, near: Optional[Child], address: str) -> Tuple[socket.socket, int]:
        """Return a stream that the far end has accepted, and the port there."""
        token = secrets.token_hex(32).encode()
        say(far.stream, token + b"\n" + address.encode() + b"\n")
        port = int(heard(r"listening (\d{1,5})", LISTENING_SECONDS, far.stream))
        if near:
            stream = near.stream
            say(stream, f"{address} {port}\n".encode())
        else:
            stream = connected(address, port)
        try:
            say(stream, token)
            heard("(accepted)", ACCEPTED_SECONDS, far.stream, stream)
        except BaseException:
            stream.close()
            raise
        return stream, port


def connected(address: str, port: int) -> socket.socket:
    try:
        stream = socket.create_connection((address, port), DIAL_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        raise Broken(f"port {port} of {address} cannot be reached from this machine: {error}") from error
    return stream


def say(stream: socket.socket, data: bytes) -> None:
    # Who is gone has said why: that is heard next.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.sendall(data)


def heard(pattern: str, seconds: float, speaker: socket.socket, silent: Optional[socket.socket] = None) -> str:
    """Return the word in the next line of the speaker that stands in the pattern's group. Until then the other stream must be silent."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n") and len(line) < LINE_BYTES:
        ready = select.select([speaker, silent] if silent else [speaker], [], [], max(0, deadline - time.monotonic()))[0]
        if not ready:
            raise Broken(f"the far end of the tunnel said nothing for {seconds:g} s")
        try:
            piece = ready[0].recv(1 if ready[0] is speaker else LINE_BYTES)
        except ConnectionResetError:
            piece = b""  # as an end, of one who had not read everything
        except OSError as error:
            raise Broken(f"the way to the tunnel broke: {error}") from error
        if ready[0] is silent:
            # Nobody speaks there unasked, so this is what Docker says of a program that it cannot run, or an impostor.
            raise Broken(f"instead of a tunnel: {text_of(piece)}" if piece else "the connection ended before it was accepted")
        if not piece:
            break
        line += piece
    text = text_of(line)
    found = re.fullmatch(pattern, text)
    if not found:
        raise Broken(text or "the tunnel ended before it was there")
    return found.group(1)


def failed(child: Child) -> bool:
    """Return whether a child that ended did so by itself. Docker says on standard output of what it cannot run."""
    return bool(child.last_words()) or child.process.returncode in (126, 127)


def text_of(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())


def lacking(words: str) -> str:
    """Return why the program of a tunnel does not run, by what was said instead."""
    if re.search("can't open file|executable file not found|no such file or directory", words):
        return f"it has no {PROGRAM}: it is not made from the machine image, or from an older one"
    return words


def cut(far: Child, stream: socket.socket) -> None:
    """End a stream when its far end is gone without having carried everything."""
    if far.process.wait() != 0:
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)


def no_daemon(way: Way, answer: Answer) -> Optional[str]:
    """Return what is wrong with the daemon in the innermost hop, which runs, by the answer to `docker version` there."""
    if answer.rc == 0:
        return None
    number, text = len(way.hops), f"{answer.out}{answer.err}"
    if "executable file not found" in text or "no such file or directory" in text and answer.rc in (126, 127):
        return way.blame(number, "it has no docker client: install docker-cli in it")
    if "Cannot connect to the Docker daemon" in text or "error during connect" in text:
        return way.blame(number, "the docker daemon in it does not answer: start dockerd there")
    return way.blame(number, f"the docker daemon in it: {answer.line}")
