# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locations of images, each opened as a source or as a destination: daemons and archive files.

What reads and writes archives is imported when there is one, since most tasks have only daemons and begin earlier so.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Callable, ClassVar, Collection, Generator, Iterator, Mapping, Protocol, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.pace import Late
from ansible_collections.nested.kata.plugins.module_utils._docker.context import SOCKET
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.messages import refusal, unpacking
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Taken, Transport
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import Packing
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import Daemon, DaemonError
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, same, short
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Store, Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    Part,
    base_held,
    chain_ids,
    left_out,
    verified,
)
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Sent, Step
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import normal
from ansible_collections.nested.kata.plugins.module_utils._image.reference import absent

# Containerd's store gives an image its name before it is unpacked, and forgets the image that had the name. So there it
# is loaded under this name, which it loses when it is complete. An image that an interrupted task left under it goes
# with the next image.
INCOMING = "nested-kata.invalid/incoming:latest"


class LoadRefused(DaemonError):
    """The daemon read an archive and refused it."""


# The interfaces


class Source(Protocol):
    """A location that has the images, opened."""

    title: str  # names it in messages
    read_from: str  # how the last image was read

    @property
    def taken(self) -> Taken | None:
        """The way that archives took, where there is a choice."""

    def image(self, reference: str, own: Callable[[], str]) -> Image | None:
        """Return the image of this name, id or digest, or None. `own`: returns the destinations' platform, or nothing
        where they have several or none.
        """

    def absence(self, reference: str) -> str:
        """Return the message about an image that it does not have."""

    def lacking(self, reference: str) -> Mapping[str, str]:
        """Return the layers of an image that it does not have, and why."""

    @property
    def passed_over(self) -> Sequence[str]:
        """What it has beside images, or images that cannot be read, and why."""

    def by_content(self) -> bool:
        """Return whether its image ids differ from those of other locations."""

    def parts(self, reference: str, image: Image, wanted: Collection[str]) -> Generator[Part, None, None]:
        """Yield the parts of an image: of its layers those that are wanted, or all."""

    def forgo(self, why: Unreadable) -> bool:
        """Read layers in another way from now on; return whether there is one."""

    def close(self) -> None:
        """Close what was opened."""


