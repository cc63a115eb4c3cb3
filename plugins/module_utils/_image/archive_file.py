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
import tarfile
from io import FileIO
from typing import BinaryIO, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    last_words,
    reading_end,
    sync_directory,
    writing_end,
)
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import Packed, Reading, packed
from ansible_collections.nested.kata.plugins.module_utils._image.layers import PIECE

SUFFIXES = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}
PACKING = {"gzip": ("gzip", "-c"), "zstd": ("zstd", "-q", "-c")}
UNPACKING = {"gzip": ("gzip", "-dc"), "zstd": ("zstd", "-q", "-dc")}


class Unwritable(Exception):
    """The file cannot be written: the message is the reason."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[tarfile.TarFile]:
    """Yield the archive in a file, to be read once from its beginning to its end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kind = compression_of(os.pread(descriptor, 4, 0), UNPACKING)  # the position stays at the beginning
        with open(descriptor, "rb", closefd=False) as file:
            if not kind:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    yield archive
            else:
                with uncompressed(file, kind) as content, tarfile.open(
                    fileobj=content, mode="r|", bufsize=PIECE
                ) as archive:
                    yield archive
    except tarfile.TarError as error:
        raise Damaged(f"it is not a tar archive, or ends too early ({error})") from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def uncompressed(file: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    command = UNPACKING[kind]
    try:
        process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Damaged(f"it is compressed with {kind}, and there is no command {kind} here: install it") from error
    with process:
        content = reading_end(process.stdout)
        try:
            yield content
            for _dummy in iter(lambda: content.read(PIECE), b""):
                pass
        except (Damaged, tarfile.TarError) as error:
            # The command's message is nearer to the cause than the error of a tar archive that breaks off.
            raise Damaged(complaint(process) or str(error)) from error
        finally:
            content.close()
        words = complaint(process)
        if words:
            raise Damaged(words)


def complaint(process: subprocess.Popen[bytes]) -> str:
    """Return the message of a command that failed by itself, or nothing."""
    reading_end(process.stdout).close()
    said, status = last_words(process)
    return said if status > 0 else ""


def listed(path: str) -> tuple[Packed, ...]:
    """Return the images in a file. Layers are skipped: in a file that is not compressed, without reading them."""
    reading = Reading()
    with opened(path) as archive:
        for _dummy in reading.members(archive):
            pass
    return packed(reading)


class Writing:
    """A new file beside the file that it replaces when it is complete."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
        self._file: FileIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.size = 0

    def start(self) -> None:
        """Begin, and overwrite what an interrupted task may have left."""
        try:
            descriptor = os.open(self._beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unwritable(f"{self._beside} cannot be made: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            self._file = None
            raise Unwritable("another task is writing it: wait for that task") from error
        os.ftruncate(descriptor, 0)
        kind = SUFFIXES.get(os.path.splitext(self._path)[1])
        if kind:
            try:
                self._process = subprocess.Popen(
                    PACKING[kind], stdin=subprocess.PIPE, stdout=descriptor, stderr=subprocess.PIPE
                )
            except FileNotFoundError as error:
                raise Unwritable(f"there is no command {kind} here: install it, or choose another suffix") from error

    @property
    def _begun(self) -> FileIO:
        if self._file is None:
            raise TypeError(f"{self._beside} is not open")
        return self._file

    def write(self, piece: bytes) -> None:
        try:
            if self._process:
                writing_end(self._process.stdin).write(piece)
            else:
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._begun.write(rest) :]
        except OSError as error:
            raise Unwritable(self._complaint() or error.strerror) from error
        self.size += len(piece)

    def _complaint(self) -> str:
        if not self._process:
            return ""
        with contextlib.suppress(OSError):
            writing_end(self._process.stdin).close()
        said, status = last_words(self._process)
        return said if status else ""

    def finish(self) -> None:
        """Rename the file to its path, with the mode and owner of the file that it replaces."""
        complaint = self._complaint()
        if complaint:
            raise Unwritable(complaint)
        file = self._begun
        try:
            with contextlib.suppress(FileNotFoundError):
                before = os.stat(self._path)
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
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._file:
            os.unlink(self._beside)
            self._file.close()
            self._file = None
