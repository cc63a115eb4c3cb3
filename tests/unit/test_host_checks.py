# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check by a machine that is as needed but for one thing, and what is read of a machine."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace

import pytest
import yaml
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import Mount
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import Configuration, Docker, Holder
from ansible_collections.nested.kata.plugins.module_utils._host.check_machine import Cgroup, Device, Kvm, Machine
from ansible_collections.nested.kata.plugins.module_utils._host.check_resources import Answer, Part, Resources
from ansible_collections.nested.kata.plugins.module_utils._host.checks import CHECKS, Facts, Question
from ansible_collections.nested.kata.plugins.module_utils._host.findings import decide, known, summary, table
from ansible_collections.nested.kata.plugins.modules.host_check import DOCUMENTATION
from ansible_runner import CHECKOUT

GIB = 1 << 30
KERNEL = "6.12.48-amd64"
PATHS = {
    "kvm": "/dev/kvm",
    "vhost_vsock": "/dev/vhost-vsock",
    "vhost_net": "/dev/vhost-net",
    "tun": "/dev/net/tun",
    "loop": "/dev/loop-control",
}
HERE = Device("", "", present=True, character=True, registered=True, loadable=True)
NO_NODE = {"present": False, "character": False}
NOT_LOADED = {**NO_NODE, "registered": False}
NOT_THERE = {**NOT_LOADED, "loadable": False}
ROOT = Mount("8:1", "/", "ext4", free=100 * GIB, size=200 * GIB, reflink=False)
DATA = Mount("/dev/sdb", "/srv", "btrfs", free=50 * GIB, size=500 * GIB, reflink=True)
SHM = Mount("0:22", "/dev/shm", "tmpfs", free=8 * GIB, size=8 * GIB)
OURS = {
    "runtimeType": "/var/lib/nested-kata/kata/4.1.0/bin/shim",
    "options": {"ConfigPath": "/etc/nested-kata/kata/configuration.toml"},
}


def device(name: str, **state: bool) -> Device:
    return replace(HERE, path=PATHS[name], module=name, **state)


CAPABLE = Facts(
    Machine(
        arch="x86_64",
        kernel=KERNEL,
        cpu_flags=frozenset({"fpu", "vmx"}),
        nested="kvm_intel nested=Y",
        kvm=Kvm(seconds=0.0034),
        devices={name: device(name) for name in PATHS},
        cgroup=Cgroup(2, frozenset({"cpu", "cpuset", "io", "memory", "pids"})),
    ),
    Docker(
        client="/usr/bin/docker",
        version="26.1.5+dfsg1",
        system="Debian GNU/Linux 13 (trixie)",
        kernel=KERNEL,
        root="/var/lib/docker",
        runtimes=("runc", "kata"),
        flags=("H", "containerd"),
        configuration=Configuration(text=json.dumps({"runtimes": {"kata": OURS}})),
        holders=(Holder("container", "kata", frozenset({"nested.kata.instance", "nested.kata.arguments"})),),
    ),
    Resources(
        parts=(Part("Kata 4.1.0", 4 * GIB, 0, False, ROOT), Part("disk of kata", 20 * GIB, 0, True, DATA)),
        disks=DATA,
        memory_total=16 * GIB,
        memory_available=12 * GIB,
        shm=SHM,
        skew=0.2,
        answers=(Answer("release", True), Answer("base image", True, tried=False)),
    ),
)
QUESTION = Question(
    runtime="kata", runtimes=("kata",), kata="4.1.0", names=("kata", "nested-kata-kata"), memory=4 * GIB
)


def machine(**change: object) -> Facts:
    return replace(CAPABLE, machine=replace(CAPABLE.machine, **change))


def with_device(name: str, **state: bool) -> Facts:
    kvm = {"kvm": None} if name == "kvm" else {}
    return machine(devices={**CAPABLE.machine.devices, name: device(name, **state)}, **kvm)


def kernel(release: str) -> Facts:
    return replace(machine(kernel=release), docker=replace(CAPABLE.docker, kernel=release))


def docker(**change: object) -> Facts:
    return replace(CAPABLE, docker=replace(CAPABLE.docker, **change))


def daemon_json(text: str | None = None, **change: object) -> Facts:
    return docker(configuration=Configuration(text=text), **change)


def resources(**change: object) -> Facts:
    return replace(CAPABLE, resources=replace(CAPABLE.resources, **change))