class Destination(Protocol):
    """A location that gets the images, opened."""

    title: str  # names it in messages
    status: str  # what it is doing with a completely received image
    whole: bool  # it is written as a whole, when one of its images differs

    @property
    def taken(self) -> Taken | None:
        """The way that archives took, where there is a choice."""

    def platform(self) -> str:
        """Return the platform of what runs there, or nothing."""

    def image(self, name: str) -> Image | None:
        """Return the image of this name or id, or None."""

    def tags(self) -> list[str]:
        """Return the names of all images beside those of the task, which may be among them."""

    def by_content(self) -> bool:
        """Return whether its image ids differ from those of other locations."""

    def look_for_layers(self) -> None:
        """Note the layers that it has, where that makes a difference."""

    def leave_out(self, image: Image) -> tuple[set[str], str]:
        """Return the layers that need not be sent, and the reason."""

    def settle(self, step: Step) -> Sent | None:
        """Carry out a step that needs nothing of the source; return None where the image must be sent."""

    def send(self, step: Step, parts: Iterator[Part], leave_out: Collection[str]) -> Sent:
        """Take in an image."""

    def finish(self) -> None:
        """Complete the work when all images were sent."""

    def prune(self, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """Remove names, and yield each of them with the reason why it is kept, or None."""

    def close(self) -> None:
        """Close what was opened, and remove what was not completed."""


class Location(Protocol):
    """Where images are."""

    kind: ClassVar[str]  # names it in messages
    prunable: ClassVar[bool]  # whether it may have images that are not the task's

    def transport(self) -> Transport | None:
        """Return a new transport to it, where one is needed."""

    def source(self, transport: Transport | None, silence: float, platform: str) -> Source:
        """Open the location to read images, of one platform where one is given."""

    def destination(self, transport: Transport | None, silence: float, names: Collection[str]) -> Destination:
        """Open the location to write images under these names."""


# Sources


class DaemonSource:
    """A daemon as a source."""

    passed_over: Sequence[str] = ()

    def __init__(self, daemon: Daemon, platform: str) -> None:
        self._daemon, self._platform = daemon, platform and normal(platform)
        self.title = daemon.title
        self.read_from = ""
        self._no_store = no_store(daemon.endpoint)  # why its layers cannot be read one by one
        self._asking = threading.Lock()  # several destinations are looked at in parallel, and each may ask

    @property
    def taken(self) -> Taken | None:
        return self._daemon.transport.taken

    def image(self, reference: str, own: Callable[[], str]) -> Image | None:
        return self._daemon.image(reference)

    def absence(self, reference: str) -> str:
        return absent(reference, self._daemon.tags())

    def lacking(self, reference: str) -> Mapping[str, str]:
        return {}

    def by_content(self) -> bool:
        with self._asking:
            return self._daemon.has_containerd_store()

    def forgo(self, why: Unreadable) -> bool:
        """Use `docker save` from now on."""
        self._no_store = str(why)
        return True

    def close(self) -> None:
        self._daemon.close()

    def parts(self, reference: str, image: Image, wanted: Collection[str]) -> Generator[Part, None, None]:
        """Yield the parts of an image: from the daemon's store the wanted layers, by `docker save` all of them."""
        # The files of a store are read by `docker exec`, which is slow into a VM.
        by_tunnel = set(image.layers) <= set(wanted) and self._daemon.tunnelled()
        if not self._no_store and not by_tunnel:
            try:
                parts = self._stored(reference, image, wanted)
                first = [*itertools.islice(parts, 1)]  # the manifest at least
            except Unreadable as error:
                self.forgo(error)
            else:
                self.read_from = "read from its store"
                yield from first
                yield from parts
                return
        from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import saved  # noqa: PLC0415

        self.read_from = f"by docker save, since {self._no_store or 'all layers are wanted, and a tunnel carries them'}"
        try:
            yield from verified(saved(self._daemon.save(reference, self._platform), image.layers))
        except Damaged as error:
            raise DaemonError(f"{self.title}: saving {reference}: {error}") from error

    def _stored(self, reference: str, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        """Yield the parts of an image out of the daemon's store, or raise Unreadable."""
        store = Store(self._daemon.info(), self._daemon.endpoint.hops, self._daemon.silence)
        try:
            yield from store.parts(image, wanted)
        except Late as error:
            raise DaemonError(f"{self.title}: reading {reference}: {error}") from error


def no_store(endpoint: Endpoint) -> str:
    """Return why the layers of a daemon must not be read from its store, or nothing.

    A daemon reports where its store is, and a socket may lead into an instance: it would choose which files of this
    machine are read.
    """
    if endpoint.remote:
        return "it is on another machine"
    if not endpoint.hops and os.path.realpath(endpoint.socket) != os.path.realpath(SOCKET):
        return f"only the daemon at {SOCKET} is known to be this machine's"
    return ""


# Destinations


class DaemonDestination:
    """A daemon as a destination."""

    whole = False

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.title = daemon.title
        self.status = ""
        self._held: set[str] = set()  # the ChainIDs of its layers

    @property
    def taken(self) -> Taken | None:
        return self._daemon.transport.taken

    def platform(self) -> str:
        return self._daemon.platform()

    def image(self, name: str) -> Image | None:
        return self._daemon.image(name)

    def by_content(self) -> bool:
        return self._daemon.has_containerd_store()

    def look_for_layers(self) -> None:
        if not self._daemon.has_containerd_store():
            self._held = {chain for layers in self._daemon.layers() for chain in chain_ids(layers)}

    def leave_out(self, image: Image) -> tuple[set[str], str]:
        if self._daemon.has_containerd_store():
            return set(), "all layers, since the destination's containerd store takes nothing less"
        base = base_held(image.layers, self._held)
        if not base:
            return set(), "all layers, since the destination has none of them"
        return (
            left_out(image.layers, base),
            f"{base} of {len(image.layers)} layers left out, since the destination has them",
        )

    def send(self, step: Step, parts: Iterator[Part], leave_out: Collection[str]) -> Sent:
        """Load an image, and check that it arrived."""
        # Containerd's store keeps for a day what it got of a member that broke off, and continues from there when a
        # member of the same path comes, even if the first one had other bytes.
        packing, size, start = Packing(leave_out, f"{secrets.token_hex(8)}/"), 0, time.monotonic()
        names = (INCOMING,) if self._daemon.has_containerd_store() else step.names

        def archive() -> Iterator[bytes]:
            nonlocal size
            for piece in itertools.chain(packing.image(parts, names), packing.end()):
                yield piece
                size += len(piece)

        doing = f"{self.title}: loading {step.reference}"
        try:
            for message in self._daemon.load(step.reference, archive()):
                complaint = refusal(message)
                if complaint:
                    raise LoadRefused(f"{doing}: {complaint}")
                self.status = unpacking(message) or self.status
            arrived = self._arrived(step.image, names, doing)
            if names != step.names:
                for name in step.names:
                    self._daemon.tag(arrived.id, name)
                arrived = self._arrived(step.image, step.names, doing)
        finally:
            if names != step.names:
                self._daemon.untag(INCOMING)
        self._held.update(chain_ids(step.image.layers))
        return Sent(arrived.id, size, packing.layers, time.monotonic() - start)

    def _arrived(self, image: Image, names: Sequence[str], doing: str) -> Image:
        for name in names:
            found = self._daemon.image(name)
            if found is None:
                raise DaemonError(f"{doing}: it reported no error, but has no image {name}")
            if not same(image, found, by_content=True):
                raise DaemonError(
                    f"{doing}: it reported no error, but has {short(found.id)} as {name} instead of {short(image.id)}"
                )
            arrived = found
        return arrived

    def settle(self, step: Step) -> Sent | None:
        if step.action is Action.KEEP:
            return Sent(step.id_there)
        return self._tag(step) if step.action is Action.TAG else None

    def _tag(self, step: Step) -> Sent:
        for name, image in zip(step.names, step.replaced):
            if image is None or image.id != step.id_there:
                self._daemon.tag(step.id_there, name)
        return Sent(self._arrived(step.image, step.names, f"{self.title}: naming {step.reference}").id)

    def tags(self) -> list[str]:
        return self._daemon.tags()

    def finish(self) -> None:
        """Nothing remains to be done: each image is complete when it was loaded."""

    def prune(self, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        for name in names:
            yield name, self._daemon.untag(name)

    def close(self) -> None:
        self._daemon.close()


# Locations


@dataclass(frozen=True)
class DaemonLocation:
    """A daemon at an endpoint."""

    endpoint: Endpoint
    kind: ClassVar[str] = "daemon"
    prunable: ClassVar[bool] = True

    def __str__(self) -> str:
        return str(self.endpoint)

    def transport(self) -> Transport | None:
        return self.endpoint.transport()

    def source(self, transport: Transport | None, silence: float, platform: str) -> Source:
        return DaemonSource(Daemon(self.endpoint, silence, "source", transport), platform)

    def destination(self, transport: Transport | None, silence: float, names: Collection[str]) -> Destination:
        return DaemonDestination(Daemon(self.endpoint, silence, "destination", transport))


@dataclass(frozen=True)
class ArchiveLocation:
    """An archive file."""

    path: str
    kind: ClassVar[str] = "archive"
    prunable: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.path

    def transport(self) -> Transport | None:
        return None

    def source(self, transport: Transport | None, silence: float, platform: str) -> Source:
        from ansible_collections.nested.kata.plugins.module_utils._image.archive_source import (  # noqa: PLC0415
            ArchiveSource,
        )

        return ArchiveSource(self.path, platform)

    def destination(self, transport: Transport | None, silence: float, names: Collection[str]) -> Destination:
        from ansible_collections.nested.kata.plugins.module_utils._image.archive_destination import (  # noqa: PLC0415
            ArchiveDestination,
        )

        return ArchiveDestination(self.path, names)
