# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of a daemon that loads or saves an image."""

from __future__ import annotations

import time

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import Unexpected
from ansible_collections.nested.kata.plugins.module_utils._docker.messages import (
    messages,
    refusal,
    trailing_error,
    unpacking,
)
from hypothesis import given
from hypothesis import strategies as st

STREAM = b'{"status":"Loading layer","id":"\xc3\xa9"}\r\n{"stream":"Loaded image: a:1\\n"}\r\n{"a":{"b":"}{"}}'


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=8))
def test_messages_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in zip(edges, edges[1:])]
    assert list(messages(pieces)) == [
        {"status": "Loading layer", "id": "é"},
        {"stream": "Loaded image: a:1\n"},
        {"a": {"b": "}{"}},
    ]


def test_a_stream_that_breaks_off_in_a_message_is_an_error() -> None:
    found = messages([b'{"status":"x"}{"stre'])
    assert next(found) == {"status": "x"}
    with pytest.raises(ValueError, match="in the middle of a message"):
        next(found)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (
            {"errorDetail": {"message": "no space left on device"}, "error": "no space left on device"},
            "no space left on device",
        ),
        ({"error": "alone"}, "alone"),
        ({"errorDetail": {"message": "alone"}}, "alone"),
        ({"errorDetail": {"code": 1}}, "{'code': 1}"),
        (
            {"status": "Error unpacking image a:1: failed to extract layer"},
            "Error unpacking image a:1: failed to extract layer",
        ),
        ({"stream": "Loaded image: a:1\nError unpacking image a:1: gone\n"}, "Error unpacking image a:1: gone"),
        ({"stream": "Loaded image: a:1\n"}, None),
        ({"status": "Loading layer", "progressDetail": {"current": 1}}, None),
        ({}, None),
    ],
)
def test_what_a_load_complains_about_is_found(message: dict, complaint: str | None) -> None:
    assert refusal(message) == complaint


@pytest.mark.parametrize(
    ("tail", "failure"),
    [
        (bytes(1024), None),
        (bytes(512) + b'{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}\r\n', "layer is gone"),
        (b'{"errorDetail" is a text in a file' + bytes(512), None),
        (b"", None),
    ],
)
def test_an_error_behind_an_archive_is_found(tail: bytes, failure: str | None) -> None:
    assert trailing_error(tail) == failure


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            {"status": "Loading layer", "id": "d4f7", "progressDetail": {"current": 3 << 20, "total": 12 << 20}},
            "unpacking d4f7, 3 of 12 MiB, 25 %",
        ),
        ({"stream": "Loaded image: a:1"}, ""),
        ({"status": "Loading layer", "progressDetail": {}}, ""),
    ],
)
def test_a_layer_that_is_unpacked_is_told(message: dict, line: str) -> None:
    assert unpacking(message) == line


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b'{"a":"'] + [b"x" * 4096] * 100, "more than 65536 characters"),
        ([b'{"a":' * 1000 + b"1" + b"}" * 1000], "levels"),
        ([b'{"a":' * 100 + b"1" + b"}" * 100], "more than 64 levels"),
        ([b'{"a":' + b"9" * 5000 + b"}"], "a number has 5000 digits"),
        ([b" " * (1 << 20)] * 1000, "more than 268435456 bytes"),
    ],
)
def test_messages_that_no_daemon_sends_are_refused_at_once(pieces: list[bytes], why: str) -> None:
    start = time.process_time()
    with pytest.raises(Unexpected, match=why):
        list(messages(pieces))
    assert time.process_time() - start < 10


def test_a_long_message_in_small_pieces_is_not_read_again_with_each_of_them() -> None:
    message = b'{"a":[' + b"{}," * 10_000 + b"{}]}"
    start = time.process_time()
    (found,) = messages(message[at : at + 1] for at in range(len(message)))
    assert len(found["a"]) == 10_001
    assert time.process_time() - start < 5


def test_many_small_messages_take_no_more_than_their_sum() -> None:
    start = time.process_time()
    assert sum(1 for _message in messages([b"{}" * 2048] * 100)) == 204_800
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "said", [[], [1], "x", 7, {"current": "a", "total": 5}, {"current": -1, "total": 5}, {"total": {}}]
)
def test_progress_of_other_types_is_none(said: object) -> None:
    assert unpacking({"progressDetail": said}) == ""
    assert refusal({"errorDetail": said, "error": "full"}) == "full"
