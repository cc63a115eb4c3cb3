# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reason in an error of a connection is one line, and a name is that of the whole file."""

from __future__ import annotations

import http.client
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest
from ansible_collections.nested.kata.plugins.module_utils._download.fetch import name_of, reason_of

SAID = [
    (HTTPError("http://x", 404, "Not Found", Message(), None), "HTTP 404 Not Found"),
    (URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
    (URLError("no host\ngiven"), "no host given"),
    (TimeoutError("timed out"), "timed out"),
    (OSError(113, "No route to host"), "No route to host"),
    (http.client.IncompleteRead(b""), "IncompleteRead(0 bytes read)"),
]


@pytest.mark.parametrize(("error", "line"), SAID, ids=[line for dummy, line in SAID])
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert reason_of(error) == line


def test_a_part_has_the_name_of_its_file() -> None:
    assert (name_of("/a/linux.tar.xz.part"), name_of("/a/linux.tar.xz")) == ("linux.tar.xz", "linux.tar.xz")
