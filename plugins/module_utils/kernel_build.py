# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel builds: whether one is needed, what it needs, what make's output says, and how make is run and ended."""
from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import percent
from ansible_collections.nested.kata.plugins.module_utils.kernel_tree import PACKAGE, source_directory

RECORD = "build.json"
# What a hypervisor boots, by the name of the architecture's directory below arch/.
IMAGE = {"x86": "bzImage", "arm64": "Image", "riscv": "Image", "s390": "bzImage"}
PIECE = 1 << 20
GRACE = 30  # seconds that make has to end, and to remove what is half made
NAMED = 3  # lines of a failed build that the message quotes


@dataclass(frozen=True)
class Wanted:
    """What the task asked for."""

    tree: str
    arch: str
    targets: Tuple[str, ...]
    path: str
    key: str


@dataclass(frozen=True)
class Found:
    """What lies where the artifacts are to be."""

    record: Optional[Mapping[str, Any]] = None
    """What build.json holds, None where there is none."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each recorded file that is there."""


@dataclass(frozen=True)
class Make:
    """Build the targets."""

    tree: str
    targets: Tuple[str, ...]

    def __str__(self) -> str:
        return f"build {', '.join(self.targets)} in {self.tree}"


@dataclass(frozen=True)
class Put:
    """Put the artifacts where they are to be, all at once."""

    path: str

    def __str__(self) -> str:
        return f"put the artifacts into {self.path}"


@dataclass(frozen=True)
class Plan:
    """The steps that lead from what was found to what is wanted, and why they are needed."""

    steps: Tuple[Union[Make, Put], ...]
    reason: str


def targets_of(asked: Iterable[str], arch: str) -> Tuple[str, ...]:
    """Return the targets of make: vmlinux always, and the image that boots where none were asked for."""
    image = IMAGE.get(source_directory(arch))
    targets = tuple(dict.fromkeys(["vmlinux", *(asked or filter(None, [image]))]))
    for target in targets:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", target) or re.fullmatch(r".*config|.*clean|mrproper|help", target):
            raise Refused(f"targets: {target!r} is no target that builds something, such as vmlinux or bzImage")
    return targets


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return what is to be done: all or nothing."""
    reason = _difference(found, wanted)
    if not reason:
        return Plan((), f"{wanted.path} holds this build")
    return Plan((Make(wanted.tree, wanted.targets), Put(wanted.path)), reason)


def _difference(found: Found, wanted: Wanted) -> str:
    """Return why what was found is not the build that is wanted."""
    record = found.record
    if record is None:
        return f"there is no build in {wanted.path} yet"
    for name, value in (("key", wanted.key), ("arch", wanted.arch), ("targets", list(wanted.targets))):
        if record.get(name) != value:
            return f"the build in {wanted.path} has another {name}"
    files = record["files"]
    for name in files:
        if name not in found.digests:
            return f"{wanted.path}/{name} is missing"
        if found.digests[name] != files[name]["sha256"]:
            return f"{wanted.path}/{name} is not the file that was built"
    return ""


def read_record(value: Any) -> Mapping[str, Any]:
    """Return a record of ours, or raise ValueError where it is something else."""
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict) or "key" not in value:
        raise ValueError("it is no record of a kernel build")
    if not all(isinstance(file, dict) and isinstance(file.get("sha256"), str) for file in value["files"].values()):
        raise ValueError("it names files without a digest")
    return value


def foreign(names: Iterable[str], record: Optional[Mapping[str, Any]]) -> List[str]:
    """Return the names in a directory that no build of ours put there."""
    ours = {RECORD, *record["files"]} if record else set()
    return sorted(set(names) - ours)


# --- what a build needs ---

@dataclass(frozen=True)
class Need:
    """A command, or a header for the build's own programs, and Debian's package with it."""

    name: str
    package: str
    header: bool = False


ALWAYS = (Need("make", "make"), Need("flex", "flex"), Need("bison", "bison"), Need("bc", "bc"))
LIBELF = Need("gelf.h", "libelf-dev", header=True)
OPENSSL = Need("openssl/opensslv.h", "libssl-dev", header=True)
# What some symbols need when they are y (or m).
NEEDED_BY = {
    "OBJTOOL": LIBELF, "STACK_VALIDATION": LIBELF,
    "SYSTEM_TRUSTED_KEYRING": OPENSSL, "MODULE_SIG_FORMAT": OPENSSL, "SYSTEM_EXTRA_CERTIFICATE": OPENSSL,
    "DEBUG_INFO_BTF": Need("pahole", "pahole"),
    "KERNEL_GZIP": Need("gzip", "gzip"), "IKCONFIG": Need("gzip", "gzip"), "KERNEL_BZIP2": Need("bzip2", "bzip2"), "KERNEL_XZ": Need("xz", "xz-utils"),
    "KERNEL_LZMA": Need("lzma", "xz-utils"), "KERNEL_LZO": Need("lzop", "lzop"), "KERNEL_LZ4": Need("lz4", "lz4"), "KERNEL_ZSTD": Need("zstd", "zstd"),
    "IKHEADERS": Need("cpio", "cpio"), "OID_REGISTRY": Need("perl", "perl"), "CRYPTO_POLY1305_X86_64": Need("perl", "perl"),
}


def needs(config: str, commands: Iterable[str]) -> Tuple[Need, ...]:
    """Return all that the build of a configuration needs of the machine, beside the commands that stand for the toolchain."""
    on = set(re.findall(r"^CONFIG_([A-Za-z0-9_]+)=[ym]$", config, re.MULTILINE))
    toolchain = (Need(command, PACKAGE.get(command, command)) for command in commands)
    return tuple(dict.fromkeys([*ALWAYS, *toolchain, *(need for symbol, need in NEEDED_BY.items() if symbol in on)]))


def lacking(missing: Iterable[Need]) -> str:
    """Return a sentence about all that is missing."""
    missing = list(missing)
    packages = " ".join(dict.fromkeys(need.package for need in missing))
    return f"the build needs {', '.join(need.name for need in missing)}, which this machine lacks: install {packages} (Debian's names)"


# --- what make says ---

COMPILED = re.compile(r"  (?:CC|AS)(?: \[M\])? +\S")
STEP = re.compile(r"  [A-Z0-9]+(?: \[M\])? +\S")
FULL = "No space left on device"
SAYS_WHY = re.compile(
    rf"\berror: |\bError: |undefined reference to|{FULL}|\*\*\* No rule to make|\*\*\* The configuration requires|Killed signal terminated|: not found$"
    r"|^ld(?:\.\w+)?: (?!warning)"
)
STALE = "The configuration requires explicit update"


@dataclass
class Output:
    """What is worth knowing of make's output, taken line by line."""

    objects: int = 0
    reasons: List[str] = field(default_factory=list)
    """The first lines that say why it failed."""
    first_star: str = ""
    """The first line in which make says that something failed, but not why."""
    last: str = ""
    full: bool = False
    stale: bool = False

    def take(self, line: str) -> None:
        """Take the next line."""
        if COMPILED.match(line):
            self.objects += 1
        if STEP.match(line) or not line.strip():
            return
        self.last = line.strip()
        self.full = self.full or FULL in line
        self.stale = self.stale or STALE in line
        if SAYS_WHY.search(line):
            if len(self.reasons) < 10 and self.last not in self.reasons:
                self.reasons.append(self.last)
        elif "*** " in line and not self.first_star:
            self.first_star = self.last

    @property
    def errors(self) -> List[str]:
        """The lines that say why make failed, or the best there is."""
        return self.reasons or [self.first_star or self.last or "make said nothing"]

    def summary(self) -> str:
        """Return the lines that matter as one."""
        errors = self.errors
        more = f" (and {len(errors) - NAMED} more)" if len(errors) > NAMED else ""
        return "; ".join(errors[:NAMED]) + more


