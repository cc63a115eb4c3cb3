# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of download: its state, and how the file is downloaded."""

from __future__ import annotations

import contextlib
import os
from io import FileIO
from typing import Callable, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import digest_of, is_at, take_turn
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._download.fetch import Received, Wrong, fetch, name_of
from ansible_collections.nested.kata.plugins.module_utils._download.options import Checksum, Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.plan import Fetch, Found, Plan, decide
from ansible_collections.nested.kata.plugins.module_utils._download.signature import Signature

# Gives a file the wanted owner and permissions, and returns whether that is a change, or True where the other argument
# is.
SetAttributes = Callable[[str, bool], bool]


def apply(
    wanted: Wanted, scratch: str, set_attributes: SetAttributes, check_mode: bool, progress: Progress
) -> tuple[Plan, Found, Checksum | None, Received, bool]:
    """Return the plan, the state found before, the file's checksum afterwards, how it was received, and whether
    anything changed.

    `scratch` is a directory for temporary files.
    """
    made: list[Signature] = []

    def signature() -> Signature:
        if not made:
            made.append(Signature(wanted, scratch))
        return made[0]

    found = look(wanted, signature, progress)
    plan = decide(found, wanted)
    received, checksum = Received(wanted.path, signed_by=found.signed_by), found.checksum
    if plan.steps:
        checksum = wanted.checksum
        if not check_mode:
            for step in plan.steps:
                received = carry_out(step, wanted, signature, set_attributes, progress)
            checksum = wanted.checksum or _checksum_of(wanted.path, "sha256")
    changed = bool(plan.steps)
    if os.path.exists(wanted.path):
        changed = set_attributes(wanted.path, changed)
    return plan, found, checksum, received, changed


def look(wanted: Wanted, signature: Callable[[], Signature], progress: Progress) -> Found:
    """Return the state of the file. `signature` is called where a signature is needed."""
    directory = os.path.dirname(wanted.path)
    if not os.path.isdir(directory):
        raise Refused(f"path: there is no directory {directory}: make it, or correct the path")
    part = os.path.getsize(wanted.part) if os.path.isfile(wanted.part) else 0
    if not os.path.lexists(wanted.path):
        return Found(part=part)
    if not os.path.isfile(wanted.path):
        raise Refused(f"path: {wanted.path} is not a regular file: name the wanted file")
    checksum = _checksum_of(wanted.path, wanted.checksum.algorithm if wanted.checksum else "sha256")
    signed_by = None
    if not wanted.checksum:
        with contextlib.suppress(Wrong):
            signed_by = signature().signer(wanted.path, progress)
    return Found(True, checksum, signed_by, part)


def _checksum_of(path: str, algorithm: str) -> Checksum:
    return Checksum(algorithm, digest_of(path, algorithm))


@contextlib.contextmanager
def alone_with(path: str, progress: Progress) -> Iterator[FileIO]:
    """Open the file of a download in progress, made where it is missing. Other runs with the same file wait."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            take_turn(descriptor, lambda: progress.say(f"{name_of(path)}: waiting for another download of it"))
            # The run that had the lock may have finished and renamed the file.
            if not is_at(descriptor, path):
                continue
            try:
                with open(descriptor, "r+b", buffering=0, closefd=False) as file:
                    yield file
            finally:
                if is_at(descriptor, path) and os.path.getsize(path) == 0:
                    os.unlink(path)
            return
        finally:
            os.close(descriptor)


def carry_out(
    step: Fetch, wanted: Wanted, signature: Callable[[], Signature], set_attributes: SetAttributes, progress: Progress
) -> Received:
    """Download, verify, and give the file its name, unless another run did so meanwhile."""
    with alone_with(wanted.part, progress) as file:
        found = look(wanted, signature, progress)
        if not decide(found, wanted).steps:
            file.truncate(0)
            return Received(wanted.path, signed_by=found.signed_by)

        def verify() -> str | None:
            progress.say(f"{name_of(wanted.path)}: verifying")
            if wanted.checksum:
                checksum = _checksum_of(wanted.part, wanted.checksum.algorithm)
                if checksum != wanted.checksum:
                    raise Wrong(f"it has the checksum {checksum}, expected {wanted.checksum}")
            return signature().signer(wanted.part, progress) if wanted.signatures else None

        if wanted.signatures:
            signature()  # a bad one is reported before the download
        received = fetch(step, file, wanted, verify, progress)
        _prepare(wanted, set_attributes)
        os.fsync(file.fileno())
        os.replace(wanted.part, wanted.path)
        return received


def _prepare(wanted: Wanted, set_attributes: SetAttributes) -> None:
    """Give the file owner and permissions before it gets its name: those of the file that it replaces or of a new file,
    and the wanted ones.
    """
    if os.path.exists(wanted.path):
        state = os.stat(wanted.path)
        os.chown(wanted.part, state.st_uid, state.st_gid)
        os.chmod(wanted.part, state.st_mode & 0o7777)
    else:
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(wanted.part, 0o666 & ~mask)
    set_attributes(wanted.part, False)
