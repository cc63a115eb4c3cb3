# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of download fetches a file unless it is the right one."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Found, decide

DIGEST = "ab" * 32
CHECKSUM = Checksum("sha256", DIGEST)
OTHER = Checksum("sha256", "cd" * 32)
URL = "http://mirror/file"

DECISIONS = {
    "nothing is there": (Found(), CHECKSUM, "there is no /f yet", 0),
    "a part is there": (Found(part=5), CHECKSUM, "there is no /f yet, but 5 bytes of it", 5),
    "another file": (Found(True, OTHER), CHECKSUM, f"/f has another checksum, {OTHER}", 0),
    "the right file": (Found(True, CHECKSUM), CHECKSUM, "/f is there, with the right checksum", None),
    "a file that is not signed": (Found(True, OTHER), None, "/f is not what /s signs", 0),
    "a signed file": (Found(True, OTHER, "F00D"), None, "/f is there, with the right signature", None),
    "a signed file with another checksum": (
        Found(True, OTHER, "F00D"),
        CHECKSUM,
        f"/f has another checksum, {OTHER}",
        0,
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_file_is_fetched_unless_it_is_the_right_one(case: str) -> None:
    found, checksum, reason, offset = DECISIONS[case]
    plan = decide(found, Wanted((URL,), "/f", checksum, ("/s",)))
    assert plan.reason == reason
    assert [step.offset for step in plan.steps] == ([] if offset is None else [offset])


def test_a_step_names_the_first_mirror_without_its_password_and_counts_the_others() -> None:
    (step,) = decide(Found(part=7), Wanted(("https://me:secret@mirror:8443/f?a=b", URL), "/f", CHECKSUM, ())).steps
    assert str(step) == "get /f from https://mirror:8443/f?a=b (or 1 more), from byte 7 on"
