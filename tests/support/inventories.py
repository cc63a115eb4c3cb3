# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own inventory and hostvars, from variables that a test names."""

from __future__ import annotations

from collections.abc import Mapping

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager


def trusted(value: object) -> object:
    """Return what Ansible makes of the values of a file: text is a template."""
    if isinstance(value, dict):
        return {key: trusted(below) for key, below in value.items()}
    if isinstance(value, list):
        return [trusted(below) for below in value]
    return trust_as_template(value) if isinstance(value, str) else value


def inventory(hosts: Mapping[str, Mapping[str, object]]) -> tuple[VariableManager, HostVars]:
    """Return what a play has whose hosts have these variables."""
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[])
    for host, variables in hosts.items():
        manager.add_host(host)
        for name, value in variables.items():
            manager.hosts[host].set_variable(name, value)
    variable_manager = VariableManager(loader=loader, inventory=manager)
    return variable_manager, HostVars(inventory=manager, variable_manager=variable_manager, loader=loader)
