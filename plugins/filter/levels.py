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
  - Goes through the machines, proxies and instances of the inventory, and reads the results that
    C(playbooks/status.yml) and the role P(nested.kata.kata_preflight#role) registered for each. A level whose
    Docker was not reached is left out.
  - Where a level is and how it is isolated comes from the inventory and the level above, not from the level itself.
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
    - C(rows) has for each level its kind, name, kernel, Docker's version, storage driver, running containers, and
      isolation.
    - C(broken) has for each level that gave no useful answer its name and why.
    - C(disks) has for each disk image the level, path, apparent size, room taken, shared room, and room that it may
      still take.
    - C(differences) has for each option of a container that was made with another value than is wanted, and was left as
      it is, the level, container, option, the values that it has and those that it would have.
    - C(missing) has for each finding that keeps Kata from running its id and remedy.
    - C(standin) is V(true) where an instance runs under runc.
  type: dict
  sample:
    rows:
      - [machine, host1, 6.12.104, 26.1.5, overlay2, 1, "-"]
      - [instance, web, 6.12.104-docker, 26.1.5, btrfs, 0, VM (kata)]
    broken: [[ci, Timed out after 60 second(s).]]
    disks: [[kata-in-docker, disks/web.img, 20.00 GB, 1.20 GB, 0.00 Bytes, 18.80 GB]]
    differences: [[kata-in-docker, web, memory, 4 GiB, 8 GiB]]
    missing: []
    standin: false
"""

import json
import os.path
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    Unexpected,
    mapping,
    parsed,
    shown,
    size,
    text,
)
from ansible_collections.nested.kata.plugins.plugin_utils.failures import failure_reason
from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, way

LONGEST = 60  # characters of what a level says of itself
HOME = "/var/lib/nested-kata"
KINDS = {"kata_hosts": "machine", "kata_proxies": "proxy", "kata_instances": "instance"}
STANDIN = "none: runc, the stand-in for Kata"
BROKEN: list[str | int] = ["-", "broken", "-", "-"]
ISOLATION = {("machine", ""): "-", ("proxy", "runc"): "container", ("instance", "runc"): STANDIN}

Known = Mapping[str, Any]
"""The variables of a host."""


def levels(groups: Mapping[str, list[str]], hostvars: Hostvars) -> dict[str, Any]:
    """Return the tables of all levels."""
    hosts = [(kind, name, hostvars[name]) for group, kind in KINDS.items() for name in groups.get(group, [])]
    targets = [(called(name, hostvars), known) for kind, name, known in hosts if kind != "instance"]
    asked = [(kind, name, *said(known)) for kind, name, known in hosts if "nested_kata_docker" in known]
    rows = [
        [kind, called(name, hostvars), *cells, isolation(kind, name, hostvars)] for kind, name, cells, _why in asked
    ]
    return {
        "rows": rows,
        "broken": [[called(name, hostvars), why] for _kind, name, _cells, why in asked if why],
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
        ],
        "missing": [
            f"{finding['id']}: {finding['remedy']}"
            for kind, _name, known in hosts
            if kind == "machine"
            for finding in errors(known)
        ],
        "standin": any(cells[-1] == STANDIN for cells in rows),
    }


def called(name: str, hostvars: Hostvars) -> str:
    """Return the name of a level: of a container its own, else that of the host."""
    return (name, *way(name, hostvars).hops)[-1]


def runtime(name: str, hostvars: Hostvars) -> str:
    """Return the runtime of a container as the level above reports it, or nothing."""
    via, hops = way(name, hostvars)
    lines: list[str] = hostvars[via].get("nested_kata_runtimes", {}).get("stdout_lines", []) if via else []
    runtimes = {container: found for container, _space, found in (line.partition(" ") for line in lines)}
    return runtimes.get(f"/{hops[-1]}", "") if hops else ""


def said(known: Known) -> tuple[list[str | int], str]:
    """Return what a level says of itself, and nothing or why it gave no useful answer."""
    for asked in ("nested_kata_kernel", "nested_kata_docker"):
        answer = known.get(asked, {"rc": 0})
        if answer.get("rc", 1) != 0:
            return BROKEN, shown(failure_reason(answer), LONGEST)
    try:
        return properties(known), ""
    except Unexpected as error:
        return BROKEN, shown(error, LONGEST)


def properties(known: Known) -> list[str | int]:
    """Return what a level says of itself, or raise Unexpected."""
    answer = text(known["nested_kata_docker"].get("stdout"), "what its Docker says")
    info = mapping(parsed(answer, "what its Docker says"), "what its Docker says")
    return [
        shown(known.get("nested_kata_kernel", {}).get("stdout", "-"), LONGEST),
        *(shown(text(info.get(key), key), LONGEST) for key in ("ServerVersion", "Driver")),
        size(info.get("ContainersRunning"), "ContainersRunning"),
    ]


def isolation(kind: str, name: str, hostvars: Hostvars) -> str:
    """Return what keeps a level apart from the one above."""
    found = runtime(name, hostvars)
    return ISOLATION.get((kind, found), f"VM ({shown(found, LONGEST)})" if found else "unknown")


def disk(level: str, image: Mapping[str, Any]) -> list[str]:
    """Return the row of a disk image."""
    return [level, os.path.relpath(image["path"], HOME)] + [
        bytes_to_human(image[key]) for key in ("size", "allocated", "shared", "growth")
    ]


def differing(known: Known) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the containers on a target that differ from what is wanted, with the differences."""
    notes = (json.loads(line) for line in known.get("nested_kata_differences", {}).get("stdout_lines", []))
    return sorted((note["name"], note["differences"]) for note in notes)


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
