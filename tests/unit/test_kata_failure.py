# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.filter.kata_failure import FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.kata_failure import CAUSES, LONGEST, MOST_LINES, explain

TASK = "docker: Error response from daemon: failed to create task for container: failed to create shim task: "

# what Docker or the log says, a word of the cause
SAID = [
    (
        "docker: Error response from daemon: unknown or invalid runtime name: kata.\nSee 'docker run --help'.",
        "",
        "has not read",
    ),
    (TASK + "type with url runtimeoptions.v1.Options: not found: unknown.", "", "not Kata's shim"),
    (
        "Unable to find image 'x:1' locally\ndocker: Error response from daemon: pull access denied for x.",
        "",
        "kata_runtime_image",
    ),
    (TASK + "x", "qemu-system-x86_64: Could not access KVM kernel module: Permission denied", "finding kvm"),
    (TASK + "open /dev/vhost-vsock: no such file or directory: unknown.", "", "module vhost_vsock"),
    (TASK + "failed to open /dev/vhost-net: unknown.", "", "module vhost_net"),
    (TASK + "open /dev/net/tun: no such file", "", "module tun"),
    (TASK + "add runtime to sandbox cgroup: Read-only file system (os error 30)", "", "tree of cgroups is read-only"),
    (TASK + "mknod /dev/full: EEXIST: File exists", "", "--privileged"),
    (
        TASK + "x",
        "qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory",
        "kata_proxy_shm_size",
    ),
    (TASK + "ttrpc: closed: unknown.", "", "virtiofsd ended"),
    (TASK + "x", "kata: qemu was killed by SIGSYS, error", "kata_runtime_seccomp_sandbox"),
    (TASK + "failed to open kernel /x/vmlinux", "", "guest kernel cannot be read"),
    (
        TASK + "guest image PATH is invalid: No such file or directory (os error 2)",
        "",
        "names something that is not there",
    ),
    (TASK + "x", "kata agent error: Kernel panic - not syncing", "does not boot"),
    (TASK + "context deadline exceeded", "", "kata_runtime_create_timeout"),
    (TASK + "something that nobody has seen", "", ""),
]


@pytest.mark.parametrize(("stderr", "log", "cause"), SAID, ids=[case[2] or "nothing fits" for case in SAID])
def test_the_likely_cause_is_named(stderr: str, log: str, cause: str) -> None:
    why = explain(stderr, log)
    assert cause in why.cause
    assert bool(cause) is bool(why.cause)
    assert "\n" not in why.error
    assert not why.error.startswith("docker:")


def test_every_cause_has_a_case() -> None:
    named = {explain(stderr, log).cause for stderr, log, cause in SAID}
    assert {cause for pattern, cause in CAUSES} <= named


def test_only_the_lines_of_katas_parts_that_tell_of_trouble_are_kept_each_once() -> None:
    log = "\n".join(
        [
            'time="2026-11-25T04:00:00Z" level=info msg="shim started"',
            'time="2026-11-25T04:00:01Z" level=error msg="kata shim failed"',
            'time="2026-11-25T04:00:02Z" level=error msg="kata shim failed"',
            "network error of something else",
            "2026-11-25T04:00:03.5Z qemu: error: " + "x" * 400,
        ]
    )
    lines = FilterModule().filters()["kata_failure"]("docker: x", log)["lines"]
    assert lines[0] == 'level=error msg="kata shim failed"'
    assert (len(lines), len(lines[1]), lines[1][:12]) == (2, LONGEST, "qemu: error:")


def test_of_many_lines_the_last_are_kept() -> None:
    lines = explain("", "\n".join(f"shim error {number}" for number in range(20))).lines
    assert (len(lines), lines[-1]) == (MOST_LINES, "shim error 19")


def test_a_docker_that_said_nothing_is_said_to_have() -> None:
    assert explain("", "").error == "docker run failed without a message"
