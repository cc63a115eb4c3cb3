# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two instances in a proxy reach and who reaches them, with the rules that the roles write, in network namespaces.

The way out of an instance leads over its own bridge in the proxy, the bridge of the proxy's network on the machine, and
the machine's uplink to a world that has whatever an instance should or should not find.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.nested.kata.plugins.plugin_utils.firewall import chains
from ansible_runner import CHECKOUT, MARK, wait_until
from network_machines import Goal, Machine, bridge, cable, machines

pytestmark = [pytest.mark.root]

PROGRAM = CHECKOUT / "roles" / "internal_firewall" / "files" / "firewall.py"

A, B, OTHER = "10.81.1.2", "10.81.2.2", "10.82.9.2"
INTERNET, INTERNET6 = "198.51.100.2", "2001:db8:9::2"
LAN, LAN6 = "192.168.77.2", "fd77::2"
METADATA = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"]
OF_THE_PROXY = ["10.81.1.1", "10.81.2.1", "10.82.1.2", "fd81:1::1", "fd81:2::1", "fd82:1::2"]
OF_THE_MACHINE = ["10.82.1.1", "10.82.9.1", "192.0.2.2", "fd82:1::1", "2001:db8:1::2"]
RESOLVER = "192.0.2.2"  # the machine itself, as where dnsmasq runs there


class Site(NamedTuple):
    a: Machine
    b: Machine
    proxy: Machine
    machine: Machine
    other: Machine
    world: Machine


def hold(machine: Machine, directory: Path) -> subprocess.Popen[str]:
    """Start the service of a machine, and return it when it has noted that the rules are there."""
    command = machine.command(sys.executable, PROGRAM, "hold", directory)
    service = subprocess.Popen(command, text=True, env={**os.environ, "RUNTIME_DIRECTORY": str(directory)})
    wait_until((directory / "nested-kata-firewall.json").exists, f"the rules of {machine.name}", 20)
    return service


def as_docker(proxy: Machine, machine: Machine) -> None:
    """Have addresses of the inside never seen outside, and a port of the proxy lead to A."""
    post = 'chain post { type nat hook postrouting priority 100; oifname "uplink" masquerade; }\n'
    published = f"fib daddr type local tcp dport 8080 dnat ip to {A}:80;"
    pre = f"chain pre {{ type nat hook prerouting priority -100; {published} }}\n"
    for one, more in ((machine, ""), (proxy, pre)):
        one.run("nft", "-f", "-", data=f"table inet docker {{ {post} {more} }}")


def flush(site: Site) -> None:
    """Do what the restart of a firewall does, and then what Docker does when it is started again."""
    for one in (site.machine, site.proxy):
        one.run("nft", "flush", "ruleset")
    as_docker(site.proxy, site.machine)


def attach(above: Machine, space: int, number: int, one: Machine, port: str) -> None:
    """Connect a machine to a bridge of the one above, over which it reaches everything else."""
    cable(above, f"to{number}", one, port)
    bridge(above, f"br-{number}", f"to{number}", f"10.{space}.{number}.1/24", f"fd{space}:{number}::1/64")
    one.ip(f"addr add 10.{space}.{number}.2/24 dev {port}")
    one.ip(f"addr add fd{space}:{number}::2/64 dev {port}")
    one.ip(f"route add default via 10.{space}.{number}.1")
    one.ip(f"-6 route add default via fd{space}:{number}::1")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The machines, with nothing between them."""
    names = [f"t-fw-{MARK}-{name}" for name in ("a", "b", "proxy", "machine", "other", "world")]
    with machines(*names) as made, ExitStack() as stack:
        a, b, proxy, machine, other, world = made
        for number, one in ((1, a), (2, b)):
            attach(proxy, 81, number, one, "eth0")
        for number, one in ((1, proxy), (9, other)):
            attach(machine, 82, number, one, "uplink")
        cable(machine, "uplink", world, "eth0")
        machine.ip("addr add 192.0.2.2/24 dev uplink")
        machine.ip("addr add 2001:db8:1::2/64 dev uplink")
        machine.ip("route add default via 192.0.2.1")
        machine.ip("-6 route add default via 2001:db8:1::1")
        world.ip("addr add 192.0.2.1/24 dev eth0")
        world.ip("addr add 2001:db8:1::1/64 dev eth0")
        for address in (INTERNET, INTERNET6, LAN, LAN6, *METADATA):
            world.ip(f"addr add {address}/{128 if ':' in address else 32} dev lo")
        as_docker(proxy, machine)
        # The way back into the proxy's own networks, as an attacker on the machine's network would set it.
        machine.ip("route add 10.81.0.0/16 via 10.82.1.2")
        for one in made:
            stack.enter_context(one.serving())
        yield Site(*made)


class Rules:
    """The files of the proxy and of the machine, and who holds them."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site, self.directory = site, directory
        self.services: list[subprocess.Popen[str]] = []

    def write(self, **options: Any) -> None:
        """Write the rules that the roles would."""
        every = ["10.81.1.0/24", "10.81.2.0/24"]
        for number, name in ((1, "a"), (2, "b")):
            neighbours = [one for one in every if not one.startswith(f"10.81.{number}.")]
            text = chains(f"br-{number}", servers=[RESOLVER], neighbours=neighbours, **options)
            (self.directory / "proxy" / f"{name}.nft").write_text(text)
        machine = chains("br-1", servers=[RESOLVER], neighbours=["10.82.9.0/24"])
        (self.directory / "machine" / "kata-in-docker.nft").write_text(machine)

    def hold(self) -> None:
        self.services = [
            hold(self.site.machine, self.directory / "machine"),
            hold(self.site.proxy, self.directory / "proxy"),
        ]

    def end(self) -> None:
        for service in self.services:
            service.send_signal(signal.SIGTERM)
            service.wait(20)
        self.services = []


