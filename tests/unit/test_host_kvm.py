# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny guest: what it says where there is no KVM, and, with the kernel's answers played, where a guest goes wrong.

That a real one runs is proven in a VM of profile nested: molecule/kernel.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import struct
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host import kvm
from ansible_collections.nested.kata.plugins.module_utils._host.kvm import KvmError, Ran, run_guest

IO_42 = (kvm.EXIT_IO, struct.pack("=BBHIQ", 1, 1, kvm.PORT, 1, 512), 42)
HLT = (kvm.EXIT_HLT, bytes(8), 0)


class Kernel:
    """Plays KVM: answers ioctls, and stops the guest as a case says: (reason, details, byte written to a port)."""

    def __init__(self, run: Path, exits=(IO_42, HLT), refuses: dict[int, int] | None = None, version: int = 12) -> None:
        run.write_bytes(bytes(4096))
        self.run = run
        self.exits = list(exits)
        self.refuses = refuses or {}
        self.version = version
        self.opened: list[int] = []

    def open(self) -> int:
        self.opened.append(os.open(self.run, os.O_RDWR))
        return self.opened[-1]

    def ioctl(self, descriptor: int, request: int, argument: object) -> object:
        assert descriptor in self.opened or request in (
            kvm.KVM_GET_API_VERSION,
            kvm.KVM_CREATE_VM,
            kvm.KVM_GET_VCPU_MMAP_SIZE,
        )
        if request in self.refuses:
            raise OSError(self.refuses[request], os.strerror(self.refuses[request]))
        if request in (kvm.KVM_CREATE_VM, kvm.KVM_CREATE_VCPU):
            return self.open()
        if request == kvm.KVM_RUN:
            reason, details, written = self.exits.pop(0)
            with self.run.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as shared:
                shared[8:12] = struct.pack("=I", reason)
                shared[32 : 32 + len(details)] = details
                shared[512] = written
            return 0
        return {kvm.KVM_GET_API_VERSION: self.version, kvm.KVM_GET_VCPU_MMAP_SIZE: 4096}.get(request, 0)


def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **case: object) -> Kernel:
    kernel = Kernel(tmp_path / "run", **case)
    monkeypatch.setattr(kvm.fcntl, "ioctl", kernel.ioctl)
    return kernel


# What is opened, and the step, errno and words of the error.
DEVICES = {
    "no device": ("none", "open", errno.ENOENT, "No such file or directory (ENOENT)"),
    "a directory": (".", "open", errno.EISDIR, "Is a directory (EISDIR)"),
    "a file": ("file", "KVM_GET_API_VERSION", errno.ENOTTY, "Inappropriate ioctl for device (ENOTTY)"),
    "a device of another kind": (
        "/dev/null",
        "KVM_GET_API_VERSION",
        errno.ENOTTY,
        "Inappropriate ioctl for device (ENOTTY)",
    ),
}

# How the kernel plays, and the step, errno and words of the error.
BROKEN = {
    "another version": ({"version": 11}, "KVM_GET_API_VERSION", None, "version 11, not 12"),
    "virtualization is taken by another hypervisor": (
        {"refuses": {kvm.KVM_CREATE_VM: errno.EBUSY}},
        "KVM_CREATE_VM",
        errno.EBUSY,
        "Device or resource busy (EBUSY)",
    ),
    "no memory": (
        {"refuses": {kvm.KVM_SET_USER_MEMORY_REGION: errno.ENOMEM}},
        "KVM_SET_USER_MEMORY_REGION",
        errno.ENOMEM,
        "Cannot allocate memory (ENOMEM)",
    ),
    "no processor": (
        {"refuses": {kvm.KVM_CREATE_VCPU: errno.EINVAL}},
        "KVM_CREATE_VCPU",
        errno.EINVAL,
        "Invalid argument (EINVAL)",
    ),
    "registers are refused": (
        {"refuses": {kvm.KVM_SET_SREGS: errno.EINVAL}},
        "KVM_SET_SREGS",
        errno.EINVAL,
        "Invalid argument (EINVAL)",
    ),
    "the guest is refused": ({"refuses": {kvm.KVM_RUN: errno.EIO}}, "KVM_RUN", errno.EIO, "Input/output error (EIO)"),
    "the processor refuses to enter the guest": (
        {"exits": [(9, struct.pack("=Q", 0x80000021), 0)]},
        "KVM_RUN",
        None,
        "the guest stopped with entry failed (0x80000021), not io",
    ),
    "the guest only halts": ({"exits": [HLT]}, "KVM_RUN", None, "the guest stopped with hlt (0x0), not io"),
    "the guest does not halt": (
        {"exits": [IO_42, (8, bytes(8), 0)]},
        "KVM_RUN",
        None,
        "the guest stopped with shutdown (0x0), not hlt",
    ),
    "the guest stops for a reason that is not known": (
        {"exits": [(99, bytes(8), 0)]},
        "KVM_RUN",
        None,
        "the guest stopped with 99 (0x0), not io",
    ),
    "another port": (
        {"exits": [(kvm.EXIT_IO, struct.pack("=BBHIQ", 1, 1, 0x80, 1, 512), 42), HLT]},
        "KVM_RUN",
        None,
        "the guest wrote to port 0x80, not 0xe9",
    ),
    "a wrong product": (
        {"exits": [(IO_42[0], IO_42[1], 41), HLT]},
        "KVM_RUN",
        None,
        "the guest returned 41 for 6 times 7",
    ),
}


