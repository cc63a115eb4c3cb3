#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_transfer
short_description: Copy images from one Docker daemon to another, at any depth of nesting
version_added: 0.1.0
description:
  - Makes the images of one Docker daemon known to another one, without a registry.
  - The archive streams from daemon to daemon through this module. It is never held in memory as a whole, and the module
    writes nothing to disk.
  - An image that the destination has already is left alone, and not a byte of it is sent.
  - All images are looked up on both sides before the first byte is sent. After each the destination is asked
    whether it now has the same image.
  - Never contacts a registry.
attributes:
  check_mode:
    support: full
    description: Both daemons are asked about every image, and nothing is sent.
  diff_mode:
    support: full
    description: Shows the id that each name has at the destination, before and after.
  idempotent:
    support: full
    description: An image that the destination has already is not sent again.
  platform:
    support: full
    platforms: posix
    description: The machine that the module runs on must be able to reach both daemons.
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
      - The daemon that has the images. Without it, the machine's own daemon.
    type: dict
    suboptions: &daemon
      socket:
        description:
          - Path of the unix socket that the daemon listens on.
          - V(/var/run/docker.sock) when neither this nor C(hops) is given.
        type: path
      hops:
        description:
          - Names of containers, outermost first. The daemon is the one that the Docker client in the innermost container
            speaks to.
          - The first one is a container of the daemon at V(/var/run/docker.sock) of the machine that the module runs on.
            Environment variables such as E(DOCKER_HOST) and Docker contexts make no difference.
          - An empty list is the machine's own daemon.
        type: list
        elements: str
  destination:
    description:
      - The daemon that is to have the images. Without it, the machine's own daemon.
    type: dict
    suboptions: *daemon
  timeout:
    description:
      - Seconds without a byte from a daemon, or without one that it takes, after which a transfer is given up.
      - A daemon says nothing while it prepares the archive of a large image.
    type: int
    default: 600
requirements:
  - Docker SDK for Python, 5.0.3 or newer (package python3-docker of Debian, docker of PyPI)
  - for C(hops), Docker's command line client, on the machine and in each container on the way
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

- name: Bring what was built in one instance into another
  nested.kata.image_transfer:
    images:
      - shop/web:42
      - shop/worker:42
    source:
      hops: [kata-in-docker, build]
    destination:
      hops: [kata-in-docker, production]

- name: Fetch an image out of a daemon that listens on a socket of its own
  nested.kata.image_transfer:
    images: [shop/web:42]
    source:
      socket: /run/nested-kata/kata/docker.sock
"""

RETURN = r"""
images:
  description:
    - What happened to each image, in the order of O(images).
    - When the module fails, those that were done until then.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name with its tag.
      type: str
      sample: debian:trixie-slim
    id:
      description: Id of the image at the destination. In check mode the one at the source.
      type: str
      sample: sha256:7f8ff97938a4e2f2a4e5fd1b9a6bd1cd1fbb1c8eb9c8cd2b3b9e77b2c0fb9d11
    changed:
      description: Whether the image was sent, or would be in check mode.
      type: bool
    bytes_sent:
      description: Bytes of the archive that the destination was sent.
      type: int
      sample: 124385280
    seconds:
      description: How long that took.
      type: float
      sample: 2.41
    reason:
      description: Why the image was sent or left alone.
      type: str
      sample: the destination has no image of this name
bytes_sent:
  description: Bytes sent for all images together.
  returned: always
  type: int
  sample: 124385280
msg:
  description: What was done, or what was wrong, in one line.
  returned: always
  type: str
  sample: "kata-in-docker > kata: sent 1 image (124.4 MB in 2.4 s), 1 was there"
