# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile netsim: simulated networks between two namespaces, each of which must carry packets."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from statistics import median

from .proof import cable, expect, inside, named, namespaces, refused, round_trips, run, wait_for

DELAY = 100  # milliseconds


@contextlib.contextmanager
def two_neighbours() -> Iterator[None]:
    """Namespaces a and b, joined by the link v with the addresses 10.9.0.1 and 10.9.0.2."""
    with namespaces("a", "b"):
        cable("a", "b")
        inside("""
            a ip address add 10.9.0.1/24 dev v
            b ip address add 10.9.0.2/24 dev v
        """)
        reaches("a", "10.9.0.2")
        yield


def reaches(namespace: str, address: str, options: str = "") -> None:
    wait_for(f"ip netns exec {namespace} ping -c 1 -W 1 {options} {address}", 15)


def netem_delays_packets() -> str:
    with two_neighbours():
        before = median(round_trips(run("ip netns exec a ping -c 5 -i 0.2 10.9.0.2")))
        inside(f"a tc qdisc add dev v root netem delay {DELAY}ms")
        delayed = median(round_trips(run("ip netns exec a ping -c 5 -i 0.2 10.9.0.2")))
        inside("a tc qdisc del dev v root")
        after = median(round_trips(run("ip netns exec a ping -c 5 -i 0.2 10.9.0.2")))
        seen = (
            f"round trip {before:.3f} ms, with netem delay {DELAY}ms {delayed:.1f} ms, without it again {after:.3f} ms"
        )
        expect(max(before, after) < DELAY / 2 and DELAY <= delayed < 2 * DELAY, seen)
        return seen


def netem_loses_packets() -> str:
    with two_neighbours():
        inside("a tc qdisc add dev v root netem loss 100%")
        refused("ip netns exec a ping -c 2 -W 1 10.9.0.2")
        inside("a tc qdisc change dev v root netem loss 0%")
        reaches("a", "10.9.0.2")
        return "none of 2 arrived with loss 100%, all with 0%"


def htb_sorts_packets_into_classes() -> str:
    with two_neighbours():
        inside("""
            a tc qdisc add dev v root handle 1: htb default 10
            a tc class add dev v parent 1: classid 1:10 htb rate 10mbit
            a tc class add dev v parent 1: classid 1:20 htb rate 1mbit
            a tc filter add dev v parent 1: protocol ip u32 match ip dst 10.9.0.2 flowid 1:20
            a ping -c 3 -i 0.2 10.9.0.2
        """)
        counted = re.search(
            r"class htb 1:20 .*?Sent \d+ bytes (\d+) pkt", inside("a tc -s class show dev v"), re.DOTALL
        )
        expect(counted is not None and int(counted[1]) >= 3, inside("a tc -s class show dev v"))
        return f"{counted[1]} packets in the class that u32 chose"


def tbf_limits_the_rate() -> str:
    with two_neighbours():
        # 1442 bytes at 64 kbit/s take 180 ms. The first three packets empty the bucket, and the next waits behind them.
        inside("a tc qdisc add dev v root tbf rate 64kbit burst 1600 latency 10s\na ping -c 3 -i 0.01 -s 1400 10.9.0.2")
        waited = round_trips(inside("a ping -c 1 -W 5 -s 1400 10.9.0.2"))[0]
        expect(150 < waited < 1000, f"round trip {waited} ms")
        return f"round trip {waited} ms"


def vlans_keep_their_packets() -> str:
    with two_neighbours():
        inside("""
            a ip link add link v name tagged type vlan id 10
            b ip link add link v name tagged type vlan id 10
            b ip link add link v name other type vlan id 20
            a ip address add 10.10.0.1/24 dev tagged
            b ip address add 10.10.0.2/24 dev tagged
            a ip link set tagged up
            b ip link set tagged up
            b ip link set other up
        """)
        reaches("a", "10.10.0.2")
        inside("""
            b ip address del 10.10.0.2/24 dev tagged
            b ip address add 10.10.0.2/24 dev other
            a ip neighbour flush all
        """)
        refused("ip netns exec a ping -c 1 -W 1 10.10.0.2")
        return inside("a ip -details link show tagged").splitlines()[-1].strip()


