# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages in which a docker daemon reports about a load, or about a save that failed."""

from __future__ import annotations

import codecs
import itertools
import re
from typing import Any, Iterable, Iterator, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    DECODER,
    Unexpected,
    check_depth,
    mapping,
    parsed,
    size,
)

LONGEST_MESSAGE = 1 << 16  # characters
SHORT = 1 << 10  # characters: what is longer is not read again with every piece that comes
LARGEST_STREAM = 1 << 28  # bytes: a load of 100 GiB reports its progress in a tenth of that
BLANK = re.compile(r"\s*")

# The containerd store reports this as an ordinary line of a load that it then calls a success.
NOT_UNPACKED = "Error unpacking image"


def messages(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream, however it is cut into pieces."""
    text, utf8, taken, enough = "", codecs.getincrementaldecoder("utf-8")("replace"), 0, 0
    for piece in itertools.chain(pieces, [b""]):
        taken += len(piece)
        if taken > LARGEST_STREAM:
            raise Unexpected(f"its messages have more than {LARGEST_STREAM} bytes")
        text, start = text + utf8.decode(piece), 0
        if piece and len(text) < min(enough, LONGEST_MESSAGE):
            continue
        check_depth(text, "a message")
        while (start := BLANK.match(text, start).end()) < len(text):  # type: ignore[union-attr]  # it matches nothing too
            try:
                message, start = DECODER.raw_decode(text, start)
            except Unexpected:
                raise
            except ValueError:
                break  # the rest of this object is still to come
            if isinstance(message, dict):
                yield message
        text = text[start:]
        enough = 2 * len(text) if len(text) > SHORT else 0
        if len(text) > LONGEST_MESSAGE:
            raise Unexpected(f"a message has more than {LONGEST_MESSAGE} characters")
    if text:
        raise ValueError(f"the stream ends in the middle of a message: {text[:200]!r}")


def refusal(message: Mapping[str, Any]) -> str | None:
    """Return the error in a message of a load, or None."""
    detail = message.get("errorDetail")
    if message.get("error") or detail:
        said = detail.get("message") if isinstance(detail, dict) else None
        return str(said or message.get("error") or detail).strip()
    for key in ("status", "stream"):
        line = str(message.get(key) or "")
        if NOT_UNPACKED in line:
            return line[line.index(NOT_UNPACKED) :].strip()
    return None


def trailing_error(tail: bytes) -> str | None:
    """Return the error that a daemon appended to an archive which it could not finish, or None.

    A save that fails on the way has already answered 200: the daemon writes the error after the bytes of
    the archive, where a whole archive has nothing but zeros.
    """
    start = tail.rfind(b'{"errorDetail"')
    if start < 0:
        return None
    try:
        return refusal(mapping(parsed(tail[start:]), "an error"))
    except Unexpected:
        return None


def unpacking(message: Mapping[str, Any]) -> str:
    """Return how far a daemon is with a layer that it unpacks, or nothing where the message is about something else."""
    try:
        detail = mapping(message.get("progressDetail"), "progress")
        current, total = size(detail.get("current", 0), "current"), size(detail.get("total", 0), "total")
    except Unexpected:
        return ""
    return f"unpacking {message.get('id', 'a layer')}, {amount(current, total)}" if total else ""
