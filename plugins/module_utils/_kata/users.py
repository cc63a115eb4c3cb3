# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users of a release: processes that have a file of it open, and mounts below it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.files import unescaped
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import User


@dataclass(frozen=True)
class MappedFile:
    """A file that a process has in its memory."""

    device: tuple[int, int]
    inode: int
    path: str


def mapped(maps: str) -> Iterator[MappedFile]:
    """Return the files in /proc/PID/maps (proc_pid_maps(5))."""
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4] != "0":
            major, _dummy, minor = fields[3].partition(":")
            yield MappedFile((int(major, 16), int(minor, 16)), int(fields[4]), fields[5])


def mounted_below(path: str, mountinfo: str) -> tuple[str, ...]:
    """Return the mount points at a directory or below it, from /proc/self/mountinfo."""
    points = (unescaped(line.split()[4]) for line in mountinfo.splitlines())
    return tuple(point for point in points if point == path or point.startswith(f"{path}/"))


def users_of(path: str) -> Iterator[User]:
    """Yield the processes that use something below a directory.

    A process in a container may see the directory under another path, so the files themselves are compared too.
    """
    inside = {identity(path)}
    for directory, names, files in os.walk(path):
        inside.update(identity(os.path.join(directory, name)) for name in (*names, *files))
    for process in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        if process != os.getpid() and any(uses(process, path, inside)):
            with contextlib.suppress(OSError), open(
                f"/proc/{process}/comm", encoding="utf-8", errors="replace"
            ) as file:
                yield User(process, file.read().strip())


def identity(path: str, follow: bool = False) -> tuple[int, int]:
    state = os.stat(path, follow_symlinks=follow)
    return state.st_dev, state.st_ino


def uses(process: int, path: str, inside: set[tuple[int, int]]) -> Iterator[bool]:
    """Yield for each file of a process whether it is in the directory. A process that ends meanwhile, or is hidden, has
    no files.
    """
    with contextlib.suppress(OSError):
        links = [f"/proc/{process}/{link}" for link in ("exe", "cwd", "root")]
        with contextlib.suppress(OSError):
            links += [f"/proc/{process}/fd/{link}" for link in os.listdir(f"/proc/{process}/fd")]
        for link in links:
            with contextlib.suppress(OSError):
                yield below(os.readlink(link), path) or identity(link, follow=True) in inside
        with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for file in mapped(maps.read()):
                yield below(file.path, path) or (os.makedev(*file.device), file.inode) in inside


def below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")
