# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy's seccomp profile: its form, and what the README says of it. That it does what it says is
tests/integration/test_proxy_seccomp.py.
"""

from __future__ import annotations

import json
import re

import pytest
import yaml
from ansible_runner import CHECKOUT

ROLE = CHECKOUT / "roles" / "kata_proxy"
PROFILE = json.loads((ROLE / "files" / "seccomp.json").read_text())
README = (ROLE / "README.md").read_text()
RULES = PROFILE["syscalls"]
WHOLE = [rule for rule in RULES if "args" not in rule]
BPF = [rule for rule in RULES if rule["names"] == ["bpf"]]

# What systemd, dockerd, runc, virtiofsd and QEMU call, of which Docker's default profile forbids some.
MUST_WORK = [
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "clone",
    "clone3",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "mknodat",
    "keyctl",
    "add_key",
    "request_key",
    "seccomp",
    "prctl",
    "capset",
    "sethostname",
    "setdomainname",
    "name_to_handle_at",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "io_setup",
    "io_submit",
    "adjtimex",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_gettime",
    "timerfd_create",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_open",
    "pidfd_getfd",
    "kcmp",
    "mbind",
    "set_mempolicy",
    "get_mempolicy",
    "memfd_create",
    "mlock",
    "mlockall",
    "sched_setaffinity",
    "sched_setscheduler",
    "personality",
    "ioctl",
    "socket",
]

# linux/bpf.h, enum bpf_cmd: the commands that runc, systemd and the libraries of both give.
BPF_MUST_WORK = {
    "BPF_MAP_CREATE": 0,
    "BPF_MAP_LOOKUP_ELEM": 1,
    "BPF_MAP_UPDATE_ELEM": 2,
    "BPF_MAP_DELETE_ELEM": 3,
    "BPF_MAP_GET_NEXT_KEY": 4,
    "BPF_PROG_LOAD": 5,
    "BPF_PROG_ATTACH": 8,
    "BPF_PROG_DETACH": 9,
    "BPF_PROG_GET_FD_BY_ID": 13,
    "BPF_OBJ_GET_INFO_BY_FD": 15,
    "BPF_PROG_QUERY": 16,
    "BPF_BTF_LOAD": 18,
}
BPF_DENIED = {
    "BPF_OBJ_PIN": 6,
    "BPF_OBJ_GET": 7,
    "BPF_PROG_TEST_RUN": 10,
    "BPF_PROG_GET_NEXT_ID": 11,
    "BPF_MAP_GET_NEXT_ID": 12,
    "BPF_MAP_GET_FD_BY_ID": 14,
    "BPF_RAW_TRACEPOINT_OPEN": 17,
}


def rows(heading: str, first: str) -> list[list[str]]:
    """Return the rows of the table below a heading of the README whose first column is headed so."""
    section = README.split(f"## {heading}\n")[1]
    table = section.split(f"| {first} | ")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def denied_by_a_rule(command: int) -> bool:
    """Say whether a rule for bpf matches a command, as seccomp compares: the register's 64 bits, without a sign."""
    compare = {"SCMP_CMP_EQ": lambda value: command == value, "SCMP_CMP_GT": lambda value: command > value}
    return any(compare[argument["op"]](argument["value"]) for rule in BPF for argument in rule["args"])


def test_the_profile_allows_all_but_what_it_lists() -> None:
    assert set(PROFILE) == {"defaultAction", "archMap", "syscalls"}
    assert PROFILE["defaultAction"] == "SCMP_ACT_ALLOW"
    assert {rule["action"] for rule in RULES} == {"SCMP_ACT_ERRNO"}
    assert all(set(rule) <= {"action", "names", "args", "comment"} for rule in RULES)
    assert WHOLE + BPF == RULES


def test_the_profile_holds_for_32_bit_programs_too() -> None:
    assert {entry["architecture"]: entry["subArchitectures"] for entry in PROFILE["archMap"]} == {
        "SCMP_ARCH_X86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "SCMP_ARCH_AARCH64": ["SCMP_ARCH_ARM"],
    }


def test_no_call_is_listed_twice() -> None:
    listed = [name for rule in WHOLE for name in rule["names"]]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", MUST_WORK)
def test_what_must_work_is_not_denied(name: str) -> None:
    assert name not in {name for rule in RULES for name in rule["names"]}


@pytest.mark.parametrize("name", BPF_MUST_WORK)
def test_the_commands_of_bpf_that_must_work_are_not_denied(name: str) -> None:
    assert not denied_by_a_rule(BPF_MUST_WORK[name])


@pytest.mark.parametrize("command", [*BPF_DENIED.values(), *range(19, 60)])
def test_every_other_command_of_bpf_is_denied(command: int) -> None:
    assert denied_by_a_rule(command)


@pytest.mark.parametrize("command", range(60))
def test_no_command_of_bpf_is_let_through_by_bits_that_the_kernel_does_not_look_at(command: int) -> None:
    assert denied_by_a_rule(command | 1 << 32)


def test_each_rule_for_bpf_compares_the_command_with_the_number_that_it_names() -> None:
    numbers = {
        rule["comment"]: [(argument["index"], argument["op"], argument["value"]) for argument in rule["args"]]
        for rule in BPF
    }
    assert numbers == {
        **{name: [(0, "SCMP_CMP_EQ", number)] for name, number in BPF_DENIED.items()},
        "all after BPF_BTF_LOAD": [(0, "SCMP_CMP_GT", BPF_MUST_WORK["BPF_BTF_LOAD"])],
    }


def test_the_readme_gives_a_reason_for_each_call_that_is_denied() -> None:
    table = rows("Denied system calls", "Denied")
    assert [names(row[0]) for row in table] == [rule["names"] for rule in WHOLE]
    assert all(len(row) == 2 and len(row[1]) > 20 for row in table)


def test_the_readme_gives_a_reason_for_each_command_of_bpf_that_is_denied() -> None:
    table = rows("Denied system calls", "Denied of `bpf`")
    assert {name for row in table[:-1] for name in names(row[0])} == set(BPF_DENIED)
    assert table[-1][0].replace("`", "") == BPF[-1]["comment"]
    assert all(len(row) == 2 and len(row[1]) > 20 for row in table)


def test_the_readme_names_each_command_of_bpf_that_works() -> None:
    prose = README.split("`bpf` cannot be denied as a whole")[1].split("| Denied of `bpf` |")[0]
    assert {name for name in names(prose) if name.startswith("BPF_")} == set(BPF_MUST_WORK)


@pytest.mark.parametrize(
    ("heading", "first", "variable", "always"),
    [
        ("Capabilities", "Capability", "kata_proxy_capabilities", set()),
        ("Devices", "Device", "kata_proxy_devices", {"/dev/loop-control"}),
    ],
)
def test_the_readme_gives_a_reason_for_each_capability_and_device(
    heading: str, first: str, variable: str, always: set[str]
) -> None:
    given = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())[variable]
    table = rows(heading, first)
    assert {name for row in table for name in names(row[0])} == set(given) | always
    assert all(len(row) == 2 and len(row[1]) > 15 for row in table)
