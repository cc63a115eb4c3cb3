# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory and the roles say of hosts that are containers, and not those hosts themselves: how they are
reached, and what a role noted of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError
from ansible.vars.hostvars import HostVars

Hostvars = Mapping[str, Mapping[str, Any]]
"""The variables of each host."""


class Way(NamedTuple):
    """The host above, or nothing, and the containers from there on."""

    via: str
    hops: tuple[str, ...]


def way(name: str, hostvars: Hostvars) -> Way:
    """Return the way to a host."""
    with _without_facts(hostvars):
        known = hostvars[name]
        return Way(known.get("ansible_nested_via", ""), tuple(known.get("ansible_nested_hops", ())))


def hops_from(host: str, instance: str, hostvars: Hostvars) -> tuple[str, ...]:
    """Return the containers that lead from a Kata host to an instance, on itself or in a proxy of it; none where it is
    reached from elsewhere.
    """
    via, hops = way(instance, hostvars)
    if via == host:
        return hops
    if via and (above := way(via, hostvars)).via == host:
        return (*above.hops, *hops)
    return ()


def noted(hosts: Iterable[str], hostvars: Hostvars, variable: str) -> list[Any]:
    """Return a variable of the hosts that have it other than as a fact."""
    with _without_facts(hostvars):
        return [hostvars[host][variable] for host in hosts if variable in hostvars[host]]


class _NoFacts:
    """Stands in for the facts that Ansible knows: there are none."""

    def get(self, _host: str) -> dict[str, Any]:
        """Return the facts of a host."""
        return {}


@contextmanager
def _without_facts(hostvars: Hostvars) -> Iterator[None]:
    """Have Ansible leave facts out of the variables that it collects, however it is configured."""
    if not isinstance(hostvars, HostVars):
        raise AnsibleFilterError(
            f"hostvars: a {type(hostvars).__name__}, in which facts and variables cannot be told apart: hand over"
            " hostvars itself"
        )
    manager: Any = hostvars._variable_manager
    before = manager._fact_cache
    manager._fact_cache = _NoFacts()
    try:
        yield
    finally:
        manager._fact_cache = before
