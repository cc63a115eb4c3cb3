# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others say: the answers of daemons and shells, which may be a tenant's. They are limited in size and depth and
checked for their types here, before anything else uses them, and made visible before anybody reads them.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Iterable

LARGEST = 32 << 20  # bytes of an answer: a daemon lists thousands of images in less
MOST = 1 << 20  # values in JSON, of which each takes about a hundred bytes of memory
DEEPEST = 64  # levels of JSON within each other: Docker writes up to ten
LONGEST_NUMBER = 24  # characters: numbers that Docker writes have up to 20
LONGEST = 1000  # characters of a message that are shown


class Unexpected(ValueError):
    """An answer is not what it should be."""


def joined(pieces: Iterable[bytes], most: int = LARGEST, until: float = float("inf")) -> bytes:
    """Return the pieces in one: of so many bytes at most, and all of them before a time of the monotonic clock."""
    found, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise Unexpected(f"the answer has more than {most} bytes")
        if time.monotonic() > until:
            raise Unexpected("the answer took too long")
        found.append(piece)
    return b"".join(found)


# JSON


def _number(digits: str) -> int:
    # A long one would take minutes where Python does not limit it itself.
    if len(digits) > LONGEST_NUMBER:
        raise Unexpected(f"a number has {len(digits)} digits")
    return int(digits)


DECODER = json.JSONDecoder(parse_int=_number)


def parsed(text: str | bytes, what: str = "the answer") -> Any:
    """Return what JSON says."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        if sum(map(text.count, ",[{")) > MOST:
            raise Unexpected(f"it has more than {MOST} values")
        check_depth(text, "it")
        return DECODER.decode(text)
    except ValueError as error:
        raise Unexpected(f"{what} is not valid JSON: {error}") from error


# A string, terminated or not, and a run of anything but brackets.
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
BETWEEN = re.compile(r"[^\[\]{}]+")


def check_depth(text: str, what: str) -> None:
    """Raise Unexpected for JSON with too many levels, before anything takes it apart: at Python's own limit whatever
    happens to run then fails with it, also a garbage collection.
    """
    level = 0
    for bracket in BETWEEN.sub("", STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        if level > DEEPEST:
            raise Unexpected(f"{what} has more than {DEEPEST} levels")


# Types


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Return an object of JSON; null is an empty one, as Go writes it."""
    if not isinstance({} if value is None else value, dict):
        raise Unexpected(f"{what} is not an object: {shown(value, 40)}")
    return value or {}


def array(value: Any, what: str) -> list[Any]:
    """Return a list of JSON; null is an empty one, as Go writes it."""
    if not isinstance([] if value is None else value, list):
        raise Unexpected(f"{what} is not a list: {shown(value, 40)}")
    return value or []


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Unexpected(f"{what} is not a text: {shown(value, 40)}")
    return value


def texts(value: Any, what: str) -> list[str]:
    return [text(one, what) for one in array(value, what)]


def size(value: Any, what: str, most: int = 1 << 60) -> int:
    """Return a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Unexpected(f"{what} is {shown(value, 40)}, and not a whole number from 0 to {most}")
    return value


# For people


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a text in one line in which nothing hides, and no more than so many characters of it."""
    words = " ".join(re.split(r"[ \t\r\n]+", str(value)[: longest * 8])).strip(" ")
    visible = "".join(_visible(character) for character in words[: longest + 1])
    return visible if len(visible) <= longest else f"{visible[: longest - 2].rstrip(' ')} …"


def _visible(character: str) -> str:
    # Not so are control characters, marks that change the direction of text, what has no width, other blanks than
    # the usual, and what is in no Unicode text.
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