def flags(*names: str, **change: object) -> Facts:
    return machine(cpu_flags=frozenset(names), **change)


# what is wrong with the machine, the finding that says so, how much it counts, what it says was found, and a word of
# its remedy
BROKEN = [
    (machine(arch="i686"), "architecture", "error", "i686", "x86_64 machine"),
    (
        flags("fpu", kvm=Kvm(step="KVM_CREATE_VM", reason="x")),
        "cpu_virtualization",
        "error",
        "neither flag in /proc/cpuinfo",
        "firmware",
    ),
    (
        flags("hypervisor", kvm=Kvm(step="KVM_CREATE_VM", reason="x")),
        "cpu_virtualization",
        "error",
        "neither flag in /proc/cpuinfo",
        "nested virtualization",
    ),
    (flags("fpu"), "cpu_virtualization", "warning", "neither flag, yet /dev/kvm runs a guest", "not tested"),
    (kernel("5.7.19"), "kernel", "error", "5.7.19", "5.8 or newer"),
    (kernel("4.18.0-553.el8_10.x86_64"), "kernel", "error", "4.18.0-553.el8_10.x86_64", "5.8 or newer"),
    (kernel("unknown"), "kernel", "error", "unknown", "5.8 or newer"),
    (machine(cgroup=Cgroup(0, frozenset())), "cgroup", "error", "no cgroups below /sys/fs/cgroup", "mount"),
    (
        machine(cgroup=Cgroup(2, frozenset({"cpu", "cpuset", "pids"}))),
        "cgroup",
        "error",
        "version 2 without memory",
        "cgroup_enable=memory",
    ),
    (
        machine(cgroup=Cgroup(1, frozenset({"memory", "pids", "cpuset"}))),
        "cgroup",
        "error",
        "version 1 without cpu",
        "turn cpu on",
    ),
    (
        machine(cgroup=Cgroup(1, frozenset({"cpu", "memory"}))),
        "cgroup",
        "warning",
        "version 1",
        "systemd.unified_cgroup_hierarchy=1",
    ),
    (
        machine(cgroup=Cgroup(2, frozenset({"cpu", "memory"}))),
        "cgroup",
        "warning",
        "version 2 without cpuset, pids",
        "cpuset and pids",
    ),
    (with_device("kvm", **NOT_LOADED), "kvm", "error", "no /dev/kvm", "modprobe kvm_intel;"),
    (
        replace(
            with_device("kvm", **NOT_LOADED),
            machine=replace(with_device("kvm", **NOT_LOADED).machine, cpu_flags=frozenset({"svm"})),
        ),
        "kvm",
        "error",
        "no /dev/kvm",
        "modprobe kvm_amd;",
    ),
    (with_device("kvm", **NO_NODE), "kvm", "error", "no /dev/kvm, though the kernel has KVM", "--device /dev/kvm"),
    (with_device("kvm", registered=False), "kvm", "error", "/dev/kvm without a driver", "modprobe kvm_intel"),
    (with_device("kvm", character=False), "kvm", "error", "/dev/kvm, which is not a character device", "remove it"),
    (
        machine(kvm=Kvm(step="open", reason="Permission denied (EACCES)", errno=errno.EACCES)),
        "kvm",
        "error",
        "/dev/kvm may not be opened: Permission denied (EACCES)",
        "group kvm",
    ),
    (
        machine(kvm=Kvm(step="KVM_CREATE_VM", reason="Device or resource busy (EBUSY)", errno=errno.EBUSY)),
        "kvm",
        "error",
        "no guest runs on /dev/kvm: KVM_CREATE_VM: Device or resource busy (EBUSY)",
        "VirtualBox",
    ),
    (
        machine(kvm=Kvm(step="KVM_RUN", reason="the guest stopped with internal error (0x1), not io")),
        "kvm",
        "error",
        "no guest runs on /dev/kvm: KVM_RUN: the guest stopped with internal error (0x1), not io",
        "dmesg",
    ),
    (
        flags("vmx", "hypervisor", kvm=Kvm(step="KVM_RUN", reason="Input/output error (EIO)", errno=errno.EIO)),
        "kvm",
        "error",
        "no guest runs on /dev/kvm: KVM_RUN: Input/output error (EIO)",
        "the hypervisor below",
    ),
    (
        machine(kvm=Kvm(step="architecture", reason="only x86_64 can be tried", conclusive=False)),
        "kvm",
        "warning",
        "/dev/kvm was not tried: only x86_64 can be tried",
        "by hand",
    ),
    *(
        (with_device(name, **NOT_THERE), name, "error", f"no {PATHS[name]}", f"a kernel that has the module {name}")
        for name in ("vhost_vsock", "vhost_net", "tun", "loop")
    ),
    (with_device("tun", registered=False, loadable=False), "tun", "error", "/dev/net/tun without a driver", "reboot"),
    (
        with_device("tun", **NO_NODE),
        "tun",
        "error",
        "no /dev/net/tun, though the kernel has it",
        "--device /dev/net/tun",
    ),
    (with_device("tun", character=False), "tun", "error", "/dev/net/tun, which is not a character device", "remove it"),
    (docker(podman=True), "docker_daemon", "error", "podman behind /usr/bin/docker", "podman-docker"),
    (
        docker(endpoint="ssh://root@other"),
        "docker_daemon",
        "error",
        "a client that talks to ssh://root@other",
        "DOCKER_HOST",
    ),
    (
        docker(system="Docker Desktop", kernel="6.10.14-linuxkit"),
        "docker_daemon",
        "error",
        "Docker Desktop on kernel 6.10.14-linuxkit, in a VM",
        "Docker Engine",
    ),
    (
        docker(kernel="6.1.0-colima"),
        "docker_daemon",
        "error",
        "Debian GNU/Linux 13 (trixie) on kernel 6.1.0-colima, in a VM",
        "docker context use default",
    ),
    (docker(rootless=True), "docker_daemon", "error", "a daemon without root (rootless)", "daemon of the system"),
    (
        docker(root="/var/snap/docker/common/var-lib-docker"),
        "docker_daemon",
        "error",
        "Docker from a snap",
        "snap remove docker",
    ),
    (docker(version="20.10.24+dfsg1"), "docker_version", "error", "20.10.24+dfsg1", "nested_kata_target: proxy"),
    (
        docker(version="25.0.5"),
        "docker_version",
        "error",
        "25.0.5",
        "Docker 26 or newer needs Kata 3.30, Docker 29.5 or newer needs Kata 3.32",
    ),
    (docker(version="dev"), "docker_version", "error", "dev", "install a newer Docker"),
    (
        daemon_json('{"runtimes": {}, // ours\n}'),
        "docker_config",
        "error",
        "/etc/docker/daemon.json has a comment in line 1, and JSON has no comments",
        "correct it",
    ),
    (
        daemon_json('{\n"debug": tru\n}'),
        "docker_config",
        "error",
        "/etc/docker/daemon.json is not valid JSON in line 2: Expecting value",
        "dockerd --validate",
    ),
    (daemon_json("[]"), "docker_config", "error", "/etc/docker/daemon.json holds no object", "correct it"),
    (
        docker(configuration=Configuration(error="Is a directory")),
        "docker_config",
        "error",
        "/etc/docker/daemon.json cannot be read: Is a directory",
        "correct it",
    ),
    (
        daemon_json('{"hosts": ["fd://"]}'),
        "docker_config",
        "error",
        "dockerd has the flag -H, which is hosts in /etc/docker/daemon.json",
        "drop the flag",
    ),
    (
        daemon_json('{"storage-opts": []}', flags=("storage-opt",)),
        "docker_config",
        "error",
        "dockerd has the flag --storage-opt, which is storage-opts in /etc/docker/daemon.json",
        "drop the flag",
    ),
    (
        daemon_json(added=("kata",)),
        "docker_config",
        "error",
        "dockerd has the flag --add-runtime for kata",
        "another name",
    ),
    (
        daemon_json('{"runtimes": {"kata": {"path": "/opt/kata/bin/kata-runtime"}}}'),
        "docker_config",
        "error",
        "/etc/docker/daemon.json has a runtime kata that is not managed by nested.kata",
        "another name",
    ),
    (docker(runtimes=("runc", "crun")), "docker_runtime", "error", "runtimes crun, runc", "daemon.json"),
    (
        docker(holders=(Holder("network", "nested-kata-kata", frozenset({"com.docker.compose.project"})),)),
        "names",
        "error",
        "not managed by nested.kata: network nested-kata-kata",
        "kata_proxy_name",
    ),
    (
        resources(parts=(Part("Kata 4.1.0", 200 * GIB, 0, False, ROOT),)),
        "space",
        "error",
        "/: 100 GiB free",
        "make room on /",
    ),
    (
        resources(
            parts=(
                Part("Kata 4.1.0", 60 * GIB, 0, False, ROOT),
                Part("images", 60 * GIB, 0, False, replace(ROOT, point="/var/lib/docker")),
            )
        ),
        "space",
        "error",
        "/: 100 GiB free",
        "make room on /",
    ),
    (
        resources(parts=(Part("Kata 4.1.0", GIB, 0, False, replace(ROOT, read_only=True)),)),
        "space",
        "error",
        "/: read-only",
        "make room on /",
    ),
    (
        resources(parts=(Part("disk of kata", 60 * GIB, GIB, True, DATA),)),
        "space",
        "warning",
        "/srv: 50 GiB free",
        "sparse",
    ),
    (
        resources(memory_total=3 * GIB, memory_available=2 * GIB),
        "memory",
        "error",
        "2 GiB of 3 GiB available",
        "kata_instance_memory",
    ),
    (resources(memory_available=3 * GIB), "memory", "warning", "3 GiB of 16 GiB available", "something is killed"),
    (resources(shm=None), "shm", "error", "no /dev/shm", "mount -t tmpfs"),
    (resources(shm=replace(SHM, fstype="ext4")), "shm", "error", "ext4 at /dev/shm", "mount -t tmpfs"),
    (resources(shm=replace(SHM, size=64 << 20)), "shm", "error", "tmpfs of 64 MiB", "remount,size=4096M"),
    (resources(shm=replace(SHM, read_only=True)), "shm", "error", "tmpfs of 8 GiB, read-only", "remount,rw"),
    (resources(skew=61.4), "time", "error", "61 s ahead", "timedatectl"),
    (resources(skew=-86400.0), "time", "error", "86400 s behind", "chrony"),
    (
        resources(
            answers=(
                Answer("release", True, ("https://a.example.org/x: HTTP 404", "/x: no such file"), reached=False),
                Answer("base image", True),
            )
        ),
        "reachable",
        "error",
        "release: https://a.example.org/x: HTTP 404, /x: no such file",
        "mirror",
    ),
    (
        resources(
            answers=(
                Answer("base image", False, ("https://r.example.org/v2/: HTTP 502",), reached=False),
                Answer("release", True),
            )
        ),
        "reachable",
        "warning",
        "base image: https://r.example.org/v2/: HTTP 502",
        "mirror",
    ),
]

