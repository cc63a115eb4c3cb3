# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name servers that mean this machine, or only something on a link, serve no other machine. The firewall's rules and
the entry of the machine image judge alike.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.filter.name_servers import FilterModule
from ansible_runner import CHECKOUT

name_servers = FilterModule().filters()["name_servers"]

ENTRY = CHECKOUT / "roles/machine_image/files/rootfs/usr/lib/nested-kata/entry"
HERE = [
    "127.0.0.1",
    "127.0.0.53",
    "0.0.0.0",
    "::1",
    "::",
    "0::1",
    "0:0:0:0:0:0:0:1",
    "0000:0000:0000:0000:0000:0000:0000:0001",
    "::ffff:127.0.0.1",
    "0:0:0:0:0:ffff:127.0.0.53",
    "::FFFF:7f00:1",
    "::ffff:0.0.0.0",
    "fe80::1",
    "FE80::1%eth0",
    "fe80::1234:abcd%3",
    "2001:db8::1%2",
]
ELSEWHERE = [
    "192.0.2.1",
    "10.0.0.1",
    "169.254.169.253",
    "2001:db8::1",
    "fd00::1",
    "::1234",
    "::10",
    "100::1",
    "64:ff9b::1",
    "1.1.1.1",
]


def kept_by_the_entry(lines: list[str], tmp_path: Path) -> list[str]:
    """Return the lines that the entry leaves, by the part of it that reads the file of the machine above."""
    part = re.search(r"^  unspecified=.*?^  (?=grep)(?P<grep>[^\n]*)", ENTRY.read_text(), re.MULTILINE | re.DOTALL)
    assert part
    (tmp_path / "resolv.conf").write_text("".join(f"{line}\n" for line in lines))
    script = part[0].replace("/usr/lib/nested-kata/resolv.conf", str(tmp_path / "resolv.conf"))
    return subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("address", HERE)
def test_what_means_this_machine_or_something_on_a_link_is_left_out(address: str, tmp_path: Path) -> None:
    lines = [f"nameserver {address}", f"  nameserver\t{address} # as written by a resolver"]
    assert name_servers(lines) == []
    assert kept_by_the_entry(lines, tmp_path) == []


@pytest.mark.parametrize("address", ELSEWHERE)
def test_every_other_name_server_serves(address: str, tmp_path: Path) -> None:
    lines = [f"nameserver {address}", "search example.org", "options edns0"]
    assert name_servers(lines) == name_servers([address]) == [address]
    assert kept_by_the_entry(lines, tmp_path) == lines


def test_each_is_listed_once_in_its_own_spelling() -> None:
    assert name_servers(["nameserver ::ffff:192.0.2.1", "nameserver 192.0.2.1", "nameserver nonsense"]) == ["192.0.2.1"]
