# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of disk_image, parsed and checked."""

from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import parse_size
from ansible_collections.nested.kata.plugins.module_utils._disk.file_systems import FILE_SYSTEMS
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import WRITABLE


@dataclass(frozen=True)
class Wanted:
    """The options of the task, parsed and checked."""

    path: str
    fstype: str = "btrfs"
    size: int | None = None
    label: str | None = None
    uuid: str | None = None
    attached: bool | None = None
    link: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    absent: bool = False
    filesystem_size: int | None = None
    mkfs_options: tuple[str, ...] = ()
    preallocated: bool = False
    clone_of: str | None = None
    resizefs: bool = True
    sealed: bool | None = None
    trim: bool = False
    any_content: bool = False


def parse(options: dict[str, Any]) -> Wanted:
    """Return the parsed options of the module, or raise Refused."""
    absent = options["state"] == "absent"
    for option in ("path", "link", "clone_of"):
        if options[option] is not None and (
            not os.path.isabs(options[option]) or os.path.basename(options[option]) in ("", ".", "..")
        ):
            raise Refused(f"{option}: {options[option]!r} is not the absolute path of a file")
    if options["link"] and options["attached"] is None and not absent:
        raise Refused("link: names the loop device, so it needs attached: true, or attached: false to remove it")
    if absent and options["attached"]:
        raise Refused("attached: true cannot go with state: absent")
    path = os.path.normpath(options["path"])
    golden = options["clone_of"] and os.path.normpath(options["clone_of"])
    mode = _parse_mode(options["mode"])
    _check_together(options, path, golden, mode)
    return Wanted(
        path=path,
        fstype=options["fstype"],
        size=None if options["size"] is None else parse_size(options["size"]),
        filesystem_size=_parse_filesystem_size(options),
        label=_parse_label(options["label"], options["fstype"]),
        uuid=_parse_uuid(options["uuid"]),
        attached=options["attached"],
        link=options["link"] and os.path.normpath(options["link"]),
        uid=_parse_id("owner", options["owner"], lambda name: pwd.getpwnam(name).pw_uid),
        gid=_parse_id("group", options["group"], lambda name: grp.getgrnam(name).gr_gid),
        mode=mode,
        absent=absent,
        mkfs_options=_parse_mkfs_options(options["mkfs_options"]),
        preallocated=options["allocation"] == "preallocated",
        clone_of=golden,
        resizefs=options["resizefs"],
        sealed=options["sealed"],
        trim=options["trim"],
        any_content=options["any_content"],
    )


def _parse_filesystem_size(options: dict[str, Any]) -> int | None:
    if options["filesystem_size"] is None:
        return None
    if options["resizefs"]:
        raise Refused("filesystem_size: goes with resizefs: false, else the file system fills its file")
    return parse_size(options["filesystem_size"], "filesystem_size")


def _check_together(options: dict[str, Any], path: str, golden: str | None, mode: int | None) -> None:
    """Refuse options that contradict each other."""
    if golden == path:
        raise Refused("clone_of: is the path itself, an image cannot be a clone of itself")
    if golden and options["mkfs_options"]:
        raise Refused("mkfs_options: are for a new file system, and clone_of makes none")
    if options["allocation"] == "preallocated":
        for option in ("clone_of", "trim", "sealed"):
            if options[option]:
                raise Refused(f"allocation: preallocated cannot go with {option}, which is for files that have holes")
    for option in ("trim", "sealed"):
        if options[option] and options["attached"]:
            raise Refused(f"{option}: true cannot go with attached: true, it is for an image that nobody uses")
        if options[option] and options["state"] == "absent":
            raise Refused(f"{option}: true cannot go with state: absent")
    if options["any_content"]:
        _check_any_content(options)
    if mode is not None and bool(mode & WRITABLE) == bool(options["sealed"]):
        raise Refused(
            f"mode: {mode:04o} allows writing, and sealed: true does not: choose one"
            if options["sealed"]
            else f"mode: {mode:04o} allows no writing, which seals an image: set sealed: true if that is meant"
        )


def _check_any_content(options: dict[str, Any]) -> None:
    if options["state"] != "absent" and options["attached"] is not False:
        raise Refused("any_content: true needs state: absent, or attached: false")
    for option in (
        "size",
        "filesystem_size",
        "mkfs_options",
        "allocation",
        "clone_of",
        "trim",
        "sealed",
        "label",
        "uuid",
    ):
        if options[option]:
            raise Refused(f"any_content: true cannot go with {option}, which is about the content")


def _parse_mkfs_options(options: list[str] | None) -> tuple[str, ...]:
    before = ""
    for option in options or ():
        # A word that follows no option would be a second device to format, and a path an external journal, a prototype
        # or another device.
        if "/" in option or (not option.startswith("-") and not before.startswith("-")):
            raise Refused(
                f"mkfs_options: {option!r} may name another file or device: only options and their values are accepted,"
                " and no paths"
            )
        before = option
    return tuple(options or ())


def _parse_label(label: str | None, fstype: str) -> str | None:
    longest = FILE_SYSTEMS[fstype].label_bytes
    if label is not None and not re.fullmatch(rf"[ -~]{{1,{longest}}}", label):
        raise Refused(f"label: {label!r} is not a valid label for {fstype}: 1 to {longest} characters, printable ASCII")
    return label


def _parse_uuid(uuid: str | None) -> str | None:
    if uuid is None:
        return None
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid.lower()):
        raise Refused(f"uuid: {uuid!r} is not a UUID: write it like 7d57472b-5630-4e76-9191-1ca5e456a9da")
    return uuid.lower()


def _parse_id(option: str, name: str | None, look_up: Callable[[str], int]) -> int | None:
    if name is None or name.isdigit():
        return None if name is None else int(name)
    try:
        return look_up(name)
    except KeyError:
        raise Refused(f"{option}: there is no {name!r} on this machine") from None


def _parse_mode(mode: object) -> int | None:
    if mode is None:
        return None
    # YAML turns an unquoted 0600 into the number it means; a string is read as octal.
    text = str(mode)
    if isinstance(mode, int) and not isinstance(mode, bool) and 0 <= mode <= 0o7777:
        return mode
    if isinstance(mode, str) and re.fullmatch(r"0?[0-7]{3,4}", text) and int(text, 8) <= 0o7777:
        return int(text, 8)
    raise Refused(f"mode: {text!r} is not a valid mode: write it in octal and in quotes, like '0600'")
