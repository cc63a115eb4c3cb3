# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker SDK's own client on top of the streams of a transport.

Only this file imports the SDK.
"""

from __future__ import annotations

import json
import ssl
import traceback
from typing import Any, Iterator, Mapping

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
    from requests.models import PreparedRequest
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


def sdk_too_old(version: str = SDK_VERSION) -> bool:
    return version_of(version) < OLDEST_SDK


class Connection(HTTPConnection):
    """An HTTP connection over a stream that a transport opened."""

    def __init__(self, adapter: Adapter, silence: float, bulk: bool) -> None:
        super().__init__("localhost", timeout=silence)
        self.adapter = adapter
        self.silence = silence
        self.bulk = bulk

    def connect(self) -> None:
        self.sock = self.adapter.transport.open(self.bulk)
        self.sock.settimeout(self.silence)

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
    newest = min(str(daemon["ApiVersion"]), known, key=version_of)
    return max(newest, str(daemon.get("MinAPIVersion") or newest), key=version_of)


def described(platform: str) -> str:
    """Return a platform as the API spells it."""
    return json.dumps(dict(zip(("os", "architecture", "variant"), platform.split("/"))))


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

    def negotiate(self) -> None:
        self._version = api_version(self.version(api_version=False))

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
