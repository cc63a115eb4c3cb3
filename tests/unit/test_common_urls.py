# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A URL is shown without its password."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown

URLS = {
    "https://me:secret@mirror:8443/f?a=b": "https://mirror:8443/f?a=b",
    "https://mirror/f@2": "https://mirror/f@2",
    "https://token@mirror/f": "https://mirror/f",
    "file:///f": "file:///f",
    "me:secret@mirror:8443/f": "mirror:8443/f",
    "mirror:8443": "mirror:8443",
    "http://me:sec/ret@mirror/f": "mirror/f",
    "http://me:secret@[::1/f": "[::1/f",
    "http://me:sec\tret@mirror": "http://mirror",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_without_its_password(url: str) -> None:
    assert shown(url) == URLS[url]
