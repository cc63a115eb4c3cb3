# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a transfer, each a daemon or a file, and what carries an image from one end to many others at once."""
from __future__ import annotations

import itertools
import os
import queue
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Taken
from ansible_collections.nested.kata.plugins.module_utils.archive import (
    Blob, Manifest, Packed, Packing, Part, base_held, chain_ids, left_out, saved, unpacked, verified,
)
from ansible_collections.nested.kata.plugins.module_utils.archive_file import Unwritable, Writing, listed, opened
from ansible_collections.nested.kata.plugins.module_utils.daemon import Daemon, DaemonError
from ansible_collections.nested.kata.plugins.module_utils.image import Action, Image, Step, refusal, same, short
from ansible_collections.nested.kata.plugins.module_utils.store import Store, Unreadable

DEPTH = 4  # parts, of 2 MiB at most, by which a destination may lag behind the source
LOOK = 0.2  # seconds between two looks whether a destination that takes nothing has failed
# Containerd's store gives an image its name before it is unpacked, and forgets the one that had the name. So there it comes under another
# one, which it loses when it is complete. What an interrupted task left under it goes with the next image.
INCOMING = "nested-kata.invalid/incoming:latest"
# Docker 26.1's containerd store removes what nothing refers to after a name is gone, at times also what a load has just put there.
LOST_SNAPSHOT = re.compile("parent snapshot .* does not exist")
NO_SPACE = "no space left on device"


class LoadRefused(DaemonError):
    """The daemon read an archive and did not want it."""


@dataclass(frozen=True)
class File:
    """Where an archive file is."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Sent:
    """What one destination was sent of one image."""

    image_id: str
    size: int = 0
    layers: int = 0
    seconds: float = 0.0


# Sources


class DaemonSource:
    """A daemon that has the images."""

    def __init__(self, daemon: Daemon, platform: str) -> None:
        self._daemon, self._platform = daemon, platform
        self.title = daemon.title
        self.read_from = ""
        # Why its layers cannot be had one by one. On another machine nobody is there to read them.
        self._no_store = "it is on another machine" if daemon.endpoint.remote else ""
        self._asking = threading.Lock()  # several destinations are looked at in parallel, and each may need to know

    @property
    def taken(self) -> Optional[Taken]:
        """Which way archives took."""
        return self._daemon.transport.taken

    def image(self, reference: str) -> Optional[Image]:
        return self._daemon.image(reference)

    def names(self) -> List[str]:
        return self._daemon.tags()

    def by_content(self) -> bool:
        with self._asking:
            return self._daemon.has_containerd_store()

    def forgo(self, why: Unreadable) -> None:
        """Use `docker save` from now on."""
        self._no_store = str(why)

    def parts(self, reference: str, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        """Yield the parts of an image: from the daemon's store those that are wanted, by `docker save` all of them."""
        # The files of a store come by `docker exec`, which into a VM is slow.
        by_tunnel = set(image.layers) <= set(wanted) and self._daemon.tunnelled()
        if not self._no_store and not by_tunnel:
            try:
                parts = Store(self._daemon.info(), self._daemon.endpoint.hops).parts(image, wanted)
                first = next(parts, None)  # the manifest at least
            except Unreadable as error:
                self.forgo(error)
            else:
                self.read_from = "read from its store"
                yield first
                yield from parts
                return
        self.read_from = f"by docker save, since {self._no_store or 'all layers are wanted, and a tunnel carries them'}"
        try:
            yield from verified(saved(self._daemon.save(reference, self._platform), image.layers))
        except Damaged as error:
            raise DaemonError(f"{self.title}: saving {reference}: {error}") from error


