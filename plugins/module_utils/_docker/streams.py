# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Duplex byte streams to the docker daemon behind a socket, on another machine or at the end of hops.

A Transport has three operations: `open()` returns a connected stream socket, `why()` returns the fault of the way
after a stream broke, `close()` ends everything. UnixSocket connects to a daemon of this machine, Ssh and Tls to one of
another machine, Exec to one at the end of hops. Into a VM `docker exec` moves 8 KiB per round trip: Tunnel (tunnel.py)
avoids it for archives.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Callable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.files import reading_end
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.context import SOCKET, SshHost, TlsHost
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import Answer, Way, fault, missing

ANSWER_SECONDS = 60  # how long a daemon may take to answer a question
PROBE_SECONDS = 30  # how long a command may take that examines why a stream broke
PROBE_BYTES = 1 << 20  # how much it may write
DYING_SECONDS = 5  # how long a container that was killed may be reported to run
GONE_SECONDS = 5  # how long a child may take to end by itself once its stream is closed
STDERR_BYTES = 4096
# Messages of a docker client about a container in which nothing can be run any more.
STOPPED = re.compile(r"container \S+ is not running|cannot exec in a stopped (state|container)", re.IGNORECASE)
TLS_SECONDS = 20  # how long it may take to be connected to a daemon on TCP
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"


class Broken(Exception):
    """A stream or the way to a daemon is broken: the message describes the fault."""


@dataclass(frozen=True)
class Taken:
    """The way that archives take (socket, ssh, tls, exec or tunnel), and why this one."""

    name: str
    reason: str


class Transport:
    """Brings duplex byte streams to one daemon."""

    taken: Taken  # it may change when the first stream for archives is opened

    def begin(self) -> None:
        """Start early with the work that delays the first stream. Errors are raised when that is opened."""

    def open(self, bulk: bool = False) -> socket.socket:
        """Return a connected stream socket; every call is a connection of its own. `bulk`: it carries archives, not
        only requests.
        """
        raise NotImplementedError

    def parts(self, size: int | None) -> bool:
        """Return whether an archive of that size (None: unknown) takes another way than requests, a stream opened with
        `bulk`.
        """
        return False

    def tunnelled(self) -> bool:
        """Return whether a tunnel carries archives of unknown size. This makes the tunnel."""
        return False

    def why(self) -> str | None:
        """Examine the way to the daemon after a stream broke, and return its fault, or None."""
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

    def why(self) -> str | None:
        try:
            self.open().close()
        except Broken as error:
            return str(error)
        return None


