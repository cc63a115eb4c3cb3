# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a Kata container did not start: Docker's message, the relevant lines of the log, and the likely cause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown

MOST_LINES = 6
LONGEST = 300

# Messages of shim, QEMU, virtiofsd and agent, and their causes; the first that matches counts.
CAUSES = (
    (r"unknown or invalid runtime name", "Docker has not read its configuration since: reload it"),
    (
        r"runtimeoptions\.v1\.Options",
        "the program that is registered is not Kata's shim, but one that takes no ConfigPath",
    ),
    (
        (
            r"(pull access denied|manifest unknown|No such image|error pulling image|registry-1\.docker\.io|failed to"
            r" resolve reference)"
        ),
        (
            "the target's Docker cannot get the image for the proof: bring it there, or name one that it has in"
            " kata_runtime_image"
        ),
    ),
    (
        r"/dev/kvm|KVM kernel module",
        "/dev/kvm is missing or not permitted: see the finding kvm of `ansible-playbook nested.kata.check`",
    ),
    (
        r"vhost[-_]vsock",
        (
            "/dev/vhost-vsock is missing: load the module vhost_vsock, and in a proxy name the device in"
            " kata_proxy_devices"
        ),
    ),
    (
        r"vhost[-_]net",
        "/dev/vhost-net is missing: load the module vhost_net, and in a proxy name the device in kata_proxy_devices",
    ),
    (
        r"/dev/net/tun",
        "/dev/net/tun is missing: load the module tun, and in a proxy name the device in kata_proxy_devices",
    ),
    (
        r"cgroup.*Read-only file system|Read-only file system.*cgroup",
        "the tree of cgroups is read-only there: a proxy must run the image of the role machine_image",
    ),
    (r"EEXIST|/dev/full", "the container was started with --privileged, which a VM does not take"),
    (
        r"backing store|Cannot allocate memory|/dev/shm",
        "memory for the VM cannot be allocated: there is too little, or /dev/shm is too small (kata_proxy_shm_size)",
    ),
    (
        r"ttrpc: closed|virtiofsd.*(exit|terminated|denied|not permitted)",
        "virtiofsd ended: a proxy lacks a capability (kata_proxy_capabilities) or a system call (its seccomp profile)",
    ),
    (r"SIGSYS|[Bb]ad system call|seccomp", "a seccomp filter ended QEMU: try kata_runtime_seccomp_sandbox: ''"),
    (
        r"(could not|cannot|failed to) (open|load|read).*(vmlinux|kernel)|vmlinux.*(No such file|not found)",
        "the guest kernel cannot be read: see kernel in the configuration",
    ),
    (
        r"is invalid: |load config",
        "the configuration names something that is not there, or has a setting that Kata does not know",
    ),
    (
        r"kernel panic|Kernel panic",
        "the guest kernel does not boot: it lacks what Kata needs; build it by one of the profiles",
    ),
    (
        r"timed? ?out|DeadlineExceeded|deadline exceeded|hybrid vsock|dial.*vsock",
        (
            "the guest did not come up in time: its kernel lacks what Kata needs, or the machine is slow"
            " (kata_runtime_create_timeout)"
        ),
    ),
)

SPEAKERS = re.compile(r"kata|shim|qemu|virtiofsd|agent|hypervisor", re.IGNORECASE)
TROUBLE = re.compile(
    r"error|fail|fatal|panic|denied|cannot|could not|not found|no such|time(d )?out|warn", re.IGNORECASE
)
AFTERMATH = re.compile(
    r"failed to (delete|clean ?up)|cleanup warnings|cleaning up after shim"
)  # containerd's, when it removes a container that did not start
STAMP = re.compile(r"^(time=\"[^\"]*\"\s+|\d{4}-\d\d-\d\d[T ][\d:.,+Z-]+\s+)")


@dataclass(frozen=True)
class Why:
    """The explanation of the failure."""

    error: str
    """Docker's own message, in one line."""
    cause: str
    """The probable cause; empty where none matches."""
    lines: tuple[str, ...]
    """The relevant lines of the log, oldest first, each once."""


def explain(stderr: str, log: str) -> Why:
    """Explain why `docker run` failed, from its stderr and from the daemon's log since."""
    error = docker_error(stderr)
    lines = list(dict.fromkeys(matter(log)))[-MOST_LINES:]
    cause = next((cause for pattern, cause in CAUSES for text in (error, *lines) if re.search(pattern, text)), "")
    return Why(error, cause, tuple(lines))


def docker_error(stderr: str) -> str:
    """Return the line with the reason why the docker command failed."""
    messages = [
        line.strip()
        for line in stderr.splitlines()
        if line.strip() and not line.startswith(("See 'docker", "Run 'docker", "Unable to find image"))
    ]
    picked = next(
        (line for line in messages if "Error response" in line or line.startswith("docker:")),
        messages[-1] if messages else "docker run failed without a message",
    )
    return shown(re.sub(r"^docker: (Error response from daemon: )?", "", picked).rstrip("."), LONGEST)


def matter(log: str) -> Iterator[str]:
    for line in log.splitlines():
        if SPEAKERS.search(line) and TROUBLE.search(line) and not AFTERMATH.search(line):
            yield shown(STAMP.sub("", line.strip()), LONGEST)
