# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of the docker daemon at an endpoint: names, layers and archives, requested with the Docker SDK's own
client.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import re
import socket
from typing import Any, Iterable, Iterator, Mapping

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.pace import Late
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    Unexpected,
    array,
    mapping,
    shown,
    text,
    texts,
)
from ansible_collections.nested.kata.plugins.module_utils._common.versions import written
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.messages import messages, trailing_error
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import ANSWER_SECONDS, Broken, Transport
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import FEW_BYTES
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, short
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import platform_of

TAIL = 2048  # of an archive, kept to find an error that the daemon wrote behind it
ANSWER_BYTES = 4096
NAME = re.compile(r"[\w./:@-]+", re.ASCII)  # what names have in them; no image has <none>:<none>, or worse
NOT_FOUND, CONFLICT = 404, 409
# What is raised where an answer has other types than it should.
UNEXPECTED = (Unexpected, AttributeError, KeyError, TypeError)
PACKAGES = "package python3-docker of Debian, docker of PyPI"


class DaemonError(Exception):
    """One line that names a location and what is wrong with it or with the way there."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


def sdk() -> Any:
    """Return client.py, which imports the SDK: that takes about as long as a connection through hops, so both may
    proceed at once.
    """
    # Not importlib: Ansible ships the modules in import statements.
    from ansible_collections.nested.kata.plugins.module_utils._docker import client  # noqa: PLC0415

    return client


def require_sdk() -> None:
    """Raise Refused where there is no SDK, or one that is too old."""
    client = sdk()
    if client.SDK_IMPORT_ERROR:
        raise Refused(missing_required_lib(f"docker ({PACKAGES})"), exception=client.SDK_IMPORT_ERROR)
    if client.sdk_too_old():
        raise Refused(
            f"the Docker SDK for Python here is {client.SDK_VERSION}, and {written(client.OLDEST_SDK)} is needed:"
            f" upgrade {PACKAGES}"
        )


def plainly(error: BaseException, seconds: float) -> str:
    """Return what broke a stream, without the libraries that it came through."""
    causes, further = [error], error.__cause__ or error.__context__
    while further:
        causes.append(further)
        further = further.__cause__ or further.__context__
    if any(isinstance(cause, socket.timeout) for cause in causes):
        return f"nothing was read or written for {seconds:g} s"
    if any(
        isinstance(cause, (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError))
        for cause in causes
    ):
        return "the connection ended in the middle"
    for cause in causes:
        if isinstance(cause, http.client.BadStatusLine):
            return f"the server there is not a docker daemon: {str(cause).strip()[:200]!r}"
    # urllib3 1.26 leaves a TypeError of its own at the end of every chain.
    root = [cause for cause in causes if not isinstance(cause, TypeError)][-1]
    return " ".join(str(root).split()) or type(root).__name__


def beginning(pieces: Iterable[bytes], enough: int) -> tuple[Iterable[bytes], int | None]:
    """Return the same pieces, and their size where that is less than enough."""
    rest, ahead, size = iter(pieces), [], 0
    for piece in rest:
        ahead.append(piece)
        size += len(piece)
        if size >= enough:
            return itertools.chain(ahead, rest), None
    return ahead, size


class Daemon:
    """The daemon at an endpoint. `silence`: seconds without a byte after which a transfer is aborted.

    `transport`: the transport to it, where it was begun already.
    """

    def __init__(
        self, endpoint: Endpoint, silence: float = 600, title: str = "", transport: Transport | None = None
    ) -> None:
        self.endpoint = endpoint
        self.title = f"{title} {endpoint}".strip()
        self.silence = silence
        self.transport = transport or endpoint.transport()
        self._sdk = sdk()
        self.client = self._sdk.Client(self.transport, silence)
        self._info: Mapping[str, Any] | None = None
        try:
            with self.reporting():
                self._version: Mapping[str, Any] = self.client.negotiate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    @contextlib.contextmanager
    def reporting(self, doing: str = "", seconds: float = ANSWER_SECONDS) -> Iterator[None]:
        """Turn every error into one line that names this daemon."""
        subject = ": ".join(filter(None, (self.title, doing)))
        try:
            yield
        except Broken as error:
            raise DaemonError(f"{subject}: {error}") from error
        except self._sdk.errors.APIError as error:
            raise DaemonError(f"{subject}: {error.explanation or error}") from error
        except Late as error:
            raise DaemonError(f"{subject}: {self.transport.why() or error}") from error
        except UNEXPECTED as error:
            raise DaemonError(f"{subject}: no Docker daemon answers like that: {error}") from error
        except (*self._sdk.FAILURES, OSError, http.client.HTTPException, ValueError) as error:
            raise DaemonError(f"{subject}: {self.transport.why() or plainly(error, seconds)}") from error

    def image(self, reference: str) -> Image | None:
        """Return the image of this name, or None."""
        with self.reporting(f"inspecting {reference}"):
            try:
                return Image.parse(self.client.inspect_image(reference))
            except self._sdk.errors.ImageNotFound:
                return None

    def _images(self) -> list[dict[str, Any]]:
        return [mapping(image, "an image") for image in array(self.client.images(), "the list of images")]

    def tags(self) -> list[str]:
        """Return the names of all images."""
        with self.reporting("listing its images"):
            return sorted(
                {
                    tag
                    for found in self._images()
                    for tag in texts(found.get("RepoTags"), "RepoTags")
                    if NAME.fullmatch(tag)
                }
            )

    def info(self) -> Mapping[str, Any]:
        """Return the daemon's description of itself. It is requested once, since no other request costs a daemon as
        much.
        """
        if self._info is None:
            with self.reporting("asking for its storage"):
                self._info = mapping(self.client.info(), "its description")
        return self._info

    def platform(self) -> str:
        """Return the platform that its containers run on by default."""
        with self.reporting("asking for its platform"):
            return platform_of(*(text(self._version.get(part) or "", part) for part in ("Os", "Arch")))

    def has_containerd_store(self) -> bool:
        """Return whether images are in containerd's store, where an id is the digest of a manifest."""
        with self.reporting("asking for its storage"):
            return any(
                "containerd.snapshotter" in " ".join(texts(pair, "DriverStatus"))
                for pair in array(self.info().get("DriverStatus"), "DriverStatus")
            )

    def layers(self) -> list[tuple[str, ...]]:
        """Return the layers of each image, also of those that have no name."""
        with self.reporting("listing its layers"):
            found = []
            for image_id in {text(image["Id"], "Id") for image in self._images()}:
                try:
                    found.append(Image.parse(self.client.inspect_image(image_id)).layers)
                except self._sdk.errors.ImageNotFound:
                    continue  # it was removed since
            return found

    def tag(self, image_id: str, name: str) -> None:
        """Give a name to an image."""
        repository, _dummy, tag = name.rpartition(":")
        with self.reporting(f"naming {short(image_id)} {name}"):
            self.client.tag(image_id, repository, tag)

    def untag(self, name: str) -> str | None:
        """Remove a name, and the image where it was the last one; return why the daemon keeps it, or None."""
        with self.reporting(f"removing the name {name}"):
            try:
                self.client.remove_image(name)
            except self._sdk.errors.APIError as error:
                if error.status_code not in (NOT_FOUND, CONFLICT):
                    raise
                return str(error.explanation) if error.status_code == CONFLICT else None
        return None

    def tunnelled(self) -> bool:
        """Return whether archives from it take a tunnel."""
        with self.reporting("asking for a tunnel"):
            return self.transport.tunnelled()

    def save(self, reference: str, platform: str = "") -> Iterator[bytes]:
        """Yield the archive of an image in pieces: of one platform, where the daemon can distinguish them."""
        with self.reporting(f"saving {reference}", self.silence):
            with contextlib.closing(self.client.saved(reference, platform)) as response:
                tail = b""
                for piece in iter(lambda: response.raw.read(PIECE), b""):
                    tail = (tail + piece[-TAIL:])[-TAIL:]
                    yield piece
            failure = trailing_error(tail)
            if failure:
                raise Broken(failure)

    def load(self, reference: str, pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Send the archive of an image and yield the daemon's messages.

        The daemon does not load an archive that breaks off because `pieces` raises.
        """
        whole = False

        def body() -> Iterator[bytes]:
            nonlocal whole
            for piece in pieces:
                if self.client.hung_up():
                    return
                yield piece
            whole = not self.client.hung_up()

        with self.reporting(f"loading {reference}", self.silence):
            size = None
            if self.transport.parts(0) != self.transport.parts(None):  # the size makes a difference
                pieces, size = beginning(pieces, FEW_BYTES)
            answer = self.client.loaded(body(), size)
            yield from messages(answer.raw.stream(ANSWER_BYTES, decode_content=False))
            if not whole:
                raise Broken(self.transport.why() or "it hung up before it had the whole archive")