"""

import time
from typing import Any, Dict, Iterator, List, Tuple

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.nested.kata.plugins.module_utils.daemon import OLDEST_SDK, SDK_IMPORT_ERROR, SDK_VERSION, Daemon, DaemonError, Endpoint, sdk_too_old
from ansible_collections.nested.kata.plugins.module_utils.image import Refused, Step, absent, decide, parse_references, refusal, same, short

PACKAGES = "package python3-docker of Debian, docker of PyPI"

DAEMON = {
    "socket": {"type": "path"},
    "hops": {"type": "list", "elements": "str"},
}
OPTIONS = {
    "images": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "dict", "options": DAEMON, "mutually_exclusive": [("socket", "hops")]},
    "destination": {"type": "dict", "options": DAEMON, "mutually_exclusive": [("socket", "hops")]},
    "timeout": {"type": "int", "default": 600},
}


def wanted(params: Dict[str, Any]) -> Tuple[Tuple[str, ...], Endpoint, Endpoint]:
    """Return the references, the source and the destination, or raise Refused."""
    try:
        references = parse_references(params["images"])
    except Refused as error:
        raise Refused(f"images: {error}") from error
    ends = []
    for option in ("source", "destination"):
        try:
            ends.append(Endpoint.parse(params[option]))
        except ValueError as error:
            raise Refused(f"{option}: {error}") from error
    if ends[0] == ends[1]:
        raise Refused(f"source and destination are the same daemon ({ends[0]}): name another one in one of them")
    if params["timeout"] < 1:
        raise Refused(f"timeout: {params['timeout']} is no number of seconds from 1 on")
    return references, ends[0], ends[1]


def by_content(source: Daemon, destination: Daemon) -> bool:
    """Return whether ids alone cannot tell if two images are the same."""
    return source.has_containerd_store() or destination.has_containerd_store()


def look(references: Tuple[str, ...], source: Daemon, destination: Daemon) -> List[Step]:
    """Ask both daemons about every image and return what is to be done."""
    pairs = [(reference, source.image(reference), destination.image(reference)) for reference in references]
    missing = [reference for reference, image, replaced in pairs if image is None]
    if missing:
        raise Refused(f"images: {source.title} has {absent(missing, source.tags())}: nothing was sent")
    # Only two different ids raise the question, and the answer costs a daemon more than all the others.
    content = any(replaced is not None and image.id != replaced.id for reference, image, replaced in pairs) and by_content(source, destination)
    return [decide(reference, image, replaced, by_content=content) for reference, image, replaced in pairs]


def outcome(step: Step, image_id: str, sent: int = 0, seconds: float = 0.0) -> Dict[str, Any]:
    return {
        "name": step.reference,
        "id": image_id,
        "changed": step.send,
        "bytes_sent": sent,
        "seconds": round(seconds, 2),
        "reason": step.reason,
    }


def act(step: Step, source: Daemon, destination: Daemon) -> Dict[str, Any]:
    """Send one image, and make sure that it arrived."""
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in source.save(step.reference):
            yield piece
            sent += len(piece)

    start = time.monotonic()
    for message in destination.load(step.reference, counted()):
        refused = refusal(message)
        if refused:
            raise DaemonError(f"{destination.title}: loading {step.reference}: {refused}")
    seconds = time.monotonic() - start
    arrived = destination.image(step.reference)
    if arrived is None:
        raise DaemonError(f"{destination.title}: loading {step.reference}: it reported no error, and has no image of this name")
    if not same(step.image, arrived, by_content=arrived.id != step.image.id and by_content(source, destination)):
        raise DaemonError(f"{destination.title}: loading {step.reference}: it reported no error, and has {short(arrived.id)} instead of {short(step.image.id)}")
    return outcome(step, arrived.id, sent, seconds)


def summary(destination: Endpoint, done: List[Dict[str, Any]], check_mode: bool) -> str:
    sent = [one for one in done if one["changed"]]
    kept = len(done) - len(sent)
    if not done:
        return "no images were asked for"
    count = f"{len(sent)} image{'' if len(sent) == 1 else 's'}"
    there = f"{kept} {'was' if kept == 1 else 'were'} there"
    if not sent:
        return f"{destination}: nothing to send, {there}"
    size, seconds = sum(one["bytes_sent"] for one in sent), sum(one["seconds"] for one in sent)
    what = f"would send {count}" if check_mode else f"sent {count} ({size / 1e6:.1f} MB in {seconds:.1f} s)"
    return f"{destination}: {what}, {there}"


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    nothing: Dict[str, Any] = {"changed": False, "images": [], "bytes_sent": 0}
    if SDK_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib(f"docker ({PACKAGES})"), exception=SDK_IMPORT_ERROR, **nothing)
    if sdk_too_old():
        oldest = ".".join(map(str, OLDEST_SDK))
        module.fail_json(msg=f"the Docker SDK for Python here is {SDK_VERSION}, and {oldest} is needed: upgrade {PACKAGES}", **nothing)
    try:
        references, source_end, destination_end = wanted(module.params)
    except Refused as error:
        module.fail_json(msg=str(error), **nothing)
    if not references:
        module.exit_json(msg=summary(destination_end, [], module.check_mode), **nothing)

    done: List[Dict[str, Any]] = []
    trouble, before = "", {}
    try:
        silence = module.params["timeout"]
        with Daemon(source_end, silence, title="source") as source, Daemon(destination_end, silence, title="destination") as destination:
            steps = look(references, source, destination)
            before = {step.reference: step.replaced.id if step.replaced else None for step in steps}
            for step in steps:
                if step.send and not module.check_mode:
                    done.append(act(step, source, destination))
                else:
                    done.append(outcome(step, step.image.id if step.send or not step.replaced else step.replaced.id))
    except (Refused, DaemonError) as error:
        trouble = str(error)

    result = {
        "changed": any(one["changed"] for one in done),
        "images": done,
        "bytes_sent": sum(one["bytes_sent"] for one in done),
        "diff": {"before": before, "after": {**before, **{one["name"]: one["id"] for one in done}}},
    }
    if trouble:
        module.fail_json(msg=trouble, **result)
    module.exit_json(msg=summary(destination_end, done, module.check_mode), **result)


if __name__ == "__main__":
    main()