# Without virtualization no guest runs either.
FAIL_TOO = {"cpu_virtualization": {"kvm"}}

# These have nothing to fail: a file system without reflink works too.
NEVER_FAILS = {"reflink"}


def failing(facts: Facts, question: Question = QUESTION) -> list:
    return [finding for finding in decide(CHECKS, facts, question) if not finding.ok]


def found(facts: Facts, name: str, question: Question = QUESTION) -> object:
    return next((finding for finding in decide(CHECKS, facts, question) if finding.id == name), None)


def test_a_capable_machine_has_every_finding_as_needed_and_nothing_to_mend() -> None:
    findings = decide(CHECKS, CAPABLE, QUESTION)
    assert [finding.id for finding in findings] == list(CHECKS)
    assert [finding.state for finding in findings] == ["ok"] * len(CHECKS), table(findings)
    assert summary(findings) == f"nothing found that keeps this machine from running Kata ({len(CHECKS)} findings)"


def test_the_rows_of_a_capable_machine_take_a_line_each_but_for_space_that_lists_the_parts() -> None:
    lines = table(decide(CHECKS, CAPABLE, QUESTION)).splitlines()
    assert {
        above.split()[0] for above, line in zip(lines, lines[1:]) if line.startswith(" ") and not above.startswith(" ")
    } == {"space"}


