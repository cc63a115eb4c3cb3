# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address ranges for daemons inside daemons: each level has its own, and none is already reached by the machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

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


class NoRangeLeft(Exception):
    """Every candidate overlaps a range that is in use; the message names each with what it overlaps."""


@dataclass(frozen=True)
class AddressPlan:
    """A range of addresses, divided among the levels."""

    space: str
    proxy: str  # the network between the machine and the proxy
    target: str  # pool for the networks of the target's dockerd
    instance: str  # pool for the networks of an instance's dockerd


def routed_networks(proc_net_route: str) -> list[ipaddress.IPv4Network]:
    """Return the networks that the kernel's IPv4 routing table reaches other than by its default route.

    `proc_net_route` is the text of /proc/net/route: addresses and masks are hexadecimal in the byte order of the
    machine (proc(5)), read here as little endian, which x86_64 and arm64 are.
    """
    networks = []
    for line in proc_net_route.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        destination, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            networks.append(ipaddress.IPv4Network((destination, bin(mask).count("1"))))
    return networks


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


def choose(candidates: list[str], taken: list[ipaddress.IPv4Network]) -> AddressPlan:
    """Return the plan of the first candidate that overlaps nothing that is taken."""
    clashes = []
    for candidate in candidates:
        network = ipaddress.IPv4Network(candidate)
        clash = next((other for other in taken if other.overlaps(network)), None)
        if clash is None:
            return divide(candidate)
        clashes.append(f"{candidate} overlaps {clash}")
    raise NoRangeLeft("no free address range: " + "; ".join(clashes))
