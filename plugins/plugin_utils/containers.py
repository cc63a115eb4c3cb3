# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that `docker create` made: what one was made from, how that differs from what is wanted, and what becomes
of it.

A label on each container has what it was made from. Earlier releases left a hash there: of their containers is known
what the daemon reports, and whether anything differs at all.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import exact, parse_size
from ansible_collections.nested.kata.plugins.module_utils._common.urls import without_user

LABEL = "nested.kata.arguments"
NEW, OLD = ".nested-kata-new", ".nested-kata-old"
"""What is appended to a container's name: of the one that takes its place soon, and of the one that it replaced."""

Inspected = Mapping[str, Any]
"""A container or an image, as `docker inspect` reports it."""

Items = dict[str, list[str]]
"""What a container was made from: the values of each option of `docker create`, as they were written."""

BY_KEY = ("env", "label")  # options whose values are KEY=VALUE: each key is an item of its own
HASHED = 16  # hexadecimal digits
LONGEST_SHOWN = 300  # characters of a variable's value


@dataclass(frozen=True)
class Difference:
    """What a container has and what it would have: values of an item that only one of both has."""

    item: str
    has: list[str]
    wants: list[str]

    def __str__(self) -> str:
        has, wants = (", ".join(one or "''" for one in values) or "nothing" for values in (self.has, self.wants))
        return f"{self.item}: {has} -> {wants}"


@dataclass(frozen=True)
class Found:
    """The containers with a name, and with the names beside it, as far as they are the same machine's."""

    exists: bool = False
    running: bool = False
    container: Inspected = field(default_factory=dict)
    made_from: Items = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # what it was given, secrets included
    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # containers with the names beside it that are not


def digest(content: object) -> str:
    """Return a short hash over JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HASHED]


# What it was made from


def options(arguments: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Yield the options among arguments with their values. One without a value is a flag, that is set."""
    words = [str(one) for one in arguments]
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("-") else "true"
        yield name.lstrip("-"), value


def items(record: Mapping[str, Any]) -> Items:
    """Return the items of a record, which is a wanted container or the label of an existing one."""
    found: Items = {}
    for name, value in options(record["arguments"]):
        key, _equals, rest = value.partition("=")
        item, content = (f"{name} {key}", rest) if name in BY_KEY else (name, value)
        found.setdefault(item, []).append(content)
    for name, value in record.get("environment", {}).items():
        found[f"env {name}"] = [value]
    if record.get("command"):
        found["command"] = [shlex.join(record["command"])]
    if record.get("stdin"):
        found["standard input"] = [record["stdin"]]
    found["stop-timeout"] = [str(record["stop_timeout"])]
    return found


def record(wanted: Mapping[str, Any], image: Inspected) -> dict[str, Any]:
    """Return what the label of a container says: the container, and of its image and its input what they contain."""
    noted = {**wanted, "content": content(image)}
    if wanted.get("stdin"):
        noted["stdin"] = hashed(wanted["stdin"])
    if wanted.get("environment"):
        noted["environment"] = {name: without_secrets(value) for name, value in wanted["environment"].items()}
    return noted


def hashed(text: str) -> str:
    """Return what stands for a text that is long or secret."""
    return f"sha256 {digest(text)}"


def without_secrets(value: str) -> str:
    """Return a variable's value as it may be seen: URLs without their passwords, a long text as its hash alone."""
    if len(value) > LONGEST_SHOWN:
        return hashed(value)
    visible = " ".join(map(without_user, value.split(" ")))
    return value if visible == value else f"{visible} ({hashed(value)})"


# In the configuration of an image, what a container gets from it.
IMAGE_CONFIG = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir")


def content(image: Inspected) -> str:
    """Return a hash over what an image gives to a container, which its id is not: that has the time of the build."""
    if not image:
        return ""
    config = image.get("Config") or {}
    return digest([image["RootFS"]["Layers"], {key: config.get(key) or None for key in IMAGE_CONFIG}])


def gibibytes(size: int) -> str:
    """Return a size as an earlier release wrote it."""
    return f"{size >> 30}G" if size and size % (1 << 30) == 0 else str(size)


def bind_mount(mount: Mapping[str, Any]) -> str:
    """Return a bind mount as the roles write it."""
    words = [f"type={mount['Type']}", f"source={mount.get('Source', '')}", f"target={mount['Target']}"]
    return ",".join(words + (["readonly"] if mount.get("ReadOnly") else []))


# What a daemon reports of a container without changing the meaning, by item.
REPORTED: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "runtime": lambda host: [host["Runtime"]],
    "cpus": lambda host: [f"{host['NanoCpus'] / 1e9:g}"] if host["NanoCpus"] else [],
    "memory": lambda host: [gibibytes(host["Memory"])] if host["Memory"] else [],
    "shm-size": lambda host: [gibibytes(host["ShmSize"])],
    "cap-add": lambda host: list(host["CapAdd"] or []),
    "device": lambda host: [device(one) for one in host["Devices"] or []],
    "mount": lambda host: [bind_mount(one) for one in host.get("Mounts") or []],
    "volume": lambda host: list(host["Binds"] or []),
    "network": lambda host: [host["NetworkMode"]],
}


def device(reported: Mapping[str, str]) -> str:
    """Return a device as the roles write it."""
    outside, inside = reported["PathOnHost"], reported["PathInContainer"]
    return outside if outside == inside else f"{outside}:{inside}"


