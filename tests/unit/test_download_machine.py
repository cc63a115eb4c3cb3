# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on disk is recognized, taken from a local URL, and given its name when it is complete."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._download.machine import apply, look
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Found

CONTENT = b"content"
CHECKSUM = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())


def no_signature() -> NoReturn:
    raise AssertionError("a signature was asked for")


def test_a_file_and_its_part_are_found(tmp_path: Path) -> None:
    wanted = Wanted(("http://none/f",), str(tmp_path / "f"), CHECKSUM)
    assert look(wanted, no_signature, Progress()) == Found()
    (tmp_path / "f.part").write_bytes(b"con")
    assert look(wanted, no_signature, Progress()) == Found(part=3)
    (tmp_path / "f").write_bytes(CONTENT)
    assert look(wanted, no_signature, Progress()) == Found(True, CHECKSUM, None, 3)


@pytest.mark.parametrize(
    ("path", "words"), [("none/f", "there is no directory .*/none"), ("", "is not a regular file")]
)
def test_a_path_that_cannot_be_is_refused(path: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"^path: .*{words}"):
        look(Wanted(("http://none/f",), str(tmp_path / path), CHECKSUM), no_signature, Progress())


def test_a_file_is_dressed_before_it_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    wanted = Wanted((f"file://{tmp_path}/source",), str(tmp_path / "f"), CHECKSUM)
    dressed: list[tuple[str, bool]] = []

    def dress(path: str, changed: bool) -> bool:
        dressed.append((path, (tmp_path / "f").exists()))
        return changed

    foreseen = apply(wanted, str(tmp_path), dress, True, Progress())
    assert (foreseen[-1], dressed, (tmp_path / "f").exists()) == (True, [], False)
    plan, found, checksum, received, changed = apply(wanted, str(tmp_path), dress, False, Progress())
    assert (len(plan.steps), found, checksum, received.bytes_received, changed) == (
        1,
        Found(),
        CHECKSUM,
        len(CONTENT),
        True,
    )
    assert dressed == [(str(tmp_path / "f.part"), False), (str(tmp_path / "f"), True)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "source"]
    assert apply(wanted, str(tmp_path), dress, False, Progress())[-1] is False
