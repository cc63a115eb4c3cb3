# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several integration tests need, and the order of their files, which the workers take one by one: the longest
first, so that no worker is left with one at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_trees import copy_of
from loop_mounts import attached, undo

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


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """A directory for disk images. What is still mounted or attached at the end is undone."""
    yield tmp_path
    undo(tmp_path)
    assert attached(tmp_path) == {}


@pytest.fixture(scope="module", params=[pytest.param("6.1", marks=pytest.mark.thorough), "6.12"])
def any_tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel tree of each version that the tests have."""
    return copy_of(request.param, tmp_path_factory.mktemp("tree") / request.param)