def under_way(version: str, objects: int, expected: int, seconds: float) -> str:
    """Return how far a build is, in words. `expected` is 0 where nobody knows how many objects there will be."""
    share = f" of {expected} objects, {percent(objects, expected)} %" if 0 < objects <= expected else " objects"
    return f"linux {version}: {objects}{share}, {seconds:.0f} s"


def with_ccache(make_vars: Mapping[str, str], compiler: str, host_compiler: str) -> Dict[str, str]:
    """Return the variables that put ccache before both compilers."""
    found = {"CC": make_vars.get("CC", compiler), "HOSTCC": make_vars.get("HOSTCC", host_compiler)}
    return {name: value if shlex.split(value)[:1] == ["ccache"] else f"ccache {value}" for name, value in found.items()}


# --- make, as a process ---

class Interrupted(Exception):
    """Somebody wants the module to end."""

    killed = False


class Killed(Interrupted):
    """Make would not end in time, and may have left something half made."""

    killed = True


def run(command: List[str], environment: Mapping[str, str], log: BinaryIO, lock: int, tell: Callable[[Output], None]) -> Tuple[int, Output]:
    """Run make into the log and return its exit status and what its output says. It never outlives an exception."""
    output = Output()
    make = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[lock],
    )
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(make.stdout, selectors.EVENT_READ)
            rest = b""
            while True:
                if selector.select(1.0):
                    piece = os.read(make.stdout.fileno(), PIECE)
                    if not piece:
                        break
                    log.write(piece)
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        output.take(line.decode("utf-8", "replace"))
                tell(output)
        output.take(rest.decode("utf-8", "replace"))
        return make.wait(), output
    except BaseException:
        end(make)
        raise
    finally:
        make.stdout.close()


def end(make: subprocess.Popen) -> None:
    """Have make remove what is half made, and all that it started end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(make.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while make.poll() is None and time.monotonic() < deadline:
        # It must not wait for a pipe that nobody reads any more.
        os.set_blocking(make.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            os.read(make.stdout.fileno(), PIECE)
        time.sleep(0.05)
    if make.poll() is None:
        os.killpg(make.pid, signal.SIGKILL)
        make.wait()
        raise Killed
