# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build that is interrupted or finds a disk full says what comes next, and what is not ours is refused."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_machine import interruptible, usable_cpus
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted


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


def test_a_build_may_use_a_processor_at_least() -> None:
    assert usable_cpus() >= 1
