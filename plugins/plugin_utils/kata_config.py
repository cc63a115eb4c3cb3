# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kata's configuration: the file of a release, and the drop-in beside it. Runs on the control node.

Kata reads its main file and then all files of `config.d` beside it: tables are merged deeply, arrays and single values
are replaced. So the drop-in need not repeat the settings of the release, except the paths that differ.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomllib
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.plugin_utils.merge import Table, merged

HOME = "/opt/kata"  # the directory in the paths of a release's configuration
AT_HOME = re.compile(rf"(?<![\w./-]){HOME}(?=/|$)")

# Kata sets the first itself, and without the second systemd in a VM finds no cgroup tree that it can use. Another
# kernel_params replaces the whole line, so that both have to be in it.
KERNEL_PARAMS = ("cgroup_no_v1=all", "systemd.unified_cgroup_hierarchy=1")

# Keys that Kata 4.1.0 knows although its shipped file may not name them.
KNOWN = {
    "hypervisor.qemu": {
        "seccomp_sandbox",
        "initrd",
        "image",
        "overhead_memory",
        "overhead_vcpus",
        "reclaim_guest_freed_memory",
        "disable_vhost_net",
        "vm_rootfs_driver",
        "extra_monitor_socket",
    },
    "agent.kata": {"dial_timeout_ms", "reconnect_timeout_ms", "create_container_timeout"},
    "runtime": {
        "internetworking_model",
        "sandbox_cgroup_only",
        "static_sandbox_resource_mgmt",
        "disable_guest_seccomp",
    },
}

HEADER = re.compile(r"^\s*\[([A-Za-z0-9_.\"-]+)\]\s*(?:#.*)?$")
KEY = re.compile(r"^\s*#?\s*([A-Za-z0-9_-]+)\s*=")
BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Shipped:
    """The configuration file of a release."""

    settings: Table
    known: Mapping[str, frozenset[str]]
    """By table, the keys that the file names, also those that are commented out."""

    @property
    def hypervisor(self) -> str:
        name: str = next(iter(self.settings["hypervisor"]))
        return name


def read(text: str) -> Shipped:
    """Read the configuration of a release, or raise Refused."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"the release's configuration is not valid TOML ({error}): get the release again") from None
    hypervisors = settings.get("hypervisor")
    if not isinstance(hypervisors, dict) or len(hypervisors) != 1:
        number = len(hypervisors or ())
        raise Refused(
            f"the release's configuration has {number} tables hypervisor.NAME and must have one: this is not a"
            " supported Kata Containers release"
        )
    known: dict[str, set[str]] = {table: set(keys) for table, keys in KNOWN.items()}
    table = ""
    for line in text.splitlines():
        if header := HEADER.match(line):
            table = header.group(1).replace('"', "")
            known.setdefault(table, set())
        elif (key := KEY.match(line)) and table:
            known[table].add(key.group(1))
    return Shipped(settings, {table: frozenset(keys) for table, keys in known.items()})


def moved(settings: Any, home: str) -> Any:
    """Return the settings with a path below /opt/kata, with the real directory of the release in it; None where there
    are none.
    """
    if isinstance(settings, Mapping):
        tables = {key: moved(value, home) for key, value in settings.items()}
        return {key: value for key, value in tables.items() if value is not None} or None
    if isinstance(settings, str):
        text = AT_HOME.sub(lambda found: home, settings)
        return text if text != settings else None
    if isinstance(settings, list):
        items = [moved(item, home) for item in settings]
        return (
            [new if new is not None else old for new, old in zip(items, settings)]
            if any(item is not None for item in items)
            else None
        )
    return None


def kind(value: Any) -> str:
    """Name a value's type as TOML does."""
    names = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a float"),
        (str, "a string"),
        (Mapping, "a table"),
        (Sequence, "an array"),
    )
    return next(
        (name for type_, name in names if isinstance(value, type_)), f"{type(value).__name__}, which TOML does not have"
    )


