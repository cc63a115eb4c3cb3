#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_transfer
short_description: Copy images between Docker daemons at any depth of nesting, and archive files
version_added: 0.1.0
description:
  - Makes the images of one Docker daemon known to others, without a registry.
  - An image that a destination has already is left alone, and not a byte of it is sent. Where the destination's store allows it, the
    lowest layers that it has already are left out. One that refuses this is sent everything, once.
  - The archive streams from the source through this module to the destinations. It is never held in memory as a whole, and the module
    writes no temporary file.
  - Layers are read from the source's store, one by one, where it has one of the classic graph drivers (C(overlay2), C(btrfs), C(vfs) or
    C(fuse-overlayfs)) and its files can be read by the user of the module, or by the one who C(docker exec) gives in the innermost hop.
    Each of them is compared with its digest. Otherwise, as on another machine, C(docker save) gives them, which writes all
    of an image into a temporary directory of the source before the first byte is sent.
  - All images are looked up at both ends before the first byte is sent. After each the destination is asked whether it now has the
    same image. Where ids differ by the kind of store, configuration and layers are compared.
  - When a transfer fails or is killed, the destination has what it had under each name before. The next run begins anew.
    (In containerd's store an image comes as C(nested-kata.invalid/incoming) until it is complete.)
  - While it runs, a person who watches sees every few seconds how far it is.
  - Never contacts a registry.
attributes:
  check_mode:
    support: full
    description: Both ends are asked about every image, and nothing is sent.
  diff_mode:
    support: full
    description: Shows the id that each name has at the destination, before and after, and names that are removed.
  idempotent:
    support: full
    description: An image that the destination has already is not sent again.
  platform:
    support: full
    platforms: posix
    description: The machine that the module runs on must be able to reach all ends.
options:
  images:
    description:
      - Names of images as C(docker pull) takes them, V(name), V(name:tag) or V(registry:5000/path/name:tag).
        A name without a tag means V(latest).
      - Ids and digests are refused. An image is loaded under a name, and one without a name would be lost there.
    type: list
    elements: str
    required: true
  source:
    description:
      - What has the images. Without it, the machine's own daemon.
    type: dict
    suboptions: &end
      socket:
        description:
          - Path of the unix socket that the daemon listens on.
          - V(/var/run/docker.sock) when neither this nor another one of these options is given.
        type: path
      context:
        description:
          - Name of a Docker context of the user that the module runs as, on the machine that it runs on, as C(docker context ls) shows it.
            E(DOCKER_CONFIG) says where contexts are, if not in C(~/.docker).
          - V(default) is the daemon at V(/var/run/docker.sock), whatever E(DOCKER_HOST) says.
          - The daemon may be at a unix socket, at V(ssh://), or at V(tcp://) with TLS. TCP without TLS, or without verifying the daemon's
            certificate, is refused.
          - Over V(ssh://) the module uses C(ssh), with the keys, the known machines and the settings of its user. Nobody can answer a
            question there, so keys with a password need an agent.
          - It cannot be combined with C(hops), which begin at the machine's own daemon.
        type: str
      hops:
        description:
          - Names of containers, outermost first. The daemon is the one that the Docker client in the innermost container
            speaks to.
          - The first one is a container of the daemon at V(/var/run/docker.sock) of the machine that the module runs on.
            Environment variables such as E(DOCKER_HOST) and the Docker context in use make no difference.
          - An empty list is the machine's own daemon.
        type: list
        elements: str
      transport:
        description:
          - How archives get over the last of the C(hops). Into a virtual machine C(docker exec) is slow, some forty times
            slower than TCP. Questions, which are few bytes, always go by C(docker exec).
          - V(tunnel) is a TCP connection to the innermost container. A program of the machine image is started there, listens
            on the container's own address for one connection that begins with a one-time token, and ends with it, or after 10
            seconds without it. The container one level above dials, and needs the same program; where there is none above,
            the module does. The module fails where there can be no tunnel.
          - V(exec) is C(docker exec -i), which needs nothing but Docker's client.
          - V(auto) is V(tunnel) where there can be one, and V(exec) otherwise, and where an archive is known to have less than
            4 MiB. RV(transport) and RV(destinations[].transport) say which it was, and why.
          - Without C(hops) there is nothing to choose, and with C(socket) and C(context) it is refused.
        type: str
        choices: [auto, exec, tunnel]
        default: auto
      archive:
        description:
          - Path of an archive file instead of a daemon, on the machine that the module runs on.
          - As a source it may be what C(docker save) wrote, or an OCI archive (of podman, skopeo or buildx for example), plain or
            compressed by C(gzip) or C(zstd). One that ends too early or has a layer with a wrong digest is refused.
          - As a destination it becomes one that C(docker load) and the tools of OCI read. The suffixes C(.gz) and C(.tgz) have it
            compressed by C(gzip), C(.zst) and C(.tzst) by C(zstd). It holds the images of the task and no others, and is replaced as a
            whole when one of them differs. A file that holds other images, or something else, is refused.
          - A new one can be read by its owner only, since an image may hold secrets.
        type: path
  destination:
    description:
      - What is to have the images. Without it and O(destinations), the machine's own daemon.
    type: dict
    suboptions: *end
  destinations:
    description:
      - Several of them. The source is read once for all, and they are sent at the same time, each what it lacks.
      - When one fails, the others go on, and the module fails at the end and says for each what happened. One that takes nothing holds
        up the others until O(timeout).
    type: list
    elements: dict
    suboptions: *end
  tags:
    description:
      - Other names that images get at the destination, by their names in O(images). One name, or a list of names.
      - An image that is named here gets these names only. To keep its own, too, repeat it here.
      - A destination with a classic store that has the same image under another name is asked to name it, and nothing is sent.
    type: dict
    default: {}
  platform:
    description:
      - Fail unless an image is for this platform, V(os/architecture) or V(os/architecture/variant), for example V(linux/arm64).
      - Of an archive that has an image for several platforms this one is taken. Daemons with API 1.48 or newer (Docker 28) are asked for
        this one.
    type: str
  prune_other_tags:
    description:
      - When all images of the task are at a destination, remove the other tags of the same repositories there. Images that lose their
        last name by it are removed, too.
      - A tag that a container still needs is kept, with a warning. Not for archives.
    type: bool
    default: false
  timeout:
    description:
      - Seconds without a byte from a daemon, or without one that it takes, after which a transfer is given up.
      - A daemon says nothing while it prepares the archive of a large image.
    type: int
    default: 600
requirements:
  - Docker SDK for Python, 5.0.3 or newer (package python3-docker of Debian, docker of PyPI), unless both ends are archives
  - for C(hops), Docker's command line client, on the machine and in each container on the way
  - for a C(context) with V(ssh://), OpenSSH's client on the machine, and Docker's command line client on the one that it leads to
  - for compressed archives, C(gzip) or C(zstd)
notes:
  - How often progress is shown is up to the variable C(nested_kata_progress_seconds), 5 by default; 0 shows none.
author:
  - The nested.kata founders (@nested-kata)
seealso:
  - module: community.docker.docker_image_export
  - module: community.docker.docker_image_load
"""

EXAMPLES = r"""
- name: Bring an image into the instance kata
  nested.kata.image_transfer:
    images:
      - debian:trixie-slim
    destination:
      hops: [kata-in-docker, kata]

- name: Bring what was built in one instance into two others, under the name that is used there
  nested.kata.image_transfer:
    images:
      - shop/web:build
      - shop/worker:42
    tags:
      shop/web:build: [shop/web:42, shop/web:latest]
    source:
      hops: [kata-in-docker, build]
    destinations:
      - hops: [kata-in-docker, production]
      - hops: [kata-in-docker, staging]

- name: Bring an image that was built here to the machine that the Docker context production leads to
  nested.kata.image_transfer:
    images: [shop/web:42]
    destination:
      context: production

- name: Keep the images in a file
  nested.kata.image_transfer:
    images: [shop/web:42, shop/worker:42]
    destination:
      archive: /srv/images/shop-42.tar.zst

- name: Load one of them where there is no network, and remove the versions before
  nested.kata.image_transfer:
    images: [shop/web:42]
    source:
      archive: /media/stick/shop-42.tar.zst
    destination:
      socket: /run/nested-kata/kata/docker.sock
    prune_other_tags: true
"""

RETURN = r"""
images:
  description:
    - What happened to each image, in the order of O(images), at one destination after the other.
    - When a destination fails, those that were done there until then.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name with its tag, at the source.
      type: str
      sample: debian:trixie-slim
    destination:
      description: Where it is now, as hops, path of a socket, name of a context or path of an archive.
      type: str
      sample: kata-in-docker > kata
    names:
      description: Its names there.
      type: list
      elements: str
      sample: [debian:trixie-slim]
    id:
      description: Id of the image at the destination. In check mode the one at the source.
      type: str
      sample: sha256:7f8ff97938a4e2f2a4e5fd1b9a6bd1cd1fbb1c8eb9c8cd2b3b9e77b2c0fb9d11
    changed:
      description: Whether the image was sent or named, or would be in check mode.
      type: bool
    bytes_sent:
      description: Bytes of the archive that the destination was sent. Those of a compressed file are counted before it is compressed.
      type: int
      sample: 1085440
    layers_sent:
      description: How many layers were in it.
      type: int
      sample: 1
    layers_skipped:
      description: How many layers were not.
      type: int
      sample: 4
    seconds:
      description: How long that took.
      type: float
      sample: 0.41
    reason:
      description: Why the image was sent or left alone, what was left out, and how it was read.
      type: str
      sample: >-
        the destination has another image of this name (0d84cac79282): 4 of 5 layers left out, since the destination has them;
        read from its store
destinations:
  description: How each destination fared.
  returned: always
  type: list
  elements: dict
  contains:
    destination:
      description: As in RV(images[].destination).
      type: str
      sample: kata-in-docker > kata
    failed:
      description: Whether something went wrong there.
      type: bool
    changed:
      description: Whether anything was changed there.
      type: bool
    bytes_sent:
      description: Bytes sent there for all images together.
      type: int
      sample: 1085440
    pruned:
      description: The tags that were removed because of O(prune_other_tags), or would be.
      type: list
      elements: str
      sample: [shop/web:41]
    transport:
      description: Which way archives took to this daemon, and why.
      returned: when it is a daemon and was reached
      type: dict
      sample: {name: tunnel, reason: "TCP to port 40123 of 172.18.0.2, the address of kata"}
    msg:
      description: What was done there, or what was wrong, in one line.
      type: str
      sample: "kata-in-docker > kata: sent 1 image (1.1 MB in 0.4 s), 0 were there"
bytes_sent:
  description: Bytes sent for all images and destinations together.
  returned: always
  type: int
  sample: 1085440
transport:
  description: Which way archives took from the source, and why. Of a destination, see RV(destinations[].transport).
  returned: when the source is a daemon and was reached
  type: dict
  sample: {name: socket, reason: a unix socket of this machine leads to it}
msg:
  description: What was done, or what was wrong, in one line.
  returned: always
  type: str
  sample: "kata-in-docker > kata: sent 1 image (1.1 MB in 0.4 s), 1 was there"
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple, Union

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.versions import written
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Transport
from ansible_collections.nested.kata.plugins.module_utils.daemon import Daemon, DaemonError, sdk
from ansible_collections.nested.kata.plugins.module_utils.image import (
    Action, Image, Step, absent, decide, others_of, parse_platform, parse_references, parse_tags, same,
)
from ansible_collections.nested.kata.plugins.module_utils.store import Unreadable
from ansible_collections.nested.kata.plugins.module_utils.transfer import (
    LOST_SNAPSHOT, NO_SPACE, DaemonDestination, DaemonSource, Destination, File, FileDestination, FileSource,
    LoadRefused, Sent, Source, deliver,
)

AT_ONCE = 8  # destinations that are looked at in parallel
PACKAGES = "package python3-docker of Debian, docker of PyPI"

END = {
    "socket": {"type": "path"},
    "context": {"type": "str"},
    "hops": {"type": "list", "elements": "str"},
    "transport": {"type": "str", "choices": ["auto", "exec", "tunnel"], "default": "auto"},
    "archive": {"type": "path"},
}
ONE_OF_THEM = [("socket", "context", "hops", "archive")]
OPTIONS = {
    "images": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "dict", "options": END, "mutually_exclusive": ONE_OF_THEM},
    "destination": {"type": "dict", "options": END, "mutually_exclusive": ONE_OF_THEM},
    "destinations": {"type": "list", "elements": "dict", "options": END, "mutually_exclusive": ONE_OF_THEM},
    "tags": {"type": "dict", "default": {}},
    "platform": {"type": "str"},
    "prune_other_tags": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 600},
}

Place = Union[Endpoint, File]
Ways = Dict[Endpoint, Transport]


@dataclass(frozen=True)
class Wanted:
    """What the task asks for."""

    names: Dict[str, Tuple[str, ...]]  # by reference: its names at the destination
    source: Place
    destinations: Tuple[Place, ...]
    platform: str
    prune: bool
    silence: float

    @property
    def at_destination(self) -> Set[str]:
        return {name for names in self.names.values() for name in names}


def wanted(params: Dict[str, Any]) -> Wanted:
    """Return what the options say, or raise Refused."""
    try:
        references = parse_references(params["images"])
    except Refused as error:
        raise Refused(f"images: {error}") from error
    try:
        names = parse_tags(params["tags"], references)
    except Refused as error:
        raise Refused(f"tags: {error}") from error
    source = place("source", params["source"])
    many = params["destinations"]
    if many is not None and not many:
        raise Refused("destinations: it is an empty list: name one at least, or remove the option")
    destinations = [place("destinations", one) for one in many] if many else [place("destination", params["destination"])]
    if source in destinations:
        raise Refused(f"source and destination are the same {'archive' if isinstance(source, File) else 'daemon'} ({source}): name another one in one of them")
    if len(set(destinations)) < len(destinations):
        raise Refused(f"destinations: {next(one for one in destinations if destinations.count(one) > 1)} is named twice: name it once")
    if params["prune_other_tags"] and any(isinstance(one, File) for one in destinations):
        raise Refused("prune_other_tags: an archive holds no other tags: leave the option out, or name daemons only")
    if params["timeout"] < 1:
        raise Refused(f"timeout: {params['timeout']} is no number of seconds from 1 on")
    try:
        platform = parse_platform(params["platform"]) if params["platform"] else ""
    except Refused as error:
        raise Refused(f"platform: {error}") from error
    return Wanted(names, source, tuple(destinations), platform, params["prune_other_tags"], params["timeout"])


def place(option: str, given: Optional[Dict[str, Any]]) -> Place:
    found = dict(given or {})
    path = found.pop("archive", None)
    if path is not None:
        if not path.startswith("/"):
            raise Refused(f"{option}: archive {path!r} is not the absolute path of a file")
        by = found.get("transport") or "auto"
        if by != "auto":
            raise Refused(f"{option}: transport {by} and archive exclude each other: a transport leads through hops")
        return File(os.path.normpath(path))
    try:
        return Endpoint.parse(found)
    except ValueError as error:
        raise Refused(f"{option}: {error}") from error


# --- look ---

@dataclass
class Work:
    """One destination: what is to be done there, and what was."""

    place: Place
    end: Optional[Destination] = None
    steps: List[Step] = field(default_factory=list)
    others: Tuple[str, ...] = ()  # names that are to be removed
    before: Dict[str, Optional[str]] = field(default_factory=dict)
    done: List[Dict[str, Any]] = field(default_factory=list)
    pruned: List[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def changed(self) -> bool:
        return bool(self.pruned) or any(one["changed"] for one in self.done)


class NoSdk(Refused):
    """There is no SDK, or one that is too old."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


def need_sdk() -> None:
    """Raise NoSdk where there is none that will do."""
    client = sdk()
    if client.SDK_IMPORT_ERROR:
        raise NoSdk(missing_required_lib(f"docker ({PACKAGES})"), client.SDK_IMPORT_ERROR)
    if client.sdk_too_old():
        oldest = written(client.OLDEST_SDK)
        raise NoSdk(f"the Docker SDK for Python here is {client.SDK_VERSION}, and {oldest} is needed: upgrade {PACKAGES}", "")


@contextmanager
def ways_to(asked: Wanted) -> Iterator[Ways]:
    """Yield the way to each daemon. The first ones are being gone already, which takes about as long as to import the SDK."""
    ways = {one: one.transport() for one in (asked.source, *asked.destinations) if isinstance(one, Endpoint)}
    try:
        for way in list(ways.values())[:AT_ONCE]:
            way.begin()
        yield ways
    finally:
        for way in ways.values():
            way.close()


def open_source(asked: Wanted, ways: Ways, stack: ExitStack) -> Source:
    if isinstance(asked.source, File):
        return FileSource(asked.source, asked.platform)
    return DaemonSource(stack.enter_context(Daemon(asked.source, asked.silence, "source", ways[asked.source])), asked.platform)


def open_destination(where: Place, asked: Wanted, ways: Ways, stack: ExitStack) -> Destination:
    if isinstance(where, File):
        end = FileDestination(where, asked.at_destination)
    else:
        end = DaemonDestination(Daemon(where, asked.silence, "destination", ways[where]))
    stack.callback(end.close)
    return end


def look_at_source(asked: Wanted, source: Source) -> Dict[str, Image]:
    """Return the images that are asked for, or raise Refused where one of them is not there."""
    images = {reference: source.image(reference) for reference in asked.names}
    missing = [reference for reference, image in images.items() if image is None]
    if missing:
        raise Refused(f"images: {source.title} has {absent(missing, source.names())}: nothing was sent")
    for reference, image in images.items():
        if asked.platform and not image.runs_on(asked.platform):
            raise Refused(f"platform: {source.title} has {reference} for {image.platform or 'no platform'}, not for {asked.platform}: nothing was sent")
    return images


def look_at_destination(work: Work, asked: Wanted, images: Dict[str, Image], source: Source) -> None:
    """Ask a destination about every image and note what is to be done there."""
    end = work.end
    for reference, image in images.items():
        names = asked.names[reference]
        replaced = tuple(end.image(name) for name in names)
        work.before.update({name: found.id if found else None for name, found in zip(names, replaced)})
        # Only two different ids raise the question, and the answer costs a daemon more than all the others.
        content = any(found is not None and found.id != image.id for found in replaced) and (end.by_content() or source.by_content())
        unnamed = None if any(found is not None and same(image, found, by_content=content) for found in replaced) else end.image(image.id)
        work.steps.append(decide(reference, image, names, replaced, unnamed, by_content=content))
    if isinstance(end, FileDestination) and any(step.action is not Action.KEEP for step in work.steps):
        work.steps = [end.anew(step) for step in work.steps]
    if any(step.action is Action.SEND for step in work.steps):
        end.look_for_layers()
    work.others = others_of(asked.at_destination, end.names()) if asked.prune else ()


# --- act ---

def outcome(work: Work, step: Step, sent: Sent, how: str = "") -> Dict[str, Any]:
    reason = f"{step.reason}: {how}" if how else step.reason
    return {
        "name": step.reference,
        "destination": str(work.place),
        "names": list(step.names),
        "id": sent.image_id,
        "changed": step.action is not Action.KEEP,
        "bytes_sent": sent.size,
        "layers_sent": sent.layers,
        "layers_skipped": len(set(step.image.layers)) - sent.layers,
        "seconds": round(sent.seconds, 2),
        "reason": reason,
    }


def pretend(work: Work) -> None:
    """Note what would be done."""
    for step in work.steps:
        how = work.end.leave_out(step.image)[1] if step.action is Action.SEND else ""
        work.done.append(outcome(work, step, Sent(step.there.id if step.there else step.image.id), how))
    work.pruned = list(work.others)


def act(reference: str, works: Sequence[Work], source: Source, progress: Progress) -> None:
    """Bring one image to all destinations that still go on."""
    sending: List[Tuple[Work, Step]] = []
    for work in works:
        step = next(step for step in work.steps if step.reference == reference)
        if step.action is Action.SEND:
            sending.append((work, step))
            continue
        try:
            work.done.append(outcome(work, step, work.end.tag(step) if step.action is Action.TAG else Sent(step.there.id)))
        except DaemonError as error:
            work.trouble = str(error)
    refused: Dict[str, str] = {}  # by destination: why it did not want less than everything
    while sending:
        sending = send(reference, sending, source, refused, progress)


def send(reference: str, sending: Sequence[Tuple[Work, Step]], source: Source, refused: Dict[str, str], progress: Progress) -> List[Tuple[Work, Step]]:
    """Send one image to several destinations at once; return those that must be sent it again, in another way."""
    less = [(set(), refused[str(work.place)]) if str(work.place) in refused else work.end.leave_out(step.image) for work, step in sending]
    image = sending[0][1].image
    needed = {layer for leave_out, dummy in less for layer in set(image.layers) - leave_out}
    takers = [functools.partial(take, work.end, step, leave_out) for (work, step), (leave_out, dummy) in zip(sending, less)]
    whither = sending[0][0].end.where if len(sending) == 1 else f"{len(sending)} destinations"

    def say(how_far: str) -> None:
        statuses = [work.end.status for work, dummy in sending if work.end.status]
        progress.say(f"{reference} to {whither}: {how_far or ', '.join(statuses) or 'the daemon takes it in'}")

    progress.say(f"{reference} to {whither}: the source prepares it")
    again: List[Tuple[Work, Step]] = []
    for job, (work, step), (leave_out, how) in zip(deliver(source.parts(reference, image, needed), takers, say), sending, less):
        if job.sent:
            work.done.append(outcome(work, step, job.sent, f"{how}; {source.read_from}"))
        elif isinstance(job.error, Unreadable):
            source.forgo(job.error)
            again.append((work, step))
        elif isinstance(job.error, LoadRefused) and str(work.place) not in refused and worth_another(str(job.error), leave_out):
            refused[str(work.place)] = f"all layers, after the destination refused {'a part of them' if leave_out else 'them once'} ({job.error})"
            again.append((work, step))
        elif isinstance(job.error, (DaemonError, Refused)):
            work.trouble = str(job.error)
        else:
            raise job.error
    return again


def worth_another(complaint: str, leave_out: Set[str]) -> bool:
    """Return whether a daemon may take all layers although it refused these."""
    return LOST_SNAPSHOT.search(complaint) is not None or bool(leave_out) and NO_SPACE not in complaint


def take(end: Destination, step: Step, leave_out: Set[str], parts: Any) -> Sent:
    end.status = ""
    return end.send(step, parts, leave_out)


def finish(work: Work, warn: Callable[[str], None]) -> None:
    """Do at a destination what comes when all images are there."""
    try:
        work.end.finish()
        for name in work.others:
            kept = work.end.untag(name)
            if kept is None:
                work.pruned.append(name)
            else:
                warn(f"{work.end.title}: prune_other_tags keeps {name}: {kept}")
    except DaemonError as error:
        work.trouble = str(error)


def summary(work: Work, check_mode: bool) -> str:
    sent = [one for one in work.done if one["changed"]]
    kept = len(work.done) - len(sent)
    if not work.done:
        return "no images were asked for"
    count = f"{len(sent)} image{'' if len(sent) == 1 else 's'}"
    there = f"{kept} {'was' if kept == 1 else 'were'} there"
    pruned = f"; {'would remove' if check_mode else 'removed'} {', '.join(work.pruned)}" if work.pruned else ""
    if not sent:
        return f"{work.place}: nothing to send, {there}{pruned}"
    size, seconds = sum(one["bytes_sent"] for one in sent), sum(one["seconds"] for one in sent)
    what = f"would send {count}" if check_mode else f"sent {count} ({size / 1e6:.1f} MB in {seconds:.1f} s)"
    return f"{work.place}: {what}, {there}{pruned}"


def result_of(works: Sequence[Work], check_mode: bool) -> Dict[str, Any]:
    before: Dict[str, Any] = {}
    after: Dict[str, Any] = {}
    for work in works:
        prefix = f"{work.place}: " if len(works) > 1 else ""
        now = {**work.before, **{name: one["id"] for one in work.done for name in one["names"]}}
        before.update({prefix + name: image for name, image in {**work.before, **{name: "a tag" for name in work.pruned}}.items()})
        after.update({prefix + name: image for name, image in {**now, **{name: None for name in work.pruned}}.items()})
    ends = [
        {
            "destination": str(work.place), "failed": bool(work.trouble), "changed": work.changed, "pruned": work.pruned,
            "bytes_sent": sum(one["bytes_sent"] for one in work.done), "msg": work.trouble or summary(work, check_mode),
            **taken_by(work.end),
        }
        for work in works
    ]
    return {
        "changed": any(work.changed for work in works),
        "images": [one for work in works for one in work.done],
        "destinations": ends,
        "bytes_sent": sum(end["bytes_sent"] for end in ends),
        "diff": {"before": before, "after": after},
    }


def taken_by(end: Union[Source, Destination, None]) -> Dict[str, Any]:
    """Return the part of a result that tells which way archives took from an end or to it."""
    return {"transport": asdict(end.taken)} if end and end.taken else {}


def transfer(
    asked: Wanted, ways: Ways, works: Sequence[Work], check_mode: bool, warn: Callable[[str], None], progress: Progress, told: Dict[str, Any],
) -> None:
    """Look at all ends, and act. What is wrong with the source or the images is raised, what is wrong with a destination noted there."""
    with ExitStack() as stack:
        source = open_source(asked, ways, stack)
        stack.callback(lambda: told.update(taken_by(source)))
        images = look_at_source(asked, source)

        def look(work: Work) -> None:
            try:
                work.end = open_destination(work.place, asked, ways, stack)
                look_at_destination(work, asked, images, source)
                if check_mode:
                    pretend(work)
            except (DaemonError, Refused) as error:
                work.trouble = str(error)

        with ThreadPoolExecutor(min(AT_ONCE, len(works))) as pool:
            list(pool.map(look, works))
        if check_mode:
            return
        for reference in asked.names:
            act(reference, [work for work in works if not work.trouble], source, progress)
        for work in works:
            if not work.trouble:
                finish(work, warn)


def carry_out(asked: Wanted, check_mode: bool, warn: Callable[[str], None]) -> Dict[str, Any]:
    """Do what was asked for and return the module's result."""
    works = [Work(one) for one in asked.destinations]
    trouble, told = "", {}
    try:
        with Progress() as progress, ways_to(asked) as ways:
            if ways:
                need_sdk()
            transfer(asked, ways, works, check_mode, warn, progress, told)
    except (Refused, DaemonError) as error:
        trouble = str(error)
        if isinstance(error, NoSdk):
            told["exception"] = error.traceback
    result = result_of(works, check_mode)
    troubles = list(dict.fromkeys(filter(None, [trouble, *(work.trouble for work in works)])))
    failed = sum(bool(work.trouble) for work in works)
    prefix = f"{failed} of {len(works)} destinations failed: " if failed and len(works) > 1 else ""
    message = prefix + "; ".join(troubles) if troubles else "; ".join(summary(work, check_mode) for work in works)
    return {**result, **told, "failed": bool(troubles), "msg": message}


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, mutually_exclusive=[("destination", "destinations")], supports_check_mode=True)
    nothing = result_of([], module.check_mode)
    try:
        asked = wanted(module.params)
    except Refused as error:
        module.fail_json(msg=str(error), **nothing)
    if not asked.names:
        module.exit_json(msg=summary(Work(asked.destinations[0]), module.check_mode), **nothing)
    result = carry_out(asked, module.check_mode, module.warn)
    if result["failed"]:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
