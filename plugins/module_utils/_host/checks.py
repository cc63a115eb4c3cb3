# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All checks of a machine for Kata, by their ids and in the order in which they are shown.

A new check is a function in the module check_* of its subject and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._host import (
    check_docker as docker,
)
from ansible_collections.nested.kata.plugins.module_utils._host import (
    check_machine as machine,
)
from ansible_collections.nested.kata.plugins.module_utils._host import (
    check_resources as resources,
)
from ansible_collections.nested.kata.plugins.module_utils._host.findings import Check


@dataclass(frozen=True)
class Facts:
    """The state of a machine."""

    machine: machine.Machine
    docker: docker.Docker
    resources: resources.Resources


@dataclass(frozen=True)
class Question:
    """The wanted use of the machine."""

    target: str = "host"
    runtime: str | None = None
    runtimes: tuple[str, ...] = ()
    kata: str = ""
    names: tuple[str, ...] = ()
    memory: int = 0
    overcommit: float = 1.0


CHECKS: dict[str, Check] = {
    "architecture": lambda facts, question: machine.check_architecture(facts.machine),
    "cpu_virtualization": lambda facts, question: machine.check_cpu_virtualization(facts.machine),
    "kernel": lambda facts, question: machine.check_kernel(facts.machine),
    "cgroup": lambda facts, question: machine.check_cgroup(facts.machine),
    "kvm": lambda facts, question: machine.check_kvm(facts.machine),
    "vhost_vsock": lambda facts, question: machine.check_device(facts.machine, "vhost_vsock"),
    "vhost_net": lambda facts, question: machine.check_device(facts.machine, "vhost_net"),
    "tun": lambda facts, question: machine.check_device(facts.machine, "tun"),
    "loop": lambda facts, question: machine.check_device(facts.machine, "loop"),
    "docker_daemon": lambda facts, question: docker.check_docker_daemon(
        facts.docker, question.target, facts.machine.kernel
    ),
    "docker_version": lambda facts, question: docker.check_docker_version(facts.docker, question.target, question.kata),
    "docker_config": lambda facts, question: docker.check_docker_config(
        facts.docker, question.target, question.runtimes
    ),
    "docker_runtime": lambda facts, question: docker.check_docker_runtime(facts.docker, question.runtime),
    "names": lambda facts, question: docker.check_names(facts.docker, question.names),
    "space": lambda facts, question: resources.check_space(facts.resources.parts, question.overcommit),
    "reflink": lambda facts, question: resources.check_reflink(facts.resources.disks),
    "memory": lambda facts, question: resources.check_memory(
        facts.resources, question.memory, facts.docker.managed_runs
    ),
    "shm": lambda facts, question: resources.check_shm(facts.resources.shm, question.target, question.memory),
    "time": lambda facts, question: resources.check_time(facts.resources.skew),
    "reachable": lambda facts, question: resources.check_reachable(facts.resources.answers),
}