def check(settings: Table, shipped: Shipped, option: str) -> None:
    """Raise Refused for a key that the release does not know in a table that it knows, and for a value of another type
    than it has.
    """
    for path, value in leaves(settings):
        table, key = ".".join(path[:-1]), path[-1]
        name = f"{option}: {'.'.join(path)}"
        if value is None:
            raise Refused(f"{name} is null, which TOML does not have: leave it out, or give it a value")
        if not table:
            raise Refused(f"{name} is in no table: Kata has {', '.join(sorted(shipped.known))}")
        if table in shipped.known and key not in shipped.known[table]:
            near = difflib.get_close_matches(key, shipped.known[table], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see the file that it ships"
            raise Refused(f"{name} is not a key that this version of Kata knows in [{table}]: {hint}")
        if table not in shipped.known and (near := difflib.get_close_matches(table, shipped.known, n=1)):
            raise Refused(f"{name} is in a table that this version of Kata does not have: did you mean [{near[0]}]?")
        there = shipped.settings
        for part in path:
            there = there.get(part, {}) if isinstance(there, Mapping) else {}
        if there != {} and kind(there) != kind(value):
            raise Refused(
                f"{name} is {kind(value)} ({value!r}), and Kata has {kind(there)} there ({there!r}): write it as one"
            )


def leaves(settings: Table, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def with_kernel_params(text: str) -> str:
    """Return a kernel's command line with the parameters that Kata needs, unless it sets them itself."""
    have = {word.split("=", 1)[0] for word in text.split()}
    return " ".join([*(word for word in KERNEL_PARAMS if word.split("=", 1)[0] not in have), *text.split()])


def drop_in(shipped: Shipped, *, home: str, ours: Table, theirs: Table, option: str) -> dict[str, Any]:
    """Return the drop-in for a release that ships this and is in `home`.

    `ours` (the collection's) and `theirs` (the user's, which take precedence) have the tables of Kata's file;
    `hypervisor` in ours is that of the release, whatever it is. Raises Refused where the result could not be used.
    `option` is the variable that theirs comes from.
    """
    check(theirs, shipped, option)
    name = shipped.hypervisor
    tables = {key: value for key, value in ours.items() if key != "hypervisor"}
    result = merged(
        moved(shipped.settings, home) or {}, {"hypervisor": {name: ours.get("hypervisor", {})}}, tables, theirs
    )
    result["hypervisor"][name]["kernel_params"] = with_kernel_params(
        str(result["hypervisor"][name].get("kernel_params", ""))
    )
    whole = merged(shipped.settings, result)["hypervisor"][name]
    if bool(whole.get("image")) == bool(whole.get("initrd")):
        found = "both image and initrd" if whole.get("image") else "neither image nor initrd"
        raise Refused(
            f"{option}: hypervisor.{name} has {found}, and Kata takes one of them: set the other one to an empty string"
        )
    return result


def files(settings: Table) -> list[str]:
    """Return the files in a configuration that must exist for a VM to start."""
    (table,) = settings["hypervisor"].values()
    return [
        table[key] for key in ("path", "kernel", "image", "initrd", "virtio_fs_daemon", "firmware") if table.get(key)
    ]


def render(settings: Table) -> str:
    """Return settings as TOML, one table after the other."""
    return "\n".join(render_table(settings, ())).strip() + "\n"


def render_table(table: Table, path: tuple[str, ...]) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and (values or not table):
        yield f"\n[{'.'.join(map(quoted, path))}]"
    for key, value in values.items():
        yield f"{quoted(key)} = {literal(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from render_table(value, (*path, key))


def quoted(key: str) -> str:
    return key if BARE.fullmatch(key) else literal(key)


def literal(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings have JSON's escapes, and need DEL escaped too.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{quoted(key)} = {literal(below)}' for key, below in value.items())}}}"
    return f"[{', '.join(map(literal, value))}]"
