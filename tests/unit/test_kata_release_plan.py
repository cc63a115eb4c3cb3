# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kata_release leads from what was found to what is wanted, or is a refusal."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import (
    Clear,
    Found,
    Record,
    Remove,
    Unpack,
    User,
    decide,
    read_record,
)

DIGEST, OTHER = "ab" * 32, "cd" * 32
PATH = "/srv/kata/4.1.0"
WANTED = Wanted(PATH, True, "/srv/kata.tar.zst", DIGEST, "4.1.0")
ABSENT = Wanted(PATH, False)
RECORD = Record(DIGEST, "4.1.0", 5, 1, "6.18.35")
LEFT = (f"{PATH}.left",)
QEMU = User(7, "qemu-system-x86")


DECISIONS = {
    "nothing there": (Found(), WANTED, (Unpack("/srv/kata.tar.zst", PATH),), f"there is no {PATH} yet"),
    "the release": (Found(RECORD), WANTED, (), f"{PATH} holds this release"),
    "the release, of whatever version": (
        Found(RECORD),
        replace(WANTED, version=None),
        (),
        f"{PATH} holds this release",
    ),
    "the release, and what was left": (
        Found(RECORD, leftovers=LEFT),
        WANTED,
        (Clear(LEFT),),
        f"{PATH} holds this release, and an interrupted run left files beside it",
    ),
    "only what was left": (
        Found(leftovers=LEFT),
        WANTED,
        (Clear(LEFT), Unpack("/srv/kata.tar.zst", PATH)),
        f"there is no {PATH} yet",
    ),
    "to be removed": (Found(RECORD), ABSENT, (Remove(PATH),), f"{PATH} is there"),
    "removed": (Found(), ABSENT, (), f"there is no {PATH}"),
    "half removed": (
        Found(leftovers=LEFT),
        ABSENT,
        (Clear(LEFT),),
        f"there is no {PATH}, and an interrupted run left files beside it",
    ),
    "to be removed and in use, to be kept": (
        Found(RECORD, users=(QEMU,)),
        replace(ABSENT, keep_in_use=True),
        (),
        f"{PATH} is in use by 7 qemu-system-x86, and stays until nothing runs on it",
    ),
    "to be removed, and nobody uses it any more": (
        Found(RECORD),
        replace(ABSENT, keep_in_use=True),
        (Remove(PATH),),
        f"{PATH} is there, and nothing runs on it",
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_what_is_done_follows_from_what_is_there(case: str) -> None:
    found, wanted, steps, reason = DECISIONS[case]
    plan = decide(found, wanted)
    assert (plan.steps, plan.reason) == (steps, reason)


REFUSALS = {
    "a symlink": (Found(stranger="a symlink"), WANTED, f"path: {PATH} is a symlink, which this module did not make"),
    "a stranger's directory": (
        Found(stranger="a directory without it"),
        ABSENT,
        f"path: {PATH} is a directory without it, which this module did not make",
    ),
    "another release": (
        Found(replace(RECORD, sha256=OTHER)),
        WANTED,
        f"path: {PATH} holds the release with the SHA-256 {OTHER}, not {DIGEST}: give the new release",
    ),
    "another version": (
        Found(replace(RECORD, version="4.0.0")),
        WANTED,
        f"version: the release in {PATH}, with this SHA-256, is version 4.0.0, not 4.1.0",
    ),
    "in use": (
        Found(RECORD, users=(QEMU,) * 7),
        ABSENT,
        (
            f"path: {PATH} is in use by 7 qemu-system-x86, 7 qemu-system-x86, 7 qemu-system-x86, 7 qemu-system-x86, 7"
            " qemu-system-x86 and 2 more: stop"
        ),
    ),
    "mounted": (
        Found(RECORD, mounts=(f"{PATH}/share",)),
        ABSENT,
        f"path: something is mounted on {PATH}/share: unmount it first",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_others_made_or_use_is_refused_in_one_line(case: str) -> None:
    found, wanted, words = REFUSALS[case]
    with pytest.raises(Refused) as refused:
        decide(found, wanted)
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)


def test_steps_are_told_in_words() -> None:
    assert [str(step) for step in (Clear(LEFT), Unpack("/a", PATH), Remove(PATH))] == [
        f"remove what an interrupted run left: {PATH}.left",
        f"unpack /a into {PATH}",
        f"remove {PATH}",
    ]


def test_a_record_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    assert read_record(asdict(RECORD)) == RECORD
    for value in (None, [], {}, {"sha256": DIGEST}, {**asdict(RECORD), "sha256": "x"}, {**asdict(RECORD), "more": 1}):
        with pytest.raises(ValueError):
            read_record(value)
