# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
USER = re.compile(rf"^({SCHEME.pattern})[^/?#]*@")


def shown(url: str) -> str:
    """Return the URL of a file without the user name and the password that may be in it."""
    try:
        is_plain = SCHEME.match(url) is not None and urlsplit(url).port != 0
    except ValueError:
        is_plain = False  # the password may be the reason
    return USER.sub(r"\1", url) if is_plain else without_user(url)


def without_user(url: str) -> str:
    """Return the URL of a server, or what should be one, without all that comes before the last @."""
    scheme = SCHEME.match(url)
    begin = scheme.group() if scheme else ""
    return begin + url[len(begin) :].rpartition("@")[2]
