# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json, Docker's configuration: read as dockerd reads it, merged, edited as a text, and written.

The machine image gets this file too, for docker_prepare.py. It then has only the standard library, and nothing else of
the collection.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import stat
from typing import Any, Dict, Iterator, Mapping, NamedTuple

RUNTIMES = "runtimes"
DEEPEST = 200  # levels: dockerd takes more, but nobody writes them, and Python does not take many more

Settings = Dict[str, Any]


class NoSettings(ValueError):
    """A text that dockerd would not start with; the message says what to do. `line` is 0 where no line is wrong."""

    def __init__(self, what: str, line: int = 0, content: str = "", comment: bool = False) -> None:
        if comment:
            found = f"line {line} has a comment ({content[:60]!r}), which JSON and dockerd do not know: remove it"
        elif line:
            found = f"line {line} is not valid JSON ({what}): {content[:60]!r}; correct it"
        else:
            found = f"{what}: correct it"
        super().__init__(found)
        self.what, self.line, self.comment = what, line, comment


# --- reading ---


def decoded(data: bytes) -> str:
    """Return the text of a daemon.json. As for dockerd, a byte order mark may name UTF-16."""
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise NoSettings(f"byte {error.start} is not valid {name}") from None


def read(text: str) -> Settings:
    """Return the settings of a daemon.json, or raise NoSettings. An empty file has none, as for dockerd, and null."""
    return _read(text)[0]


def parse(text: str) -> Settings:
    """Return the settings of a daemon.json that can be edited, or raise NoSettings. Of a key that is there twice,
    dockerd uses the last value, which whoever wrote it may not know.
    """
    settings, twice = _read(text)
    if twice:
        raise NoSettings(f"the key {twice[0]!r} is there twice, and Docker uses the last one")
    return settings


