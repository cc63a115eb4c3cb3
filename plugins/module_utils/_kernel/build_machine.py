# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of kernel_build: what is there, and how each step is carried out."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterator, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import alone_in, digest_of, sync_directory
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._kernel import make
from ansible_collections.nested.kata.plugins.module_utils._kernel.artifacts import RECORD, Found, look
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_plan import Make, Plan, Put, decide
from ansible_collections.nested.kata.plugins.module_utils._kernel.make import Output, under_way, with_ccache
from ansible_collections.nested.kata.plugins.module_utils._kernel.needs import Need, lacking, needs
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Tree, environment, open_tree, run

BUILDER = "nested-kata"
MARK = ".nested-kata-build"  # in the tree while make runs: if it is found later, make was killed
RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100  # fcntl.h


class Failed(Refused):
    """make failed. `killed`: it may have left something incomplete."""

    def __init__(self, message: str, killed: bool, **details: Any) -> None:
        super().__init__(message, **details)
        self.killed = killed


def _prepare(wanted: Wanted) -> tuple[Tree, dict[str, str]]:
    """Return the tree and the variables that make gets in addition, or raise Refused where a build cannot start."""
    tree = open_tree(wanted.tree, wanted.arch, wanted.make_vars)
    try:
        with open(os.path.join(tree.path, ".config"), encoding="utf-8", errors="replace") as file:
            config = file.read()
    except FileNotFoundError as error:
        raise Refused(f"tree: {tree.path} has no .config: make one with nested.kata.kernel_config") from error
    compiler, host_compiler = tree.tool("CC"), tree.tool("HOSTCC")
    commands = [compiler, host_compiler, tree.tool("LD"), *(["ccache"] if wanted.ccache else [])]
    missing = [need for need in needs(config, commands) if not _there(need, host_compiler)]
    if missing:
        raise Refused(f"tree: {lacking(missing)}")
    if (
        not os.path.isdir(os.path.dirname(wanted.log))
        or os.path.isdir(wanted.log)
        or os.path.dirname(wanted.log) == wanted.path
    ):
        raise Refused(f"log: {wanted.log} is not a file in an existing directory outside of path: correct it")
    return tree, with_ccache(dict(tree.make_vars), compiler, host_compiler) if wanted.ccache else {}


