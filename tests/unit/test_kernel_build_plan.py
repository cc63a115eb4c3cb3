# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kernel_build leads from what was found to what is wanted, all or nothing."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.artifacts import Found
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_plan import Make, Put, decide, result_of

WANTED = Wanted("/tree", "x86_64", ("vmlinux", "bzImage"), "/out", "key 1")
RECORD = {
    "key": "key 1",
    "arch": "x86_64",
    "targets": ["vmlinux", "bzImage"],
    "files": {"vmlinux": {"sha256": "aa"}, "bzImage": {"sha256": "bb"}},
}
DIGESTS = {"vmlinux": "aa", "bzImage": "bb"}

DECISIONS = {
    "nothing there": (Found(), "there is no build in /out yet"),
    "another key": (Found({**RECORD, "key": "key 0"}, DIGESTS), "the build in /out has another key"),
    "another architecture": (Found({**RECORD, "arch": "arm64"}, DIGESTS), "the build in /out has another arch"),
    "other targets": (Found({**RECORD, "targets": ["vmlinux"]}, DIGESTS), "the build in /out has another targets"),
    "a file is missing": (Found(RECORD, {"vmlinux": "aa"}), "/out/bzImage is missing"),
    "a file is another": (Found(RECORD, {**DIGESTS, "bzImage": "cc"}), "/out/bzImage is not the file that was built"),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_what_differs_is_built_and_put_there_as_a_whole(case: str) -> None:
    found, reason = DECISIONS[case]
    plan = decide(found, WANTED)
    assert plan.steps == (Make("/tree", ("vmlinux", "bzImage")), Put("/out"))
    assert plan.reason == reason
    assert [str(step) for step in plan.steps] == ["build vmlinux, bzImage in /tree", "put the artifacts into /out"]


def test_a_build_that_is_there_is_left_alone() -> None:
    plan = decide(Found(RECORD, DIGESTS), WANTED)
    assert (plan.steps, plan.reason) == ((), "/out holds this build")


def test_a_build_that_was_made_is_in_the_result() -> None:
    plan = decide(Found(), WANTED)
    result = result_of(WANTED, plan, Found(), {**RECORD, "release": "6.12.1"}, 7)
    assert (result["changed"], result["objects"], result["build"]["release"]) == (True, 7, "6.12.1")
    assert result["diff"]["after"] == {"key": "key 1", "release": "6.12.1", "files": DIGESTS}
    assert result["diff"]["before"] == {}


def test_a_build_that_is_only_foreseen_has_a_key_and_nothing_else() -> None:
    found = Found({**RECORD, "key": "key 0"}, DIGESTS)
    result = result_of(WANTED, decide(found, WANTED), found, None, 0)
    assert (result["changed"], result["build"], result["diff"]["after"]) == (True, None, {"key": "key 1"})


def test_a_build_that_is_there_is_returned() -> None:
    found = Found(RECORD, DIGESTS)
    result = result_of(WANTED, decide(found, WANTED), found, None, 0)
    assert (result["changed"], result["build"]) == (False, RECORD)
    assert result["diff"]["before"] == result["diff"]["after"]
