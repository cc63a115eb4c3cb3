# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory is read."""

from __future__ import annotations

from ansible_collections.nested.kata.plugins.module_utils._host.check_resources import meminfo


def test_memory_is_read_in_bytes() -> None:
    assert meminfo("MemTotal:       24684084 kB\nMemAvailable:   100 kB\nHugePages_Total:       0\n") == {
        "MemTotal": 24684084 * 1024,
        "MemAvailable": 100 * 1024,
    }
