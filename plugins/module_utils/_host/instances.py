# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxies and instances of a host: what Docker there reports of them, what each answers, what the host's memory
holds for it, and why it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.limits import limited
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    Unexpected,
    mapping,
    parsed,
    shown,
    size,
    text,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.command import NoAnswer, ask, inspect
from ansible_collections.nested.kata.plugins.module_utils._host.state import answers

KINDS = {"nested.kata.proxy": "proxy", "nested.kata.instance": "instance"}  # by the label
SECONDS = 120.0  # Docker reports nothing of a container while it starts it
LARGEST = 1 << 20  # bytes of an answer
TIMED_OUT = (124, 137)  # exit statuses of timeout(1)
LONGEST = 60  # characters of what a guest says of itself
HYPERVISOR = re.compile(rb"qemu|cloud-hypervisor|firecracker|dragonball|stratovirt")

# Its kernel, its memory, the file system of its disk, and what its Docker says of itself.
QUESTION = """
uname -r
sed -n 's/^\\(MemTotal\\|MemAvailable\\): *\\([0-9]*\\) kB$/\\1 \\2/p' /proc/meminfo
df --block-size=1 --output=size /var/lib/docker 2>/dev/null | sed -n '2s/^ */Disk /p'
docker info --format '{{json .}}'
"""


@dataclass(frozen=True)
class Places:
    """The directories of a host that hold what Docker does not know of its instances."""

    settings: str = "/etc/nested-kata/instances"
    ends: str = "/var/lib/nested-kata/ends"
    processes: str = "/proc"


def look(client: str | None, seconds: int, places: Places = Places()) -> dict[str, Any]:
    """Return the proxies and instances, and nothing but the reason where Docker does not answer."""
    if not client:
        return {"error": "there is no command docker", "levels": []}
    try:
        containers = found(client)
    except NoAnswer as error:
        return {"error": str(error), "levels": []}
    running = [name_of(one) for one in containers if one["State"]["Running"] and state_of(one, places) == "running"]
    said = answers({name: question(name, seconds) for name in running})
    held = memory_held([one["Id"] for one in containers], places.processes)
    return {
        "error": "",
        "levels": [
            described(one, places, said.get(name_of(one)), held.get(one["Id"]))
            for one in sorted(containers, key=lambda one: (kind_of(one) != "proxy", name_of(one)))
        ],
    }


def found(client: str) -> list[dict[str, Any]]:
    """Return all containers with one of the labels."""
    names: set[str] = set()
    for label in KINDS:
        names.update(
            ask(client, "ps", "--all", "--no-trunc", "--quiet", "--filter", f"label={label}", seconds=SECONDS).split()
        )
    return inspect(client, "container", sorted(names), SECONDS)


def question(name: str, seconds: int) -> list[str]:
    """Return the command that asks a guest, which may answer without end, or never."""
    asking = ["timeout", "--kill-after=5", str(seconds), "docker", "exec", name, "sh", "-c", QUESTION]
    return limited(asking, LARGEST, 1 << 12)


# --- what Docker reports ---


def name_of(container: Mapping[str, Any]) -> str:
    """Return the name of a container."""
    return str(container["Name"]).lstrip("/")


