# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A URL is shown without its password."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown, without_user

URLS = {
    "https://me:secret@mirror:8443/f?a=b": "https://mirror:8443/f?a=b",
    "https://mirror/f@2": "https://mirror/f@2",
    "https://token@mirror/f": "https://mirror/f",
    "file:///f": "file:///f",
    "me:secret@mirror:8443/f": "mirror:8443/f",
    "http:/me:secret@mirror": "mirror",
    "http//me:secret@mirror": "mirror",
    "mirror:8443": "mirror:8443",
    "http://me:sec/ret@mirror/f": "http://mirror/f",
    "http://me:secret@[::1/f": "http://[::1/f",
    "http://me:sec\tret@mirror": "http://mirror",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_without_its_password(url: str) -> None:
    assert shown(url) == URLS[url]


@pytest.mark.parametrize("between", ["", "/", "1/", "#", "?", "@", "1/@"])
@pytest.mark.parametrize("begin", ["http://", "HTTP://", "http:/", "http:///", "http//", "other, http://", "DOM/", ""])
def test_what_should_be_a_server_is_shown_without_its_password(begin: str, between: str) -> None:
    found = without_user(f"{begin}me:{between}secret@proxy:3128")
    assert "secret" not in found
    assert found.endswith("proxy:3128")