@pytest.mark.parametrize(
    ("facts", "name", "severity", "words", "remedy"), BROKEN, ids=[f"{case[1]}-{case[3]}" for case in BROKEN]
)
def test_one_broken_thing_is_one_finding_with_its_remedy(
    facts: Facts, name: str, severity: str, words: str, remedy: str
) -> None:
    findings = [finding for finding in failing(facts) if finding.id not in FAIL_TOO.get(name, ())]
    assert [(finding.id, finding.found, finding.severity) for finding in findings] == [(name, words, severity)]
    assert remedy in findings[0].remedy


def test_every_check_has_a_case_in_which_it_fails() -> None:
    assert {case[1] for case in BROKEN} == set(CHECKS) - NEVER_FAILS


def test_every_finding_fits_into_the_table() -> None:
    for facts, *_dummy in BROKEN:
        assert max(map(len, table(decide(CHECKS, facts, QUESTION)).splitlines())) <= 120


def test_every_id_is_in_the_documentation_of_the_option_that_takes_ids_and_in_the_readme_of_the_role() -> None:
    described = yaml.safe_load(DOCUMENTATION)["options"]["ignore"]["description"]
    assert re.findall(r"V\((\w+)\)", described[-1]) == list(CHECKS)
    rows = re.findall(
        r"^\| (`[a-z_`, ]+`) \|",
        (CHECKOUT / "roles/kata_preflight/README.md").read_text().split("| Variable |")[0],
        re.MULTILINE,
    )
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(CHECKS)


