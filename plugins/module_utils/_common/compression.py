# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression: detected from the first bytes of a file, and undone by Python where that can, or by commands, which take
little memory whatever the data are, and the other processor.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import re
import subprocess
import threading
import zlib
from importlib import import_module
from io import BufferedReader, BufferedWriter
from typing import BinaryIO, Collection, Iterable, Iterator

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import (
    PIECE,
    last_words,
    reading_end,
    writing_end,
)

HEAD = 10  # bytes by which all of them can be told apart
MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # A frame, or one that is skipped, which pzstd begins with (RFC 8878, 3.1).
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    # With its first block, or its end where there is none: a tar may begin with the name of a file BZh.txt.
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
}
READ_BY = {"gzip": "gzip", "bzip2": "bz2", "xz": "lzma"}  # modules of Python, imported where they are needed
# Memory is limited, since an archive could demand any amount; zstd has a limit of its own. xz -9 needs 65 MiB.
COMMANDS = {
    "gzip": ("gzip", "-dc"),
    "zstd": ("zstd", "-q", "-dc"),
    "xz": ("xz", "-q", "-dc", "--memlimit-decompress=512MiB"),
    "bzip2": ("bzip2", "-q", "-dc"),
}
PACKAGES = {"gzip": "gzip", "zstd": "zstd", "xz": "xz-utils", "bzip2": "bzip2"}  # of Debian, with these commands
SOURCE = re.compile(r"^(\w+: )?(/\*stdin\*\\ ?: |\(stdin\): |stdin: )?")  # what they call the file that they read
F_SETPIPE_SZ = 1031  # linux/fcntl.h; in module fcntl since Python 3.10


def compression_of(head: bytes, known: Collection[str]) -> str:
    """Return the known compression of a file that begins with these bytes, or an empty string."""
    return next((kind for kind, magic in MAGIC.items() if kind in known and magic.match(head)), "")


def uncompressed(file: BinaryIO, kind: str) -> Iterator[bytes]:
    """Yield what a compressed file holds, in pieces, or raise Damaged. `kind`: one of READ_BY, or empty."""
    reader = import_module(READ_BY[kind]) if kind else None
    content = reader.open(file) if reader else file
    try:
        yield from iter(lambda: content.read(PIECE), b"")
    except (EOFError, zlib.error, getattr(reader, "LZMAError", EOFError)) as error:
        raise Damaged(f"it cannot be uncompressed: {error}") from error
    except OSError as error:
        if error.errno is None:  # as gzip and bz2 report invalid data
            raise Damaged(f"it cannot be uncompressed: {error}") from error
        raise


class Feeder(threading.Thread):
    """The thread that gives pieces to a command, until they end or the command does."""

    def __init__(self, pipe: BufferedWriter, pieces: Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe, self._pieces = pipe, pieces
        self.error: Exception | None = None  # what the pieces raised

    def run(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError), self._pipe:
                self._pipe.writelines(self._pieces)
        except Exception as error:  # it is raised where the content is read
            self.error = error


@contextlib.contextmanager
def through_command(data: BinaryIO | Iterator[bytes], kind: str) -> Iterator[BufferedReader]:
    """Yield the uncompressed content of an open file, from where it is, or of pieces, which nobody else may take
    meanwhile.
    """
    fed = not isinstance(data, io.IOBase)
    try:
        process = subprocess.Popen(
            COMMANDS[kind],
            stdin=subprocess.PIPE if fed else data,  # type: ignore[arg-type]  # a file, where it is not fed
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Damaged(
            f"it is compressed with {kind}, and there is no command {kind} here: install it (Debian package"
            f" {PACKAGES[kind]})"
        ) from error
    with process:
        content = reading_end(process.stdout)
        widen(content)
        feeder = feed(process, data) if fed else None
        try:
            yield content
        except Damaged as error:
            # The command's message is nearer to the cause than the error of an archive that breaks off.
            raise Damaged(complaint(process, kind, feeder) or str(error)) from error
        except BaseException:
            process.kill()
            raise
        finally:
            content.close()
            if feeder:
                feeder.join()
        words = complaint(process, kind, feeder)
        if words:
            raise Damaged(words)


def feed(process: subprocess.Popen[bytes], pieces: Iterable[bytes]) -> Feeder:
    pipe = writing_end(process.stdin)
    widen(pipe)
    # From here on only the thread uses it: closing it here, too, would wait for what the thread writes.
    process.stdin = None
    feeder = Feeder(pipe, pieces)
    feeder.start()
    return feeder


def widen(pipe: BufferedReader | BufferedWriter) -> None:
    """Make a pipe as large as a piece."""
    with contextlib.suppress(OSError):  # an unprivileged user's share may be used up
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIECE)


def complaint(process: subprocess.Popen[bytes], kind: str, feeder: Feeder | None) -> str:
    """Return the command's error about data that it cannot read, or raise what kept it from getting them. A command
    that was not read to its end has none.
    """
    reading_end(process.stdout).close()
    words, status = last_words(process)
    if feeder:
        feeder.join()
        if feeder.error:
            raise feeder.error
    return SOURCE.sub(f"{kind}: ", words or f"it cannot be read (exit status {status})") if status > 0 else ""
