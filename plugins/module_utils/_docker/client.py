# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker SDK's own client on top of the streams of a transport.

Only this file imports the SDK. A daemon may be a tenant's: no answer is larger than untrusted.py allows, none takes
longer than ANSWER_SECONDS, and none leads anywhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import ssl
import threading
import time
import traceback
from typing import Any, Iterator, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.pace import Late, Paced, slowest
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    LARGEST,
    Unexpected,
    joined,
    mapping,
    parsed,
    shown,
    text,
)
from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of
from ansible_collections.nested.kata.plugins.module_utils._docker.context import SOCKET
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import ANSWER_SECONDS, Transport

SDK_IMPORT_ERROR: str | None = None
try:
    from docker import APIClient, errors
    from docker import __version__ as SDK_VERSION
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from requests.adapters import HTTPAdapter
    from requests.exceptions import RequestException
    from requests.models import PreparedRequest, Response
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import HTTPError

    FAILURES = (RequestException, HTTPError, errors.DockerException)  # raised where no daemon reports the error
except ImportError:
    SDK_IMPORT_ERROR = traceback.format_exc()
    # Base classes of the classes below, none of which is used without the SDK.
    SDK_VERSION, DEFAULT_DOCKER_API_VERSION = "0", "0"
    # mypy forbids assignments to a class, and object is a different type.
    APIClient = HTTPAdapter = HTTPConnection = HTTPConnectionPool = object  # type: ignore[misc, assignment]

OLDEST_SDK = (5, 0, 3)
URL, BULK_URL = "http+docker://localhost", "http+docker://bulk"  # the same daemon, for requests and for archives
PLATFORM_API = (1, 48)  # the first in which an image can be saved for one platform (Docker 28)
PATIENCE = 3600.0  # seconds that all answers of a daemon may take in one task, but for archives
LONGEST_LINE = 1 << 16  # bytes of a header, or of the size of a chunk
LARGEST_HEAD = 1 << 20  # bytes of a status, headers, and what comes before them
LARGEST_ERROR = 1 << 16  # bytes
API_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")


def sdk_too_old(version: str = SDK_VERSION) -> bool:
    return version_of(version) < OLDEST_SDK


class Bounded(io.BufferedReader):
    """The reading end of a connection. The libraries ask it for lines of any length, and for chunks of the sizes that
    the daemon names, also negative ones, which would read all that comes.
    """

    head = 0  # bytes of the lines that were read in front of the body
    in_head = False

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(min(LONGEST_LINE + 1, LONGEST_LINE + 1 if size is None or size < 0 else size))
        self.head += len(line) if self.in_head else 0
        if len(line) > LONGEST_LINE or self.head > LARGEST_HEAD:
            raise Unexpected("the answer has more than any header takes")
        return line

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LARGEST:
            raise Unexpected(f"the answer has a piece of {size} bytes")
        if size is not None and size >= 0:
            return super().read(size)
        return joined(iter(lambda: super(Bounded, self).read(PIECE), b""))


