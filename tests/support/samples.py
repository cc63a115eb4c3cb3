# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples of what a test would take long to try in whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")


def sampled(config: pytest.Config, name: str, points: Sequence[T], most: int) -> list[T]:
    """Return so many of the points, in their order: all of them with --all. The seed and the name choose."""
    if config.option.all or len(points) <= most:
        return list(points)
    dice = random.Random(f"{config.option.seed} {name}")
    return [points[number] for number in sorted(dice.sample(range(len(points)), most))]
