# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is as wanted on a host, by what nested.kata.host_info and nested.kata.disk_image_info found there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import parse_size
from ansible_collections.nested.kata.plugins.plugin_utils.containers import Found, differences
from ansible_collections.nested.kata.plugins.plugin_utils.firewall import rules_of

Facts = Mapping[str, Any]


def is_as_wanted(wanted: Facts, files: Mapping[str, Facts]) -> bool:
    """Return whether a file or a directory (without content) is there with its mode and content."""
    found = files.get(wanted["path"], {})
    if "content" not in wanted:
        return found.get("type") == "directory" and found["mode"] == wanted["mode"]
    same = hashlib.sha256(str(wanted["content"]).encode()).hexdigest() == found.get("sha256")
    return found.get("type") == "file" and found["mode"] == wanted["mode"] and same


def unsettled(wanted: Facts, host: Facts, disks: Iterable[Facts] = ()) -> list[str]:
    """Return in which respects a container and what belongs to it are not as wanted, or not known to be. What cannot be
    judged is for the tasks that handle it, which report the reason.
    """
    found = []
    for respect, is_settled in _respects(wanted, host, list(disks)).items():
        try:
            if not is_settled():
                found.append(respect)
        except (LookupError, TypeError, ValueError, Refused):
            found.append(respect)
    return found


def _respects(wanted: Facts, host: Facts, disks: list[Facts]) -> dict[str, Callable[[], bool]]:
    files, units = host["files"], host["units"]
    respects: dict[str, Callable[[], bool]] = {
        "container": lambda: _is_container(wanted["container"], Found(**wanted["found"]), host, wanted["running"]),
        "network": lambda: _is_network(wanted, host),
        "files": lambda: all(is_as_wanted(one, files) for one in wanted["files"]),
        "leftovers": lambda: not any(_may_exist(path, files) for path in wanted["absent"]),
        "units": lambda: all(_is_unit(states, units.get(name, {})) for name, states in wanted["units"].items()),
    }
    if "disk" in wanted:
        respects["disk"] = lambda: _is_disk(wanted["disk"], files, disks)
    if wanted["running"]:
        respects["answer"] = lambda: _answers(wanted, host)
    return respects


def _may_exist(path: str, files: Mapping[str, Facts]) -> bool:
    return path in files or not files.get(os.path.dirname(path), {}).get("listed", True)


def _is_container(container: Facts, found: Found, host: Facts, running: bool) -> bool:
    image = host["images"].get(container["image"])
    if not found.exists or image is None or found.names != [container["name"]] or found.running != running:
        return False
    return not differences(found.container, container, image)


def _is_network(wanted: Facts, host: Facts) -> bool:
    found = [one for one in host["networks"] if one["Name"] == wanted["network"]]
    if len(found) != 1:
        return False
    labels = found[0].get("Labels") or {}
    if wanted["label"] and labels.get(wanted["label"]) != wanted["container"]["name"]:
        return False
    rules = rules_of(found[0], networks=host["networks"], **wanted["rules"])
    return is_as_wanted({"path": wanted["rules_path"], "mode": "0644", "content": rules}, host["files"])


def _is_unit(states: Facts, found: Facts) -> bool:
    return all(found.get(name) == state for name, state in states.items()) and found.get("reload") == "no"


def _is_disk(wanted: Facts, files: Mapping[str, Facts], disks: list[Facts]) -> bool:
    found = next((one for one in disks if one["path"] == wanted["path"]), None)
    if found is None or (found["size"], found["fstype"]) != (parse_size(str(wanted["size"])), wanted["fstype"]):
        return False
    if not wanted["link"]:
        return True
    link = files.get(wanted["link"], {})
    return bool(found["attached"] and not found["sealed"] and link.get("target") == found["device"])


def _answers(wanted: Facts, host: Facts) -> bool:
    answer = host["answers"].get(wanted["container"]["name"], {})
    ids = [host["images"].get(image, {}).get("Id") for image in wanted["images"]]
    return bool(answer.get("rc") == 0 and answer["stdout"].split() == [*wanted["answer"], *ids])
