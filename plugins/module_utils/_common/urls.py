# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

USER = re.compile(r"^([^:/?#]+://)?[^/?#]*@")


def shown(url: str) -> str:
    """Return a URL, which may lack its scheme, without the user name and the password that may be in it."""
    try:
        is_plain = urlsplit(url if "://" in url else f"//{url}").port != 0
    except ValueError:
        is_plain = False  # the password may be the reason
    return USER.sub(r"\1", url) if is_plain else url.rpartition("@")[2]
