# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of what roles make on a host: containers and the like, files, units and packages, in one look that changes
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import Unexpected, mapping, parsed, text
from ansible_collections.nested.kata.plugins.module_utils._docker.command import NoAnswer, ask, inspect

LARGEST_TEXT = 1 << 20  # bytes of a file that is read
LARGEST_HASHED = 16 << 20  # bytes of a file whose checksum is computed
AT_ONCE = 8  # commands
SECONDS = 120.0  # Docker reports nothing of a container while it starts it

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "character",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

# The properties of a unit, and what they are called here.
PROPERTIES = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "reload",
}


@dataclass(frozen=True)
class Wanted:
    """What is looked for, by the options of the module."""

    containers: Sequence[str] = ()
    images: Sequence[str] = ()
    volumes: Sequence[str] = ()
    paths: Sequence[str] = ()
    texts: Sequence[str] = ()
    units: Sequence[str] = ()
    packages: Sequence[str] = ()
    libraries: Sequence[str] = ()
    commands: Mapping[str, Sequence[str]] | None = None
    docker: bool = True


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the parsed options of the module, or raise Refused."""
    for option in ("paths", "texts"):
        for path in options[option]:
            if not os.path.isabs(path):
                raise Refused(f"{option}: {path!r} is not an absolute path")
    for option in ("containers", "images", "volumes", "units", "packages"):
        for name in options[option]:
            if not name or (name.startswith("-") and option == "packages"):
                raise Refused(f"{option}: {name!r} is not a valid name")
    for name, command in options["commands"].items():
        if not isinstance(command, list) or not command:
            raise Refused(f"commands: that of {name} is not a list of a program and its arguments")
    return Wanted(**options)


def look(wanted: Wanted, client: str | None) -> dict[str, Any]:
    """Return what was found. `client` is the path of the docker command."""
    return {
        **look_at_docker(wanted, client),
        "files": dict(look_at_files(wanted.paths)),
        "texts": dict(read_texts(wanted.texts)),
        "units": look_at_units(wanted.units),
        "packages": installed(wanted.packages),
        "libraries": [name for name in wanted.libraries if importable(name)],
        "answers": answers(wanted.commands or {}),
    }


# --- Docker ---


def look_at_docker(wanted: Wanted, client: str | None) -> dict[str, Any]:
    """Return what Docker has. Where it does not answer there is nothing but the reason."""
    nothing: dict[str, Any] = {"containers": [], "networks": [], "images": {}, "volumes": []}
    if not wanted.docker:
        return {"docker": {"error": "it was not asked"}, **nothing}
    if not client:
        return {"docker": {"error": "there is no command docker"}, **nothing}
    try:
        server = mapping(parsed(ask(client, "version", "--format", "{{json .Server}}", seconds=SECONDS)), "its version")
        info = mapping(parsed(ask(client, "info", "--format", "{{json .}}", seconds=SECONDS)), "docker info")
        version, runtimes = text(server.get("Version"), "its version"), mapping(info.get("Runtimes"), "its runtimes")
        networks = ask(client, "network", "ls", "--no-trunc", "--quiet", seconds=SECONDS).split()
        images = {name: inspect(client, "image", [name], SECONDS) for name in dict.fromkeys(wanted.images)}
        return {
            "docker": {"error": "", "version": version, "runtimes": sorted(runtimes)},
            "containers": inspect(client, "container", wanted.containers, SECONDS),
            "networks": inspect(client, "network", networks, SECONDS),
            "images": {name: found[0] for name, found in images.items() if found},
            "volumes": inspect(client, "volume", wanted.volumes, SECONDS),
        }
    except (NoAnswer, Unexpected) as error:
        return {"docker": {"error": str(error)}, **nothing}


# --- files ---


def look_at_files(paths: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the paths that exist, of a directory, also one that a link leads to, with what is directly in it."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = describe(path)
            yield path, found
            try:
                names = sorted(os.listdir(path)) if os.path.isdir(path) else []
            except PermissionError:
                names, found["listed"] = [], False
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    yield os.path.join(path, name), describe(os.path.join(path, name))


def describe(path: str) -> dict[str, Any]:
    """Return what a path is. A link is not followed."""
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    found = {"type": kind, "mode": f"{stat.S_IMODE(status.st_mode):04o}", "size": status.st_size}
    if kind == "link":
        found["target"] = os.readlink(path)
    if kind == "file" and status.st_size <= LARGEST_HASHED:
        with contextlib.suppress(OSError):  # the kernel has files that cannot be read
            found["sha256"] = hashlib.sha256(content(path, LARGEST_HASHED)).hexdigest()
    return found


def content(path: str, most: int) -> bytes:
    """Return the content of a regular file, and of nothing that would have to be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        return file.read(most)


def read_texts(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the texts of those files that can be read."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path, content(path, LARGEST_TEXT).decode(errors="replace")


# --- units and packages ---


def look_at_units(units: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the states of units, nothing where systemd does not run."""
    if not units or not os.path.isdir("/run/systemd/system"):
        return {}
    done = output_of(["systemctl", "show", f"--property=Names,{','.join(PROPERTIES)}", "--", *units])
    found = {}
    for paragraph in done.split("\n\n"):
        reported = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        for unit in reported.get("Names", "").split():
            found[unit] = {name: reported.get(key, "") for key, name in PROPERTIES.items()}
    return {unit: found[unit] for unit in units if unit in found}


def installed(packages: Sequence[str]) -> list[str]:
    """Return those packages that are installed, as far as Debian's package manager is there and knows."""
    if not packages:
        return []
    # A line for each architecture.
    reported = output_of(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *packages]
    ).splitlines()
    return [package for package in packages if f"{package} installed" in reported]


def importable(library: str) -> bool:
    """Return whether this Python finds a library. A directory that only has its name is not one."""
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def output_of(command: Sequence[str]) -> str:
    """Return the output of a command, which leaves out what it does not know."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=SECONDS,
        ).stdout
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return ""


# --- commands ---


def answers(commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Run commands, some at the same time, and return their exit status and output. They limit their time and their
    output themselves.
    """
    waiting = list(commands.items())
    found: dict[str, dict[str, Any]] = {}
    while waiting:
        some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        with contextlib.ExitStack() as stack:
            started = []
            for name, command in some:
                out, err = (stack.enter_context(tempfile.TemporaryFile()) for _dummy in range(2))
                try:
                    process = subprocess.Popen(
                        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err
                    )
                except OSError as error:
                    raise Refused(f"commands: {command[0]} of {name} cannot be run: {error.strerror}") from error
                started.append((name, stack.enter_context(process), out, err))
            for name, process, out, err in started:
                found[name] = {"rc": process.wait(), "stdout": _read(out), "stderr": _read(err)}
    return found


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))
