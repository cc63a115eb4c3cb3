# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain text tables for a terminal."""

from __future__ import annotations

import textwrap


def render(headers: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table: columns as wide as their widest cell, a rule under the headers, no trailing
    blanks.
    """
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def box(lines: list[str], width: int = 100) -> list[str]:
    """Return the lines framed by a box of hash signs, those wider than `width` columns wrapped at their own
    indentation.
    """
    text = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        text += textwrap.wrap(line, width, subsequent_indent=indent + "  ") or [""]
    width = max(len(line) for line in text)
    edge = "#" * (width + 6)
    return [edge, *(f"## {line.ljust(width)} ##" for line in text), edge]
