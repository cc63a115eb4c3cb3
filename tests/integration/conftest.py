# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the files, which the workers take one by one: the longest first, so that no worker is left with one at
the end.
"""

from __future__ import annotations

import pytest

# test_proxy_seccomp.py before all: the scenario of molecule that runs beside it waits until it has built its machine
# image and removed it.
LONGEST = (
    "test_proxy_seccomp.py",
    "test_image_transfer_matrix.py",
    "test_kata_runtime.py",
    "test_kernel_build.py",
    "test_kernel_config.py",
    "test_kernel_profiles.py",
    "test_connection_nested.py",
    "test_machine_image.py",
    "test_disk_image_faults.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