class Child:
    """A process whose standard input and output are one stream socket. Its last words on stderr are kept."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.stream, theirs = socket.socketpair()
        try:
            # A session of its own: Ctrl-C ends it by closing its stream, as everything else does.
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            self.stream.close()
            raise
        finally:
            theirs.close()
        self._stderr = b""
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        pipe = reading_end(self.process.stderr)
        for line in iter(lambda: pipe.readline(STDERR_BYTES), b""):
            self._stderr = (self._stderr + line)[-STDERR_BYTES:]
        pipe.close()

    def end(self) -> None:
        """Close the stream, which ends the process, and reap it."""
        with contextlib.suppress(OSError):
            # A response that was not read to its end still holds the socket open: close() alone would have no effect.
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()
        ways: tuple[Callable[[], None], ...] = (lambda: None, self.process.terminate, self.process.kill)
        for hasten in ways:
            hasten()
            try:
                self.process.wait(GONE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(GONE_SECONDS)

    def last_words(self) -> str:
        lines = [line.strip() for line in self._stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        return shown(lines[-1]) if lines else ""


def run(command: Sequence[str], environment: Mapping[str, str]) -> Answer:
    """Run a command, which may write without end where it runs in somebody's container."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    late = threading.Timer(PROBE_SECONDS, process.kill)
    late.start()
    try:
        with process, ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda pipe: some_of(pipe, process), (process.stdout, process.stderr))
        # The timer ends when it killed the process, or when it is cancelled below.
        if not late.is_alive():
            return Answer(124, "", f"no answer within {PROBE_SECONDS} s")
    finally:
        late.cancel()
    return Answer(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def some_of(pipe: IO[bytes] | None, process: subprocess.Popen[bytes]) -> bytes:
    """Return what a command writes. One that writes too much is killed."""
    found = reading_end(pipe).read(PROBE_BYTES + 1)
    if len(found) > PROBE_BYTES:
        process.kill()
    return found[:PROBE_BYTES]


class Ssh(Transport):
    """`docker system dial-stdio` on another machine, reached by ssh."""

    def __init__(self, host: SshHost) -> None:
        self.host = host
        self.taken = Taken("ssh", f"{host.url} leads to it")
        self.children: list[Child] = []

    def open(self, bulk: bool = False) -> socket.socket:
        try:
            child = Child(self.host.dial(), os.environ)
        except OSError as error:
            raise Broken(
                f"{self.host.url} is reached by ssh, which does not run here ({error.strerror}): install openssh-client"
            ) from error
        self.children.append(child)
        return child.stream

    def why(self) -> str | None:
        for child in self.children:
            child.end()  # only then its last words are complete
        words = next((words for words in map(Child.last_words, reversed(self.children)) if words), None)
        return (
            words
            and f"{self.host.url}: {words.rstrip('.')}: make sure that 'docker --host {self.host.url} version'"
            " works here without a prompt"
        )

    def close(self) -> None:
        for child in self.children:
            child.end()
        self.children = []


class Tls(Transport):
    """A TCP connection to a daemon whose certificate is verified, and which may verify the client's."""

    def __init__(self, host: TlsHost) -> None:
        self.host = host
        self.taken = Taken("tls", f"{host.url} leads to it")

    def open(self, bulk: bool = False) -> socket.socket:
        context = self.context()
        try:
            stream = socket.create_connection((self.host.host, self.host.port), TLS_SECONDS)
        except OSError as error:
            raise Broken(
                f"{self.host.url} cannot be reached ({error.strerror or error}): start dockerd there, or correct the"
                " context"
            ) from error
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(stream, server_hostname=self.host.host)
        except OSError as error:
            stream.close()
            raise Broken(self.refusal(error)) from error

    def context(self) -> ssl.SSLContext:
        files: tuple[str, ...] = (self.host.ca,)
        try:
            context = ssl.create_default_context(cafile=self.host.ca)
            # Python 3.13 began to require extensions that Docker's client does not, and that many certificates made for
            # it lack.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.host.pair:
                certificate, key = files = self.host.pair
                # A key with a password is an error: without this, OpenSSL would ask for it at the terminal.
                context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            remedy = (
                "put another one into the context"
                if len(files) == 1
                else "put others into the context, and a key without a password"
            )
            raise Broken(f"{' and '.join(files)} cannot be used ({reason(error)}): {remedy}") from error
        return context

    def refusal(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"{self.host.url} presents a certificate that is not valid ({error.verify_message}): correct it, or the"
                " context's ca.pem"
            )
        if isinstance(error, ssl.SSLError) and re.search("ALERT.*(CERTIFICATE|UNKNOWN_CA)", error.reason or ""):
            refused = "the client's certificate" if self.host.pair else "a client without a certificate"
            return (
                f"{self.host.url} refuses {refused} ({error.reason}): put one into the context that its CA has signed"
            )
        return (
            f"{self.host.url} cannot be reached over TLS ({reason(error)}): start dockerd there with --tlsverify, or"
            " correct the context"
        )

    def why(self) -> str | None:
        try:
            with self.open() as stream:
                # A daemon refuses the client's certificate only in place of its first answer.
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
        # The first hop is a container of this machine's own daemon, whatever DOCKER_HOST or a context name.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.children: list[Child] = []
        self._starting = threading.Lock()
        self.begun: socket.socket | None = None  # a stream that was not taken yet

    def begin(self) -> None:
        with contextlib.suppress(Broken):
            self.begun = self.open()

    def start(self, depth: int, argv: Sequence[str]) -> Child:
        """Start a command in the container of that depth."""
        try:
            child = Child(self.way.into(depth, [*argv]), self.environment)
        except OSError as error:
            raise Broken(
                f"hops start with docker's command line client, which does not run here ({error.strerror}): install"
                " docker-cli"
            ) from error
        with self._starting:
            self.children = [*(other for other in self.children if other.process.poll() is None), child]
        return child

    def end(self, child: Child) -> None:
        """End a child whose last words say nothing of the daemon."""
        child.end()
        with self._starting:
            self.children = [other for other in self.children if other is not child]

    def open(self, bulk: bool = False) -> socket.socket:
        begun, self.begun = self.begun, None
        return begun or self.start(len(self.way.hops), ("docker", "system", "dial-stdio")).stream

    def why(self) -> str | None:
        finding = UnixSocket(SOCKET).why()
        if finding:
            return finding
        for number in range(1, len(self.way.hops) + 1):
            state = run(self.way.state(number), self.environment)
            running = run(self.way.neighbours(number), self.environment).out.split() if missing(state) else []
            finding = fault(self.way, number, state, running)
            if finding:
                return (
                    self.dying(number - 1) if number > 1 and state.rc != 0 and not missing(state) else None
                ) or finding
        answer = run(
            self.way.into(len(self.way.hops), ["docker", "version", "--format", "{{.Server.Version}}"]),
            self.environment,
        )
        finding = self.dying(len(self.way.hops)) if answer.rc != 0 and STOPPED.search(answer.err) else None
        return (
            finding
            or no_daemon(self.way, answer)
            or next((words for words in map(Child.last_words, reversed(self.children)) if words), None)
        )

    def dying(self, number: int) -> str | None:
        """Return the fault of a hop that is reported to run although nothing runs in it, as when it is ending."""
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


def no_daemon(way: Way, answer: Answer) -> str | None:
    """Return the fault of the daemon in the innermost hop, which runs, according to the answer to `docker version`
    there.
    """
    if answer.rc == 0:
        return None
    number, text = len(way.hops), f"{answer.out}{answer.err}"
    if "executable file not found" in text or ("no such file or directory" in text and answer.rc in (126, 127)):
        return way.blame(number, "it has no docker client: install docker-cli in it")
    if "Cannot connect to the Docker daemon" in text or "error during connect" in text:
        return way.blame(number, "the docker daemon in it does not answer: start dockerd there")
    return way.blame(number, f"the docker daemon in it: {answer.line}")
