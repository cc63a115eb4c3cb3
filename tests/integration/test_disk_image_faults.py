# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_image is killed, and gets errors, at every call that changes anything: its own, and those of the programs that
it starts.

A run is a forked copy of this process, so that a point takes some tenths of a second. Calls of the module into the
operating system are seen by sys.setprofile, which is told of each before it is made; system calls of mkfs and so on by
strace, which kills or fails them. After each fault the next run has to end as if there had been none, and the file
beside the image has to be what it was.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.nested.kata.plugins.module_utils._disk import loop, machine
from ansible_collections.nested.kata.plugins.modules import disk_image
from loop_mounts import unmount

pytestmark = [pytest.mark.root, pytest.mark.loop]

M = 1024**2
DATA = b"what was there before" * 1000
# What the module calls that changes a file, a directory, a loop device or a process; fork_exec starts each program. How
# often it waits for one depends on how busy the machine is, and waiting changes nothing.
CHANGING = {
    "ftruncate",
    "link",
    "unlink",
    "replace",
    "symlink",
    "mkdir",
    "chmod",
    "fchmod",
    "chown",
    "fchown",
    "fsync",
    "ioctl",
    "setxattr",
    "sendfile",
    "posix_fallocate",
    "fork_exec",
    "flock",
    "mknod",
}
MODULES = ("posix", "fcntl", "_posixsubprocess")
# These have no error that is worth more than a wait or nothing at all.
WITHOUT_ERROR = {"flock", "fork_exec"}
# System calls of the programs that change what they work on.
WRITING = "pwrite64,write,writev,pwritev,fallocate,ftruncate,fsync,fdatasync,mount,umount2,ioctl"
SKIPPED_PROGRAMS = {"blkid"}
# Points of each test and scenario; --all takes every one.
MOST = 5


@dataclass(frozen=True)
class Fault:
    """What befalls a run: the module's call of that number, or that of the programs that it starts, and how."""

    where: str
    number: int
    error: int | None = None
    """None: the process is killed."""
    both: bool = False
    """With a program the module is killed too, as by a power cut."""

    def __str__(self) -> str:
        what = "kill" if self.error is None else errno.errorcode[self.error]
        return f"{self.where} {self.number} {what}{' with the module' if self.both else ''}"


class Watch:
    """Counts the calls that matter, and lets the fault happen."""

    def __init__(self, fault: Fault | None, log: Path) -> None:
        self.fault, self.log, self.calls, self.programs = fault, log, [], 0

    def __call__(self, frame: object, event: str, called: object) -> None:
        if (
            event != "c_call"
            or getattr(called, "__name__", "") not in CHANGING
            or getattr(called, "__module__", "") not in MODULES
        ):
            return
        self.calls.append(called.__name__)
        if not self.fault or self.fault.where != "module" or len(self.calls) != self.fault.number:
            return
        if self.fault.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if called.__name__ not in WITHOUT_ERROR:
            raise OSError(self.fault.error, os.strerror(self.fault.error))

    def run(self, original: Callable, command: list[str], **named: object) -> subprocess.CompletedProcess[bytes]:
        """Run a program under strace, which counts its system calls, or kills or fails the one that is meant."""
        name = os.path.basename(command[0])
        if name in SKIPPED_PROGRAMS or not self.fault or self.fault.where == "module":
            return original(command, **named)
        self.programs += 1
        trace = f"{self.log}.{self.programs}"
        how = "signal=KILL" if self.fault.error is None else f"error={errno.errorcode[self.fault.error]}"
        inject = (
            ["-e", f"inject={WRITING}:{how}:when={self.fault.number}"]
            if self.fault.where == f"program {self.programs}"
            else []
        )
        done = original(["strace", "-f", "-qq", "-o", trace, "-e", f"trace={WRITING}", *inject, *command], **named)
        if inject and self.fault.both:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def run(options: dict, log: Path, fault: Fault | None = None) -> tuple[int, dict]:
    """Run the module in a forked copy of this process, which logs its calls; return its wait status and its answer."""
    answer = log.with_name("answer")
    child = os.fork()
    if not child:
        try:
            output = os.open(answer, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            watch, original = Watch(fault, log), subprocess.run
            subprocess.run = lambda command, **named: watch.run(original, command, **named)
            with patch_module_args(options):
                sys.setprofile(watch)
                with contextlib.suppress(SystemExit):
                    disk_image.main()
            sys.setprofile(None)
            sys.stdout.flush()
            log.write_text(json.dumps(watch.calls))
        finally:
            os._exit(0)
    _unused, status = os.waitpid(child, 0)
    text = answer.read_text()
    return status, ({"failed": False, **json.loads(text)} if text.strip().startswith("{") else {"died": text})


def quick(command: list[object]) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )


def image(path: Path, fstype: str, size: int, mount: Path) -> None:
    """Make an image that holds a file, without the module."""
    with path.open("wb") as file:
        file.truncate(size)
    quick(["mkfs.ext4", "-q", "-F", "-b", "4096", path] if fstype == "ext4" else [f"mkfs.{fstype}", "-q", path])
    quick(["mount", "-o", "loop", path, mount])
    (mount / "file").write_bytes(DATA)
    unmount(mount)
    path.chmod(0o600)


def zeros(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@dataclass(frozen=True)
class Scenario:
    """A state and what is asked of it. `there` is the file system that is at the path before, with a file in it."""

    options: dict
    there: str | None = None
    before: tuple[str, ...] = ()
    """Out of: zeros, golden, attached (with its link)."""
    size: int = 16 * M


SCENARIOS = {
    "make and attach": Scenario(
        {"size": "16M", "fstype": "ext4", "label": "a", "attached": True, "link": "{dir}/run/a"}
    ),
    "make btrfs": Scenario({"size": "120M"}),
    "make xfs, allocated": Scenario({"size": "300M", "fstype": "xfs", "allocation": "preallocated"}),
    "make in place of zeros": Scenario({"fstype": "ext4", "owner": "1", "mode": "0640"}, before=("zeros",)),
    "clone and grow": Scenario(
        {"fstype": "ext4", "clone_of": "{dir}/golden/g.img", "size": "48M", "label": "b"}, before=("golden",)
    ),
    "grow ext4": Scenario({"fstype": "ext4", "size": "160M"}, there="ext4"),
    "grow btrfs, attached": Scenario(
        {"size": "300M", "mode": "0640"}, there="btrfs", before=("attached",), size=120 * M
    ),
    "detach, trim and seal": Scenario(
        {"attached": False, "link": "{dir}/run/a", "sealed": True}, there="btrfs", before=("attached",), size=120 * M
    ),
    "remove": Scenario(
        {"fstype": "ext4", "link": "{dir}/run/a", "state": "absent"}, there="ext4", before=("attached",)
    ),
}


class Place:
    """A directory with the state of a scenario, made anew for each fault from files that are made once."""

    def __init__(self, root: Path, scenario: Scenario) -> None:
        self.scenario, self.disks, self.mount, self.log = scenario, root / "disks", root / "mount", root / "log"
        self.model = root / "model.img"
        self.bystander = root / "bystander.img"
        self.options = {
            "path": f"{self.disks}/a.img",
            **json.loads(json.dumps(scenario.options).replace("{dir}", str(self.disks))),
        }
        for directory in (self.disks, self.disks / "run", self.disks / "golden", self.mount):
            directory.mkdir()
        image(self.bystander, "ext4", 16 * M, self.mount)
        image(
            self.model,
            scenario.there or scenario.options.get("fstype", "btrfs"),
            scenario.size if scenario.there else 320 * M,
            self.mount,
        )
        if "golden" in scenario.before:
            image(self.disks / "golden" / "g.img", "ext4", 32 * M, self.mount)
            (self.disks / "golden" / "g.img").chmod(0o400)

    def prepare(self) -> None:
        self.clear()
        self.copy(self.bystander, "other.img")
        path = self.disks / "a.img"
        if self.scenario.there:
            self.copy(self.model, path.name)
        if "zeros" in self.scenario.before:
            zeros(path, self.scenario.size)
        if "attached" in self.scenario.before:
            (self.disks / "run" / "a").symlink_to(loop.attach(str(path)))

    def copy(self, source: Path, name: str) -> None:
        with source.open("rb") as data, (self.disks / name).open("wb") as target:
            machine.copy_data(data.fileno(), target.fileno())
            os.fchmod(target.fileno(), 0o600)

    def clear(self) -> None:
        for file in self.disks.glob("*.img"):
            for device in loop.loops_of(str(file)):
                loop.detach(str(file), device.device)
        for file in (*self.disks.glob(".*"), *self.disks.glob("*.img"), *(self.disks / "run").iterdir()):
            file.unlink()

    def state(self) -> dict:
        """Return all that matters: names, sizes, modes, what is attached and linked, and that nothing of what was there
        is lost.
        """
        path, link = self.disks / "a.img", self.disks / "run" / "a"
        found = {
            "names": sorted(file.name for file in self.disks.iterdir()),
            "links": sorted(file.name for file in (self.disks / "run").iterdir()),
            "attached": len(loop.loops_of(str(path))) if path.exists() else 0,
            "bystander": (self.disks / "other.img").read_bytes() == self.bystander.read_bytes(),
            "linked": link.is_symlink() and os.path.exists(link),
            "golden": [(file.stat().st_mode, file.stat().st_mtime_ns) for file in (self.disks / "golden").iterdir()],
            "loops": sorted(
                backing
                for backing in (read(file) for file in Path("/sys/block").glob("loop*/loop/backing_file"))
                if backing.startswith(str(self.disks))
            ),
        }
        if path.exists():
            status = path.stat()
            content = loop.probe(str(path))
            found["image"] = (status.st_size, oct(status.st_mode), status.st_uid, content.fstype, content.label)
            if self.scenario.there or self.scenario.options.get("clone_of"):
                found["data"] = self.data(path)
        return found

    def data(self, path: Path) -> tuple[bool, int]:
        device = loop.loops_of(str(path))
        quick(["mount", "-o", "ro" if device else "ro,loop", device[0].device if device else path, self.mount])
        try:
            room = os.statvfs(self.mount)
            return (self.mount / "file").read_bytes() == DATA, room.f_blocks * room.f_frsize
        finally:
            unmount(self.mount)


def read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


@pytest.fixture(params=SCENARIOS)
def place(request, tmp_path):
    made = Place(tmp_path, SCENARIOS[request.param])
    yield made
    made.clear()


def faultless(place: Place) -> tuple[list[str], dict]:
    """Return the calls of a run without a fault, and what it leaves."""
    place.prepare()
    status, answer = run(place.options, place.log)
    assert status == 0 and not answer["failed"] and answer["changed"], answer
    return json.loads(place.log.read_text()), place.state()


def check(place: Place, fault: Fault, wanted: dict) -> None:
    """Let a run have its fault; the next one must end as if there had been none."""
    place.prepare()
    status, answer = run(place.options, place.log, fault)
    if fault.where == "module" and fault.error is None:
        assert os.WIFSIGNALED(status), f"{fault} was not reached: {answer}"
    elif not os.WIFSIGNALED(status):
        assert "died" not in answer, f"{fault}: {answer}"
        assert not answer["failed"] or ("\n" not in answer["msg"] and answer["msg"]), f"{fault}: {answer}"
    if place.scenario.options.get("state") != "absent" and place.scenario.there:
        assert (place.disks / "a.img").exists(), f"{fault}: the image is gone"
    status, again = run(place.options, place.log)
    assert status == 0 and not again.get("failed", True), f"{fault}: the next run failed: {again}"
    found = place.state()
    assert found == wanted, f"{fault}: {found} instead of {wanted}"
    _unused, third = run(place.options, place.log)
    assert third["changed"] is False, f"{fault}: {third}"


def test_a_run_that_is_killed_before_any_call_loses_nothing_and_the_next_one_converges(place, sample):
    calls, wanted = faultless(place)
    for number in sample(range(1, len(calls) + 1), MOST):
        check(place, Fault("module", number), wanted)
    assert len(calls) >= 5


def test_a_run_whose_calls_fail_says_so_in_a_line_and_the_next_one_converges(place, sample):
    calls, wanted = faultless(place)
    numbers = sample([number for number, name in enumerate(calls, 1) if name not in WITHOUT_ERROR], MOST)
    for number in numbers:
        check(place, Fault("module", number, errno.EIO if number % 2 else errno.ENOSPC), wanted)
    assert numbers


def test_a_run_whose_programs_are_killed_or_fail_loses_nothing_and_the_next_one_converges(place, sample):
    _unused, wanted = faultless(place)
    place.prepare()
    run(place.options, place.log, Fault("program 0", 0))
    traces = sorted(place.log.parent.glob("log.*"), key=lambda file: int(file.suffix[1:]))
    faults = []
    for number, trace in enumerate(traces, 1):
        # Each process has a count of its own, and the fault befalls the first that comes so far.
        lines = re.findall(r"^(\d+) +\w+\(", trace.read_text(), re.MULTILINE)
        for call in evenly(max((lines.count(process) for process in set(lines)), default=0)):
            kinds = [
                Fault(f"program {number}", call, both=True),
                Fault(f"program {number}", call),
                Fault(f"program {number}", call, errno.EIO),
                Fault(f"program {number}", call, errno.ENOSPC),
            ]
            faults.append(kinds[len(faults) % len(kinds)])
    for fault in sample(faults, MOST):
        check(place, fault, wanted)
    assert faults or place.options.get("state") == "absent"


def evenly(count: int, most: int = 16) -> list[int]:
    """Return the numbers from 1 to count, or so many of them at even distances, with the first and the last."""
    return (
        list(range(1, count + 1))
        if count <= most
        else sorted({1 + number * (count - 1) // (most - 1) for number in range(most)})
    )