def _there(need: Need, host_compiler: str) -> bool:
    if not need.header:
        return shutil.which(need.name) is not None
    if not shutil.which(host_compiler):
        return True  # it cannot be determined without a compiler, whose absence is reported itself
    command = [host_compiler, "-E", "-x", "c", "-include", need.name, "-o", os.devnull, os.devnull]
    return (
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def usable_cpus() -> int:
    """Return how many CPUs this process may use: a container's quota counts, too."""
    cpus = len(os.sched_getaffinity(0))
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            with open(f"/sys/fs/cgroup/{quota_file}", encoding="ascii") as file:
                numbers = file.read().split()
            if period_file:
                with open(f"/sys/fs/cgroup/{period_file}", encoding="ascii") as file:
                    numbers += file.read().split()
            quota, period = int(numbers[0]), int(numbers[1])
        except (OSError, ValueError, IndexError):
            continue  # no such version of control groups, or "max"
        if quota > 0:
            cpus = min(cpus, -(-quota // period))
    return max(1, cpus)


@dataclass
class Job:
    """A running build: the inputs and results of its steps."""

    wanted: Wanted
    tree: Tree
    variables: Mapping[str, str]
    """Variables that make gets in addition to the tree's own."""
    lock: int
    """The descriptor that keeps others out of the tree: make holds it, too."""
    progress: Progress
    known: int = 0
    """Number of objects of the existing build."""
    record: dict[str, Any] | None = None
    compiled: int = 0


def apply(wanted: Wanted, check_mode: bool, progress: Progress) -> tuple[Plan, Found, dict[str, Any] | None, int]:
    """Return what was planned, what was found before, the record of the build that was made, and how many objects were
    compiled for it.
    """
    found = look(wanted.path)
    plan = decide(found, wanted)
    if not plan.steps:
        return plan, found, None, 0
    tree, variables = _prepare(wanted)
    if check_mode:
        return plan, found, None, 0
    with alone_in(tree.path, lambda: progress.say(f"waiting for another build in {tree.path}")) as lock:
        found = look(wanted.path)
        plan = decide(found, wanted)  # another run may just have built it
        job = Job(wanted, tree, variables, lock, progress, known=int((found.record or {}).get("objects", 0)))
        for step in plan.steps:
            carry_out(step, job)
    return plan, found, job.record, job.compiled


@contextlib.contextmanager
def interruptible(wanted: Wanted) -> Iterator[None]:
    """Turn an interruption, and a file that cannot be written, into a refusal with the next step."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield
    except make.Interrupted:
        raise Refused(f"tree: the build in {wanted.tree} was interrupted; the next run continues it") from None
    except OSError as error:
        why = full_disk(wanted) if error.errno == errno.ENOSPC else f"{error.filename or wanted.path}: {error.strerror}"
        raise Refused(f"tree: the build in {wanted.tree} failed: {why}") from error


def _interrupt(number: int, frame: object) -> None:
    raise make.Interrupted


@functools.singledispatch
def carry_out(step: Make | Put, job: Job) -> None:
    """Do one step."""
    raise NotImplementedError(step)


@carry_out.register(Make)
def _build(step: Make, job: Job) -> None:
    wanted, tree, progress = job.wanted, job.tree, job.progress
    variables = [f"{name}={value}" for name, value in job.variables.items()]
    mark = os.path.join(tree.path, MARK)
    fresh = not os.path.exists(os.path.join(tree.path, "init", "main.o"))
    start = time.monotonic()
    with open(wanted.log, "wb", buffering=0) as log:
        if os.path.exists(mark):
            clean = tree.command(*variables, "clean")
            _make(
                clean,
                job,
                log,
                lambda output: progress.say(f"linux {tree.version}: make clean, since a build was killed"),
            )
            fresh = True
        expected = wanted.expected_objects or (job.known if fresh else 0)

        def report(output: Output) -> None:
            progress.say(under_way(tree.version, output.objects, expected, time.monotonic() - start))

        with open(mark, "w", encoding="ascii"):
            pass
        command = tree.command(f"-j{wanted.jobs or usable_cpus()}", *variables, *step.targets)
        try:
            output = _make(command, job, log, report)
        except BaseException as error:
            # If make ends by itself, or on request, it leaves nothing incomplete.
            if not getattr(error, "killed", False):
                os.unlink(mark)
            raise
        os.unlink(mark)
    job.compiled = output.objects
    job.record = {
        "release": _text_of(os.path.join(tree.path, "include/config/kernel.release")),
        "arch": wanted.arch,
        "targets": list(step.targets),
        "key": wanted.key,
        "info": wanted.info,
        "compiler": _version_of(tree.tool("CC")),
        "linker": _version_of(tree.tool("LD")),
        "timestamp": wanted.timestamp,
        "seconds": round(time.monotonic() - start, 1),
        "objects": output.objects if fresh else max(job.known, output.objects),
    }


@carry_out.register(Put)
def _put(step: Put, job: Job) -> None:
    job.record = put(artifacts(job.tree, job.wanted), job.record or {}, step.path)


def _make(command: list[str], job: Job, log: BinaryIO, report: Callable[[Output], None]) -> Output:
    """Run make, or raise Failed with the lines that matter."""
    wanted, tree = job.wanted, job.tree
    values = environment(
        KBUILD_BUILD_TIMESTAMP=wanted.timestamp,
        KBUILD_BUILD_USER=BUILDER,
        KBUILD_BUILD_HOST=BUILDER,
        KBUILD_BUILD_VERSION="1",
        KCONFIG_NOSILENTUPDATE="1",
    )
    status, output = make.run(command, values, log, job.lock, report)
    if status == 0:
        return output
    facts: dict[str, Any] = {"errors": output.errors, "rc": status, "cmd": command}
    if output.stale:
        why = (
            f"tree: this tree's Kconfig would change {tree.path}/.config with {tree.tool('CC')} for {tree.arch}:"
            " run nested.kata.kernel_config with the same arch and make_vars"
        )
    elif output.full:
        why = f"tree: the build in {tree.path} failed: {full_disk(wanted)}; the whole output is in {wanted.log}"
    elif status < 0:
        why = f"tree: make was killed by {signal.Signals(-status).name}; its output is in {wanted.log}"
    else:
        why = f"tree: the build in {tree.path} failed: {output.summary()}; the whole output is in {wanted.log}"
    raise Failed(why, killed=status < 0, **facts)


def full_disk(wanted: Wanted) -> str:
    """Return which file system has no space left, of those that a build writes to."""
    places = {
        "tree": wanted.tree,
        "the directory for temporary files": tempfile.gettempdir(),
        "log": os.path.dirname(wanted.log),
        "path": os.path.dirname(wanted.path),
    }
    free = {}
    for name, place in places.items():
        state = os.statvfs(place)
        free[name] = state.f_bavail * state.f_frsize if state.f_favail or not state.f_files else 0
    name = min(free, key=lambda place: free[place])
    mount = os.path.realpath(places[name])
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return (
        f"no space left on {mount}, which holds {name} ({places[name]}; {free[name] // 1024} KiB free): make room there"
    )


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _version_of(command: str) -> str:
    return run([command, "--version"]).splitlines()[0].strip()


def artifacts(tree: Tree, wanted: Wanted) -> dict[str, str]:
    """Return the path of each file of the build, by its name as an artifact."""
    boot = os.path.join(tree.path, "arch", tree.source_directory, "boot")
    images = {
        target: os.path.join(boot, target)
        for target in wanted.targets
        if "/" not in target and os.path.isfile(os.path.join(boot, target))
    }
    return {
        "vmlinux": os.path.join(tree.path, "vmlinux"),
        **images,
        "config": os.path.join(tree.path, ".config"),
        "System.map": os.path.join(tree.path, "System.map"),
    }


def put(files: dict[str, str], record: dict[str, Any], path: str) -> dict[str, Any]:
    """Put files and record into the directory, which is replaced as a whole; return the record."""
    parent, name = os.path.split(path)
    beside = f".{name}.nested-kata-"
    with alone_in(parent, lambda: None):
        for left in os.listdir(parent):
            if left.startswith(beside):
                shutil.rmtree(os.path.join(parent, left))
        staging = tempfile.mkdtemp(prefix=beside, dir=parent)
        try:
            record["files"] = {}
            for file, source in files.items():
                target = os.path.join(staging, file)
                record["files"][file] = {"sha256": digest_of(source, copy=target), "size": os.path.getsize(target)}
            with open(os.path.join(staging, RECORD), "x", encoding="utf-8") as written:
                json.dump(record, written, indent=2, sort_keys=True)
                written.write("\n")
                written.flush()
                os.fsync(written.fileno())
            for file in os.listdir(staging):
                os.chmod(os.path.join(staging, file), 0o644)
            os.chmod(staging, 0o755)
            sync_directory(staging)
            exchange(staging, path)
            sync_directory(parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return record


def exchange(staging: str, path: str) -> None:
    """Give a directory the name of another one, which gets its name if it exists."""
    if not os.path.isdir(path):
        os.rename(staging, path)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        code = errno.ENOSYS
    elif libc.renameat2(AT_FDCWD, os.fsencode(staging), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        return
    else:
        code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
        raise OSError(code, os.strerror(code), path)
    old = tempfile.mkdtemp(prefix=f"{staging}-", dir=os.path.dirname(path))
    os.rename(path, old)
    os.rename(staging, path)
    os.rename(old, staging)
