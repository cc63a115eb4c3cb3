# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, whatever is in them: locks, digests, writing through to the disk, and the pipes of commands."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import stat
import subprocess
import tempfile
import time
from io import BufferedReader, BufferedWriter
from typing import IO, Callable, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

PIECE = 1 << 20
LOCKS = "/run/nested-kata-locks"  # root's
TURN_SECONDS = 6 * 3600.0  # how long another run may hold a lock: the longest builds a kernel, maybe in an emulator


def take_turn(descriptor: int, waiting: Callable[[], None], seconds: float = TURN_SECONDS) -> None:
    """Lock an open file until it is closed. While another process has the lock, `waiting` is called repeatedly."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                raise Refused(
                    f"{path} is still locked by another run after {seconds:g} s: see `fuser {path}`"
                ) from None
            waiting()
            time.sleep(0.2)


def is_at(descriptor: int, path: str) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_of(directory: str) -> str:
    """Return the path of the lock of a directory, in a directory that only root has, or only the user who runs this."""
    user = os.geteuid()
    locks = LOCKS if user == 0 else os.path.join(tempfile.gettempdir(), f"nested-kata-locks-{user}")
    found = None
    while found is None:  # somebody may remove it while it is empty
        with contextlib.suppress(FileExistsError):
            os.mkdir(locks, 0o700)
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(locks)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise Refused(f"{locks} is not a directory that only the user {user} may use: remove it")
    there = os.stat(directory)
    return os.path.join(locks, f"{there.st_dev}-{there.st_ino}")


@contextlib.contextmanager
def alone_in(directory: str, waiting: Callable[[], None]) -> Iterator[int]:
    """Lock a directory against other processes that call this. A process that inherits the yielded descriptor holds the
    lock, too.

    The lock is a file that nobody else may open. Whoever may read a directory can lock that, and hold up root.
    """
    while True:
        path = lock_of(directory)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue  # the directory of locks
        try:
            take_turn(descriptor, waiting)
            # The process that had the lock removes the file.
            if is_at(descriptor, path):
                try:
                    yield descriptor
                finally:
                    if is_at(descriptor, path):
                        os.unlink(path)
                return
        finally:
            os.close(descriptor)


def digest_of(path: str, algorithm: str = "sha256", copy: str | None = None) -> str:
    """Return a file's digest in hexadecimal; where `copy` is given, the file is copied there on the way, down to the
    disk.
    """
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file, open(copy, "xb") if copy else contextlib.nullcontext() as target:
        for piece in iter(lambda: file.read(PIECE), b""):
            digest.update(piece)
            if target:
                target.write(piece)
        if target:
            target.flush()
            os.fsync(target.fileno())
    return digest.hexdigest()


def unescaped(path: str) -> str:
    """Return a path of /proc/self/mountinfo with its blanks, which the kernel writes as \\040
    (proc_pid_mountinfo(5)).
    """
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def sync_directory(directory: str) -> None:
    """Write the names in a directory to the disk, so that a rename or removal there is permanent."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Write all data of an open file's file system to the disk: one call where there are many files (syncfs(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def reading_end(pipe: IO[bytes] | None) -> BufferedReader:
    """Return the pipe that a process was started to write into, which its type leaves open."""
    if not isinstance(pipe, BufferedReader):
        raise TypeError("no pipe to read from")
    return pipe


def writing_end(pipe: IO[bytes] | None) -> BufferedWriter:
    """Return the pipe that a process was started to read from, which its type leaves open."""
    if not isinstance(pipe, BufferedWriter):
        raise TypeError("no pipe to write into")
    return pipe


def last_words(process: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Wait for the end of a command, and return its stderr, in one line, and its exit status."""
    words = reading_end(process.stderr).read()
    return " ".join(words.decode("utf-8", "replace").split()), process.wait()
