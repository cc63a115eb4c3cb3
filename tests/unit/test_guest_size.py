# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a virtual machine has the size that was asked for."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.guest_size import guest_size

GIB = 1 << 30
INFO = {"KernelVersion": "6.12.0-docker", "NCPU": 2, "MemTotal": int(3.8 * GIB)}


@pytest.mark.parametrize(
    ("cpus", "memory"), [(2, "4g"), ("2", "4G"), (1.5, str(4 * GIB)), ("1.01", 4 * GIB), (2.0, "3900m")]
)
def test_a_guest_with_whole_processors_and_most_of_its_memory_has_what_was_asked_for(
    cpus: float | str, memory: str
) -> None:
    assert guest_size(INFO, cpus, memory, "6.1.0") == ""


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({"NCPU": 3}, "3 CPUs and 3.8 GiB of memory"),
        ({"NCPU": 1}, "1 CPU and 3.8 GiB of memory"),
        ({"MemTotal": 2 * GIB}, "2 CPUs and 2 GiB of memory"),
        ({"MemTotal": 8 * GIB}, "2 CPUs and 8 GiB of memory"),
        ({"NCPU": "many", "MemTotal": None}, "0 CPUs and 0 MiB of memory"),
        ({"KernelVersion": None, "NCPU": 3}, "3 CPUs and 3.8 GiB of memory"),
    ],
)
def test_what_it_has_instead_is_said(found: dict, has: str) -> None:
    assert guest_size({**INFO, **found}, 2, "4g", "6.1.0") == f"{has}, where 2 CPUs and 4 GiB are wanted"


def test_what_runs_on_the_kernel_of_the_target_is_no_virtual_machine() -> None:
    assert guest_size({**INFO, "NCPU": 64}, 2, "4g", "6.12.0-docker") == ""