@pytest.mark.parametrize("case", DEVICES)
def test_what_is_no_kvm_is_told_by_step_and_errno(case: str, tmp_path: Path) -> None:
    name, step, number, words = DEVICES[case]
    (tmp_path / "file").touch()
    with pytest.raises(KvmError) as caught:
        run_guest(str(tmp_path / name), machine="x86_64")
    error = caught.value
    assert (error.step, error.errno, error.conclusive) == (step, number, True)
    assert str(error) == f"{tmp_path / name}: {step}: {words}"


@pytest.mark.parametrize("case", BROKEN)
def test_a_guest_that_does_not_run_is_told_by_step_and_errno(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_as, step, number, words = BROKEN[case]
    play(monkeypatch, tmp_path, **play_as)
    with pytest.raises(KvmError) as caught:
        run_guest("/dev/null", machine="x86_64")
    error = caught.value
    assert (error.step, error.errno, error.conclusive) == (step, number, True)
    assert str(error) == f"/dev/null: {step}: {words}"


def test_a_guest_that_runs_answers_with_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path)
    ran = run_guest("/dev/null", machine="x86_64")
    assert isinstance(ran, Ran)
    assert (ran.api_version, ran.answer) == (12, 42)
    assert 0 < ran.seconds < 5


@pytest.mark.parametrize("exits", [(IO_42, HLT), (HLT,)])
def test_nothing_stays_open(exits: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, exits=exits)
    before = os.listdir("/proc/self/fd")
    with contextlib.suppress(KvmError):
        run_guest("/dev/null", machine="x86_64")
    assert os.listdir("/proc/self/fd") == before


def test_a_guest_that_never_ends_is_stopped_and_the_alarm_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = play(monkeypatch, tmp_path)
    answer = kernel.ioctl
    monkeypatch.setattr(
        kvm.fcntl,
        "ioctl",
        lambda fd, request, argument: signal.pause() if request == kvm.KVM_RUN else answer(fd, request, argument),
    )
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(KvmError, match=r"KVM_RUN: the guest still ran after 0.1 s") as caught:
        run_guest("/dev/null", machine="x86_64", seconds=0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


@pytest.mark.parametrize("machine", ["aarch64", "s390x"])
def test_another_architecture_cannot_be_told(machine: str) -> None:
    with pytest.raises(KvmError, match=f"architecture: only x86_64 can be tried, this is {machine}") as caught:
        run_guest("/dev/null", machine=machine)
    assert caught.value.conclusive is False
    assert caught.value.errno == errno.ENOTSUP


def test_the_sizes_in_the_requests_are_those_of_what_is_handed_over() -> None:
    sizes = {
        kvm.KVM_SET_USER_MEMORY_REGION: kvm.MEMORY_REGION.size,
        kvm.KVM_SET_REGS: kvm.REGISTERS.size,
        kvm.KVM_GET_SREGS: kvm.SREGS_SIZE,
        kvm.KVM_SET_SREGS: kvm.SREGS_SIZE,
    }
    assert {request >> 16 & 0x3FFF for request in sizes} == set(sizes.values())
    assert all(request >> 16 & 0x3FFF == size for request, size in sizes.items())
