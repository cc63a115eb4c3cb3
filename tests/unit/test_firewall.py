# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of firewall rules. What they do is tried in tests/integration/test_firewall.py."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.filter.firewall_rules import firewall_rules
from ansible_collections.nested.kata.plugins.plugin_utils.firewall import (
    Invalid,
    chains,
    collapsed,
    name_servers,
    reach,
)
from hypothesis import given
from hypothesis import strategies as st

NETWORK = {"Id": "0123456789abcdef", "Options": {}, "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}


def leaving(text: str) -> list[str]:
    """Return the rules for what comes from the bridge, in their order."""
    return [line.strip() for line in text.partition("chain from {\n")[2].partition("  }\n")[0].splitlines()]


def test_a_bridge_has_the_name_that_docker_gives_it_or_that_the_network_asks_for() -> None:
    assert 'iifname "br-0123456789ab" jump from' in firewall_rules(NETWORK)
    named = {**NETWORK, "Options": {"com.docker.network.bridge.name": "docker0"}}
    assert 'oifname "docker0" jump to' in firewall_rules(named)


def test_other_networks_are_out_of_reach_and_the_own_one_is_not_named() -> None:
    others = [{"Id": "f00", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Gateway": "fd00::1"}]}}, {"Id": "none"}]
    held = {"Id": "h", "Labels": {"nested.kata.instance": "b"}, "IPAM": {"Config": [{"Subnet": "172.19.0.0/16"}]}}
    text = firewall_rules(NETWORK, networks=[NETWORK, *others, held, {"Id": "x", "IPAM": {"Config": None}}])
    assert "ip daddr { 172.17.0.0/16 } drop" in leaving(text)
    assert "172.18" not in text
    assert "172.19" not in text


def test_what_is_allowed_comes_before_what_is_denied_and_both_before_what_is_near() -> None:
    rules = leaving(
        chains(
            "br-1",
            servers=["192.0.2.1"],
            allow=[{"network": "10.0.0.7", "ports": [5000, "8000-8100"], "protocol": "tcp"}],
            deny=[{"network": "10.0.0.0/8"}],
            private_networks=False,
        )
    )
    expected = [
        "ct state established,related accept",
        "ip daddr 192.0.2.1/32 meta l4proto { tcp, udp } th dport { 53 } accept",
        "ip daddr 10.0.0.7/32 meta l4proto { tcp } th dport { 5000, 8000-8100 } accept",
        "ip daddr 10.0.0.0/8 drop",
        "fib daddr type { local, broadcast, anycast, multicast } drop",
        "ip6 daddr { fc00::/7 } drop",
    ]
    assert [rule for rule in rules if rule in expected] == expected
    assert rules[-2:] == [
        "ip daddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop",
        "ip6 daddr { fc00::/7 } drop",
    ]


def test_private_networks_are_within_reach_unless_they_are_closed() -> None:
    assert "10.0.0.0/8" not in chains("br-1")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "is not an entry"),
        ({"network": "10.0.0.1", "port": 80}, "is not an entry"),
        ("10.0.0.1", "is not an entry"),
        ({"network": "example.org"}, "network 'example.org' is not an address or a range"),
        ({"network": "10.0.0.0/33"}, "network '10.0.0.0/33' is not"),
        ({"network": "10.0.0.1; flush ruleset"}, "is not an address"),
        ({"network": "10.0.0.1", "ports": ["http"]}, "port 'http' is not"),
        ({"network": "10.0.0.1", "ports": [0]}, "port '0' is not"),
        ({"network": "10.0.0.1", "ports": ["90-80"]}, "port '90-80' is not"),
        ({"network": "10.0.0.1", "ports": [65536]}, "port '65536' is not"),
        ({"network": "10.0.0.1", "ports": [80], "protocol": "sctp"}, "protocol 'sctp' is not one of tcp, udp"),
        ({"network": "10.0.0.1", "protocol": "tcp"}, "has no ports"),
    ],
)
def test_an_entry_that_is_no_rule_is_refused(entry: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        reach(entry)


def test_a_filter_names_itself_in_its_errors() -> None:
    with pytest.raises(AnsibleFilterError, match=r"nested\.kata\.firewall_rules: network 'x' is not"):
        firewall_rules(NETWORK, allow=[{"network": "x"}])


def test_a_network_cannot_write_rules_by_its_name() -> None:
    with pytest.raises(AnsibleFilterError, match="is not the name of a network interface"):
        firewall_rules({**NETWORK, "Options": {"com.docker.network.bridge.name": 'x" accept; #'}})


def test_resolvers_are_read_from_files_and_those_on_the_loopback_are_none() -> None:
    lines = [
        "nameserver 192.0.2.53",
        "nameserver 127.0.0.53",
        "# nameserver 192.0.2.1",
        "search example.org",
        "  nameserver\tfe80::1%eth0",
        "nameserver nonsense",
        "nameserver 192.0.2.53",
    ]
    assert name_servers(lines) == ["192.0.2.53"]


RANGES = st.lists(
    st.one_of(
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
        st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
    ).map(lambda found: ipaddress.ip_network(f"{found[0]}/{found[1]}", strict=False)),
    max_size=6,
)


@given(RANGES)
def test_ranges_that_overlap_become_ranges_that_do_not_and_cover_the_same(networks: list) -> None:
    found = collapsed(networks)
    assert all(any(one.version == each.version and one.subnet_of(each) for each in found) for one in networks)
    pairs = [(one, other) for one, other in itertools.permutations(found, 2) if one.version == other.version]
    assert not any(one.overlaps(other) for one, other in pairs)