class Answer(http.client.HTTPResponse):
    """An answer that is read within bounds."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.method = kwargs.get("method")
        self.silence = sock.gettimeout() or 0
        self.fp: Any = Bounded(Paced(self.fp.detach()))

    def begin(self) -> None:
        # A daemon may say without end that it is going to say something.
        reader = self.fp
        reader.in_head = True
        super().begin()
        reader.in_head = False
        # Before it begins a daemon prepares an archive; while it loads one, it has little to say.
        if self.method == "GET":
            reader.raw.limit = slowest(self.silence)


class Connection(HTTPConnection):
    """An HTTP connection over a stream that a transport opened."""

    response_class = Answer

    def __init__(self, adapter: Adapter, silence: float, bulk: bool) -> None:
        super().__init__("localhost", timeout=silence)
        self.adapter = adapter
        self.silence = silence
        self.bulk = bulk

    def connect(self) -> None:
        self.sock = self.adapter.transport.open(self.bulk)
        self.sock.settimeout(self.silence)
        self.adapter.streams.append(self.sock)

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        # A reused connection still has the time limit of the previous answer.
        if self.sock is not None:
            self.sock.settimeout(self.silence)
        self.adapter.hung_up = False
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        # A daemon that refuses an archive reports why and hangs up before it has read the whole of it. Its
        # answer can still be read, so a failure to send the rest is not an error yet.
        if self.adapter.hung_up:
            return
        try:
            super().send(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self.adapter.hung_up = True


class Pool(HTTPConnectionPool):
    def __init__(self, adapter: Adapter, silence: float, bulk: bool = False) -> None:
        super().__init__("localhost", timeout=silence)
        self.adapter = adapter
        self.silence = silence
        self.bulk = bulk

    def _new_conn(self) -> Connection:
        return Connection(self.adapter, self.silence, self.bulk)


class Adapter(HTTPAdapter):
    """Carries the requests of a session over a transport's streams."""

    def __init__(self, transport: Transport, silence: float) -> None:
        self.transport = transport
        self.hung_up = False  # the daemon hung up in the middle of the request
        self.streams: list[socket.socket] = []
        self.patience = PATIENCE
        self.pool = Pool(self, silence)
        self.bulk_pool = Pool(self, silence, bulk=True)
        super().__init__()

    def get_connection(self, url: str, proxies: Mapping[str, str] | None = None) -> Pool:
        return self.bulk_pool if url.startswith(BULK_URL) else self.pool

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Mapping[str, str] | None = None, cert: Any = None
    ) -> Pool:
        # requests 2.32 and newer call this one.
        return self.get_connection(request.url or "")

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        response = super().send(request, *args, **kwargs)
        if response.is_redirect:
            raise Unexpected("the answer leads elsewhere, which no answer of a Docker daemon does")
        return response

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Break all streams when an answer takes longer, or all answers of this daemon together take too long: a limit
        between two bytes is none for a daemon that sends one now and then.
        """
        start, seconds = time.monotonic(), min(seconds, self.patience)
        late = threading.Timer(max(seconds, 0), self.break_off)
        late.daemon = True
        late.start()
        try:
            yield
        except Exception as error:
            if time.monotonic() - start < seconds:
                raise
            raise Late(f"the answer was not complete after {seconds:.0f} s") from error
        finally:
            late.cancel()
            self.patience -= time.monotonic() - start

    def break_off(self) -> None:
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        self.pool.close()
        self.bulk_pool.close()
        self.transport.close()


def api_version(daemon: Mapping[str, Any], known: str = DEFAULT_DOCKER_API_VERSION) -> str:
    """Return the newest version of the API that both sides know, or the daemon's oldest where it is newer than all
    versions that the SDK knows.

    That is safe: the requests of this collection have been the same since 1.24.
    """
    newest = min(one_version(daemon["ApiVersion"]), known, key=version_of)
    return max(newest, one_version(daemon.get("MinAPIVersion") or newest), key=version_of)


def one_version(value: Any) -> str:
    """Return a version of the API, which becomes a part of every URL."""
    if not API_VERSION.fullmatch(text(value, "a version of the API")):
        raise Unexpected(f"a version of the API is {shown(value, 40)!r}")
    return str(value)


def described(platform: str) -> str:
    """Return a platform as the API spells it."""
    return json.dumps(dict(zip(("os", "architecture", "variant"), platform.split("/"))))


def read(response: Response) -> None:
    """Read an answer, but for errors that are longer than anybody reads.

    Not as the library does it, which inflates what is compressed, to a thousand times its size, and guesses encodings.
    """
    response._content = joined(
        response.raw.stream(PIECE, decode_content=False), LARGEST if response.ok else LARGEST_ERROR
    )
    response._content_consumed = True
    response.encoding = "utf-8"


class Client(APIClient):
    """The SDK's client for a daemon at any depth."""

    # The SDK has several adapters, one for each kind of URL, and its type is that of the first.
    _custom_adapter: Adapter  # type: ignore[assignment]

    def __init__(self, transport: Transport, silence: float) -> None:
        # With a version given the SDK does not connect before the adapter is in place.
        super().__init__(base_url=f"unix://{SOCKET}", version=DEFAULT_DOCKER_API_VERSION, timeout=ANSWER_SECONDS)
        self.silence = silence
        self.trust_env = False  # proxies and ~/.netrc are for the network
        self.base_url = URL
        self._custom_adapter = Adapter(transport, silence)
        self.mount("http+docker://", self._custom_adapter)

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send a request. An answer that is no stream is read here."""
        streamed = kwargs.pop("stream", False)
        with contextlib.nullcontext() if streamed else self._custom_adapter.within(ANSWER_SECONDS):
            response = super().send(request, stream=True, **kwargs)
            if not streamed:
                read(response)
        if streamed and not response.ok:
            with self._custom_adapter.within(ANSWER_SECONDS):
                read(response)
        return response

    # The SDK calls it for every answer.
    def _result(self, response: Response, json: bool = False, binary: bool = False) -> Any:
        self._raise_for_status(response)
        return parsed(response.content) if json else super()._result(response, json, binary)

    def negotiate(self) -> Mapping[str, Any]:
        """Choose the version of the API, and return what the daemon says of itself with it."""
        told = mapping(self.version(api_version=False), "its version")
        self._version = api_version(told)
        return told

    def hung_up(self) -> bool:
        """Return whether the daemon hung up in the middle of the request that is being sent."""
        return self._custom_adapter.hung_up

    def bulk(self, size: int | None, path: str, *words: str) -> str:
        """Return the URL of a request that sends or receives an archive of about that size (None: unknown)."""
        url: str = self._url(path, *words)
        return url.replace(URL, BULK_URL, 1) if self._custom_adapter.transport.parts(size) else url

    def saved(self, reference: str, platform: str) -> Any:
        """Return the response whose body is the archive of an image."""
        chosen = {"platform": described(platform)} if platform and version_of(self._version) >= PLATFORM_API else {}
        response = self._get(
            self.bulk(None, "/images/{0}/get", reference), params=chosen, stream=True, timeout=self.silence
        )
        self._raise_for_status(response)
        return response

    def loaded(self, body: Iterator[bytes], size: int | None = None) -> Any:
        """Return the response whose body is the daemon's messages while and after it loads an archive."""
        headers = {"Content-Type": "application/x-tar"}
        response = self._post(
            self.bulk(size, "/images/load"),
            data=body,
            headers=headers,
            params={"quiet": "0"},
            stream=True,
            timeout=self.silence,
        )
        self._raise_for_status(response)
        return response
