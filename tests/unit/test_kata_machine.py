# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is interrupted, or that finds the disk full, says what comes next."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.machine import interruptible, look
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import RECORD, Found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_is_one_line(number: int, handlers: None) -> None:
    with (
        pytest.raises(Refused, match=r"^path: the work on /srv/kata/1 was interrupted; the next run starts again$"),
        interruptible(Wanted("/srv/kata/1")),
    ):
        os.kill(os.getpid(), number)


def test_a_full_disk_is_told_with_what_is_free(handlers: None, tmp_path: Path) -> None:
    with (
        pytest.raises(
            Refused,
            match=f"^path: no space left in {tmp_path} \\(.* free now\\): make room there, or choose another path$",
        ),
        interruptible(Wanted(str(tmp_path / "1"))),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), interruptible(Wanted(str(tmp_path / "1"))):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_what_this_module_did_not_make_is_a_stranger(tmp_path: Path) -> None:
    wanted = Wanted(str(tmp_path / "1"))
    assert look(wanted) == Found()
    (tmp_path / "1").mkdir()
    assert look(wanted) == Found(stranger=f"a directory without {RECORD}")
    (tmp_path / "1" / RECORD).write_text("{}")
    assert look(wanted).stranger.startswith(f"a directory whose {RECORD} cannot be read")
