# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file names resolvers that a container can reach."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.resolvers_files import FilterModule

resolvers_files = FilterModule().filters()["resolvers_files"]

RESOLVED, PLAIN = "/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"


@pytest.mark.parametrize(
    ("texts", "files"),
    [
        ({}, [PLAIN]),
        ({PLAIN: "nameserver 192.0.2.1\n"}, [PLAIN]),
        ({RESOLVED: "nameserver 192.0.2.1\n", PLAIN: "nameserver 127.0.0.53\n"}, [RESOLVED]),
        ({RESOLVED: "nameserver 192.0.2.1\n", PLAIN: "nameserver 192.0.2.2\n"}, [RESOLVED, PLAIN]),
        ({RESOLVED: "# nameserver 192.0.2.1\n", PLAIN: "nameserver 2001:db8::1\n"}, [PLAIN]),
        ({RESOLVED: "", PLAIN: "nameserver ::1\n"}, [RESOLVED, PLAIN]),
        ({PLAIN: "  nameserver\t::1234\nnameserver 192.0.2.3\nsearch a\n"}, [PLAIN]),
    ],
)
def test_a_file_serves_where_it_names_a_resolver_that_is_not_on_the_loopback(
    texts: dict[str, str], files: list[str]
) -> None:
    assert resolvers_files(texts) == files
