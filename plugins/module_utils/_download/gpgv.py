# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpgv: the keys that it accepts, and its verdict on a file and its signature."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import subprocess
from dataclasses import dataclass
from typing import Iterable, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import reading_end, writing_end


def dearmored(keys: bytes) -> bytes:
    """Return keys as gpgv accepts them: binary. Several blocks may follow each other."""
    blocks = re.findall(
        rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", keys, re.DOTALL
    )
    if not blocks:
        return keys
    binary = b""
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        # headers, an empty line, the keys, and a line with their checksum
        body = lines[lines.index(b"") + 1 :] if b"" in lines else lines
        try:
            binary += base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
        except binascii.Error as error:
            raise Refused(f"keyring: it holds a block of keys that is not valid base64 ({error})") from error
    return binary


@dataclass(frozen=True)
class Verdict:
    """The verdict of gpgv on a file and its signature."""

    signed_by: str | None = None
    """Fingerprint of the primary key, None where the signature is not good."""
    why: str = ""
    forged: bool = False
    """Whether the signature is by a known key, but not of this file."""


# The keywords that gpgv writes to its status descriptor (doc/DETAILS of GnuPG), and their meaning.
STATUS = {
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "keyring lacks the key",
    "NODATA": "there is no signature in it",
    "BADSIG": "it is not the signature of this file",
    "ERRSIG": "it cannot be checked",
}


def read_status(text: str) -> Verdict:
    """Return the verdict in the status lines of gpgv. One good signature is enough, unless another one is forged."""
    status = [line.split()[1:] for line in text.splitlines() if line.startswith("[GNUPG:] ") and line.split()[1:]]
    words = [line[0] for line in status]
    if "BADSIG" in words:
        return Verdict(why=_why(status, "BADSIG"), forged=True)
    good = False
    for word, line in zip(words, status):
        # VALIDSIG comes also after EXPKEYSIG and REVKEYSIG. The last word in it is the fingerprint of the primary key.
        good = word == "GOODSIG" or (good and word != "NEWSIG")
        if good and word == "VALIDSIG":
            return Verdict(signed_by=line[-1])
    for word in STATUS:
        if word in words:
            return Verdict(why=_why(status, word))
    return Verdict(why="gpgv reports no good signature")


def ask_gpgv(command: Sequence[str], pieces: Iterable[bytes]) -> Verdict:
    """Return the verdict of gpgv, called with its status on stdout, on the pieces of a file on its stdin."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as gpgv:
        file, answer = writing_end(gpgv.stdin), reading_end(gpgv.stdout)
        # It may end before it has read all, for example where there is no signature.
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                file.write(piece)
        with contextlib.suppress(BrokenPipeError):
            file.close()
        return read_status(answer.read().decode("utf-8", "replace"))


def _why(status: Sequence[Sequence[str]], word: str) -> str:
    line = next(line for line in status if line[0] == word)
    key = f" (key {line[1]})" if len(line) > 1 and word != "NODATA" else ""
    return f"{STATUS[word]}{key}"