def labels_of(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a container."""
    return container["Config"].get("Labels") or {}


def kind_of(container: Mapping[str, Any]) -> str:
    """Return whether a container is a proxy or an instance."""
    return next(kind for label, kind in KINDS.items() if label in labels_of(container))


def state_of(container: Mapping[str, Any], places: Places) -> str:
    """Return the state of a container as far as Docker knows it. An image that was made of an instance hands its label
    on, so that more than the label has to be the instance's.
    """
    name, labels, kind = name_of(container), labels_of(container), kind_of(container)
    own = labels.get(f"nested.kata.{kind}") == name
    if not own or (kind == "instance" and not os.path.exists(os.path.join(places.settings, f"{name}.env"))):
        return "foreign"
    return "running" if container["State"]["Running"] else "stopped"


def described(
    container: Mapping[str, Any], places: Places, answer: Mapping[str, Any] | None, held: int | None
) -> dict[str, Any]:
    """Return what is known of a proxy or an instance."""
    state, config = container["State"], container["HostConfig"]
    one: dict[str, Any] = {
        "name": name_of(container),
        "kind": kind_of(container),
        "state": state_of(container, places),
        "reason": "",
        "runtime": config.get("Runtime") or "",
        "started": state["StartedAt"],
        "exit_status": None if state["Running"] else state["ExitCode"],
        "kernel": "",
        "version": "",
        "driver": "",
        "running": 0,
        "memory": {"size": config.get("Memory") or 0, "used": None, "held": held},
        "disk": None,
        "disk_wanted": None,
        "ends": [],
    }
    if one["kind"] == "instance":
        one["disk_wanted"] = size_in(os.path.join(places.settings, f"{one['name']}.env"))
        one["ends"] = ends_of(os.path.join(places.ends, f"{one['name']}.json"))
    if answer:
        try:
            one.update(heard(answer, one["memory"]))
        except NoAnswer as error:
            one.update(state="silent", reason=str(error))
        except Unexpected as error:
            one.update(state="broken", reason=shown(error))
    return one


def heard(answer: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a guest says of itself, or raise NoAnswer or Unexpected."""
    if answer["rc"] in TIMED_OUT:
        raise NoAnswer("it gives no answer")
    if answer["rc"]:
        lines = [line for line in (answer["stderr"] or answer["stdout"]).splitlines() if line.strip()]
        raise Unexpected(shown((lines or [f"it answers with exit status {answer['rc']}"])[-1]))
    kernel, *lines = answer["stdout"].rstrip("\n").split("\n")
    numbers = dict(line.split(" ") for line in lines if re.fullmatch(r"(MemTotal|MemAvailable|Disk) [0-9]{1,18}", line))
    total, available, disk = (int(numbers.get(key, 0)) for key in ("MemTotal", "MemAvailable", "Disk"))
    return {
        "kernel": shown(kernel, LONGEST),
        **docker_properties(lines[-1] if lines else ""),
        "memory": {**memory, "used": max(total - available, 0) * 1024 if total and available else None},
        "disk": disk or None,
    }


def docker_properties(said: Any) -> dict[str, Any]:
    """Return the version, the storage driver and the running containers from `docker info`, or raise Unexpected."""
    what = "what its Docker says"
    info = mapping(parsed(text(said, what), what), what)
    return {
        "version": shown(text(info.get("ServerVersion"), "ServerVersion"), LONGEST),
        "driver": shown(text(info.get("Driver"), "Driver"), LONGEST),
        "running": size(info.get("ContainersRunning"), "ContainersRunning"),
    }


# --- what the host has ---


def memory_held(ids: Iterable[str], processes: str) -> dict[str, int]:
    """Return the bytes of the host's memory that the processes of each VM hold, each shared page once. A container
    without a hypervisor is left out.
    """
    wanted = {one.encode(): one for one in ids}
    held: dict[str, int] = {}
    hypervisors: set[str] = set()
    for process in filter(str.isdigit, os.listdir(processes)):
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(processes, process, "cmdline"), "rb") as file:
                command = file.read(1 << 16)
            for encoded, one in wanted.items():
                if encoded in command:
                    held[one] = held.get(one, 0) + proportional(os.path.join(processes, process, "smaps_rollup"))
                    if HYPERVISOR.search(command.split(b"\0", 1)[0]):
                        hypervisors.add(one)
    return {one: size for one, size in held.items() if one in hypervisors}


def proportional(path: str) -> int:
    """Return the proportional set size of a process, in bytes."""
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def size_in(path: str) -> int | None:
    """Return how much of its disk the settings of an instance let the file system take; None where that is all."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        found = re.search(r"^DISK_SIZE=([0-9]{1,18})$", file.read(1 << 16), re.MULTILINE)
        return int(found.group(1)) if found else None
    return None


def ends_of(path: str) -> list[dict[str, Any]]:
    """Return how an instance ended the last times, oldest first, as the program wrote it that keeps it running."""
    try:
        with open(path, encoding="utf-8") as file:
            kept: Sequence[dict[str, Any]] = json.load(file)["ends"]
            return [{key: one[key] for key in ("at", "reason", "status", "lines")} for one in kept]
    except (OSError, ValueError, LookupError, TypeError):
        return []
