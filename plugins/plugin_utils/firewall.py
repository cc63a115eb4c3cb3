# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container on a bridge may reach and what may reach it, as the chains of a table of nftables.

All is decided by the bridge that a packet comes from, never by its source address, which root in an instance chooses.
A packet is looked at before any address is translated: a port that Docker publishes on the machine is the machine's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Cloud metadata and the services beside it, where they are not link-local: Alibaba, Oracle, Azure, AWS.
METADATA = ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")
# What leads to no other machine: this host, link-local (RFC 1122, 3927, 4291).
LOCAL = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/127", "fe80::/10")
# RFC 1918, 6598 and 4193.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")

INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
PROTOCOLS = ("tcp", "udp")
NAMESERVER = re.compile(r"\s*(?:nameserver\s+)?(\S+)")  # a line of resolv.conf, or an address alone
KEYS = {"network", "ports", "protocol"}


class Invalid(ValueError):
    """What cannot become a rule. The message says which value, and what it should be."""


@dataclass(frozen=True)
class Reach:
    """A network, and the ports there, or all of it."""

    network: Network
    ports: tuple[str, ...] = ()
    protocols: tuple[str, ...] = PROTOCOLS


def reach(entry: Mapping[str, Any]) -> Reach:
    """Return an entry of kata_instance_allow or kata_instance_deny."""
    if not isinstance(entry, Mapping) or "network" not in entry or not set(entry) <= KEYS:
        raise Invalid(f"{entry!r} is not an entry: it has network, and may have ports and protocol")
    ports = entry.get("ports") or []
    protocol = entry.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        raise Invalid(f"protocol {protocol!r} is not one of {', '.join(PROTOCOLS)}")
    if protocol is not None and not ports:
        raise Invalid(f"protocol {protocol} of {entry['network']} has no ports: name them, or leave out protocol")
    listed = ports if isinstance(ports, Sequence) and not isinstance(ports, str) else [ports]
    return Reach(
        network_of(str(entry["network"])),
        tuple(port(str(one)) for one in listed),
        (protocol,) if protocol else PROTOCOLS,
    )


def network_of(text: str) -> Network:
    """Return a network, or the one of a single address."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise Invalid(f"network {text!r} is not an address or a range in CIDR notation") from error


def port(text: str) -> str:
    """Return a port or a range of them, checked."""
    found = PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise Invalid(f"port {text!r} is not a number from 1 to 65535, or a range such as 8000-8100")
    return f"{first}-{last}" if last > first else str(first)


def name_servers(lines: Iterable[str]) -> list[str]:
    """Return the addresses of the name servers in lines of resolv.conf that another machine reaches too."""
    named = (NAMESERVER.match(line) for line in lines)
    return list(dict.fromkeys(str(address) for match in named if match and (address := elsewhere(match[1]))))


def elsewhere(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address that means the same on another machine; nothing for the loopback in any spelling, and for an
    IPv6 address of a link. The resolvers of clouds have IPv4 addresses of a link, and are reached all the same.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    plain = getattr(address, "ipv4_mapped", None) or address
    local = plain.is_loopback or plain.is_unspecified or (plain.version == 6 and plain.is_link_local)
    return None if local or getattr(address, "scope_id", None) else plain


def chains(
    bridge: str,
    *,
    servers: Iterable[str] = (),
    neighbours: Iterable[str] = (),
    allow: Iterable[Mapping[str, Any]] = (),
    deny: Iterable[Mapping[str, Any]] = (),
    private_networks: bool = True,
) -> str:
    """Return the chains for the containers on a bridge.

    `servers` are name servers, whose port 53 may be reached wherever they are, `neighbours` the ranges of other
    networks of the same Docker. What is in `allow` may be reached, then what is in `deny` not; both come before
    everything else.
    """
    if not INTERFACE.fullmatch(bridge):
        raise Invalid(f"{bridge!r} is not the name of a network interface")
    rules = [
        "ct state established,related accept",
        # Without them there is no IPv6. Router advertisements would make this machine's routes.
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept",
        *(rule(Reach(network_of(one), ("53",)), "accept") for one in servers),
        *(rule(reach(one), "accept") for one in allow),
        *(rule(reach(one), "drop") for one in deny),
        "fib daddr type { local, broadcast, anycast, multicast } drop",
        *ranges((*LOCAL, *METADATA)),
        *ranges(neighbours),
        *ranges(() if private_networks else PRIVATE),
    ]
    leaving = "\n".join(f"    {one}" for one in rules)
    return f"""\
  chain from {{
{leaving}
  }}
  chain to {{
    ct state established,related accept
    ct status dnat accept
    iifname "{bridge}" accept
    drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -150; policy accept;
    iifname "{bridge}" jump from
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    oifname "{bridge}" jump to
  }}
"""


def rule(what: Reach, verdict: str) -> str:
    """Return a rule for what comes from the bridge."""
    there = f"{family(what.network)} daddr {what.network}"
    if what.ports:
        there += f" meta l4proto {{ {', '.join(what.protocols)} }} th dport {{ {', '.join(what.ports)} }}"
    return f"{there} {verdict}"


def ranges(texts: Iterable[str]) -> list[str]:
    """Return the rules that drop what goes to any of the ranges: one for each version of IP."""
    networks = [network_of(text) for text in texts]
    return [
        f"{kind} daddr {{ {', '.join(mine)} }} drop"
        for kind in ("ip", "ip6")
        if (mine := [str(one) for one in collapsed(networks) if family(one) == kind])
    ]


def collapsed(networks: Iterable[Network]) -> list[Network]:
    """Return the networks without those inside others: nftables takes no ranges that overlap."""
    listed = list(networks)
    four = ipaddress.collapse_addresses(one for one in listed if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in listed if isinstance(one, ipaddress.IPv6Network))
    return [*four, *six]


def family(network: Network) -> str:
    """Return the word of nftables for the version of IP."""
    return "ip" if network.version == 4 else "ip6"


# A network of Docker


def rules_of(
    network: Mapping[str, Any],
    resolvers: Iterable[str] = (),
    networks: Iterable[Mapping[str, Any]] = (),
    allow: Iterable[Mapping[str, Any]] = (),
    deny: Iterable[Mapping[str, Any]] = (),
    private_networks: bool = True,
) -> str:
    """Return the chains for a network among all networks of its Docker."""
    return chains(
        bridge_of(network),
        servers=name_servers(resolvers),
        neighbours=[
            range_ for one in networks if one["Id"] != network["Id"] and not held(one) for range_ in ranges_of(one)
        ],
        allow=allow,
        deny=deny,
        private_networks=private_networks,
    )


def held(network: Mapping[str, Any]) -> bool:
    """Say whether a network has rules of its own, by which nothing leads into it from others."""
    return any(label in (network.get("Labels") or {}) for label in ("nested.kata.instance", "nested.kata.proxy"))


def bridge_of(network: Mapping[str, Any]) -> str:
    """Return the interface of a bridge network, as Docker names it."""
    named = (network.get("Options") or {}).get("com.docker.network.bridge.name")
    return str(named or f"br-{network['Id'][:12]}")


def ranges_of(network: Mapping[str, Any]) -> list[str]:
    """Return the address ranges of a network."""
    return [one["Subnet"] for one in (network.get("IPAM") or {}).get("Config") or [] if one.get("Subnet")]
