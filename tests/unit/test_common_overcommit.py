# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option overcommit is a factor."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.overcommit import parse_overcommit


@pytest.mark.parametrize("factor", [-1, -0.1, float("nan")])
def test_what_is_no_factor_is_refused(factor: float) -> None:
    with pytest.raises(Refused, match=r"^overcommit: .* is not a valid factor: "):
        parse_overcommit(factor)


@pytest.mark.parametrize("factor", [0, 0.5, 1, float("inf")])
def test_a_factor_is_taken(factor: float) -> None:
    assert parse_overcommit(factor) == factor
