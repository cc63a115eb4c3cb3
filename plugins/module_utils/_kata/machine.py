# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of kata_release: what is there, and how each step is carried out."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import asdict
from io import BufferedReader
from typing import Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.compression import PACKAGES, compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    alone_in,
    sync_directory,
    sync_file_system,
)
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._kata.archive_size import FORMATS, TAIL, space_needed
from ansible_collections.nested.kata.plugins.module_utils._kata.contents import kernel_release_in, version_in
from ansible_collections.nested.kata.plugins.module_utils._kata.members import Judge
from ansible_collections.nested.kata.plugins.module_utils._kata.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import (
    RECORD,
    Clear,
    Found,
    Plan,
    Record,
    Remove,
    Unpack,
    decide,
    read_record,
)
from ansible_collections.nested.kata.plugins.module_utils._kata.unpack import Archive, unpack
from ansible_collections.nested.kata.plugins.module_utils._kata.users import mounted_below, users_of


def look(wanted: Wanted) -> Found:
    """Return what is at the path."""
    parent, _name = os.path.split(wanted.path)
    if not os.path.isdir(parent):
        return Found()
    leftovers = tuple(
        os.path.join(parent, entry) for entry in sorted(os.listdir(parent)) if entry.startswith(wanted.beside)
    )
    if not os.path.lexists(wanted.path):
        return Found(leftovers=leftovers)
    if os.path.islink(wanted.path) or not os.path.isdir(wanted.path):
        return Found(stranger="a symlink" if os.path.islink(wanted.path) else "a file")
    try:
        with open(os.path.join(wanted.path, RECORD), encoding="utf-8") as file:
            record = read_record(json.load(file))
    except FileNotFoundError:
        return Found(stranger=f"a directory without {RECORD}")
    except ValueError as error:
        return Found(stranger=f"a directory whose {RECORD} cannot be read ({error})")
    if wanted.present:
        return Found(record, leftovers=leftovers)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = mounted_below(os.path.realpath(wanted.path), file.read())
    return Found(record, leftovers=leftovers, users=tuple(users_of(os.path.realpath(wanted.path))), mounts=mounts)


def apply(wanted: Wanted, check_mode: bool, progress: Progress) -> tuple[Plan, Found, Record | None]:
    """Return what was planned, what was found before, and what is known of the release afterwards."""
    parent = os.path.dirname(wanted.path)
    found = look(wanted)
    plan = decide(found, wanted)
    record = found.record
    if plan.steps and not check_mode and os.path.isdir(parent):
        with alone_in(
            parent, lambda: progress.say(f"{os.path.basename(wanted.path)}: waiting for another run in {parent}")
        ):
            found = look(wanted)
            plan = decide(found, wanted)  # the other run may have done it
            record = found.record
            _prepare(plan, wanted, check_mode)
            for step in plan.steps:
                record = carry_out(step, wanted, progress) or record
    else:
        _prepare(plan, wanted, check_mode)
    return plan, found, record


