# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The docker daemon at the end of a socket or of any number of hops, spoken to with the docker SDK.

An Endpoint says where the daemon is, a Transport brings a duplex byte stream to it, a Daemon is the SDK's
own client on top of such streams.
"""
from __future__ import annotations

import contextlib
import getpass
import grp
import http.client
import os
import re
import socket
import subprocess
import threading
import traceback
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.nested.kata.plugins.module_utils.hops import NAME, Answer, Way, fault, missing
from ansible_collections.nested.kata.plugins.module_utils.image import Image, messages, trailing_error

SDK_IMPORT_ERROR: Optional[str] = None
try:
    from docker import APIClient
    from docker import __version__ as SDK_VERSION
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.adapters import HTTPAdapter
    from requests.exceptions import RequestException
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import HTTPError
except ImportError:
    SDK_IMPORT_ERROR = traceback.format_exc()
    # What the classes below are made from; nobody makes one of them without the SDK.
    SDK_VERSION, DEFAULT_DOCKER_API_VERSION = "0", "0"
    APIClient = HTTPAdapter = HTTPConnection = HTTPConnectionPool = object
    APIError = DockerException = ImageNotFound = RequestException = HTTPError = RuntimeError

OLDEST_SDK = (5, 0, 3)
SOCKET = "/var/run/docker.sock"

ANSWER_SECONDS = 60  # how long a daemon may take to answer a question
PROBE_SECONDS = 30  # how long a command may take that only looks why a stream broke
GONE_SECONDS = 5  # how long a child may take to end by itself once its stream is closed
STDERR_BYTES = 4096
PIECE = 1 << 20
TAIL = 2048  # of an archive, kept to find an error that the daemon wrote behind it
ANSWER_BYTES = 4096


class Broken(Exception):
    """What is wrong with a stream or the way to a daemon."""


class DaemonError(Exception):
    """One line that names the daemon and says what is wrong with it or the way there."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def version_of(text: str) -> Tuple[int, ...]:
    """Return the leading numbers of a version: 5.0.3 of `5.0.3+dfsg`."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in numbers.group().split(".")) if numbers else ()


def sdk_too_old(version: str = SDK_VERSION) -> bool:
    return version_of(version) < OLDEST_SDK


# Where a daemon is


@dataclass(frozen=True)
class Endpoint:
    """A daemon: behind a socket of this machine, or at the end of hops that start at this machine's own daemon."""

    socket: str = SOCKET
    hops: Tuple[str, ...] = ()

    @classmethod
    def parse(cls, option: Optional[Mapping[str, Any]]) -> Endpoint:
        """Take an option {socket | hops}; neither of them is this machine's own daemon."""
        found = {key: value for key, value in (option or {}).items() if value is not None}
        if len(found) > 1:
            raise ValueError("socket and hops exclude each other: hops start at this machine's own daemon")
        hops = tuple(found.get("hops", ()))
        for hop in hops:
            if not NAME.fullmatch(hop):
                raise ValueError(f"{hop!r} in hops is no name of a container (letters, digits, '_', '.' and '-')")
        path = found.get("socket", SOCKET)
        if not path.startswith("/"):
            raise ValueError(f"socket {path!r} is not the absolute path of a unix socket")
        return cls(socket=path, hops=hops)

    def __str__(self) -> str:
        return " > ".join(self.hops) if self.hops else self.socket

    def transport(self) -> Transport:
        return Exec(self.hops) if self.hops else UnixSocket(self.socket)


# How to get there


class Transport:
    """Brings duplex byte streams to one daemon."""

    def open(self) -> socket.socket:
        """Return a connected stream socket; every call is a connection of its own."""
        raise NotImplementedError

    def why(self) -> Optional[str]:
        """Return what is wrong with the way to the daemon, looked up after a stream broke; None: nothing that can be seen."""
        raise NotImplementedError

    def close(self) -> None:
        """End every stream and everything that was started for it."""


class UnixSocket(Transport):
    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> socket.socket:
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