# what the machine is like, what it is asked, the finding, how it stands and what it says
FITTING = [
    (machine(nested=""), {}, "cpu_virtualization", "ok", "vmx"),
    (
        flags("svm", "hypervisor", nested="kvm_amd nested=1"),
        {},
        "cpu_virtualization",
        "ok",
        "svm in a virtual machine; kvm_amd nested=1 for guests",
    ),
    (machine(arch="aarch64"), {}, "cpu_virtualization", None, None),
    (kernel("5.8.0"), {}, "kernel", "ok", "5.8.0"),
    (kernel("10.0-rc1"), {}, "kernel", "ok", "10.0-rc1"),
    (with_device("vhost_vsock", **NOT_LOADED), {}, "vhost_vsock", "note", "module vhost_vsock can be loaded"),
    (with_device("loop", registered=False), {}, "loop", "note", "module loop can be loaded"),
    (
        docker(client="", version="", error="there is no command docker"),
        {"runtime": None},
        "docker_daemon",
        "note",
        "no Docker yet",
    ),
    (
        docker(version="", error="Cannot connect"),
        {"runtime": None},
        "docker_daemon",
        "note",
        "no answer: Cannot connect",
    ),
    (docker(version="", error="Cannot connect"), {"runtime": None}, "docker_version", None, None),
    (docker(version="", error="Cannot connect"), {"runtime": None}, "names", None, None),
    (
        docker(version="", error="permission denied while trying"),
        {},
        "docker_daemon",
        "ERROR",
        "no answer: permission denied while trying",
    ),
    (
        docker(version="", endpoint="unix:///tmp/x.sock", error="Cannot connect"),
        {},
        "docker_daemon",
        "ERROR",
        "no answer: Cannot connect",
    ),
    (
        docker(version="", error="Cannot connect"),
        {},
        "docker_runtime",
        "ERROR",
        "Docker does not answer: Cannot connect",
    ),
    (
        docker(root="/var/snap/docker/common/var-lib-docker"),
        {"target": "proxy"},
        "docker_daemon",
        "WARNING",
        "Docker from a snap",
    ),
    (docker(version="20.10.24"), {"target": "proxy"}, "docker_version", "ok", "20.10.24"),
    (docker(version="19.03.15"), {"target": "proxy"}, "docker_version", "ERROR", "19.03.15"),
    (docker(version="26.0.0"), {"kata": "3.29.0"}, "docker_version", "ERROR", "26.0.0 for Kata 3.29.0"),
    (docker(version="26.0.0"), {"kata": "3.30.0"}, "docker_version", "ok", "26.0.0"),
    (docker(version="29.4.3"), {"kata": "3.31.0"}, "docker_version", "ok", "29.4.3"),
    (docker(version="29.5.0"), {"kata": "3.31.0"}, "docker_version", "ERROR", "29.5.0 for Kata 3.31.0"),
    (docker(version="29.5.0"), {"kata": "3.32.0"}, "docker_version", "ok", "29.5.0"),
    (docker(version="30.0.0"), {"kata": ""}, "docker_version", "ok", "30.0.0"),
    (daemon_json(None), {}, "docker_config", "ok", "no /etc/docker/daemon.json"),
    (daemon_json(""), {}, "docker_config", "ok", "/etc/docker/daemon.json with nothing in it"),
    (
        daemon_json('{"mtu": 1400, "runtimes": {"nvidia": {}}}'),
        {},
        "docker_config",
        "ok",
        "/etc/docker/daemon.json with mtu, runtimes",
    ),
    (daemon_json("{,}"), {"target": "proxy"}, "docker_config", "WARNING", None),
    (
        daemon_json('{"runtimes": {"kata": {}}}'),
        {"target": "proxy"},
        "docker_config",
        "ok",
        "/etc/docker/daemon.json with runtimes",
    ),
    (daemon_json(added=("kata",)), {"target": "proxy"}, "docker_config", "ok", "no /etc/docker/daemon.json"),
    (
        daemon_json('{"runtimes": {}}', flags=("add-runtime",), added=("crun",)),
        {},
        "docker_config",
        "ok",
        "/etc/docker/daemon.json with runtimes",
    ),
    (CAPABLE, {"runtime": None}, "docker_runtime", None, None),
    (CAPABLE, {"names": ()}, "names", None, None),
    (CAPABLE, {}, "names", "ok", "1 free, 1 managed by nested.kata"),
    (docker(holders=()), {}, "names", "ok", "2 free"),
    (resources(parts=()), {}, "space", None, None),
    (resources(parts=(Part("Kata 4.1.0", 200 * GIB, 200 * GIB, False, ROOT),)), {}, "space", "ok", "/: 100 GiB free"),
    (
        resources(parts=(Part("Kata 4.1.0", GIB, GIB, False, replace(ROOT, read_only=True)),)),
        {},
        "space",
        "ok",
        "/: read-only",
    ),
    (resources(disks=None), {}, "reflink", None, None),
    (resources(disks=ROOT), {}, "reflink", "note", "ext4 without reflink on /"),
    (
        resources(disks=replace(ROOT, fstype="overlay", reflink=None)),
        {},
        "reflink",
        "note",
        "overlay that may have reflink or not on /",
    ),
    (CAPABLE, {"memory": 0}, "memory", None, None),
    (
        replace(
            resources(memory_available=GIB),
            docker=replace(CAPABLE.docker, holders=(replace(CAPABLE.docker.holders[0], running=True),)),
        ),
        {},
        "memory",
        "ok",
        "1 GiB of 16 GiB available, instances run",
    ),
    (CAPABLE, {"target": "proxy"}, "shm", None, None),
    (resources(shm=replace(SHM, size=64 << 20)), {"memory": 0}, "shm", "ok", "tmpfs of 64 MiB"),
    (resources(shm=replace(SHM, size=0)), {}, "shm", "ok", "tmpfs without a limit"),
    (resources(skew=None), {}, "time", None, None),
    (resources(skew=-60.0), {}, "time", "ok", "60 s behind"),
    (resources(answers=()), {}, "reachable", None, None),
    (CAPABLE, {}, "reachable", "ok", "1 reached, 1 there already"),
    (resources(answers=(Answer("a", True, tried=False),)), {}, "reachable", "ok", "1 there already"),
]


