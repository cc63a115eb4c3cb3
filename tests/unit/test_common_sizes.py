# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes are parsed and written in one way."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import about, amount, exact, parse_size
from hypothesis import given
from hypothesis import strategies as some

M, G = 1 << 20, 1 << 30
SIZES = {
    "4096": 4096,
    "1": 4096,
    "10000000001": 10000003072,
    "512M": 512 * M,
    "10G": 10 * G,
    "10g": 10 * G,
    "10GiB": 10 * G,
    "10 GiB": 10 * G,
    "20GB": 20_000_002_048,
    "8K": 8192,
    "1T": 1024 * G,
    "1TB": 1_000_000_000_000,
    "2P": 2 * 1024**2 * G,
    "110592B": 110592,
    " 1M ": M,
}
NO_SIZES = [
    "",
    "G",
    "ten",
    "10X",
    "-1G",
    "0",
    "0G",
    "1.5G",
    "1,5G",
    "10GG",
    "10Gb/s",
    "1e9",
    "0x10",
    "10 G 5",
    "9999999P",
    "\u0663G",
]
EXACT = {
    0: "0 bytes",
    1: "1 bytes",
    512: "512 bytes",
    4096: "4 KiB",
    1536 * M: "1536 MiB",
    10 * G: "10 GiB",
    1 << 40: "1 TiB",
}
ABOUT = {0: "0 MiB", 512 * M: "512 MiB", G: "1 GiB", int(75.25 * G): "75.2 GiB", 20 * G: "20 GiB"}
AMOUNTS = {
    (61 * M, 145 * M): "61 of 145 MiB, 42 %",
    (61 * M, None): "61 MiB",
    (1536 * M, None): "1536 MiB",
    (0, 145 * M): "0 of 145 MiB, 0 %",
    (145 * M, 145 * M): "145 of 145 MiB, 99 %",
    (150 * M, 145 * M): "150 of 150 MiB, 99 %",
}


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_what_its_unit_says_in_whole_blocks(text):
    assert parse_size(text) == SIZES[text]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused_with_option_value_and_examples(text):
    with pytest.raises(Refused) as refusal:
        parse_size(text)
    assert str(refusal.value).startswith(f"size: {text!r} is not a valid size: write it like 10G, 512M")


@given(some.integers(1, 2**53))
def test_a_size_in_bytes_is_never_rounded_down_and_never_by_more_than_a_block(number):
    assert number <= parse_size(str(number)) < number + 4096
    assert parse_size(exact(parse_size(str(number))).removesuffix(" bytes")) == parse_size(str(number))


@pytest.mark.parametrize("size", EXACT)
def test_a_size_is_written_in_the_largest_unit_that_shows_it_exactly(size: int) -> None:
    assert exact(size) == EXACT[size]


@pytest.mark.parametrize("size", ABOUT)
def test_a_rough_size_is_written_as_people_say_it(size: int) -> None:
    assert about(size) == ABOUT[size]


@pytest.mark.parametrize("numbers", AMOUNTS)
def test_an_amount_is_written_with_its_total_and_share(numbers: tuple) -> None:
    assert amount(*numbers) == AMOUNTS[numbers]