def reported_items(container: Inspected) -> Items:
    """Return the items of a container that the daemon reports."""
    config = container["Config"]
    found = {item: read(container["HostConfig"]) for item, read in REPORTED.items()}
    found |= {f"env {key}": [value] for key, _equals, value in (one.partition("=") for one in config["Env"] or [])}
    found |= {f"label {key}": [value] for key, value in (config["Labels"] or {}).items()}
    found["stop-timeout"] = [str(config["StopTimeout"])] if config.get("StopTimeout") is not None else []
    return {item: values for item, values in found.items() if values}


def label_of(container: Inspected) -> str:
    """Return what the label of a container says."""
    return str((container["Config"]["Labels"] or {}).get(LABEL, ""))


def noted(container: Inspected) -> dict[str, Any] | None:
    """Return the record in the label of a container, or nothing where it has only a hash."""
    text = label_of(container)
    return json.loads(text) if text.startswith("{") else None


def made_from(container: Inspected) -> Items:
    """Return what a container was made from, as far as that is known."""
    known = noted(container)
    return items(known) if known else reported_items(container)


def environment(container: Inspected) -> dict[str, str]:
    """Return the variables that it was given as its environment, and not those of its arguments, of its image or of
    Docker's client.
    """
    pairs = (str(one).partition("=") for one in container["Config"].get("Env") or [])
    given = (noted(container) or {}).get("environment", {})
    return {name: value for name, _equals, value in pairs if name in given}


def found(name: str, containers: Iterable[Inspected]) -> Found:
    """Return the containers of a name among those that were inspected.

    Where a run was interrupted while two changed places, the one that was replaced is the container.
    """
    by_name = {one["Name"].lstrip("/"): one for one in containers}
    beside = {other: by_name[other] for other in (name + NEW, name + OLD) if other in by_name}
    mine = {other: one for other, one in beside.items() if label_of(one) and one["Config"]["Hostname"] == name}
    current = by_name.get(name) or mine.get(name + OLD)
    if current is None:
        return Found(names=list(mine), others=[other for other in beside if other not in mine])
    return Found(
        exists=True,
        running=current["State"]["Running"],
        container=current,
        made_from=made_from(current),
        environment=environment(current),
        names=[name] * (name in by_name) + list(mine),
        others=[other for other in beside if other not in mine],
    )


# How it differs


def plain(item: str, value: str) -> str:
    """Return a value in the one form by which it is compared."""
    try:
        if item == "cpus":
            return f"{float(value):g}"
        if item in ("memory", "shm-size"):
            return exact(parse_size(value))
    except (Refused, ValueError):
        return value
    if item == "cap-add":
        return value.upper().removeprefix("CAP_")
    if item == "device":
        parts = value.split(":")
        return parts[0] if len(parts) == 2 and parts[0] == parts[1] else value
    return value


def differing(item: str, has: Iterable[str], wants: Iterable[str]) -> Difference | None:
    """Return how the values of an item differ, whatever their order."""
    left, more = ([plain(item, value) for value in values] for values in (has, wants))
    for value in list(left):
        if value in more:
            left.remove(value)
            more.remove(value)
    return Difference(item, left, more) if left or more else None


def differences(container: Inspected, wanted: Mapping[str, Any], image: Inspected) -> list[Difference]:
    """Return how a container differs from the wanted one. Without its image only the name of the image counts."""
    known = noted(container)
    # Earlier releases knew no environment.
    before = {name: value for name, value in wanted.items() if name != "environment" or value}
    if known is None and label_of(container) == digest([before, [image["Id"]] if image else []]):
        return []
    has, wants = made_from(container), items(record(wanted, image))
    # Docker reports more than was asked for, and not all of that.
    compared = [one for one in wants if one in has] if known is None else dict.fromkeys([*wants, *has])
    differ = (differing(item, has.get(item, []), wants.get(item, [])) for item in compared)
    listed = [*image_difference(container, known, wanted, image), *filter(None, differ)]
    unknown = Difference("arguments", ["not known, noted by an earlier release"], ["other ones"])
    return listed or ([unknown] if known is None else [])


def image_difference(
    container: Inspected, known: Mapping[str, Any] | None, wanted: Mapping[str, Any], image: Inspected
) -> list[Difference]:
    """Return how the images differ."""
    names = container["Config"]["Image"], wanted["image"]
    ids = container["Image"], image["Id"] if image else ""
    same = ids[0] == ids[1] or bool(known and known["content"] and known["content"] == content(image))
    if same or (not image and names[0] == names[1]):
        return []
    shown = [f"{name} ({id_.removeprefix('sha256:')[:12]})" if id_ else name for name, id_ in zip(names, ids)]
    return [Difference("image", shown[:1], shown[1:])]


# What becomes of it


def action(there: Found, listed: list[Difference], pending: bool, recreate: str) -> str:
    """Return what is done: create, keep, leave (although it differs) or recreate.

    Where the container that it replaced is still there (pending), it is first proven that this one runs. A VM does not
    become a mere container unasked, as it would where /dev/kvm is missing for a moment.
    """
    if not there.exists:
        return "create"
    if not listed:
        return "keep"
    no_vm = any(one.item == "runtime" and "runc" in one.wants for one in listed)
    allowed = may_be_made_again(there, recreate) and (recreate == "always" or not no_vm)
    return "recreate" if allowed and not pending else "leave"


def may_be_made_again(there: Found, recreate: str) -> bool:
    """Return whether a container that differs may be made again, by the variable that says which ones may."""
    return recreate == "always" or (recreate == "stopped" and not there.running)
