# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of processor, kernel and devices. Facts go in, judgements come out, nothing is touched."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of, written
from ansible_collections.nested.kata.plugins.module_utils._host.findings import WARNING, Judgement

ARCHITECTURES = ("x86_64",)
KVM_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}  # the processor's flag, and the module that uses it
OLDEST_KERNEL = (5, 8)  # the first with LOOP_CONFIGURE, by which disks are attached (drivers/block/loop.c)

# Without cpu and memory Docker refuses `--cpus` and `--memory`, which size a VM; the others only limit (moby,
# contrib/check-config.sh).
CONTROLLERS_NEEDED = ("cpu", "memory")
CONTROLLERS_USED = ("cpuset", "pids")


@dataclass(frozen=True)
class Device:
    """A device node and its driver."""

    path: str
    module: str  # the kernel module with the driver
    present: bool  # a file of that name exists
    character: bool  # and it is a character device
    registered: bool  # the kernel has the driver now
    loadable: bool  # it is among the kernel's modules, and the kernel still loads modules


@dataclass(frozen=True)
class Kvm:
    """The outcome of a guest of three instructions: the time it took, or the step at which it failed and why."""

    seconds: float | None = None
    step: str = ""
    reason: str = ""
    errno: int | None = None
    conclusive: bool = True


@dataclass(frozen=True)
class Cgroup:
    """The cgroup hierarchy that is mounted (0: none) and its controllers."""

    version: int
    controllers: frozenset[str]


@dataclass(frozen=True)
class Machine:
    """The state of processor, kernel and devices."""

    arch: str
    kernel: str
    cpu_flags: frozenset[str]
    nested: str  # parameter `nested` of the KVM module that is loaded
    kvm: Kvm | None  # None: there was no device to try
    devices: Mapping[str, Device]
    cgroup: Cgroup


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the flags of the first processor in the text of /proc/cpuinfo."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(line.group(1).split()) if line else frozenset()


def module_names(text: str) -> set[str]:
    """Return the modules in the text of a modules.dep or modules.builtin; - and _ are equal, as for modprobe."""
    listed = re.findall(r"^(?:\S*/)?([^/\s]+?)\.ko(?:\.(?:gz|xz|zst))?(?::|$)", text, re.MULTILINE)
    return {module.replace("-", "_") for module in listed}


def misc_names(text: str) -> set[str]:
    """Return the drivers in the text of /proc/misc."""
    return {line.split(None, 1)[1].strip() for line in text.splitlines() if len(line.split(None, 1)) == 2}


def read_cgroup(mountinfo: str, controllers: str) -> Cgroup:
    """Return the cgroups in the texts of /proc/self/mountinfo (proc(5)) and /sys/fs/cgroup/cgroup.controllers."""
    first: set[str] = set()
    for line in mountinfo.splitlines():
        mount, _dummy, rest = line.partition(" - ")
        fields, kind = mount.split(), rest.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" and fields[4] == "/sys/fs/cgroup":
            return Cgroup(2, frozenset(controllers.split()))
        if kind[0] == "cgroup":
            first |= set(kind[2].split(","))
    return Cgroup(1 if first else 0, frozenset(first))


def check_architecture(machine: Machine) -> Judgement:
    needed = " or ".join(ARCHITECTURES)
    right = machine.arch in ARCHITECTURES
    return Judgement(
        right,
        machine.arch,
        needed,
        "" if right else f"use an {needed} machine: nested.kata does not offer {machine.arch} yet",
    )


def check_cpu_virtualization(machine: Machine) -> Judgement | None:
    if machine.arch not in ARCHITECTURES:
        return None
    needed = " or ".join(KVM_MODULES)
    flags = [flag for flag in KVM_MODULES if flag in machine.cpu_flags]
    within = "hypervisor" in machine.cpu_flags
    if flags:
        found = (
            ", ".join(flags)
            + (" in a virtual machine" if within else "")
            + (f"; {machine.nested} for guests" if machine.nested else "")
        )
        return Judgement(True, found, needed)
    if machine.kvm and machine.kvm.seconds is not None:
        remedy = "this KVM does without the processor's help, for which Kata is not tested"
        return Judgement(False, "neither flag, yet /dev/kvm runs a guest", needed, remedy, WARNING)
    if within:
        remedy = (
            "this is a virtual machine: turn on nested virtualization where it runs, and give it the host's CPU model"
        )
    else:
        remedy = "turn on virtualization (VT-x, AMD-V or SVM) in the machine's firmware"
    return Judgement(False, "neither flag in /proc/cpuinfo", needed, remedy)


def check_kernel(machine: Machine) -> Judgement:
    right = version_of(machine.kernel) >= OLDEST_KERNEL
    needed = f"{written(OLDEST_KERNEL)} or newer"
    return Judgement(
        right, machine.kernel, needed, "" if right else f"boot a kernel that is {needed}, as the distribution has it"
    )