class Exec(Transport):
    """`docker system dial-stdio` in the innermost hop, reached by one `docker exec -i` per hop."""

    def __init__(self, hops: Sequence[str]) -> None:
        self.way = Way("this machine", ("docker", "--host", f"unix://{SOCKET}"), tuple(hops))
        # The first hop is a container of this machine's own daemon, whatever DOCKER_HOST or a context say.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.children: List[Child] = []

    def open(self) -> socket.socket:
        self.children = [child for child in self.children if child.process.poll() is None]
        try:
            child = Child(self.way.into(len(self.way.hops), ["docker", "system", "dial-stdio"]), self.environment)
        except OSError as error:
            raise Broken(f"hops start with docker's command line client, which does not run here ({error.strerror}): install docker-cli") from error
        self.children.append(child)
        return child.stream

    def why(self) -> Optional[str]:
        finding = UnixSocket(SOCKET).why()
        if finding:
            return finding
        for number in range(1, len(self.way.hops) + 1):
            state = run(self.way.state(number), self.environment)
            running = run(self.way.neighbours(number), self.environment).out.split() if missing(state) else []
            finding = fault(self.way, number, state, running)
            if finding:
                return finding
        answer = run(self.way.into(len(self.way.hops), ["docker", "version", "--format", "{{.Server.Version}}"]), self.environment)
        return no_daemon(self.way, answer) or next((words for words in map(Child.last_words, reversed(self.children)) if words), None)

    def close(self) -> None:
        for child in self.children:
            child.end()
        self.children = []


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


# The SDK on top of it


class Connection(HTTPConnection):
    """An HTTP connection over a stream that a transport opened."""

    def __init__(self, adapter: Adapter, silence: float) -> None:
        super().__init__("localhost", timeout=silence)
        self.adapter = adapter
        self.silence = silence

    def connect(self) -> None:
        self.sock = self.adapter.transport.open()
        self.sock.settimeout(self.silence)

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        # A connection that is used again still has the time limit of the answer before.
        if self.sock is not None:
            self.sock.settimeout(self.silence)
        self.adapter.hung_up = False
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        # A daemon that refuses an archive says why and hangs up before it has read the whole of it. Its
        # answer is still there to be read, so what cannot be sent any more is not an error yet.
        if self.adapter.hung_up:
            return
        try:
            super().send(data)
        except (BrokenPipeError, ConnectionResetError):
            self.adapter.hung_up = True


class Pool(HTTPConnectionPool):
    def __init__(self, adapter: Adapter, silence: float) -> None:
        super().__init__("localhost", timeout=silence)
        self.adapter = adapter
        self.silence = silence

    def _new_conn(self) -> Connection:
        return Connection(self.adapter, self.silence)


class Adapter(HTTPAdapter):
    """Carries the requests of a session over a transport's streams."""

    def __init__(self, transport: Transport, silence: float) -> None:
        self.transport = transport
        self.hung_up = False  # the daemon stopped listening in the middle of the request
        self.pool = Pool(self, silence)
        super().__init__()

    def get_connection(self, url: str, proxies: Optional[Mapping[str, str]] = None) -> Pool:
        return self.pool

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Optional[Mapping[str, str]] = None, cert: Any = None) -> Pool:
        # requests 2.32 and newer ask this one.
        return self.pool

    def request_url(self, request: Any, proxies: Optional[Mapping[str, str]]) -> str:
        return request.path_url

    def close(self) -> None:
        super().close()
        self.pool.close()
        self.transport.close()


def api_version(daemon: Mapping[str, Any], known: str = DEFAULT_DOCKER_API_VERSION) -> str:
    """Return the newest version of the API that both sides know, or the daemon's oldest where it is newer than all the SDK knows.

    That is safe: what is asked here has been the same since 1.24.
    """
    newest = min(str(daemon["ApiVersion"]), known, key=version_of)
    return max(newest, str(daemon.get("MinAPIVersion") or newest), key=version_of)