class FileSource:
    """An archive file that has the images."""

    taken: Optional[Taken] = None

    def __init__(self, file: File, platform: str) -> None:
        self._path = file.path
        self.title = f"source {file}"
        self.read_from = "read from the archive"
        try:
            found = listed(file.path)
        except OSError as error:
            raise Refused(f"source: archive {file} cannot be read: {error.strerror}") from error
        except Damaged as error:
            raise Refused(f"source: archive {file} cannot be used: {error}") from error
        self._images: Dict[str, List[Packed]] = {}
        for one in found:
            for name in one.names:
                self._images.setdefault(name, []).append(one)
        self._platform = platform

    def _chosen(self, reference: str) -> Optional[Packed]:
        """Return the image for the platform, or another one so that it can be named."""
        found = self._images.get(reference, [])
        return next((one for one in found if not self._platform or one.image.runs_on(self._platform)), found[0] if found else None)

    def image(self, reference: str) -> Optional[Image]:
        one = self._chosen(reference)
        return one.image if one else None

    def names(self) -> List[str]:
        return sorted(self._images)

    def by_content(self) -> bool:
        return False

    def forgo(self, why: Unreadable) -> None:
        raise why

    def parts(self, reference: str, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        try:
            with opened(self._path) as archive:
                yield from verified(unpacked(archive, self._chosen(reference)))
        except OSError as error:
            raise DaemonError(f"{self.title}: reading {reference}: {error.strerror}") from error
        except Damaged as error:
            raise DaemonError(f"{self.title}: reading {reference}: {error}") from error


Source = Union[DaemonSource, FileSource]


# Destinations


class DaemonDestination:
    """A daemon that is to have the images."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.title, self.where = daemon.title, str(daemon.endpoint)
        self.status = ""
        self._held: Set[str] = set()  # the ChainIDs of its layers

    @property
    def taken(self) -> Optional[Taken]:
        """Which way archives took."""
        return self._daemon.transport.taken

    def image(self, name: str) -> Optional[Image]:
        return self._daemon.image(name)

    def by_content(self) -> bool:
        return self._daemon.has_containerd_store()

    def look_for_layers(self) -> None:
        """Ask for the layers that it has, where that makes a difference."""
        if not self._daemon.has_containerd_store():
            self._held = {chain for layers in self._daemon.layers() for chain in chain_ids(layers)}

    def leave_out(self, image: Image) -> Tuple[Set[str], str]:
        """Return the layers that need not be sent, and what there is to say about it."""
        if self._daemon.has_containerd_store():
            return set(), "all layers, since the destination's containerd store takes nothing less"
        base = base_held(image.layers, self._held)
        if not base:
            return set(), "all layers, since the destination has none of them"
        return left_out(image.layers, base), f"{base} of {len(image.layers)} layers left out, since the destination has them"

    def send(self, step: Step, parts: Iterator[Part], leave_out: Collection[str]) -> Sent:
        """Load an image, and make sure that it arrived."""
        packing, size, start = Packing(leave_out), 0, time.monotonic()
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
            arrived = self._daemon.image(name)
            if arrived is None:
                raise DaemonError(f"{doing}: it reported no error, and has no image {name}")
            if not same(image, arrived, by_content=True):
                raise DaemonError(f"{doing}: it reported no error, and has {short(arrived.id)} as {name} instead of {short(image.id)}")
        return arrived

    def tag(self, step: Step) -> Sent:
        for name, image in zip(step.names, step.replaced):
            if image is None or image.id != step.there.id:
                self._daemon.tag(step.there.id, name)
        return Sent(self._arrived(step.image, step.names, f"{self.title}: naming {step.reference}").id)

    def names(self) -> List[str]:
        return self._daemon.tags()

    def untag(self, name: str) -> Optional[str]:
        return self._daemon.untag(name)

    def finish(self) -> None:
        """Nothing is left to do: each image is there when it was loaded."""

    def close(self) -> None:
        self._daemon.close()


class FileDestination:
    """An archive file that is to hold the images, and nothing else."""

    taken: Optional[Taken] = None

    def __init__(self, file: File, names: Collection[str]) -> None:
        self.title, self.where = f"destination {file}", file.path
        self.status = ""
        if not os.path.isdir(os.path.dirname(file.path)):
            raise Refused(f"{self.title}: there is no directory {os.path.dirname(file.path)}: make it, or correct the path")
        self._images: Dict[str, Image] = {}
        if os.path.lexists(file.path):
            self._images = self._found(file, names)
        self._packing, self._writing = Packing(), Writing(file.path)
        self._started = False

    def _found(self, file: File, names: Collection[str]) -> Dict[str, Image]:
        if os.path.islink(file.path) or not os.path.isfile(file.path):
            raise Refused(f"{self.title}: it is no file: choose another path")
        try:
            found = {name: one.image for one in listed(file.path) for name in one.names}
        except (OSError, Damaged) as error:
            raise Refused(f"{self.title}: what is there cannot be read as an archive of images ({error}): move it away, or choose another path") from error
        strangers = sorted(set(found) - set(names))
        if strangers:
            raise Refused(f"{self.title}: it holds {', '.join(strangers[:5])}, too, and would lose that: name it in the task, or choose another path")
        return found

    def image(self, name: str) -> Optional[Image]:
        return self._images.get(name)

    @staticmethod
    def anew(step: Step) -> Step:
        """Return the step for a file that is written as a whole, because of this image or of another one."""
        reason = step.reason if step.action is Action.SEND else "the archive is written as a whole"
        return replace(step, action=Action.SEND, reason=reason)

    def by_content(self) -> bool:
        return True  # the id of an image in a file is the digest of its configuration, whatever the other end takes for one

    def look_for_layers(self) -> None:
        """It has none of use."""

    def leave_out(self, image: Image) -> Tuple[Set[str], str]:
        return set(), "all layers, since an archive must hold them"

    def send(self, step: Step, parts: Iterator[Part], leave_out: Collection[str]) -> Sent:
        start, size, layers = time.monotonic(), self._writing.size, self._packing.layers
        try:
            if not self._started:
                self._writing.start()
                self._started = True
            for piece in self._packing.image(parts, step.names):
                self._writing.write(piece)
        except Unwritable as error:
            raise DaemonError(f"{self.title}: writing {step.reference}: {error}") from error
        return Sent(self._packing.ids[-1], self._writing.size - size, self._packing.layers - layers, time.monotonic() - start)

    def names(self) -> List[str]:
        return []

    def untag(self, name: str) -> Optional[str]:
        raise NotImplementedError("an archive holds nothing else")

    def finish(self) -> None:
        """Put the archive in its place."""
        if self._started:
            try:
                for piece in self._packing.end(oci=True):
                    self._writing.write(piece)
                self._writing.finish()
            except Unwritable as error:
                raise DaemonError(f"{self.title}: {error}") from error

    def close(self) -> None:
        self._writing.give_up()


Destination = Union[DaemonDestination, FileDestination]


def unpacking(message: Mapping[str, Any]) -> str:
    """Return what a daemon says about a layer that it unpacks."""
    told = message.get("progressDetail") or {}
    if not told.get("total"):
        return ""
    return f"unpacking {message.get('id', 'a layer')}, {amount(told.get('current', 0), told['total'])}"


# From one to many


class Feed:
    """The parts that one destination still has to take. It lags behind the others by a few of them, and no more."""

    _END = object()

    def __init__(self) -> None:
        self._parts: queue.Queue = queue.Queue(DEPTH)
        self.left = threading.Event()  # nobody takes anything any more

    def put(self, part: Any) -> None:
        while not self.left.is_set():
            try:
                self._parts.put(part, timeout=LOOK)
                return
            except queue.Full:
                continue

    def end(self, error: Optional[BaseException] = None) -> None:
        self.put(error or self._END)

    def __iter__(self) -> Iterator[Part]:
        while True:
            part = self._parts.get()
            if part is self._END:
                return
            if isinstance(part, BaseException):
                raise part
            yield part


class Job(threading.Thread):
    """One destination, which takes an image while others do the same."""

    def __init__(self, take: Callable[[Iterator[Part]], Sent]) -> None:
        super().__init__(daemon=True)  # what interrupts the module ends it, too
        self._take = take
        self.feed = Feed()
        self.sent: Optional[Sent] = None
        self.error: Optional[Exception] = None

    def run(self) -> None:
        try:
            self.sent = self._take(iter(self.feed))
        except Exception as error:  # it is told for this destination, and the others go on
            self.error = error
        finally:
            self.feed.left.set()


def deliver(parts: Iterator[Part], takers: Sequence[Callable[[Iterator[Part]], Sent]], say: Callable[[str], None]) -> List[Job]:
    """Read an image once and give it to all takers at the same time; return how each of them fared."""
    jobs = [Job(take) for take in takers]
    for job in jobs:
        job.start()
    error: Optional[Exception] = None
    done = layers = 0
    try:
        for part in parts:
            if all(job.feed.left.is_set() for job in jobs):
                break
            if isinstance(part, Blob):
                layers += 1
            elif not isinstance(part, Manifest):
                done += len(part)
                say(f"{amount(done)}, layer {layers}")
            for job in jobs:
                job.feed.put(part)
    except Exception as caught:  # each destination ends with it
        error = caught
    finally:
        parts.close()
    for job in jobs:
        job.feed.end(error)
    for job in jobs:
        while job.is_alive():
            job.join(1.0)
            say("")
    return jobs
