# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a kernel's artifacts holds what its record says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.artifacts import (
    RECORD,
    Found,
    foreign,
    look,
    read_record,
)

BUILD = {"key": "key 1", "files": {"vmlinux": {"sha256": "aa"}, "bzImage": {"sha256": "bb"}}}


def test_a_build_is_found_with_its_digests_and_anything_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert look(str(out)) == Found()
    out.mkdir()
    (out / "vmlinux").write_text("x")
    with pytest.raises(
        Refused, match=r"holds files that are not from a build of this module .vmlinux.: choose another directory$"
    ):
        look(str(out))
    (out / RECORD).write_text("[]")
    with pytest.raises(Refused, match="cannot be read as the record of a build"):
        look(str(out))
    record = {"key": "k", "files": {"vmlinux": {"sha256": "a"}, "config": {"sha256": "b"}}}
    (out / RECORD).write_text(json.dumps(record))
    assert look(str(out)) == Found(
        record, {"vmlinux": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    )


def test_files_of_somebody_else_are_seen() -> None:
    assert foreign(["vmlinux", "bzImage", "build.json"], BUILD) == []
    assert foreign(["vmlinux", "notes.txt", "build.json"], BUILD) == ["notes.txt"]
    assert foreign(["build.json", "vmlinux"], None) == ["build.json", "vmlinux"]


@pytest.mark.parametrize(
    "value", [[], {}, {"key": "1"}, {"files": {}}, {"key": "1", "files": {"a": {}}}, {"key": "1", "files": {"a": "b"}}]
)
def test_a_record_of_something_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="it "):
        read_record(value)