@contextlib.contextmanager
def interruptible(wanted: Wanted) -> Iterator[None]:
    """Turn an interruption, and a disk that is full, into a refusal with the next step."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise Refused(f"path: the work on {wanted.path} was interrupted; the next run starts again") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        parent = os.path.dirname(wanted.path)
        raise Refused(
            f"path: no space left in {parent} ({amount(free_in(parent))} free now): make room there, or choose another"
            " path"
        ) from error


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _prepare(plan: Plan, wanted: Wanted, check_mode: bool) -> None:
    """Raise Refused where the archive is needed and cannot be unpacked."""
    if any(isinstance(step, Unpack) for step in plan.steps):
        _check(wanted.archive, os.path.dirname(wanted.path), check_mode)


def _check(archive: str | None, parent: str, check_mode: bool) -> None:
    """Raise Refused where the archive visibly cannot be unpacked."""
    if not os.path.isdir(parent):
        if check_mode:
            return
        raise Refused(f"path: there is no directory {parent}: make it, or correct the path")
    if check_mode and archive is not None and not os.path.lexists(archive):
        return
    try:
        file = open_archive(archive)
    except OSError as error:
        raise Refused(f"archive: {archive}: {error.strerror}: put the archive there, or correct the path") from error
    with file:
        size, head = os.fstat(file.fileno()).st_size, file.read(18)
        file.seek(max(0, size - TAIL))
        needed, free = space_needed(size, head, file.read()), free_in(parent)
    kind = compression_of(head, FORMATS)
    if not kind:
        raise Refused(
            f"archive: {archive} is neither a .tar.zst nor a .tar.xz file (it begins with {head[:8]!r}): get it again"
        )
    if not shutil.which(kind):
        raise Refused(
            f"archive: {archive} is compressed by {kind}, and there is no command {kind}: install it (Debian package"
            f" {PACKAGES[kind]})"
        )
    if needed > free:
        raise Refused(
            f"path: {archive} unpacks to about {amount(needed)}, and {parent} has {amount(free)} free: make room there,"
            " or choose another path"
        )


def open_archive(path: str | None) -> BufferedReader:
    if path is None:
        raise Refused("archive: the release is not there yet: name the archive to unpack")
    # O_NONBLOCK, so as not to wait for a writer of a named pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"archive: {path} is not a regular file: name the archive to unpack")
    return open(descriptor, "rb")


def free_in(directory: str) -> int:
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


@functools.singledispatch
def carry_out(step: Clear | Unpack | Remove, wanted: Wanted, progress: Progress) -> Record | None:
    """Carry out one step, and return what is then known of the release."""
    raise NotImplementedError(step)


@carry_out.register(Clear)
def _clear(step: Clear, wanted: Wanted, progress: Progress) -> None:
    for leftover in step.paths:
        progress.say(f"{os.path.basename(wanted.path)}: removing {leftover}")
        shutil.rmtree(leftover)


@carry_out.register(Remove)
def _remove(step: Remove, wanted: Wanted, progress: Progress) -> None:
    staging = tempfile.mkdtemp(prefix=wanted.beside, dir=os.path.dirname(step.path))
    os.rename(step.path, staging)  # over the empty directory
    sync_directory(os.path.dirname(step.path))
    _clear(Clear((staging,)), wanted, progress)


@carry_out.register(Unpack)
def _put(step: Unpack, wanted: Wanted, progress: Progress) -> Record:
    """Unpack the archive beside the path, and rename it when it is complete."""
    parent = os.path.dirname(step.path)
    staging = tempfile.mkdtemp(prefix=wanted.beside, dir=parent)
    try:
        root = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            judge = _unpacked(root, wanted, progress)
            version = version_in(staging)
            if wanted.version not in (None, version) and version is not None:
                raise Refused(
                    f"version: {step.archive} has the version {version} in its file VERSION, not {wanted.version}:"
                    " correct version or archive"
                )
            record = Record(
                wanted.sha256, version or wanted.version, judge.bytes, judge.files, kernel_release_in(staging)
            )
            with open(os.path.join(staging, RECORD), "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                json.dump(asdict(record), file, indent=2, sort_keys=True)
                file.write("\n")
            os.fchmod(root, 0o755)
            progress.say(f"{os.path.basename(step.path)}: writing to the disk")
            sync_file_system(root)
        finally:
            os.close(root)
        os.rename(staging, step.path)
        sync_directory(parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def _unpacked(root: int, wanted: Wanted, progress: Progress) -> Judge:
    """Unpack the archive below a directory, or raise Refused. A wrong digest is reported before any other error."""
    judge, done = Judge(), 0
    trouble: Refused | Damaged | str | None = None
    with open_archive(wanted.archive) as file:
        size = os.fstat(file.fileno()).st_size

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress.say(f"{os.path.basename(wanted.path)} {amount(done, size)}")

        archive = Archive(file, report)
        try:
            with archive.content() as content:
                unpack(content, judge, root)
        except (Refused, Damaged) as error:
            trouble = error
        digest = archive.digest()
    if digest != wanted.sha256:
        raise Refused(
            f"sha256: {wanted.archive}, of {done} bytes, has the SHA-256 {digest}, not {wanted.sha256}: get it again,"
            " or correct sha256"
        )
    if not trouble and not judge.files:
        trouble = "there are no files in it"
    if trouble:
        raise Refused(f"archive: {wanted.archive}: {trouble}")
    return judge
