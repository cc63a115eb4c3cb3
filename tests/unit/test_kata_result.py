# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of kata_release says what is known of the release."""

from __future__ import annotations

from dataclasses import asdict

from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import (
    Found,
    Plan,
    Record,
    Remove,
    Unpack,
    User,
)
from ansible_collections.nested.kata.plugins.module_utils._kata.result import result_of

DIGEST = "ab" * 32
PATH = "/srv/kata/4.1.0"
WANTED = Wanted(PATH, True, "/a", DIGEST, "4.1.0")
RECORD = Record(DIGEST, "4.1.0", 5, 1, "6.18.35")


def test_a_release_that_would_be_unpacked_has_the_digest_and_version_that_were_asked_for() -> None:
    result = result_of(WANTED, Plan((Unpack("/a", PATH),), "why"), Found(), None)
    assert (result["changed"], result["sha256"], result["version"], result["bytes"]) == (True, DIGEST, "4.1.0", None)
    assert (result["diff"]["before"], result["diff"]["after"]) == ({}, {"sha256": DIGEST, "version": "4.1.0"})
    assert set(result["contents"].values()) == {None}


def test_nothing_is_known_of_a_release_that_was_removed() -> None:
    result = result_of(Wanted(PATH, False), Plan((Remove(PATH),), "why"), Found(RECORD), RECORD)
    assert (result["sha256"], result["in_use"]) == (None, [])
    assert (result["diff"]["before"], result["diff"]["after"]) == (asdict(RECORD), {})


def test_a_release_that_is_kept_says_who_uses_it() -> None:
    result = result_of(
        Wanted(PATH, False, keep_in_use=True), Plan((), "why"), Found(RECORD, users=(User(7, "qemu"),)), RECORD
    )
    assert (result["changed"], result["sha256"], result["in_use"]) == (False, DIGEST, [{"pid": 7, "command": "qemu"}])
