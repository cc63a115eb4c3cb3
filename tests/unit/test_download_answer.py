# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's answer is believed only where it is consistent."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._download.answer import Answer, is_complete, read_answer

ANSWERS = {
    "all of it": (200, {"content-length": "10"}, 0, Answer(0, 10)),
    "all of it, where a part was asked for": (200, {"content-length": "10"}, 4, Answer(0, 10)),
    "all of it, of unknown length": (200, {}, 0, Answer(0, None)),
    "a file": (None, {"content-length": "10"}, 4, Answer(0, 10)),
    "the part": (206, {"content-range": "bytes 4-9/10", "content-length": "6"}, 4, Answer(4, 10)),
    "the part, of unknown length": (206, {"content-range": "bytes 4-9/*"}, 4, Answer(4, 10)),
    "a part without its place": (206, {"content-length": "6"}, 4, None),
    "a part from elsewhere": (206, {"content-range": "bytes 0-9/10"}, 4, None),
    "a part with another length": (206, {"content-range": "bytes 4-9/10", "content-length": "10"}, 4, None),
    "a part that ends too early": (206, {"content-range": "bytes 4-7/10"}, 4, None),
    "several parts": (206, {"content-type": "multipart/byteranges; boundary=x"}, 4, None),
    "a place that makes no sense": (206, {"content-range": "bytes 4-2/10"}, 4, None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_believed_only_where_it_is_consistent(case: str) -> None:
    status, headers, asked, answer = ANSWERS[case]
    assert read_answer(status, headers, asked) == answer


def test_a_refused_range_means_the_end_only_at_the_end() -> None:
    assert is_complete({"content-range": "bytes */10"}, 10)
    assert not is_complete({"content-range": "bytes */9"}, 10)
    assert not is_complete({}, 10)
