# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A minimal virtual machine that shows whether a /dev/kvm that opens also runs code.

A device node alone proves little. It may be left over in a container, lead to a hypervisor that offers no nesting, or
fail at the first instruction. So a guest of three instructions multiplies two numbers and returns the product. Nothing
of it stays.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import mmap
import os
import platform
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

# "Applications should refuse to run if KVM_GET_API_VERSION returns a value other than 12"
# (Documentation/virt/kvm/api.rst)
API_VERSION = 12
ARCHITECTURES = ("x86_64", "AMD64")

# linux/kvm.h. The last four contain the size of the data that they read or write.
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84

EXIT_IO = 2
EXIT_HLT = 5
EXITS = {
    0: "unknown",
    1: "exception",
    EXIT_IO: "io",
    EXIT_HLT: "hlt",
    6: "mmio",
    7: "irq window",
    8: "shutdown",
    9: "entry failed",
    10: "interrupted",
    17: "internal error",
}

MEMORY_REGION = struct.Struct("=IIQQQ")  # slot, flags, guest physical address, size, address in this process
REGISTERS = struct.Struct("=18Q")  # rax rbx rcx rdx rsi rdi rsp rbp r8..r15 rip rflags
SREGS_SIZE = 312
CODE_SEGMENT = struct.Struct("=QIH")  # base, limit, selector: the beginning of struct kvm_sregs
EXIT_REASON = struct.Struct("=I")
EXIT_REASON_AT = 8  # in struct kvm_run
IO = struct.Struct("=BBHIQ")  # direction, size, port, count, where in struct kvm_run the data is
REASON_DATA = struct.Struct("=Q")
DETAILS_AT = 32  # of the exit, in struct kvm_run

PAGE = 4096
# Intel CPUs that cannot run real mode as such need three pages of the guest's addresses, away from its memory
TSS = 0x10000
PORT = 0xE9
FACTORS = (6, 7)
CODE = bytes(
    (
        0xF6,
        0xE3,  # mul bl
        0xEE,  # out dx, al
        0xF4,  # hlt
    )
)


class KvmError(Exception):
    """No guest ran. Carries the step at which it failed, and the errno where the kernel returned one."""

    def __init__(self, path: str, step: str, reason: str, error: int | None = None, conclusive: bool = True) -> None:
        super().__init__(f"{path}: {step}: {reason}")
        self.path = path
        self.step = step
        self.reason = reason
        self.errno = error
        self.conclusive = conclusive  # false: it could not be tried, which proves nothing about the device


@dataclass(frozen=True)
class Ran:
    """A guest that ran: its answer, and how long all of it took."""

    api_version: int
    answer: int
    seconds: float


def run_guest(path: str = "/dev/kvm", machine: str | None = None, seconds: float = 10) -> Ran:
    """Run a guest of three instructions on `path`, or raise KvmError.

    Must be called from the main thread: a guest that never ends is stopped after `seconds` by SIGALRM, whose handler
    and timer are restored. On other architectures than x86_64 it cannot be tried, and the error is not conclusive.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise KvmError(
            path, "architecture", f"only x86_64 can be tried, this is {machine}", errno.ENOTSUP, conclusive=False
        )
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        with _step(path, "open"):
            kvm = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, kvm)
        with _step(path, "KVM_GET_API_VERSION"):
            version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
        if version != API_VERSION:
            raise KvmError(path, "KVM_GET_API_VERSION", f"version {version}, not {API_VERSION}")
        with _step(path, "KVM_CREATE_VM"):
            vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        stack.callback(os.close, vm)
        with _step(path, "KVM_SET_TSS_ADDR"):
            fcntl.ioctl(vm, KVM_SET_TSS_ADDR, TSS)
        memory = array.array("B", bytes(2 * PAGE))  # one whole page is in it, wherever it begins
        with _step(path, "KVM_SET_USER_MEMORY_REGION"):
            fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, MEMORY_REGION.pack(0, 0, 0, PAGE, _load(memory, CODE)))
        with _step(path, "KVM_CREATE_VCPU"):
            vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
        stack.callback(os.close, vcpu)
        with _step(path, "KVM_GET_VCPU_MMAP_SIZE"):
            size = fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)
        with _step(path, "mmap"):
            run = stack.enter_context(mmap.mmap(vcpu, size))
        _set_registers(path, vcpu)
        with _alarm(path, seconds):
            answer = _answer(path, vcpu, run)
            _expect(path, vcpu, run, EXIT_HLT)
    if answer != FACTORS[0] * FACTORS[1]:
        raise KvmError(path, "KVM_RUN", f"the guest returned {answer} for {FACTORS[0]} times {FACTORS[1]}")
    return Ran(api_version=version, answer=answer, seconds=time.monotonic() - began)


def _load(memory: array.array[int], code: bytes) -> int:
    """Write the code to the first whole page of the memory, and return that page's address."""
    address = memory.buffer_info()[0]
    offset = -address % PAGE
    memory[offset : offset + len(code)] = array.array("B", code)
    return address + offset


def _set_registers(path: str, vcpu: int) -> None:
    """Make the CPU, which starts in real mode, start at address 0 with the factors in al and bl and the port in dx."""
    special = bytearray(SREGS_SIZE)
    with _step(path, "KVM_GET_SREGS"):
        fcntl.ioctl(vcpu, KVM_GET_SREGS, special)
    _base, limit, _selector = CODE_SEGMENT.unpack_from(special)
    CODE_SEGMENT.pack_into(special, 0, 0, limit, 0)
    with _step(path, "KVM_SET_SREGS"):
        fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(special))
    registers = [*FACTORS, 0, PORT, *([0] * 12), 0, 2]  # bit 1 of the flags is always set
    with _step(path, "KVM_SET_REGS"):
        fcntl.ioctl(vcpu, KVM_SET_REGS, REGISTERS.pack(*registers))


def _answer(path: str, vcpu: int, run: mmap.mmap) -> int:
    _expect(path, vcpu, run, EXIT_IO)
    _direction, _size, port, _count, offset = IO.unpack_from(run, DETAILS_AT)
    if port != PORT:
        raise KvmError(path, "KVM_RUN", f"the guest wrote to port {port:#x}, not {PORT:#x}")
    answer: int = run[offset]
    return answer


def _expect(path: str, vcpu: int, run: mmap.mmap, reason: int) -> None:
    with _step(path, "KVM_RUN"):
        fcntl.ioctl(vcpu, KVM_RUN, 0)
    found = EXIT_REASON.unpack_from(run, EXIT_REASON_AT)[0]
    if found != reason:
        detail = REASON_DATA.unpack_from(run, DETAILS_AT)[0]
        raise KvmError(
            path, "KVM_RUN", f"the guest stopped with {EXITS.get(found, found)} ({detail:#x}), not {EXITS[reason]}"
        )


@contextlib.contextmanager
def _step(path: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        raise KvmError(path, name, f"{os.strerror(number)} ({errno.errorcode.get(number, number)})", number) from error


@contextlib.contextmanager
def _alarm(path: str, seconds: float) -> Iterator[None]:
    """Interrupt the block after that time; KVM_RUN returns when a signal comes."""

    def ring(_number: int, _frame: object) -> None:
        raise KvmError(path, "KVM_RUN", f"the guest still ran after {seconds:g} s", errno.ETIMEDOUT)

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
