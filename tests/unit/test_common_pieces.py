# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file made of pieces."""

from __future__ import annotations

import io

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.pieces import Pieces


@pytest.mark.parametrize("pieces", [[], [b""], [b"abc"], [b"a", b"", b"bc", b"def"], [bytes(100_000), b"x"]])
def test_reading_goes_on_over_the_ends_of_pieces_and_takes_no_more_than_it_needs(pieces: list[bytes]) -> None:
    whole, left = b"".join(pieces), iter(pieces)
    file = Pieces(left)
    assert file.read(1) == whole[:1]
    assert io.BufferedReader(file, 16).read() == whole[1:]
    assert file.read(1) == b""
    assert list(left) == []
