# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages in which a docker daemon reports about a load, or about a save that failed."""

from __future__ import annotations

import codecs
import json
from typing import Any, Iterable, Iterator, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount

# The containerd store reports this as an ordinary line of a load that it then calls a success.
NOT_UNPACKED = "Error unpacking image"


def messages(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream, however it is cut into pieces."""
    text, utf8, json_decoder = "", codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder()
    for piece in pieces:
        text = (text + utf8.decode(piece)).lstrip()
        while text:
            try:
                message, end = json_decoder.raw_decode(text)
            except ValueError:
                break  # the rest of this object is still to come
            text = text[end:].lstrip()
            if isinstance(message, dict):
                yield message
    if text:
        raise ValueError(f"the stream ends in the middle of a message: {text[:200]!r}")


def refusal(message: Mapping[str, Any]) -> str | None:
    """Return the error in a message of a load, or None."""
    detail = message.get("errorDetail")
    if message.get("error") or detail:
        return str((detail or {}).get("message") or message.get("error") or detail).strip()
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
        return refusal(json.loads(tail[start:]))
    except ValueError:
        return None


def unpacking(message: Mapping[str, Any]) -> str:
    """Return how far a daemon is with a layer that it unpacks, or nothing where the message is about something else."""
    detail = message.get("progressDetail") or {}
    if not detail.get("total"):
        return ""
    return f"unpacking {message.get('id', 'a layer')}, {amount(detail.get('current', 0), detail['total'])}"