def plainly(error: BaseException, seconds: float) -> str:
    """Return what broke a stream, without the libraries that it came through."""
    causes = [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    if any(isinstance(cause, socket.timeout) for cause in causes):
        return f"nothing was read or written for {seconds:g} s"
    if any(isinstance(cause, (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError)) for cause in causes):
        return "the connection ended in the middle"
    for cause in causes:
        if isinstance(cause, http.client.BadStatusLine):
            return f"what answers there is no docker daemon: {cause.line.strip()[:200]!r}"
    # urllib3 1.26 leaves a TypeError of its own at the end of every chain.
    root = [cause for cause in causes if not isinstance(cause, TypeError)][-1]
    return " ".join(str(root).split()) or type(root).__name__


class Client(APIClient):
    """The SDK's client for a daemon at any depth."""

    def __init__(self, transport: Transport, silence: float) -> None:
        # With a version given the SDK does not connect: nothing is dialled before our adapter is in place.
        super().__init__(base_url=f"unix://{SOCKET}", version=DEFAULT_DOCKER_API_VERSION, timeout=ANSWER_SECONDS)
        self.silence = silence
        self.trust_env = False  # proxies and ~/.netrc are for the network
        self.base_url = "http+docker://localhost"
        self._custom_adapter = Adapter(transport, silence)
        self.mount("http+docker://", self._custom_adapter)

    def negotiate(self) -> None:
        self._version = api_version(self.version(api_version=False))

    def hung_up(self) -> bool:
        """Return whether the daemon stopped listening in the middle of the request that is being sent."""
        return self._custom_adapter.hung_up

    def saved(self, reference: str) -> Any:
        """Return the response whose body is the archive of an image."""
        response = self._get(self._url("/images/{0}/get", reference), stream=True, timeout=self.silence)
        self._raise_for_status(response)
        return response

    def loaded(self, body: Iterator[bytes]) -> Any:
        """Return the response whose body is what the daemon says while and after it loads an archive."""
        headers = {"Content-Type": "application/x-tar"}
        response = self._post(self._url("/images/load"), data=body, headers=headers, params={"quiet": "0"}, stream=True, timeout=self.silence)
        self._raise_for_status(response)
        return response


class Daemon:
    """The daemon at an endpoint, asked about images. `silence`: seconds without a byte after which a transfer is given up."""

    def __init__(self, endpoint: Endpoint, silence: float = 600, title: str = "") -> None:
        self.endpoint = endpoint
        self.title = f"{title} {endpoint}".strip()
        self.silence = silence
        self.transport = endpoint.transport()
        self.client = Client(self.transport, silence)
        try:
            with self.telling():
                self.client.negotiate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    @contextlib.contextmanager
    def telling(self, doing: str = "", seconds: float = ANSWER_SECONDS) -> Iterator[None]:
        """Turn whatever goes wrong into one line that names this daemon."""
        subject = ": ".join(filter(None, (self.title, doing)))
        try:
            yield
        except Broken as error:
            raise DaemonError(f"{subject}: {error}") from error
        except APIError as error:
            raise DaemonError(f"{subject}: {error.explanation or error}") from error
        except (RequestException, HTTPError, DockerException, OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise DaemonError(f"{subject}: {self.transport.why() or plainly(error, seconds)}") from error

    def image(self, reference: str) -> Optional[Image]:
        """Return the image of this name, or None."""
        with self.telling(f"inspecting {reference}"):
            try:
                return Image.parse(self.client.inspect_image(reference))
            except ImageNotFound:
                return None

    def tags(self) -> List[str]:
        """Return the names of all images."""
        with self.telling("listing its images"):
            return sorted({tag for found in self.client.images() for tag in found.get("RepoTags") or () if tag != "<none>:<none>"})

    def has_containerd_store(self) -> bool:
        """Return whether images lie in containerd's store, where an id is the digest of a manifest."""
        with self.telling("asking for its storage"):
            return any("containerd.snapshotter" in " ".join(map(str, pair)) for pair in self.client.info().get("DriverStatus") or ())

    def save(self, reference: str) -> Iterator[bytes]:
        """Yield the archive of an image in pieces."""
        with self.telling(f"saving {reference}", self.silence):
            response, tail = self.client.saved(reference), b""
            for piece in iter(lambda: response.raw.read(PIECE), b""):
                tail = (tail + piece[-TAIL:])[-TAIL:]
                yield piece
            failure = trailing_error(tail)
            if failure:
                raise Broken(failure)

    def load(self, reference: str, pieces: Iterable[bytes]) -> Iterator[dict]:
        """Send the archive of an image and yield the messages that the daemon answers with.

        An archive that breaks off, because `pieces` raises, is not loaded.
        """
        whole = False

        def body() -> Iterator[bytes]:
            nonlocal whole
            for piece in pieces:
                if self.client.hung_up():
                    return
                yield piece
            whole = not self.client.hung_up()

        with self.telling(f"loading {reference}", self.silence):
            yield from messages(self.client.loaded(body()).iter_content(ANSWER_BYTES))
            if not whole:
                raise Broken(self.transport.why() or "it hung up before it had the whole archive")
