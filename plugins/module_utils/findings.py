# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine must have to run Kata: facts go in, findings come out, nothing is touched.

A check is one function from (facts, question) to a Finding, or to None where it has nothing to say.
The table CHECKS gives each its id and its place; a new check is a function and a line there.
"""
from __future__ import annotations

import difflib
import re
import textwrap
from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

KVM_API_VERSION = 12  # the only answer the kernel has given since 2.6.22 (Documentation/virt/kvm/api.rst)
OLDEST_DOCKER = 26  # what Kata's own tests run Docker with begins here
CPU_FLAGS = ("vmx", "svm")

FOUND_WIDTH = 44
NEEDED_WIDTH = 36
REMEDY_WIDTH = 100


@dataclass(frozen=True)
class Device:
    """A device node, and the kernel module that brings it."""

    path: str
    module: str
    present: bool
    character: bool
    loadable: bool


@dataclass(frozen=True)
class Kvm:
    """What /dev/kvm answered: its API version, or the reason why it gave none."""

    present: bool
    api_version: Optional[int] = None
    error: str = ""


@dataclass(frozen=True)
class Docker:
    """What the machine's Docker answered: its version and runtimes, or the reason why it gave none."""

    version: str = ""
    runtimes: Tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """A machine as it is."""

    arch: str
    kernel: str
    cpu_flags: FrozenSet[str]
    kvm: Kvm
    devices: Mapping[str, Device]
    docker: Docker


@dataclass(frozen=True)
class Question:
    """What the machine is to be good for."""

    target: str = "host"
    runtime: Optional[str] = None


@dataclass(frozen=True)
class Finding:
    """One thing that must hold, and whether it does."""

    id: str
    ok: bool
    severity: str
    found: str
    needed: str
    remedy: str

    @property
    def stops(self) -> bool:
        """Whether Kata cannot run for this reason."""
        return not self.ok and self.severity == "error"


@dataclass(frozen=True)
class Judgement:
    """What a check says; decide() adds the id and the severity."""

    ok: bool
    found: str
    needed: str
    remedy: str = ""


class UnknownFinding(ValueError):
    """An id that no check has."""


