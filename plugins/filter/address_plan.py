# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: address_plan
short_description: Choose an address range for nested daemons and divide it among the levels
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Takes the first range that overlaps no route and no network that is in use, and divides it, so that the
    networks of a target's dockerd and of an instance's dockerd overlap neither each other nor the machine's own.
  - Pure computation on the control node.
options:
  _input:
    description:
      - Candidate ranges in CIDR notation, in the order of preference. Each is a V(/22) or larger.
      - Where all of them overlap something, the first is taken all the same, with a warning, since somebody named it.
      - When empty, V(10.213.0.0/16), V(10.214.0.0/16), V(10.215.0.0/16), V(10.216.0.0/16), V(172.29.0.0/16),
        V(172.30.0.0/16) and V(192.168.224.0/20).
    type: list
    elements: str
    required: true
  routes:
    description:
      - The routes of the machine, as C(ip -json route show table all) or C(/proc/net/route) has them. Those with a
        prefix shorter than V(/8) are parts of a default route.
    type: str
    default: ""
  taken:
    description: More ranges in use, for example the subnets of Docker networks. Those that are not IPv4 are
      ignored.
    type: list
    elements: str
    default: []
  named:
    description: A range that somebody named for the daemons of instances. It is taken as C(instance) in any case, with
      a warning where it overlaps something, and no range is chosen.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Choose a range that this machine does not use
  ansible.builtin.debug:
    msg: "{{ ['10.213.0.0/16', '10.214.0.0/16'] | nested.kata.address_plan(routes=(route_table.content | b64decode)) }}"
"""

RETURN = r"""
_value:
  description:
    - C(space) is the range chosen, C(proxy) the subnet of the proxy's network, C(target) and C(instance) the pools for
      the daemons of those levels.
    - Where none was named and all overlap something, an error says what each overlaps.
  type: dict
  sample:
    space: 10.213.0.0/16
    proxy: 10.213.0.0/24
    target: 10.213.64.0/18
    instance: 10.213.128.0/18
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import asdict

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.plugin_utils.addresses import (
    SPACES,
    NoRangeLeft,
    choose,
    clash_of,
    divide,
    routed_networks,
)


def address_plan(
    candidates: Iterable[str], routes: str = "", taken: Iterable[str] = (), named: str = ""
) -> dict[str, str]:
    """Return the plan of the first free candidate as a dictionary."""
    listed = list(candidates)
    try:
        in_use = [*routed_networks(routes), *(ipaddress.ip_network(one, strict=False) for one in taken)]
        if named:
            warn_of(named, clash_of(named, in_use))
            return {"instance": named}
        return asdict(choose(listed or list(SPACES), in_use))
    except NoRangeLeft as problem:
        if not listed:
            raise AnsibleFilterError(
                f"nested.kata.address_plan: no free address range ({problem}): name one in kata_proxy_address_spaces or"
                " kata_instance_address_spaces, which is then taken in any case"
            ) from problem
        warn_of(listed[0], str(problem))
        return asdict(divide(listed[0]))
    except ValueError as problem:
        raise AnsibleFilterError(f"nested.kata.address_plan: {problem}") from problem


def warn_of(space: str, clash: str) -> None:
    """Warn of a range that was named and overlaps another one."""
    if clash:
        Display().warning(f"the address range {space} is taken as it was named, although {clash}")


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"address_plan": address_plan}
