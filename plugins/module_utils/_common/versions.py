# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of software, compared by their leading numbers."""

from __future__ import annotations

import re
from typing import Tuple

Version = Tuple[int, ...]


def version_of(text: str) -> Version:
    """Return the leading numbers of a version, such as 5.0.3 of `5.0.3+dfsg`; none where it begins otherwise."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, numbers.group().split("."))) if numbers else ()


def written(version: Version) -> str:
    return ".".join(map(str, version))
