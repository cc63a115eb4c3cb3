# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_info, through Ansible."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_runner import run_module


@pytest.mark.parametrize("check", [True, False])
def test_a_kernel_is_shown_with_the_record_of_its_build_also_in_check_mode(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "6.12.104-docker-0123456789ab"
    path.mkdir()
    (path / "vmlinux").write_bytes(b"x")
    record = {"key": "0123456789ab", "files": {"vmlinux": {"sha256": hashlib.sha256(b"x").hexdigest()}}}
    (path / "build.json").write_text(json.dumps(record))
    result = run_module("kernel_info", {"directory": str(tmp_path), "names": ["docker"]}, check=check)
    assert (result["changed"], result["versions"]) == (False, {})
    assert result["kernels"] == [{"path": str(path), "mtime": path.stat().st_mtime, "build": record, "complete": True}]
