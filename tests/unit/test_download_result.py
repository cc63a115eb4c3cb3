# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of download says what is there, and what would be."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.nested.kata.plugins.module_utils._download.fetch import Received
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Fetch, Found, Plan
from ansible_collections.nested.kata.plugins.module_utils._download.result import result_of

CHECKSUM = Checksum("sha256", "ab" * 32)


def test_a_file_that_would_be_replaced_has_no_size_yet(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    wanted = Wanted(("http://x/f",), str(tmp_path / "f"), CHECKSUM)
    plan = Plan((Fetch(wanted.urls, wanted.path, 0),), "why")
    foreseen = result_of(
        wanted, True, plan, Found(True, Checksum("sha256", "cd" * 32)), CHECKSUM, Received(wanted.path), True
    )
    assert (foreseen["changed"], foreseen["size"], foreseen["checksum"]) == (True, None, str(CHECKSUM))
    assert foreseen["diff"]["before"] == {"checksum": f"sha256:{'cd' * 32}"}
    done = result_of(wanted, False, plan, Found(), CHECKSUM, Received(wanted.path, "http://x/f", 3, 0, "F00D"), True)
    assert (done["size"], done["url"], done["bytes_received"], done["signed_by"]) == (3, "http://x/f", 3, "F00D")
    assert done["diff"]["before"] == {"checksum": None}