@pytest.mark.parametrize(
    ("facts", "asked", "name", "state", "words"), FITTING, ids=[f"{case[2]}-{case[4]}" for case in FITTING]
)
def test_what_is_found_depends_on_what_is_asked(
    facts: Facts, asked: dict, name: str, state: str | None, words: str | None
) -> None:
    finding = found(facts, name, replace(QUESTION, **asked))
    assert (finding and finding.state) == state
    assert words is None or finding.found == words


def test_parts_on_one_file_system_add_up_and_sparse_ones_may_outgrow_it() -> None:
    def state(*sizes: tuple[int, bool], overcommit: float = 1.0) -> str:
        parts = tuple(Part("x", size * GIB, 0, sparse, ROOT) for size, sparse in sizes)
        return found(resources(parts=parts), "space", replace(QUESTION, overcommit=overcommit)).state

    assert state((60, False), (40, False)) == "ok"
    assert state((60, False), (41, False)) == "ERROR"
    assert state((60, False), (41, True)) == "WARNING"
    assert state((101, False), (1, True)) == "ERROR"
    # What is not sparse takes its room first, and twice what is left may be promised.
    assert state((60, False), (80, True), overcommit=2.0) == "ok"
    assert state((60, False), (81, True), overcommit=2.0) == "WARNING"


def test_an_ignored_error_stops_nothing() -> None:
    findings = decide(CHECKS, with_device("tun", **NOT_THERE), QUESTION, known(["tun", "kvm"], CHECKS))
    assert [(finding.id, finding.state) for finding in findings if finding.state != "ok"] == [("tun", "ignored")]
    assert [finding.id for finding in findings if finding.stops] == []
