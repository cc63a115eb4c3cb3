# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of an archive of a release: the steps for each below the release's directory, or why it is refused. Nothing
is touched.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Tuple, Union

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import RECORD

PREFIX = ("opt", "kata")  # all members are below it, and it is stripped
MOST_MEMBERS = 200_000
MOST_BYTES = 20 << 30
LONGEST_NAME = 1024  # bytes; the release's own path must fit into PATH_MAX (4096) with it
LONGEST_PART = 255  # bytes; NAME_MAX

Parts = Tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """A member of an archive, as all its headers together describe it."""

    name: str
    kind: str
    """A file, a directory, a symlink, a hard link; anything else is refused by this word."""
    size: int = 0
    mode: int = 0o644
    mtime: float = 0
    target: str = ""


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory, or set the mode of an existing one."""

    parts: Parts
    mode: int = 0o755


@dataclass(frozen=True)
class WriteFile:
    """Write a new file with the next bytes of the archive."""

    parts: Parts
    size: int
    mode: int
    mtime: float


@dataclass(frozen=True)
class MakeSymlink:
    """Make a symlink."""

    parts: Parts
    target: str


@dataclass(frozen=True)
class MakeLink:
    """Give a file that was written another name."""

    parts: Parts
    existing: Parts


Piece = Union[MakeDirectory, WriteFile, MakeSymlink, MakeLink]


class Judge:
    """Decides on the steps for each member of an archive, in the archive's order, or refuses it."""

    def __init__(self) -> None:
        self._kinds: dict[Parts, str] = {(): "a directory"}
        self._members = 0
        self.bytes = 0
        self.files = 0

    def pieces(self, member: Member) -> tuple[Piece, ...]:
        """Return the steps for a member, in their order. It is refused before anything is done about it."""
        try:
            self._members += 1
            if self._members > MOST_MEMBERS:
                raise Refused(f"there are more than {MOST_MEMBERS} of them")
            return self._pieces(member)
        except Refused as error:
            raise Refused(f"member {member.name[:200]!r}: {error}") from None

    def _pieces(self, member: Member) -> tuple[Piece, ...]:
        if member.kind not in ("a file", "a directory", "a symlink", "a hard link"):
            raise Refused(f"it is {member.kind}")
        if not 0 <= member.size <= MOST_BYTES or (member.size and member.kind != "a file"):
            raise Refused(f"it is {member.kind} with a size of {member.size}")
        name = parts_of(member.name)
        if name == PREFIX[: len(name)]:
            if member.kind != "a directory":
                raise Refused(f"it is {member.kind} where a directory belongs")
            return ()
        parts = self._below(name)
        if parts == (RECORD,):
            raise Refused("the name is reserved for this module's record")
        parents = self._missing_parents(parts)
        if parts in self._kinds and not self._kinds[parts] == member.kind == "a directory":
            raise Refused(f"there was {self._kinds[parts]} of this name before it")
        piece = self._piece(parts, member)
        self._kinds.update(dict.fromkeys(parents, "a directory"))
        self._kinds[parts] = "a file" if member.kind == "a hard link" else member.kind
        return (*map(MakeDirectory, parents), piece)

    def _piece(self, parts: Parts, member: Member) -> Piece:
        # Only the owner may write, and no program is set-user-ID.
        if member.kind == "a directory":
            return MakeDirectory(parts, member.mode & 0o755 | 0o700)
        if member.kind == "a symlink":
            return MakeSymlink(parts, relative_target(parts, member.target))
        self.files += 1
        if member.kind == "a hard link":
            return MakeLink(parts, self._existing(member.target))
        self.bytes += member.size
        if self.bytes > MOST_BYTES:
            raise Refused(f"the files up to this one are larger than {MOST_BYTES >> 30} GiB")
        # A time that is not one (NaN) fails every comparison.
        return WriteFile(
            parts, member.size, member.mode & 0o755 | 0o400, member.mtime if 0 <= member.mtime < 1 << 32 else 0
        )

    def _below(self, name: Parts) -> Parts:
        if name[: len(PREFIX)] != PREFIX:
            raise Refused(f"it is outside of {'/'.join(PREFIX)}")
        return name[len(PREFIX) :]

    def _missing_parents(self, parts: Parts) -> list[Parts]:
        parents = [parts[:length] for length in range(1, len(parts))]
        for parent in parents:
            kind = self._kinds.get(parent, "a directory")
            if kind != "a directory":
                raise Refused(f"it is below {'/'.join(parent)}, which is {kind}")
        return [parent for parent in parents if parent not in self._kinds]

    def _existing(self, target: str) -> Parts:
        try:
            existing = self._below(parts_of(target))
        except Refused as error:
            raise Refused(f"it is a hard link to {target[:200]!r}: {error}") from error
        kind = self._kinds.get(existing)
        if kind != "a file":
            raise Refused(f"it is a hard link to {target!r}, which is {kind or 'not there'}")
        return existing


def parts_of(name: str) -> Parts:
    """Return the parts of a name, none of which leads anywhere but down."""
    _legible(name, "its name")
    if name.startswith("/"):
        raise Refused("its name is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused("its name has .. in it")
    return parts


def relative_target(parts: Parts, target: str) -> str:
    """Return the target of a symlink, relative and with no .. but at its beginning, which is where no other symlink can
    be on the way.
    """
    _legible(target, "its target")
    way: list[str] = [] if target.startswith("/") else [*PREFIX, *parts[:-1]]
    for part in target.split("/"):
        if part == "..":
            if not way:
                raise Refused(f"it is a symlink to {target!r}, above the root directory")
            way.pop()
        elif part not in ("", "."):
            way.append(part)
    if tuple(way[: len(PREFIX)]) != PREFIX:
        raise Refused(f"it is a symlink to {target!r}, outside of {'/'.join(PREFIX)}")
    return posixpath.relpath("/" + "/".join(way), "/" + "/".join((*PREFIX, *parts[:-1])))


def _legible(text: str, what: str) -> None:
    if not text:
        raise Refused(f"{what} is empty")
    # Neither control characters and NUL, nor what is not UTF-8 (surrogates), nor characters that change the direction
    # of writing.
    if not text.isprintable():
        raise Refused(f"{what} has characters that cannot be printed")
    if len(text.encode()) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in text.split("/")):
        raise Refused(f"{what} is too long")
