# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dockerd's command line: its flags, their names in daemon.json, what both must not name, and how to drop a flag."""

from __future__ import annotations

import re
from typing import Any, Collection, Iterator, Mapping, Sequence

# The key in daemon.json of a flag of dockerd, where that is not just its name (moby, daemon/command/config.go and
# config_unix.go).
KEYS_OF_FLAGS = {
    "H": "hosts",
    "host": "hosts",
    "D": "debug",
    "b": "bridge",
    "G": "group",
    "g": "graph",
    "l": "log-level",
    "s": "storage-driver",
    "p": "pidfile",
    **{
        name: f"{name}s"
        for name in (
            "label",
            "log-opt",
            "exec-opt",
            "storage-opt",
            "dns-opt",
            "cluster-store-opt",
            "default-network-opt",
            "feature",
            "registry-mirror",
            "authorization-plugin",
            "default-ulimit",
            "default-address-pool",
            "node-generic-resource",
            "cdi-spec-dir",
            "extension-dir",
        )
    },
    "insecure-registry": "insecure-registries",
}
# Keys for which there is no flag, or one that `dockerd --help` does not show, in Docker 20.10: the newer ones validate
# a configuration themselves.
HIDDEN = {
    "builder",
    "cluster-advertise",
    "cluster-store",
    "cluster-store-opts",
    "deprecated-key-path",
    "features",
    "graph",
    "network-diagnostic-port",
    "restart",
    "runtimes",
}
# Objects that dockerd does not take apart before it compares their names with its flags (moby, daemon/config/config.go,
# flatOptions).
FLAT = {"cluster-store-opts", "log-opts", "runtimes", "default-ulimits", "features", "builder"}
DROP_IN = "/etc/systemd/system/docker.service.d/flags.conf"


def _parts(arguments: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name of each flag, its value, and the arguments that both are."""
    waiting = list(arguments)
    while waiting:
        part = [waiting.pop(0)]
        name = value = ""
        if part[0].startswith("-") and part[0].strip("-"):
            flag, equals, value = part[0].partition("=")
            name = flag[2:] if flag.startswith("--") else flag[1]
            attached = equals or (not flag.startswith("--") and len(flag) > 2)
            # dockerd takes no arguments but flags, so what is no flag is the value of one.
            if not attached and waiting and not waiting[0].startswith("-"):
                value = waiting.pop(0)
                part.append(value)
        yield name, value, part


def flags_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the flags in dockerd's command line, without dashes and values."""
    return tuple(name for name, _value, _part in _parts(arguments) if name)


def added_runtimes(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the runtimes in dockerd's command line (--add-runtime NAME=PATH) beside daemon.json."""
    return tuple(value.partition("=")[0] for name, value, _part in _parts(arguments) if name == "add-runtime")


def key_of(flag: str) -> str:
    """Return the key of a flag in daemon.json."""
    return KEYS_OF_FLAGS.get(flag, flag)


def as_written(flag: str) -> str:
    """Return a flag as it is written."""
    return f"--{flag}" if len(flag) > 1 else f"-{flag}"


def collisions(flags: Sequence[str], settings: Collection[str]) -> list[tuple[str, str]]:
    """Return the flags that name what daemon.json names too, with their keys there: dockerd does not start with both.
    Its runtimes may come from both.
    """
    return [(flag, key_of(flag)) for flag in dict.fromkeys(flags) if key_of(flag) in settings]


def refusal(arguments: Sequence[str], settings: Collection[str], systemd: bool) -> str:
    """Return why dockerd, which is started with these arguments, would not start with these settings, and what to do;
    nothing where it would. The first argument is the program.
    """
    found = collisions(flags_of(arguments[1:]), settings)
    if not found:
        return ""
    keys = [key for _flag, key in found]
    parts = [(key_of(name) in keys, part) for name, _value, part in _parts(arguments[1:])]
    dropped = ", ".join(" ".join(part) for drop, part in parts if drop)
    command = " ".join([arguments[0], *(" ".join(part) for drop, part in parts if not drop)])
    remedy = (
        f"write {DROP_IN} with the lines `[Service]`, `ExecStart=` and `ExecStart={command}`, run `systemctl"
        " daemon-reload && systemctl restart docker`"
        if systemd
        else f"start it as `{command}`"
    )
    return f"dockerd is started with {dropped}, and does not start with {', '.join(keys)} in this file too: {remedy}"


def arguments_of_unit(shown: str) -> list[str]:
    """Return the command line in what `systemctl show --property=ExecStart` prints of a unit."""
    found = re.search(r"argv\[\]=(.*?) ;", shown)
    return found[1].split() if found else []


def unknown(settings: Mapping[str, Any], usage: str) -> list[str]:
    """Return the keys that a dockerd does not know, by the flags that its --help shows."""
    flags = re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", usage, re.MULTILINE)
    known = HIDDEN | set(flags) | {key_of(flag) for flag in flags}
    keys: list[str] = []
    for key, value in settings.items():
        keys += value if isinstance(value, Mapping) and key not in FLAT else [key]
    return [key for key in keys if key not in known]