def wireguard_shakes_hands() -> str:
    with two_neighbours():
        for name in "ab":
            run(
                f"umask 077; wg genkey | tee /run/{name}.key | wg pubkey > /run/{name}.pub; ip -n {name} link add wg0"
                " type wireguard"
            )
        inside("""
            a sh -c 'wg set wg0 listen-port 51820 private-key /run/a.key peer $(cat /run/b.pub) \
endpoint 10.9.0.2:51820 allowed-ips 10.11.0.2/32'
            b sh -c 'wg set wg0 listen-port 51820 private-key /run/b.key peer $(cat /run/a.pub) \
allowed-ips 10.11.0.1/32'
            a ip address add 10.11.0.1/24 dev wg0
            b ip address add 10.11.0.2/24 dev wg0
            a ip link set wg0 up
            b ip link set wg0 up
        """)
        reaches("a", "10.11.0.2")
        shaken = inside("b wg show wg0 latest-handshakes").split()[-1]
        expect(int(shaken) > 0, f"latest handshake: {shaken}")
        return inside("b wg show wg0 transfer").split(maxsplit=1)[1]


def geneve_tunnels() -> str:
    return tunnel("geneve", "geneve id 7 remote {peer}")


def vxlan_tunnels() -> str:
    return tunnel("vxlan", "vxlan id 7 dstport 4789 remote {peer} dev v")


def gre_tunnels() -> str:
    return tunnel("gretap", "gretap remote {peer} local {own}")


def tunnel(kind: str, arguments: str) -> str:
    with two_neighbours():
        for name, own, peer in (("a", 1, 2), ("b", 2, 1)):
            inside(f"""
                {name} ip link add name t type {arguments.format(own=f"10.9.0.{own}", peer=f"10.9.0.{peer}")}
                {name} ip address add 10.12.0.{own}/24 dev t
                {name} ip link set dev t up
            """)
        reaches("a", "10.12.0.2")
        inside("b ip link set dev t down")
        refused("ip netns exec a ping -c 1 -W 1 10.12.0.2")
        return f"packets pass {kind}"


def a_vrf_has_routes_of_its_own() -> str:
    with two_neighbours():
        inside("""
            a ip link add red type vrf table 10
            a ip link set red up
            a ip link set v master red
        """)
        reaches("a", "10.9.0.2", "-I red")
        refused("ip netns exec a ip route get 10.9.0.2")
        return inside("a ip route show vrf red")


def a_bond_survives_the_loss_of_a_link() -> str:
    with namespaces("a", "b"):
        for link in ("v1", "v2"):
            cable("a", "b", link)
        for name, address in (("a", "10.13.0.1"), ("b", "10.13.0.2")):
            inside(f"""
                {name} ip link add bond0 type bond mode active-backup miimon 100
                {name} ip link set v1 down
                {name} ip link set v2 down
                {name} ip link set v1 master bond0
                {name} ip link set v2 master bond0
                {name} ip address add {address}/24 dev bond0
                {name} ip link set bond0 up
            """)
        reaches("a", "10.13.0.2")
        active = inside("a cat /sys/class/net/bond0/bonding/active_slave")
        inside(f"b ip link set {active} down")
        wait_for(f'test "$(ip netns exec a cat /sys/class/net/bond0/bonding/active_slave)" != {active}', 15)
        reaches("a", "10.13.0.2")
        return f"{active} went down, {inside('a cat /sys/class/net/bond0/bonding/active_slave')} took over"


def a_dummy_link_swallows_packets() -> str:
    with namespaces("a"):
        inside("""
            a ip link add dummy9 type dummy
            a ip address add 10.14.0.1/24 dev dummy9
            a ip link set dummy9 up
        """)
        refused("ip netns exec a ping -c 1 -W 1 10.14.0.2")
        sent = int(inside("a cat /sys/class/net/dummy9/statistics/tx_packets"))
        expect(sent > 0, f"{sent} packets were sent to it")
        return f"{sent} packets went into it"


def sctp_carries_a_message() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as client:
            client.settimeout(10)
            client.connect(server.getsockname())
            connection, _peer = server.accept()
            with connection:
                connection.settimeout(10)
                client.sendall(b"by sctp")
                received = connection.recv(100)
    expect(received == b"by sctp", repr(received))
    return received.decode()


PROOFS = named(
    netem_delays_packets,
    netem_loses_packets,
    htb_sorts_packets_into_classes,
    tbf_limits_the_rate,
    vlans_keep_their_packets,
    wireguard_shakes_hands,
    geneve_tunnels,
    vxlan_tunnels,
    gre_tunnels,
    a_vrf_has_routes_of_its_own,
    a_bond_survives_the_loss_of_a_link,
    a_dummy_link_swallows_packets,
    sctp_carries_a_message,
)