def check_kvm(machine: Machine) -> Judgement:
    needed = "/dev/kvm that runs a guest"
    device, kvm = machine.devices["kvm"], machine.kvm
    if kvm is None:
        return Judgement(False, *_without_kvm(device, machine.cpu_flags, needed))
    if kvm.seconds is not None:
        return Judgement(True, f"a guest ran in {kvm.seconds * 1000:.0f} ms", needed)
    if not kvm.conclusive:
        return Judgement(
            False, f"/dev/kvm was not tried: {kvm.reason}", needed, "start a VM on it by hand, to be sure", WARNING
        )
    if kvm.step == "open":
        found = f"/dev/kvm may not be opened: {kvm.reason}"
        return Judgement(
            False,
            found,
            needed,
            "run this as root or as a member of the group kvm; in a container, pass the device in with --device"
            " /dev/kvm",
        )
    found = f"no guest runs on /dev/kvm: {kvm.step}: {kvm.reason}"
    if kvm.errno == errno.EBUSY:
        return Judgement(
            False,
            found,
            needed,
            "stop the other hypervisor that holds the processor's virtualization (VirtualBox, VMware)",
        )
    if "hypervisor" in machine.cpu_flags:
        return Judgement(
            False,
            found,
            needed,
            "this is a virtual machine: the hypervisor below offers nesting that does not work, update or correct it",
        )
    return Judgement(
        False,
        found,
        needed,
        "see what KVM writes to the kernel log (dmesg); update the kernel and the processor's microcode",
    )


def _without_kvm(device: Device, flags: frozenset[str], needed: str) -> tuple[str, str, str]:
    """Return found, needed and remedy where /dev/kvm was not even opened."""
    if device.present and not device.character:
        return f"{device.path}, which is not a character device", needed, f"remove it, then {_node(device)}"
    if device.registered:
        return f"no {device.path}, though the kernel has KVM", needed, _node(device)
    modules = " or ".join(module for flag, module in KVM_MODULES.items() if flag in flags) or " or ".join(
        KVM_MODULES.values()
    )
    found = f"{device.path} without a driver" if device.present else f"no {device.path}"
    return found, needed, f"modprobe {modules}; in a container, on the machine that it runs on"


def _node(device: Device) -> str:
    return (
        f"let udev make {device.path} (udevadm trigger); in a container, pass the device in with --device {device.path}"
    )


def check_device(machine: Machine, name: str) -> Judgement:
    """Judge the device of a driver. A driver that can be loaded is as good: the role kata_runtime loads it."""
    device = machine.devices[name]
    needed = device.path
    by_hand = f"modprobe {device.module}, and name it in /etc/modules-load.d/nested-kata.conf to have it after a reboot"
    if device.present and not device.character:
        return Judgement(
            False, f"{device.path}, which is not a character device", needed, f"remove it, then {_node(device)}"
        )
    if device.character and device.registered:
        return Judgement(True, device.path, needed)
    if device.registered:
        return Judgement(False, f"no {device.path}, though the kernel has it", needed, _node(device))
    if device.loadable:
        return Judgement(True, f"module {device.module} can be loaded", needed, by_hand)
    found = f"{device.path} without a driver" if device.present else f"no {device.path}"
    remedy = (
        f"boot a kernel that has the module {device.module}, {machine.kernel} can load none (after an update of the"
        f" kernel: reboot); in a container, load it on the machine and pass the device in with --device {device.path}"
    )
    return Judgement(False, found, needed, remedy)


def check_cgroup(machine: Machine) -> Judgement:
    cgroup = machine.cgroup
    needed = "version 2 with " + ", ".join(CONTROLLERS_NEEDED)
    if not cgroup.version:
        return Judgement(False, "no cgroups below /sys/fs/cgroup", needed, "mount them, as systemd does at boot")
    missing = [name for name in CONTROLLERS_NEEDED if name not in cgroup.controllers]
    if missing:
        found = f"version {cgroup.version} without {', '.join(missing)}"
        remedy = "turn " + " and ".join(missing) + " on in the kernel"
        if "memory" in missing:
            remedy += " (command line: cgroup_enable=memory)"
        return Judgement(False, found, needed, remedy + "; without it Docker cannot size a VM")
    if cgroup.version == 1:
        remedy = (
            "boot with systemd.unified_cgroup_hierarchy=1, or without what asks for version 1, which Docker has"
            " deprecated"
        )
        return Judgement(False, "version 1", needed, remedy, WARNING)
    unused = [name for name in CONTROLLERS_USED if name not in cgroup.controllers]
    if unused:
        remedy = f"turn {' and '.join(unused)} on in the kernel: without it Docker cannot limit containers by it"
        return Judgement(False, f"version 2 without {', '.join(unused)}", needed, remedy, WARNING)
    return Judgement(True, "version 2", needed)
