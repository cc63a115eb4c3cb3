# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets of a Kata host that lead to the Docker daemons of its instances, and the files that make each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.ways import Hostvars, hops_from, noted

GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # groupadd(8)
LONGEST_NAME = 80  # the path of a socket has 107 bytes at most: unix(7)
SETTINGS = "/etc/nested-kata/sockets/{name}.json"
UNIT = "/etc/systemd/system/nested-kata-socket@{name}.socket"
UNIT_TEXT = """\
[Unit]
Description=Socket of the Docker daemon in {name} (nested.kata)

[Socket]
ListenStream=/run/nested-kata/{name}.sock
SocketGroup={group}
SocketMode=0660
DirectoryMode=0755
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""


class Invalid(Exception):
    """The sockets cannot be as the inventory has them. The message is one line."""


def sockets_of(instances: Iterable[str], host: str, hostvars: Hostvars) -> list[dict[str, Any]]:
    """Return the sockets of the instances that are reached from a host: on itself, and in its proxies."""
    found: dict[str, dict[str, Any]] = {}
    for instance in instances:
        hops = hops_from(host, instance, hostvars)
        if not hops:
            continue
        name = hops[-1]
        group = str(next(iter(noted([instance], hostvars, "kata_instance_group")), f"nested-kata-{name}"))
        if name in found:
            raise Invalid(
                f"{instance} and {' > '.join(found[name]['hops'])} would both have the socket {name}.sock on {host}:"
                " give one of the instances another name"
            )
        if len(name) > LONGEST_NAME:
            raise Invalid(f"{instance}: its name has more than {LONGEST_NAME} characters, too many for a socket's path")
        if not GROUP.fullmatch(group):
            raise Invalid(
                f"{instance}: {group!r} cannot be a group of its Kata host: set kata_instance_group for it, up to 32"
                " small letters, digits, '-' and '_', the first a letter or '_'"
            )
        found[name] = {"name": name, "hops": [*hops], "group": group}
    return [found[name] for name in sorted(found)]


def files_of(sockets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the files that make sockets, each with the socket's name."""
    return [
        {"socket": one["name"], "path": path.format(**one), "mode": "0644", "content": content}
        for one in sockets
        for path, content in (
            (SETTINGS, json.dumps({"hops": one["hops"]}) + "\n"),
            (UNIT, UNIT_TEXT.format(**one)),
        )
    ]
