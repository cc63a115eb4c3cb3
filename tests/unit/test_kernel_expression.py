# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of an expression of Kconfig that keep a symbol from a value are found."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.expression import parse_expression, unmet
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "level", "parts"),
    [
        ("A [=y]", 2, []),
        ("A [=m]", 1, []),
        ("A [=m]", 2, ["A=y, is m"]),
        ("A [=n]", 1, ["A=y, is n"]),
        ("A [=y] && (B [=n] || C [=y])", 2, []),
        ("A [=y] && (B [=n] || C [=y] && D [=n])", 2, ["B=y, is n or D=y, is n"]),
        ("A [=n] && A [=n]", 2, ["A=y, is n"]),
        ("m [=m] && MODULES [=n]", 1, ["MODULES=y, is n"]),
        ("<choice> && X [=n]", 2, ["X=y, is n"]),
        ("CC_VERSION [=120200]>=130000 [=130000]", 2, ["CC_VERSION>=130000, is 120200"]),
        ('ARCH [=x86]="x86"', 2, []),
        ('ARCH [=arm]!="arm"', 2, ["ARCH!=arm, is arm"]),
        ("!(A [=y] || B [=n])", 2, ["not (A or B)"]),
        ("!(A [=y] && (B [=2] > 1 || !C [=n]))", 2, ["not (A and (B>1 or not (C)))"]),
        ("what & is this", 2, ["what & is this"]),
    ],
)
def test_the_unmet_parts_of_an_expression_are_found(text, level, parts):
    assert unmet(text, level) == parts


EXPRESSION = st.recursive(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from("nmy")).map(lambda term: f"{term[0]} [={term[1]}]"),
    lambda inner: st.one_of(
        inner.map(lambda text: f"!({text})"),
        st.tuples(inner, st.sampled_from([" && ", " || "]), inner).map(
            lambda three: f"({three[0]}{three[1]}{three[2]})"
        ),
    ),
)


@given(EXPRESSION, st.sampled_from([1, 2]))
def test_an_expression_has_unmet_parts_just_where_it_is_below_the_level(text, level):
    assert bool(unmet(text, level)) == (parse_expression(text).level() < level)
