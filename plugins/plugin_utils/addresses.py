# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address ranges for daemons inside daemons: each level has its own, and none is already reached by the machine."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The default candidates.
SPACES = (
    "10.213.0.0/16",
    "10.214.0.0/16",
    "10.215.0.0/16",
    "10.216.0.0/16",
    "172.29.0.0/16",
    "172.30.0.0/16",
    "192.168.224.0/20",
)


# A route to so much is a part of a default route: OpenVPN takes two halves (0.0.0.0/1 and 128.0.0.0/1), WireGuard more
# pieces where a network is left out.
SHORTEST = 8
NOT_ROUTED = ("broadcast", "multicast", "throw")  # types of routes that lead to no network


class NoRangeLeft(Exception):
    """Every candidate overlaps a range that is in use; the message names each with what it overlaps."""


@dataclass(frozen=True)
class AddressPlan:
    """A range of addresses, divided among the levels."""

    space: str
    proxy: str  # the network between the machine and the proxy
    target: str  # pool for the networks of the target's dockerd
    instance: str  # pool for the networks of an instance's dockerd


def routed_networks(routes: str) -> list[Network]:
    """Return the networks that a machine reaches other than by a default route, from the output of `ip -json route show
    table all`, or from the text of /proc/net/route, which has only IPv4 and the main table.
    """
    found = from_ip(routes) if routes.lstrip().startswith("[") else from_proc(routes)
    return [network for network in found if network.prefixlen >= SHORTEST]


def from_ip(text: str) -> Iterator[Network]:
    """Yield the destinations that ip-route(8) reports, of all tables."""
    listed: list[dict[str, Any]] = json.loads(text)
    for route in listed:
        if route.get("type") not in NOT_ROUTED and route["dst"] != "default":
            yield ipaddress.ip_network(route["dst"], strict=False)


def from_proc(text: str) -> Iterator[Network]:
    """Yield the destinations in /proc/net/route: addresses and masks are hexadecimal in the byte order of the machine
    (proc(5)), read here as little endian, which x86_64 and arm64 are.
    """
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8:
            destination, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
            yield ipaddress.IPv4Network((destination, mask.bit_count()))


def divide(space: str) -> AddressPlan:
    """Divide a range into four quarters: the first /24 of the first for the proxy, then target, instance, and one
    spare.
    """
    network = ipaddress.IPv4Network(space)
    if network.prefixlen > 22:
        raise ValueError(f"{space} is too small: a /22 or larger is needed")
    quarters = list(network.subnets(prefixlen_diff=2))
    return AddressPlan(
        space=space,
        proxy=str(next(quarters[0].subnets(new_prefix=24))),
        target=str(quarters[1]),
        instance=str(quarters[2]),
    )


def choose(candidates: list[str], taken: Iterable[Network]) -> AddressPlan:
    """Return the plan of the first candidate that overlaps nothing that is taken."""
    in_use, reasons = list(taken), []
    for candidate in candidates:
        clash = clash_of(candidate, in_use)
        if not clash:
            return divide(candidate)
        reasons.append(clash)
    raise NoRangeLeft("; ".join(reasons))


def clash_of(named: str, taken: Iterable[Network]) -> str:
    """Return what a range overlaps, in words, or an empty string."""
    network = ipaddress.IPv4Network(named)
    clash = next((other for other in taken if other.version == 4 and other.overlaps(network)), None)
    return f"{named} overlaps {clash}" if clash else ""
