# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address ranges for daemons inside daemons."""

from __future__ import annotations

import ipaddress
import json
import re
from itertools import combinations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.filter.address_plan import DOCUMENTATION, address_plan
from ansible_collections.nested.kata.plugins.plugin_utils.addresses import (
    SPACES,
    NoRangeLeft,
    choose,
    divide,
    routed_networks,
)
from hypothesis import given
from hypothesis import strategies as st

# As the kernel writes it: default route, a Docker bridge, the network of eth0, and one route to a single host.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t0105D50A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""

RANGES = st.builds(
    lambda address, length: ipaddress.IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(8, 32),
)

# As ip-route(8) writes it: a VPN in two halves, a policy's table, an address of this machine, a network of IPv6.
FROM_IP = json.dumps(
    [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "gateway": "10.8.1.1", "dev": "tun0"},
        {"dst": "128.0.0.0/1", "gateway": "10.8.1.1", "dev": "tun0"},
        {"dst": "10.213.0.0/16", "dev": "ts0", "table": "52"},
        {"type": "local", "dst": "10.214.7.7", "dev": "lo", "table": "local"},
        {"type": "broadcast", "dst": "10.215.0.255", "dev": "eth0", "table": "local"},
        {"type": "blackhole", "dst": "10.216.0.0/14"},
        {"dst": "2000::/3", "dev": "tun0"},
        {"dst": "fd00::/64", "dev": "eth0"},
    ]
)


def test_the_routing_table_is_read_without_its_default_route() -> None:
    assert [str(network) for network in routed_networks(ROUTES)] == ["172.17.0.0/16", "192.0.2.0/24", "10.213.5.1/32"]


@pytest.mark.parametrize("halves", ["00000080", "000000C0", "000000E0", "000000FE"])
def test_a_route_to_a_large_part_of_all_addresses_is_a_part_of_a_default_route(halves: str) -> None:
    lines = ROUTES.replace("010200C0\t0003\t0\t0\t0\t00000000", f"010200C0\t0003\t0\t0\t0\t{halves}")
    assert lines != ROUTES
    assert routed_networks(lines) == routed_networks(ROUTES)


def test_the_routes_of_all_tables_are_read() -> None:
    found = [str(network) for network in routed_networks(FROM_IP)]
    assert found == ["10.213.0.0/16", "10.214.7.7/32", "10.216.0.0/14", "fd00::/64"]
    assert (
        choose(["10.213.0.0/16", "10.214.0.0/16", "10.215.0.0/16"], routed_networks(FROM_IP)).space == "10.215.0.0/16"
    )


def test_a_range_that_somebody_named_is_taken_with_a_warning_where_it_overlaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message: said.append(message))
    assert address_plan(["10.215.0.0/16"], routes=FROM_IP)["space"] == "10.215.0.0/16"
    assert address_plan(["10.213.0.0/16", "10.215.0.0/16"], routes=FROM_IP)["space"] == "10.215.0.0/16"
    assert said == []
    assert address_plan(["10.213.0.0/16", "10.214.0.0/16"], routes=FROM_IP)["space"] == "10.213.0.0/16"
    overlaps = "10.213.0.0/16 overlaps 10.213.0.0/16; 10.214.0.0/16 overlaps 10.214.7.7/32"
    assert said == [f"the address range 10.213.0.0/16 is taken as it was named, although {overlaps}"]
    assert address_plan([], routes=FROM_IP, named="10.215.0.0/16") == {"instance": "10.215.0.0/16"}
    assert len(said) == 1
    assert address_plan([], routes=FROM_IP, named="10.213.64.0/20") == {"instance": "10.213.64.0/20"}
    assert said[1].endswith("10.213.64.0/20 is taken as it was named, although 10.213.64.0/20 overlaps 10.213.0.0/16")
    with pytest.raises(AnsibleFilterError, match=r"10\.0\.0\.0\.0"):
        address_plan([], named="10.0.0.0.0")


def test_a_range_is_divided_so_that_no_level_overlaps_another() -> None:
    plan = divide("10.213.0.0/16")
    parts = [ipaddress.IPv4Network(part) for part in (plan.proxy, plan.target, plan.instance)]
    assert not any(one.overlaps(other) for one, other in combinations(parts, 2))
    assert all(part.subnet_of(ipaddress.IPv4Network("10.213.0.0/16")) for part in parts)
    assert (plan.proxy, plan.target, plan.instance) == ("10.213.0.0/24", "10.213.64.0/18", "10.213.128.0/18")


@pytest.mark.parametrize("space", ["10.0.0.0/23", "10.0.0.1/16", "fd00::/8", "lots"])
def test_what_is_no_range_or_too_small_is_refused(space: str) -> None:
    with pytest.raises(ValueError):
        divide(space)


def test_the_first_range_that_nothing_uses_is_taken() -> None:
    assert choose(["10.213.0.0/16", "172.17.0.0/20", "10.214.0.0/16"], routed_networks(ROUTES)).space == "10.214.0.0/16"


def test_where_all_are_in_use_the_error_names_each_with_what_it_overlaps() -> None:
    with pytest.raises(
        NoRangeLeft, match=r"10\.213\.0\.0/16 overlaps 10\.213\.5\.1/32; 172\.16\.0\.0/12 overlaps 172\.17\.0\.0/16"
    ):
        choose(["10.213.0.0/16", "172.16.0.0/12"], routed_networks(ROUTES))


@given(st.lists(RANGES, max_size=8))
def test_what_is_chosen_never_overlaps_what_is_taken(taken: list[ipaddress.IPv4Network]) -> None:
    try:
        chosen = ipaddress.IPv4Network(choose(["10.213.0.0/16", "172.30.0.0/16", "192.168.224.0/20"], taken).space)
    except NoRangeLeft:
        return
    assert not any(chosen.overlaps(other) for other in taken)


def test_the_filter_passes_over_ipv6_and_says_what_is_wrong_in_one_line() -> None:
    assert (
        address_plan(
            ["10.213.0.0/16"], routes=ROUTES.replace("0105D50A", "0105DD0A"), taken=["fd00::/64", "10.9.0.1/24"]
        )["space"]
        == "10.213.0.0/16"
    )
    with pytest.raises(
        AnsibleFilterError, match=r"no free address range \(10.213.0.0/16 overlaps 10.0.0.0/8; .*\): name"
    ):
        address_plan([], taken=["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])
    with pytest.raises(AnsibleFilterError, match="too small"):
        address_plan(["10.9.0.0/24"])


def test_without_candidates_the_filter_takes_from_those_that_its_documentation_lists() -> None:
    assert tuple(re.findall(r"V\((\d[\d.]+/\d+)\)", DOCUMENTATION)) == SPACES
    assert address_plan([], routes=ROUTES)["space"] == SPACES[1]
    assert all(divide(space) for space in SPACES)
    assert not any(
        ipaddress.IPv4Network(one).overlaps(ipaddress.IPv4Network(other)) for one, other in combinations(SPACES, 2)
    )
