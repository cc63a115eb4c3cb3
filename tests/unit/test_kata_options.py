# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kata_release are parsed, or refused."""

from __future__ import annotations

import os

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted, parse

DIGEST = "ab" * 32
PATH = "/srv/kata/4.1.0"
OPTIONS = {"path": PATH, "state": "present", "archive": "/a", "sha256": DIGEST, "version": None, "if_in_use": "fail"}
BAD_OPTIONS = {
    "the root": ({"path": "/"}, "path: / is not a directory for one release"),
    "a directory at the top": ({"path": "/opt"}, "path: /opt is not a directory for one release"),
    "no digest": ({"sha256": None}, "sha256: None is not 64 hexadecimal digits"),
    "a short digest": ({"sha256": "abcd"}, "sha256: 'abcd' is not 64 hexadecimal digits"),
    "a digest with its kind": (
        {"sha256": f"sha256:{DIGEST}"},
        f"sha256: 'sha256:{DIGEST}' is not 64 hexadecimal digits",
    ),
    "a version with a path": ({"version": "../4.1.0"}, "version: '../4.1.0' is not a valid version"),
    "an empty version": ({"version": ""}, "version: '' is not a valid version"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(case: str) -> None:
    options, words = BAD_OPTIONS[case]
    with pytest.raises(Refused) as refused:
        parse({**OPTIONS, **options})
    assert str(refused.value).startswith(words)


def test_a_digest_may_be_in_capitals_and_is_not_needed_for_a_removal() -> None:
    assert parse({**OPTIONS, "sha256": DIGEST.upper(), "version": "4.1.0", "if_in_use": "keep"}) == Wanted(
        PATH, True, "/a", DIGEST, "4.1.0", True
    )
    assert parse({**OPTIONS, "state": "absent", "archive": None, "sha256": None}) == Wanted(PATH, False)


def test_a_path_is_made_absolute() -> None:
    assert parse({**OPTIONS, "path": "kata/4.1.0"}).path == f"{os.getcwd()}/kata/4.1.0"
