# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others say is limited, checked and made visible."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common import untrusted
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import (
    DEEPEST,
    MOST,
    Unexpected,
    array,
    joined,
    mapping,
    parsed,
    shown,
    size,
    text,
    texts,
)
from hypothesis import given
from hypothesis import strategies as some

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**63), 2**64) | some.floats(allow_nan=False) | some.text(),
    lambda children: some.lists(children) | some.dictionaries(some.text(), children),
    max_leaves=20,
)


def test_pieces_are_joined_up_to_a_limit() -> None:
    assert joined([b"ab", b"", b"c"], 3) == b"abc"
    with pytest.raises(Unexpected, match="more than 3 bytes"):
        joined(itertools.repeat(b"ab"), 3)


@given(VALUES)
def test_json_is_what_the_library_makes_of_it(value: object) -> None:
    written = json.dumps(value)
    assert parsed(written) == parsed(written.encode()) == value


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ("[" * 10_000_000, "not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} levels"),
        ('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), f"more than {DEEPEST} levels"),
        ("[" + "[]," * MOST + "0]", f"it has more than {MOST} values"),
        ("9" * 10_000_000, "a number has 10000000 digits"),
        ('{"a": -' + "9" * 30 + "}", "a number has 31 digits"),
    ],
)
def test_json_that_nobody_writes_is_refused_at_once(said: str | bytes, why: str) -> None:
    start = time.process_time()
    with pytest.raises(Unexpected, match=f"^the answer .*{why}"):
        parsed(said)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ['{"a": "' + "[" * 1000 + '"}', r'["\"' + "{" * 1000 + '"]', '["\\\\", [], "[["]'])
def test_brackets_in_texts_are_no_levels(text: str) -> None:
    assert parsed(text) == json.loads(text)


@pytest.mark.parametrize("text", [r'["\\", ' + "[" * 100 + "]" * 100 + "]", "[]" * 100 + "[" * 100])
def test_a_level_is_counted_behind_a_text_and_behind_what_was_closed(text: str) -> None:
    with pytest.raises(Unexpected, match=f"more than {DEEPEST} levels"):
        parsed(text)


@pytest.mark.parametrize("text", ['"' + r"\"" * 5_000_000, "[" + '"' * 9_999_999, '"' + "\\" * 9_999_999])
def test_texts_without_an_end_are_looked_through_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(Unexpected):
        parsed(text)
    assert time.process_time() - start < 5


def test_what_has_too_many_levels_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of Python's recursion whatever runs just then fails, also a garbage collection."""
    monkeypatch.setattr(untrusted.DECODER, "decode", lambda text: pytest.fail(text[:10]))
    with pytest.raises(Unexpected, match=f"more than {DEEPEST} levels"):
        parsed("[" * 1000 + "]" * 1000)


def test_as_many_levels_and_values_as_are_allowed_are_taken() -> None:
    assert parsed("[" * DEEPEST + "]" * DEEPEST)
    assert len(parsed("[" + "0," * (MOST - 1) + "0]")) == MOST


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (mapping, [{}, {"a": 1}], [[], "a", 1, True]),
        (array, [[], [1]], [{}, "a", 1, True]),
        (text, ["", "a"], [None, 1, [], {}]),
        (texts, [[], ["a"]], [["a", None], "ab", {"a": 1}]),
        (size, [0, 1 << 60], [-1, (1 << 60) + 1, 1.0, "1", True, None]),
    ],
)
def test_types_are_checked(check: Callable[[object, str], object], good: list, bad: list) -> None:
    for value in good:
        assert check(value, "it") == value
    for value in bad:
        with pytest.raises(Unexpected, match=r"^it is "):
            check(value, "it")


def test_null_is_an_empty_object_and_an_empty_list() -> None:
    assert mapping(None, "it") == {}
    assert array(None, "it") == []


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("no space left on device", "no space left on device"),
        ("two\n  lines\tand\r\n blanks ", "two lines and blanks"),
        ("Grüße, 日本語 🐳", "Grüße, 日本語 🐳"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcba\u2066", "abc\\u202edcba\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"),
        ("\udc80\U000e0041", "\\udc80\\U000e0041"),
        ("\0", "\\x00"),
        ("no\u00a0break, Ogham\u1680", "no\\xa0break, Ogham\\u1680"),
        (["\x1b"], "['\\x1b']"),
        (None, "None"),
    ],
)
def test_what_hides_is_made_visible(said: object, seen: str) -> None:
    assert shown(said) == seen


@given(some.text(alphabet=some.characters(codec=None)), some.integers(10, 100))
def test_what_is_shown_is_one_printable_line_of_limited_length(said: str, longest: int) -> None:
    seen = shown(said, longest)
    assert len(seen) <= longest
    assert seen.isprintable()
    assert shown(seen, longest) == seen


def test_a_long_text_is_cut_where_everybody_sees_it() -> None:
    assert shown("a" * 2000) == "a" * 998 + " …"
    start = time.process_time()
    assert len(shown("\x1b \n" * 10_000_000)) == 1000
    assert time.process_time() - start < 2
