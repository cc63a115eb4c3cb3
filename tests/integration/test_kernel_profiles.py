# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fragments in files/kernel, merged into real trees: all that they ask for is there, or known to be missing
there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, run_module
from kernel_profiles import ALLOW_MISSING, PROFILES, fragments_of


def merge(tree: Path, path: Path, fragments: list[str], arch: str = "x86_64") -> dict:
    result = run_module(
        "kernel_config",
        {
            "tree": str(tree),
            "path": str(path),
            "arch": arch,
            "fragments": fragments,
            "allow_missing": ALLOW_MISSING,
            "on_redefine": "error",
        },
    )
    assert not result["failed"], result["msg"]
    return result


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_merges_without_a_loss_that_is_not_known(any_tree, tmp_path, profile):
    result = merge(any_tree, tmp_path / ".config", fragments_of(profile, "x86_64"))
    assert result["config"]["modules"] == 0
    assert result["config"]["requested"] > 300
    assert all(each["allowed"] for each in result["missing"])
    assert "CONFIG_IKCONFIG_PROC=y" in result["diff"]["after"]
    assert "CONFIG_64BIT=y" in result["diff"]["after"]


@pytest.mark.parametrize("profile", ["docker", "netsim"])
def test_a_profile_merges_for_arm64_too(any_tree, tmp_path, profile):
    result = merge(any_tree, tmp_path / ".config", fragments_of(profile, "arm64"), "arm64")
    assert "CONFIG_ARM64=y" in result["diff"]["after"]


def test_no_xfs_takes_xfs_out_of_a_kernel(any_tree, tmp_path):
    with_xfs = merge(any_tree, tmp_path / "with", [*fragments_of("stock", "x86_64")])
    assert "CONFIG_XFS_FS=y" in with_xfs["diff"]["after"]
    without = run_module(
        "kernel_config",
        {
            "tree": str(any_tree),
            "path": str(tmp_path / "without"),
            "arch": "x86_64",
            "allow_missing": ALLOW_MISSING,
            "on_redefine": "ignore",
            "fragments": [*fragments_of("stock", "x86_64"), str(CHECKOUT / "files/kernel/no-xfs.config")],
        },
    )
    assert not without["failed"], without["msg"]
    assert "# CONFIG_XFS_FS is not set" in without["diff"]["after"]
    assert {each["symbol"] for each in without["redefined"]} == {"XFS_FS", "XFS_QUOTA", "XFS_POSIX_ACL"}
