# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels are found by the names of their directories, and are complete where every file is as it was built."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.installed import look

KEY = "0123456789ab"


def kernel(directory: Path, name: str, content: bytes = b"x") -> Path:
    """Make a kernel whose record says that its file is `x`."""
    path = directory / name
    path.mkdir()
    (path / "vmlinux").write_bytes(content)
    record = {"key": KEY, "files": {"vmlinux": {"sha256": hashlib.sha256(b"x").hexdigest()}}}
    (path / "build.json").write_text(json.dumps(record))
    return path


def test_the_kernels_of_a_directory_are_listed_and_those_that_are_named_are_read(tmp_path: Path) -> None:
    names = ["6.12.104-docker", "6.12-rc1-docker", "6.1-db"]
    paths = [kernel(tmp_path, f"{name}-{KEY}") for name in names]
    staged = kernel(tmp_path, f".6.12.104-docker-{KEY}.nested-kata-new")
    kernel(tmp_path, "docker")
    kernel(tmp_path, f"6.12.104-docker-{KEY}.old")
    (tmp_path / f"6.12.105-docker-{KEY}").touch()
    (tmp_path / f"6.12.106-docker-{KEY}").symlink_to(paths[0])
    found = {one["path"]: one for one in look(str(tmp_path), ["docker"])["kernels"]}
    assert set(found) == set(map(str, [*paths, staged]))
    assert [found[str(path)]["complete"] for path in [*paths, staged]] == [True, True, False, True]
    assert [found[str(path)]["build"].get("key") for path in paths] == [KEY, KEY, None]
    assert found[str(staged)]["mtime"] == staged.stat().st_mtime


@pytest.mark.parametrize("damage", ["content", "missing", "record", "no record"])
def test_a_kernel_that_is_not_as_it_was_built_is_not_complete(tmp_path: Path, damage: str) -> None:
    path = kernel(tmp_path, f"6.12.104-docker-{KEY}", b"y" if damage == "content" else b"x")
    if damage == "missing":
        (path / "vmlinux").unlink()
    elif damage == "record":
        (path / "build.json").write_text("{")
    elif damage == "no record":
        (path / "build.json").unlink()
    assert [one["complete"] for one in look(str(tmp_path), ["docker"])["kernels"]] == [False]


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        (None, {}),
        ("{", {}),
        ("[]", {}),
        ('{"trixie/linux-source-6.12": "6.12.48-1"}', {"trixie/linux-source-6.12": "6.12.48-1"}),
    ],
)
def test_the_versions_that_were_built_are_read_as_far_as_they_can_be(
    tmp_path: Path, text: str | None, versions: dict[str, str]
) -> None:
    if text is not None:
        (tmp_path / "sources").mkdir()
        (tmp_path / "sources" / "versions.json").write_text(text)
    assert look(str(tmp_path), []) == {"kernels": [], "versions": versions}


def test_where_there_is_no_directory_there_are_no_kernels(tmp_path: Path) -> None:
    assert look(str(tmp_path / "none"), ["docker"]) == {"kernels": [], "versions": {}}
