# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that an archive is written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import Unwritable, Writing


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    writing = Writing(str(tmp_path / "full.tar"))
    (tmp_path / ".full.tar.part").symlink_to("/dev/full")
    with pytest.raises(Unwritable, match="cannot be made"):  # a link is not followed
        writing.start()
    writing._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(Unwritable, match="No space left on device"):
        writing.write(b"x")
    writing._file.close()