def _read(text: str) -> tuple[Settings, list[str]]:
    twice: list[str] = []

    def table(pairs: list[tuple[str, Any]]) -> Settings:
        found: Settings = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            # As Go does: the second of two objects adds to the first.
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = {**found[key], **value} if both else value
        return found

    if not text.strip():
        return {}, []
    level = deepest = 0
    for bracket in re.sub(r"[^][{}]+", "", _without_strings(text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    if deepest > DEEPEST:
        raise NoSettings(f"it has more than {DEEPEST} levels")
    try:
        settings = json.loads(text, object_pairs_hook=table, parse_constant=_no_number)
    except ValueError as error:  # from json, with a position, or about a number, without one
        what, position = getattr(error, "msg", str(error)), getattr(error, "pos", None)
        if position is None:
            position = _place_of_number(text)
        before = text[: position + 1].rstrip("}] \t\r\n")
        if before.endswith(",") and text[len(before) :].lstrip()[:1] in ("}", "]"):
            what, position = "there is a comma behind the last value", len(before) - 1
        line = text.count("\n", 0, position) + 1
        comment = text[position:].lstrip().startswith(("//", "/*", "#"))
        raise NoSettings(what, line, text.split("\n")[line - 1].strip(), comment) from None
    if not isinstance(settings, (dict, type(None))):
        raise NoSettings(f"it holds {type(settings).__name__}, not a JSON object ({{…}})")
    return settings or {}, twice


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _place_of_number(text: str) -> int:
    """Return where the first number is that JSON does not have, or that is too long for Python."""
    found = re.search(r"NaN|-?Infinity|[0-9]{4300}", _without_strings(text))
    return found.start() if found else 0


def _without_strings(text: str) -> str:
    """Return JSON with blanks in place of its strings."""
    return re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"?', lambda string: " " * len(string[0]), text, flags=re.DOTALL)


# --- changing ---


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: for Python 1 is true, and 1.0 is 1."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def merged(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> Settings:
    """Return settings with the wanted ones: objects are merged, None removes a key, and an object that becomes empty is
    removed, too.
    """
    result = dict(settings)
    for key, value in wanted.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            table = merged(below if isinstance(below, Mapping) else {}, value)
            if table or not value:
                result[key] = table
            else:
                result.pop(key, None)
        else:
            result[key] = value
    return result


def render(settings: Mapping[str, Any], like: str | None) -> str:
    """Return the settings as JSON. It is the existing text with as little of it changed as there must be."""
    if like and like.strip():
        with contextlib.suppress(ValueError, IndexError):
            edited = _edited(like, settings)
            found, twice = _read(edited)
            if not twice and same(found, settings):
                return edited
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


DECODER = json.JSONDecoder()


class _Member(NamedTuple):
    """A key of an object in a text, where it begins, and where its value begins and ends."""

    key: str
    start: int
    value: int
    end: int


def _edited(text: str, settings: Mapping[str, Any]) -> str:
    start, newline = _behind_blanks(text, 0), "\r\n" if "\r\n" in text else "\n"
    if text[_behind_blanks(text, start + 1)] == "}":
        return text[:start] + _new(settings, newline, "  ", "") + text[text.index("}", start) + 1 :]
    edited, end = _edited_object(text, start, settings, newline)
    return text[:start] + edited + text[end:]


def _edited_object(text: str, start: int, settings: Mapping[str, Any], newline: str) -> tuple[str, int]:
    """Return an object of a text, which is not empty, with these settings, and where the one in the text ends."""
    members = list(_members(text, start))
    end = text.index("}", members[-1].end) + 1
    opening, closing = text[start : members[0].start], text[members[-1].end : end]
    # How far the members are indented, and what is between two of them. None: they are in one line.
    inner = opening.rpartition("\n")[2] if "\n" in opening else None
    outer = closing[:-1].rpartition("\n")[2]
    unit = inner[len(outer) :] if inner and inner.startswith(outer) else "  "
    separator = "," + (opening[1:] if inner is not None else " ")
    if len(members) > 1:
        separator = text[members[0].end : members[1].start]
    pieces: list[str] = []
    for member, following in zip(members, [*members[1:], None]):
        if member.key in settings:
            value, wanted = text[member.value : member.end], settings[member.key]
            there = json.loads(value)
            if there and isinstance(there, dict) and wanted and isinstance(wanted, Mapping):
                value = _edited_object(text, member.value, wanted, newline)[0]
            elif not same(there, wanted):
                value = _new(wanted, newline, unit, inner)
            gap = text[member.end : following.start] if following else separator
            pieces += [text[member.start : member.value] + value, gap]
    known = {member.key for member in members}
    for key, wanted in settings.items():
        if key not in known:
            pieces += [f"{json.dumps(key, ensure_ascii=False)}: {_new(wanted, newline, unit, inner)}", separator]
    return (opening + "".join(pieces[:-1]) + closing if pieces else "{}"), end


def _members(text: str, start: int) -> Iterator[_Member]:
    at = _behind_blanks(text, start + 1)
    while text[at] != "}":
        key, after = DECODER.raw_decode(text, at)
        value = _behind_blanks(text, text.index(":", after) + 1)
        end = DECODER.raw_decode(text, value)[1]
        yield _Member(key, at, value, end)
        at = _behind_blanks(text, end)
        if text[at] == ",":
            at = _behind_blanks(text, at + 1)


def _behind_blanks(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _new(value: Any, newline: str, unit: str, inner: str | None) -> str:
    """Return a value as it is written behind a key that is indented that far; None: in one line with all others."""
    if inner is None:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + inner)


def program(runtime: Any) -> str:
    """Return the program of a runtime of daemon.json or of the daemon."""
    return str(runtime.get("runtimeType") or runtime.get("path") or "") if isinstance(runtime, Mapping) else ""


def is_below(runtime: Any, directory: str) -> bool:
    """Return whether the program of a runtime of daemon.json is in a directory."""
    return os.path.normpath(program(runtime)).startswith(directory.rstrip("/") + "/")


# --- the file ---


def content_of(path: str) -> str | None:
    """Return the text of a daemon.json, or None where there is none."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NoSettings("it is not a file")
            return decoded(file.read())
    except FileNotFoundError:
        return None


def replace(path: str, text: str | None) -> None:
    """Replace the text of the file and keep its owner and mode, or remove the file. Both are atomic.

    A symbolic link stays one, and its target is written. A file that is a mount point stays one: it is written in
    place, and has no settings where it would be removed.
    """
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    if _is_mount_point(path):
        _overwrite(path, (text or "{}\n").encode())
        return
    if text is None:
        os.unlink(path)
        _sync(directory)
        return
    data = text.encode()
    os.makedirs(directory, mode=0o755, exist_ok=True)
    unfinished = os.path.join(directory, f".{os.path.basename(path)}.nested-kata")
    try:
        with open(unfinished, "wb") as file:
            try:
                there = os.stat(path)
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), there.st_mode & 0o7777)
            except FileNotFoundError:
                os.fchmod(file.fileno(), 0o644)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, path)
    except OSError:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    _sync(directory)


def _is_mount_point(path: str) -> bool:
    """Return whether something is mounted at exactly this path; os.path.ismount misses a file of the same disk."""
    # As the kernel writes it (proc_pid_mountinfo(5)).
    written = re.sub(r"[ \t\n\\]", lambda blank: f"\\{ord(blank[0]):03o}", path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(mount.split(" ", 5)[4] == written for mount in mounts)


def _overwrite(path: str, data: bytes) -> None:
    """Write a file in place. At any time it is the old JSON or the new one, which blanks at its end leave as it is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data.ljust(os.fstat(descriptor).st_size, b"\n"), 0)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(directory: str) -> None:
    """Write the names in a directory to the disk, so that a rename or removal there is permanent."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