def cpu_flags(cpuinfo: str) -> FrozenSet[str]:
    """Return the flags of the first processor in the text of /proc/cpuinfo."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(line.group(1).split()) if line else frozenset()


def holds_module(modules_dep: str, name: str) -> bool:
    """Say whether the text of a modules.dep lists a module; - and _ are the same there, as for modprobe."""
    listed = re.findall(r"^(?:\S*/)?([^/\s]+?)\.ko(?:\.(?:gz|xz|zst))?:", modules_dep, re.MULTILINE)
    return name.replace("-", "_") in {module.replace("-", "_") for module in listed}


def check_cpu_virtualization(facts: Facts, question: Question) -> Judgement:
    needed = " or ".join(CPU_FLAGS)
    if facts.arch != "x86_64":
        return Judgement(True, f"not checked on {facts.arch}", "x86_64: " + needed)
    flags = [flag for flag in CPU_FLAGS if flag in facts.cpu_flags]
    if flags:
        return Judgement(True, ", ".join(flags), needed)
    if "hypervisor" in facts.cpu_flags:
        remedy = "this is a virtual machine: turn on nested virtualization where it runs, and give it the host's CPU model"
    else:
        remedy = "turn on virtualization (VT-x, AMD-V or SVM) in the machine's firmware"
    return Judgement(False, "neither flag in /proc/cpuinfo", needed, remedy)


def check_kvm(facts: Facts, question: Question) -> Judgement:
    needed = f"/dev/kvm with API version {KVM_API_VERSION}"
    if not facts.kvm.present:
        modules = " or ".join(module for flag, module in (("vmx", "kvm_intel"), ("svm", "kvm_amd")) if flag in facts.cpu_flags)
        remedy = f"modprobe {modules or 'kvm_intel or kvm_amd'}; in a container, pass the device in with --device /dev/kvm"
        return Judgement(False, "no /dev/kvm", needed, remedy)
    if facts.kvm.api_version is None:
        remedy = "run this as root or as a member of the group kvm; in a container, pass the device in with --device /dev/kvm"
        return Judgement(False, f"/dev/kvm does not answer: {facts.kvm.error}", needed, remedy)
    right = facts.kvm.api_version == KVM_API_VERSION
    remedy = "" if right else "boot a kernel with the KVM of Linux 2.6.22 or newer"
    return Judgement(right, f"/dev/kvm with API version {facts.kvm.api_version}", needed, remedy)


def device_check(name: str) -> Callable[[Facts, Question], Judgement]:
    def check(facts: Facts, question: Question) -> Judgement:
        device = facts.devices[name]
        needed = f"{device.path}, a character device"
        if device.character:
            return Judgement(True, device.path, needed)
        if device.present:
            return Judgement(False, f"{device.path}, which is no character device", needed, f"remove it, then modprobe {device.module}")
        if device.loadable:
            remedy = f"modprobe {device.module}, and name it in /etc/modules-load.d/nested-kata.conf to have it after a reboot"
        else:
            remedy = (
                f"kernel {facts.kernel} has no module {device.module}: boot one that has it; in a container, pass the device in with --device {device.path}"
            )
        return Judgement(False, f"no {device.path}", needed, remedy)

    return check


def check_docker_version(facts: Facts, question: Question) -> Optional[Judgement]:
    if not facts.docker.version:
        return None
    if question.target != "host":
        return Judgement(True, facts.docker.version, "any version: the proxy brings its own Docker")
    major = re.match(r"\d+", facts.docker.version)
    right = bool(major) and int(major.group()) >= OLDEST_DOCKER
    remedy = "" if right else f"install Docker {OLDEST_DOCKER} or newer, or let a proxy run Kata with a Docker of its own (nested_kata_target: proxy)"
    return Judgement(right, facts.docker.version, f"{OLDEST_DOCKER} or newer", remedy)


def check_docker_runtime(facts: Facts, question: Question) -> Optional[Judgement]:
    if question.runtime is None:
        return None
    needed = f"runtime {question.runtime}"
    if not facts.docker.version:
        return Judgement(False, f"Docker does not answer: {facts.docker.error}", needed, "install and start Docker, or mend DOCKER_HOST")
    right = question.runtime in facts.docker.runtimes
    remedy = "" if right else f"install Kata and register it as {question.runtime} under `runtimes` in /etc/docker/daemon.json, then reload Docker"
    return Judgement(right, f"runtimes {', '.join(sorted(facts.docker.runtimes))}", needed, remedy)


CHECKS: Dict[str, Callable[[Facts, Question], Optional[Judgement]]] = {
    "cpu_virtualization": check_cpu_virtualization,
    "kvm": check_kvm,
    "vhost_vsock": device_check("vhost_vsock"),
    "vhost_net": device_check("vhost_net"),
    "tun": device_check("tun"),
    "docker_version": check_docker_version,
    "docker_runtime": check_docker_runtime,
}


def known(ids: Sequence[str]) -> FrozenSet[str]:
    """Return the ids as a set, or raise UnknownFinding for the first that no check has."""
    for name in ids:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CHECKS)}"
            raise UnknownFinding(f"there is no finding {name!r}: {hint}")
    return frozenset(ids)


def decide(facts: Facts, question: Question, ignored: FrozenSet[str] = frozenset()) -> List[Finding]:
    """Return what was found, in the order of CHECKS; findings to ignore are warnings."""
    findings = []
    for name, check in CHECKS.items():
        judgement = check(facts, question)
        if judgement is not None:
            severity = "warning" if name in ignored else "error"
            findings.append(Finding(name, judgement.ok, severity, judgement.found, judgement.needed, judgement.remedy))
    return findings


def sentence(finding: Finding) -> str:
    """Say in one line what is wrong and what to do."""
    return f"{finding.id}: found {finding.found}, needed {finding.needed}: {finding.remedy}"


def summary(findings: Sequence[Finding]) -> str:
    """Say in one line how the findings stand."""
    stopping = [finding.id for finding in findings if finding.stops]
    warned = [finding.id for finding in findings if not finding.ok and not finding.stops]
    if stopping:
        text = f"this machine cannot run Kata: {', '.join(stopping)}"
    else:
        text = f"nothing found that keeps this machine from running Kata ({len(findings)} findings)"
    return text + (f"; ignored: {', '.join(warned)}" if warned else "")


def table(findings: Sequence[Finding]) -> str:
    """Render findings as plain text: a row each, and what to do under those that are not as needed."""
    header = Finding("finding", True, "", "found", "needed", "")
    states = ["state"] + ["ok" if finding.ok else finding.severity.upper() for finding in findings]
    id_width = max(len(finding.id) for finding in [header, *findings])
    state_width = max(map(len, states))
    lines = []
    for finding, state in zip([header, *findings], states):
        found = textwrap.wrap(finding.found, FOUND_WIDTH) or [""]
        needed = textwrap.wrap(finding.needed, NEEDED_WIDTH) or [""]
        for number in range(max(len(found), len(needed))):
            cells = (
                (finding.id if number == 0 else "").ljust(id_width),
                (state if number == 0 else "").ljust(state_width),
                (found[number] if number < len(found) else "").ljust(FOUND_WIDTH),
                needed[number] if number < len(needed) else "",
            )
            lines.append("  ".join(cells).rstrip())
        if not finding.ok:
            indent = " " * (id_width + state_width + 4)
            lines += textwrap.wrap(f"-> {finding.remedy}", REMEDY_WIDTH, initial_indent=indent, subsequent_indent=f"{indent}   ")
    return "\n".join(lines)
