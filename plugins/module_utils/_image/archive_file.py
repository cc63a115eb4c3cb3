# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images in files, plain or compressed: read as streams, and replaced as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
from io import FileIO
from typing import BinaryIO, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    COMMANDS,
    HEAD,
    PACKAGES,
    compression_of,
    through_command,
)
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    last_words,
    sync_directory,
    writing_end,
)
from ansible_collections.nested.kata.plugins.module_utils._common.tar import check_end
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import Reading
from ansible_collections.nested.kata.plugins.module_utils._image.contents import Contents, contents

SUFFIXES = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".zst": "zstd",
    ".tzst": "zstd",
    ".xz": "xz",
    ".txz": "xz",
    ".bz2": "bzip2",
    ".tbz2": "bzip2",
    ".tbz": "bzip2",
}
PACKING = {"gzip": ("gzip", "-c"), "zstd": ("zstd", "-q", "-c"), "xz": ("xz", "-c"), "bzip2": ("bzip2", "-c")}

TRIES = 20  # to make a file that other tasks make and remove, too


class Unwritable(Exception):
    """The file cannot be written: the message is the reason."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Yield the uncompressed content of an archive, to be read once from its beginning to its end."""
    with open(path, "rb") as file:
        kind = compression_of(os.pread(file.fileno(), HEAD, 0), COMMANDS)  # the position stays at the beginning
        if not kind:
            yield file
            return
        with through_command(file, kind) as content:
            yield content
            check_end(content)


def listed(path: str) -> Contents:
    """Return what is in a file. Layers are skipped: in a file that is not compressed, without reading them."""
    reading = Reading()
    with opened(path) as archive:
        for _dummy in reading.members(archive):
            pass
    return contents(reading)


class Writing:
    """A new file beside the file that it replaces when it is complete. It is written in parts, each of which can be
    taken back; a compressed one consists of as many frames.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
        self._before = identity(path)
        self._file: FileIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._kind = SUFFIXES.get(os.path.splitext(path)[1])
        self._begun = (0, 0)  # bytes in the file, and bytes before they were compressed, where the part begins
        self.size = 0

    def start(self) -> None:
        """Make the file, in the place of one that an interrupted task may have left."""
        try:
            self._file = os.fdopen(self._made(), "wb", buffering=0)
        except OSError as error:
            raise Unwritable(f"{self._beside} cannot be made: {error.strerror}") from error

    def _made(self) -> int:
        """Return the descriptor of a new file that is locked, so that no other task takes it for a leftover."""
        for _dummy in range(TRIES):
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(
                    self._beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
                if self._locked(descriptor):
                    return descriptor
                os.close(descriptor)  # another task took it for a leftover before it was locked
                continue
            with contextlib.suppress(FileNotFoundError):
                self._remove_leftover()
        raise Unwritable(f"other tasks make and remove {self._beside} all the time: wait for them")

    def _locked(self, descriptor: int) -> bool:
        """Return whether an open file is locked by this task, and is still the one beside the path."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        state = os.fstat(descriptor)
        return identity(self._beside)[:2] == (state.st_dev, state.st_ino)

    def _remove_leftover(self) -> None:
        state = os.lstat(self._beside)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            raise Unwritable(
                f"{self._beside} is there, which no task of user {os.geteuid()} has left: remove it, or choose another"
                " directory"
            )
        descriptor = os.open(self._beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self._locked(descriptor):
                os.unlink(self._beside)
            elif os.path.lexists(self._beside):
                raise Unwritable("another task is writing it: wait for that task")
        finally:
            os.close(descriptor)

    def _open(self) -> FileIO:
        if self._file is None:
            raise TypeError(f"{self._beside} is not open")
        return self._file

    def begin(self) -> None:
        """Begin a part."""
        file = self._open()
        self._begun = (os.fstat(file.fileno()).st_size, self.size)
        if self._kind:
            try:
                self._process = subprocess.Popen(
                    PACKING[self._kind], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE
                )
            except FileNotFoundError as error:
                raise Unwritable(
                    f"there is no command {self._kind} here: install it (Debian package {PACKAGES[self._kind]}), or"
                    " choose another suffix"
                ) from error

    def write(self, piece: bytes) -> None:
        try:
            if self._process:
                writing_end(self._process.stdin).write(piece)
            else:
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._open().write(rest) :]
        except OSError as error:
            raise Unwritable(self._complaint() or error.strerror) from error
        self.size += len(piece)

    def _complaint(self) -> str:
        """Return the error of the command that compresses, after its end, or nothing."""
        process, self._process = self._process, None
        if not process:
            return ""
        with contextlib.suppress(OSError):
            writing_end(process.stdin).close()
        said, status = last_words(process)
        return said if status else ""

    def complete(self) -> None:
        """End a part, which stays."""
        complaint = self._complaint()
        if complaint:
            raise Unwritable(complaint)

    def take_back(self) -> None:
        """Remove what was written since the part began."""
        self._end_process()
        file = self._open()
        length, self.size = self._begun
        os.ftruncate(file.fileno(), length)
        os.lseek(file.fileno(), length, os.SEEK_SET)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            with process:  # which closes its pipes
                writing_end(process.stdin).raw.close()  # what is left in the buffer is not wanted

    def finish(self) -> None:
        """Rename the file to its path, with the mode and owner of the file that it replaces."""
        file = self._open()
        try:
            if identity(self._path) != self._before:
                raise Unwritable("another task has written it since this one began: run this one again")
            with contextlib.suppress(FileNotFoundError):
                before = os.lstat(self._path)
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
            os.rename(self._beside, self._path)
            sync_directory(os.path.dirname(self._path))
        except OSError as error:
            raise Unwritable(error.strerror) from error
        file.close()
        self._file = None

    def give_up(self) -> None:
        """Remove what was written."""
        self._end_process()
        if self._file:
            os.unlink(self._beside)
            self._file.close()
            self._file = None


def identity(path: str) -> tuple[int, ...]:
    """Return what distinguishes a file from others that have or had its path; nothing where there is none."""
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