@pytest.fixture
def rules(site: Site, tmp_path: Path) -> Iterator[Rules]:
    for name in ("proxy", "machine"):
        (tmp_path / name).mkdir()
    made = Rules(site, tmp_path)
    yield made
    made.end()


def at(*addresses: str, port: int = 80, source: str = "") -> set[Goal]:
    return {Goal(protocol, address, port, source) for address in addresses for protocol in ("tcp", "udp")}


FORBIDDEN = at(B, OTHER, "fd81:2::2", *METADATA, *OF_THE_PROXY, *OF_THE_MACHINE) | at(
    *OF_THE_PROXY, *[one for one in OF_THE_MACHINE if one != RESOLVER], METADATA[0], port=53
)
ALLOWED = at(INTERNET, INTERNET6) | at(RESOLVER, INTERNET, port=53)


def test_without_rules_all_of_it_is_reached(site: Site) -> None:
    """Otherwise the other tests would show nothing."""
    assert site.a.reached(FORBIDDEN | ALLOWED | at(LAN, LAN6)) == FORBIDDEN | ALLOWED | at(LAN, LAN6)


def test_an_instance_reaches_the_internet_and_its_resolver_and_nothing_that_is_near(site: Site, rules: Rules) -> None:
    rules.write()
    rules.hold()
    for _before_and_after_a_flush in range(2):
        assert site.a.reached(FORBIDDEN | ALLOWED | at(LAN, LAN6)) == ALLOWED | at(LAN, LAN6)
        flush(site)


def test_an_address_of_its_own_choice_does_not_help_an_instance(site: Site, rules: Rules) -> None:
    """Root in the instance, or in a container of its with the host's network, sets addresses and routes."""
    goals = at(OTHER, *OF_THE_PROXY[:3], *OF_THE_MACHINE[:2], METADATA[0], source="10.81.1.99")
    site.a.ip("addr add 10.81.1.99/24 dev eth0")
    site.a.ip(f"route add {OTHER} via 10.81.1.1 src 10.81.1.99")
    try:
        assert site.a.reached(goals) == goals
        rules.write()
        rules.hold()
        assert site.a.reached(goals) == set()
    finally:
        site.a.ip(f"route del {OTHER}")
        site.a.ip("addr del 10.81.1.99/24 dev eth0")


def test_private_networks_can_be_closed_and_parts_of_them_and_of_the_internet_opened_and_closed(
    site: Site, rules: Rules
) -> None:
    rules.write(
        private_networks=False,
        allow=[{"network": LAN, "ports": [80], "protocol": "tcp"}, {"network": LAN6, "ports": ["79-81"]}],
        deny=[{"network": "198.51.100.0/24", "ports": [80]}, {"network": LAN6}],
    )
    rules.hold()
    tried = at(LAN, LAN6, INTERNET, INTERNET6) | at(LAN, LAN6, INTERNET, port=53)
    expected = {Goal("tcp", LAN, 80)} | at(LAN6) | at(INTERNET6) | at(INTERNET, port=53)
    assert site.a.reached(tried) == expected


def test_from_outside_only_published_ports_lead_in_and_the_target_itself_reaches_it(site: Site, rules: Rules) -> None:
    published, direct = Goal("tcp", "10.82.1.2", 8080), at(A)
    assert site.machine.reached({published, *direct}) == {published, *direct}
    rules.write()
    rules.hold()
    assert site.machine.reached({published, *direct}) == {published}
    assert site.b.reached({published, *direct}) == set()
    assert site.proxy.reached(direct) == direct


def firewall(site: Site, rules: Rules, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        site.proxy.command(sys.executable, PROGRAM, *arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RUNTIME_DIRECTORY": str(rules.directory / "proxy")},
    )


def test_changed_rules_are_read_again_and_those_of_a_file_that_went_go_too(site: Site, rules: Rules) -> None:
    directory = str(rules.directory / "proxy")
    rules.write()
    rules.hold()
    rules.write(deny=[{"network": INTERNET}])
    (rules.directory / "proxy" / "b.nft").unlink()
    assert firewall(site, rules, "reload", directory).returncode == 0
    assert site.a.reached(at(INTERNET, INTERNET6)) == at(INTERNET6)
    assert firewall(site, rules, "check", "a").returncode == 0
    gone = firewall(site, rules, "check", "b")
    assert (gone.returncode, "the firewall of b is not loaded" in gone.stderr) == (1, True)


def test_rules_that_nftables_refuses_are_told_and_the_earlier_ones_stay(site: Site, rules: Rules) -> None:
    directory = rules.directory / "proxy"
    rules.write(deny=[{"network": INTERNET}])
    rules.hold()
    (directory / "a.nft").write_text("chain from { nonsense }\n")
    refused = firewall(site, rules, "reload", str(directory))
    assert (refused.returncode, "nested-kata.a: Error: syntax error" in refused.stderr) == (1, True)
    assert site.a.reached(at(INTERNET, INTERNET6)) == at(INTERNET6)


def test_without_a_service_they_are_loaded_once_and_a_service_takes_them_over(site: Site, rules: Rules) -> None:
    directory = str(rules.directory / "proxy")
    rules.write(deny=[{"network": INTERNET}])
    for _again in range(2):
        assert firewall(site, rules, "once", directory).returncode == 0
        assert site.a.reached(at(INTERNET, INTERNET6)) == at(INTERNET6)
    rules.hold()
    flush(site)
    assert site.a.reached(at(INTERNET, INTERNET6)) == at(INTERNET6)
