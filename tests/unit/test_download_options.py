# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of download are parsed, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted, parse

DIGEST = "ab" * 32
URL = "http://mirror/file"
OPTIONS: dict[str, Any] = {
    "urls": [URL],
    "path": "/f",
    "checksum": f"sha256:{DIGEST}",
    "signature": [],
    "keyring": None,
    "signed": "file",
    "timeout": 30,
    "retries": 2,
}
BAD_OPTIONS = {
    "no time at all": ({"timeout": 0}, "timeout must be at least 1 and retries at least 0, found 0 and 2"),
    "fewer than no retries": ({"retries": -1}, "timeout must be at least 1 and retries at least 0, found 30 and -1"),
    "no URL": ({"urls": []}, "urls: the list is empty"),
    "a URL of another kind": ({"urls": [URL, "ftp://mirror/file"]}, "urls: 'ftp://mirror/file' is not a URL"),
    "a URL without a host": ({"urls": ["http:///file"]}, "urls: 'http:///file' is not a URL"),
    "a path as URL": ({"urls": ["/srv/file"]}, "urls: '/srv/file' is not a URL"),
    "a signature of another kind": (
        {"signature": ["gopher://x/y"], "keyring": "/k"},
        "signature: 'gopher://x/y' is not a URL",
    ),
    "nothing to verify with": ({"checksum": None}, "checksum: there is nothing to verify the file with"),
    "a signature without keys": ({"signature": ["/s"]}, "signature and keyring belong together"),
    "keys without a signature": ({"keyring": "/k"}, "signature and keyring belong together"),
    "a checksum without its kind": ({"checksum": DIGEST}, "does not begin with sha256: or sha512:"),
    "a checksum of another kind": ({"checksum": f"md5:{DIGEST[:32]}"}, "does not begin with sha256: or sha512:"),
    "a checksum that is too short": ({"checksum": "sha256:abcd"}, "is not sha256: and 64 hexadecimal digits"),
    "a checksum with other letters": ({"checksum": f"sha256:{'xy' * 32}"}, "is not sha256: and 64 hexadecimal digits"),
    "the URL of a checksum": ({"checksum": "sha256:http://mirror/sums"}, "is not sha256: and 64 hexadecimal digits"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(case: str) -> None:
    options, words = BAD_OPTIONS[case]
    with pytest.raises(Refused) as refused:
        parse({**OPTIONS, **options})
    assert words in str(refused.value)


def test_a_checksum_may_be_written_in_capitals() -> None:
    assert parse({**OPTIONS, "checksum": f"SHA256:{DIGEST.upper()}"}).checksum == Checksum("sha256", DIGEST)


def test_options_become_what_is_wanted_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    wanted = parse(
        {
            **OPTIONS,
            "path": str(tmp_path / "link"),
            "checksum": None,
            "signature": ["/s"],
            "keyring": "/k",
            "signed": "uncompressed",
            "retries": 0,
        }
    )
    assert wanted == Wanted((URL,), str(tmp_path / "file"), None, ("/s",), "/k", True, 30, 0)
    assert wanted.part == str(tmp_path / "file.part")
