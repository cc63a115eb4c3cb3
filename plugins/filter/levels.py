# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: levels
short_description: Put together the tables of C(playbooks/status.yml)
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Goes through the machines and proxies of the inventory, and reads the results that C(playbooks/status.yml) and the
    role P(nested.kata.kata_preflight#role) registered for each. A machine that was not asked is left out.
  - The proxies and instances are those that the level above reports, whether or not they are in the inventory, and
    those of the inventory that it does not have.
  - Pure computation on the control node.
options:
  _input:
    description: The hosts of each group, C(groups).
    type: dict
    required: true
  hostvars:
    description: The variables of each host, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what runs where
  ansible.builtin.debug:
    msg: "{{ (groups | nested.kata.levels(hostvars)).rows | map('join', ', ') }}"
"""

RETURN = r"""
_value:
  description:
    - C(rows) has for each level its kind, name, state, kernel, Docker's version, storage driver, running containers,
      and isolation.
    - C(broken) has for each level that gave no useful answer its name and why.
    - C(memory) has for each instance that runs the level, name, memory that it was given, that its guest uses, and that
      the level holds for it.
    - C(ends) has for each instance that ended by itself the level, name, time, reason, and last line that it wrote.
    - C(disks) has for each disk image the level, path, apparent size, room taken, shared room, and room that it may
      still take.
    - C(differences) has for each option of a container that was made with another value than is wanted, and was left as
      it is, the level, container, option, the values that it has and those that it would have.
    - C(missing) has for each finding that keeps Kata from running its id and remedy.
    - C(standin) is V(true) where an instance runs under runc.
  type: dict
  sample:
    rows:
      - [machine, host1, running, 6.12.104, 26.1.5, overlay2, 1, "-"]
      - [instance, web, running, 6.12.104-docker, 26.1.5, btrfs, 0, VM (kata)]
      - [instance, ci, silent, "-", "-", "-", "-", VM (kata)]
    broken: [[ci, it gives no answer]]
    memory: [[kata-in-docker, web, 4.00 GB, 700.00 MB, 1.50 GB]]
    ends: [[kata-in-docker, web, "2026-11-30 12:00:00", it ended (exit status 137), Out of memory]]
    disks: [[kata-in-docker, disks/web.img, 20.00 GB, 1.20 GB, 0.00 Bytes, 18.80 GB]]
    differences: [[kata-in-docker, web, memory, 4 GiB, 8 GiB]]
    missing: []
    standin: false
"""

import contextlib
import json
import os.path
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import Unexpected, shown
from ansible_collections.nested.kata.plugins.module_utils._host.instances import LONGEST, docker_properties
from ansible_collections.nested.kata.plugins.plugin_utils.failures import failure_reason
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, way

HOME = "/var/lib/nested-kata"
FILE_SYSTEM = 0.9  # of a disk is what a file system has for files at least
STANDIN = "none: runc, the stand-in for Kata"
NOTHING: list[str | int] = ["-", "-", "-", "-"]
ISOLATION = {("proxy", "runc"): "container", ("instance", "runc"): STANDIN}
ASKED = {"running", "silent", "broken"}  # the states of a level that runs
CONTAINERS = {"kata_proxies": "proxy", "kata_instances": "instance"}  # the groups of containers, and what they are
TARGETS = ("kata_hosts", "kata_proxies", "kata_targets")  # the groups of hosts on which these are

Known = Mapping[str, Any]
"""The variables of a host."""


def levels(groups: Mapping[str, list[str]], hostvars: Hostvars) -> dict[str, Any]:
    """Return the tables of all levels."""
    machines = {name: machine(hostvars[name]) for name in groups.get("kata_hosts", []) if asked(hostvars[name])}
    names = dict.fromkeys(name for group in TARGETS for name in groups.get(group, []))
    targets = [(called(name, hostvars), hostvars[name]) for name in names]
    below = [(level, one) for level, known in targets for one in found(known)]
    lost = [
        [kind, called(name, hostvars), state, *NOTHING, "-"]
        for group, kind in CONTAINERS.items()
        for name in groups.get(group, [])
        if (state := lost_state(name, hostvars))
    ]
    rows = [["machine", name, *cells, "-"] for name, (cells, _why) in machines.items()]
    rows += [row(one) for kind in CONTAINERS.values() for _level, one in below if one["kind"] == kind] + lost
    return {
        "rows": rows,
        "broken": [[name, why] for name, (_cells, why) in machines.items() if why]
        + [[one["name"], shown(one["reason"], LONGEST)] for _level, one in below if one["reason"]]
        + [[level, why] for level, known in targets if (why := trouble(known))],
        "memory": [memory(level, one) for level, one in below if one["kind"] == "instance" and one["state"] in ASKED],
        "ends": [ended(level, one) for level, one in below if one["ends"]],
        "disks": [
            disk(level, image)
            for level, known in targets
            for image in known.get("nested_kata_disks", {}).get("images", [])
        ],
        "differences": [
            difference(level, container, one)
            for level, known in targets
            for container, listed in differing(known)
            for one in listed
        ]
        + [cells for level, known in targets for one in found(known) if (cells := grown(level, one, known))],
        "missing": [
            f"{finding['id']}: {finding['remedy']}"
            for name in groups.get("kata_hosts", [])
            for finding in errors(hostvars[name])
        ],
        "standin": any(cells[-1] == STANDIN for cells in rows),
    }


def called(name: str, hostvars: Hostvars) -> str:
    """Return the name of a level: of a container its own, else that of the host."""
    return (name, *way(name, hostvars).hops)[-1]


# --- machines, which say themselves what they are ---


def asked(known: Known) -> bool:
    """Return whether a machine was asked."""
    return "nested_kata_docker" in known


def machine(known: Known) -> tuple[list[str | int], str]:
    """Return what a machine says of itself, and nothing or why it gave no useful answer."""
    for question in ("nested_kata_kernel", "nested_kata_docker"):
        answer = known.get(question, {"rc": 0})
        if answer.get("rc", 1) != 0:
            return ["broken", *NOTHING], shown(failure_reason(answer), LONGEST)
    try:
        return ["running", *properties(known)], ""
    except Unexpected as error:
        return ["broken", *NOTHING], shown(error, LONGEST)


def properties(known: Known) -> list[str | int]:
    """Return what a machine says of itself, or raise Unexpected."""
    kernel = shown(known.get("nested_kata_kernel", {}).get("stdout", "-"), LONGEST)
    return [kernel, *docker_properties(known["nested_kata_docker"].get("stdout")).values()]


# --- proxies and instances, of which the level above says what they are ---


def found(known: Known) -> list[dict[str, Any]]:
    """Return the proxies and instances that were found on a target."""
    levels_there: list[dict[str, Any]] = known.get("nested_kata_found", {}).get("levels", [])
    return levels_there


def trouble(known: Known) -> str:
    """Return why it is not known what is on a target, nothing where it is."""
    result = known.get("nested_kata_found")
    if result is None or not result.get("error", True):
        return ""
    return shown(result.get("error") or failure_reason(result), LONGEST)


def lost_state(name: str, hostvars: Hostvars) -> str:
    """Return what is wrong with a container of the inventory that was not found, nothing where it was."""
    via, hops = way(name, hostvars)
    if not hops or via not in hostvars or "nested_kata_found" not in hostvars[via]:
        return ""
    if trouble(hostvars[via]):
        return "unknown"
    return "" if hops[-1] in {one["name"] for one in found(hostvars[via])} else "missing"


def row(one: Known) -> list[str | int]:
    """Return the row of a proxy or an instance."""
    cells = [one["kernel"], one["version"], one["driver"], one["running"]] if one["state"] == "running" else NOTHING
    isolation = ISOLATION.get((one["kind"], one["runtime"]), f"VM ({shown(one['runtime'], LONGEST)})")
    return [one["kind"], one["name"], one["state"], *cells, "-" if one["state"] == "foreign" else isolation]


def memory(level: str, one: Known) -> list[str]:
    """Return the row of the memory of an instance."""
    given, used, held = (one["memory"][key] for key in ("size", "used", "held"))
    return [level, one["name"], *(bytes_to_human(value) if value else "-" for value in (given, used, held))]


def ended(level: str, one: Known) -> list[str]:
    """Return the row of how an instance ended the last time."""
    last = one["ends"][-1]
    when = shown(last["at"], LONGEST).replace("T", " ").partition("+")[0]
    return [level, one["name"], when, shown(last["reason"], LONGEST), shown((last["lines"] or ["-"])[-1], LONGEST)]


def disk(level: str, image: Mapping[str, Any]) -> list[str]:
    """Return the row of a disk image."""
    return [level, os.path.relpath(image["path"], HOME)] + [
        bytes_to_human(image[key]) for key in ("size", "allocated", "shared", "growth")
    ]


def grown(level: str, one: Known, known: Known) -> list[str]:
    """Return the row of a disk that has grown since its instance was started, nothing for another."""
    images = {image["path"]: image for image in known.get("nested_kata_disks", {}).get("images", [])}
    image = images.get(f"{HOME}/disks/{one['name']}.img")
    if image is None or not one.get("disk"):
        return []
    wanted = min(one.get("disk_wanted") or image["size"], image["size"])
    if one["disk"] > wanted * FILE_SYSTEM:
        return []
    return [
        level,
        one["name"],
        "disk, until a restart",
        *(bytes_to_human(size) for size in (one["disk"], wanted)),
    ]


def differing(known: Known) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the containers on a target that differ from what is wanted, with the differences."""
    found_there = []
    for line in known.get("nested_kata_differences", {}).get("stdout_lines", []):
        with contextlib.suppress(ValueError, LookupError, TypeError):  # one that somebody has damaged
            note = json.loads(line)
            found_there.append((str(note["name"]), list(note["differences"])))
    return sorted(found_there, key=lambda note: note[0])


def difference(level: str, container: str, found: Mapping[str, Any]) -> list[str]:
    """Return the row of an option that differs."""
    return [level, container, found["item"], *(", ".join(found[key]) or "-" for key in ("is", "would_be"))]


def errors(known: Known) -> list[dict[str, Any]]:
    """Return the findings that keep Kata from running on a machine."""
    return [
        finding
        for finding in known.get("kata_preflight_look", {}).get("findings", [])
        if not finding["ok"] and finding["severity"] == "error"
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"levels": levels}
