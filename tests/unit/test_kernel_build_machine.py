# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build that is interrupted or finds a disk full says what comes next, and what is not ours is refused."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_machine import interruptible, look, usable_cpus
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_plan import RECORD, Found


def wanted(directory: Path) -> Wanted:
    return Wanted(str(directory), "x86_64", ("vmlinux",), str(directory / "out"), "key", log=str(directory / "log"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interruption_is_one_line(number: int, handlers: None, tmp_path: Path) -> None:
    with (
        pytest.raises(Refused, match=f"^tree: the build in {tmp_path} was interrupted; the next run continues it$"),
        interruptible(wanted(tmp_path)),
    ):
        signal.raise_signal(number)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on "),
        (OSError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(error: OSError, words: str, handlers: None, tmp_path: Path) -> None:
    with (
        pytest.raises(Refused, match=f"^tree: the build in {tmp_path} failed: {words}"),
        interruptible(wanted(tmp_path)),
    ):
        raise error


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


def test_a_build_may_use_a_processor_at_least() -> None:
    assert usable_cpus() >= 1
