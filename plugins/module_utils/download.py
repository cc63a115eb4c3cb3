# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads: what is wanted, what a server's answer means, and what gpgv says."""
from __future__ import annotations

import base64
import binascii
import contextlib
import re
import subprocess
from dataclasses import dataclass
from typing import Dict, Iterable, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown

DIGITS = {"sha256": 64, "sha512": 128}
SCHEMES = ("http", "https", "file")
PART = ".part"


@dataclass(frozen=True)
class Checksum:
    """What a file's content is to be."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


@dataclass(frozen=True)
class Wanted:
    """What the task asked for."""

    urls: Tuple[str, ...]
    path: str
    checksum: Optional[Checksum]
    signatures: Tuple[str, ...]

    @property
    def part(self) -> str:
        return self.path + PART


@dataclass(frozen=True)
class Found:
    """What lies there."""

    there: bool = False
    checksum: Optional[Checksum] = None
    """Of the file, by the algorithm that was asked for."""
    signed_by: Optional[str] = None
    """Whose signature of the file is good; asked only where there is no checksum to compare."""
    part: int = 0
    """Bytes of a download that was interrupted."""


@dataclass(frozen=True)
class Fetch:
    """Get the file from the first URL that gives it."""

    urls: Tuple[str, ...]
    path: str
    offset: int

    def __str__(self) -> str:
        first = shown(self.urls[0]) + (f" (or {len(self.urls) - 1} more)" if len(self.urls) > 1 else "")
        return f"get {self.path} from {first}" + (f", from byte {self.offset} on" if self.offset else "")


@dataclass(frozen=True)
class Plan:
    """The steps that lead from what was found to what is wanted, and why they are needed."""

    steps: Tuple[Fetch, ...]
    reason: str


def parse(urls: Sequence[str], path: str, checksum: Optional[str], signatures: Sequence[str], keyring: Optional[str]) -> Wanted:
    """Return what the options mean, or raise Refused."""
    if not urls:
        raise Refused("urls: the list is empty: name at least one URL")
    for option, url in [*(("urls", url) for url in urls), *(("signature", url) for url in signatures if "://" in url)]:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "file" else parts.hostname):
            raise Refused(f"{option}: {url!r} is no URL that begins with http://, https:// or file://")
    if not checksum and not signatures:
        raise Refused("checksum: nothing says what the file is to be: give its checksum, or signature and keyring")
    if bool(signatures) != bool(keyring):
        raise Refused("signature and keyring belong together: give both or none")
    return Wanted(tuple(urls), path, parse_checksum(checksum) if checksum else None, tuple(signatures))


def parse_checksum(text: str) -> Checksum:
    """Return a checksum, or raise Refused."""
    algorithm, colon, digest = text.strip().partition(":")
    algorithm, digest = algorithm.lower(), digest.lower()
    if not colon or algorithm not in DIGITS:
        raise Refused(f"checksum: {text!r} does not begin with {' or '.join(f'{name}:' for name in DIGITS)}")
    if not re.fullmatch(r"[0-9a-f]*", digest) or len(digest) != DIGITS[algorithm]:
        raise Refused(f"checksum: {text!r} is not {algorithm}: and {DIGITS[algorithm]} hexadecimal digits")
    return Checksum(algorithm, digest)


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return what is to be done."""
    fetch = (Fetch(wanted.urls, wanted.path, found.part),)
    if not found.there:
        return Plan(fetch, f"there is no {wanted.path} yet" + (f", but {found.part} bytes of it" if found.part else ""))
    if wanted.checksum and found.checksum != wanted.checksum:
        return Plan(fetch, f"{wanted.path} has another checksum, {found.checksum}")
    if not wanted.checksum and not found.signed_by:
        return Plan(fetch, f"{wanted.path} is not what {' or '.join(map(shown, wanted.signatures))} signs")
    return Plan((), f"{wanted.path} is there, with the right {'checksum' if wanted.checksum else 'signature'}")


# --- what a server answers ---

@dataclass(frozen=True)
class Answer:
    """Where the bytes that follow belong, and how many there are in all, if the server says so."""

    offset: int
    total: Optional[int]


def read_answer(status: Optional[int], headers: Dict[str, str], asked: int) -> Optional[Answer]:
    """Return what an answer to a request for all bytes from `asked` on means, None where it cannot be trusted. Header names are in lower case."""
    length = headers.get("content-length", "")
    count = int(length) if length.isdigit() else None
    if status != 206:
        return Answer(0, count)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", "").strip())
    if not match:
        return None
    start, end = int(match[1]), int(match[2])
    total = end + 1 if match[3] == "*" else int(match[3])
    if start != asked or end < start or end + 1 != total or count not in (None, end - start + 1):
        return None
    return Answer(start, total)


def is_complete(headers: Dict[str, str], offset: int) -> bool:
    """Tell whether a refusal of a range (416) means that there is nothing beyond it."""
    return headers.get("content-range", "").strip() == f"bytes */{offset}"


# --- signatures ---

def dearmored(keys: bytes) -> bytes:
    """Return keys as gpgv takes them: binary. Several blocks may follow each other."""
    blocks = re.findall(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", keys, re.DOTALL)
    if not blocks:
        return keys
    binary = b""
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        # headers, an empty line, the keys, and a line with their checksum
        body = lines[lines.index(b"") + 1:] if b"" in lines else lines
        try:
            binary += base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
        except binascii.Error as error:
            raise Refused(f"keyring: it holds a block of keys that is no base64 ({error})") from error
    return binary


@dataclass(frozen=True)
class Verdict:
    """What gpgv says of a file and its signature."""

    signed_by: Optional[str] = None
    """Fingerprint of the primary key, None where the signature is not good."""
    why: str = ""
    forged: bool = False
    """The signature is one by a known key, but not of this file."""


# What gpgv says on its status descriptor (doc/DETAILS of GnuPG), and what it means.
STATUS = {
    "EXPSIG": "the signature has expired", "EXPKEYSIG": "the key has expired", "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "keyring lacks the key", "NODATA": "there is no signature in it", "BADSIG": "it is not the signature of this file",
    "ERRSIG": "it cannot be checked",
}


def read_status(text: str) -> Verdict:
    """Return what the status lines of gpgv mean. One good signature is enough, and a forged one spoils all."""
    said = [line.split()[1:] for line in text.splitlines() if line.startswith("[GNUPG:] ") and line.split()[1:]]
    words = [line[0] for line in said]
    if "BADSIG" in words:
        return Verdict(why=_why(said, "BADSIG"), forged=True)
    good = False
    for word, line in zip(words, said):
        # VALIDSIG comes also after EXPKEYSIG and REVKEYSIG. The last word in it is the fingerprint of the primary key.
        good = word == "GOODSIG" or good and word != "NEWSIG"
        if good and word == "VALIDSIG":
            return Verdict(signed_by=line[-1])
    for word in STATUS:
        if word in words:
            return Verdict(why=_why(said, word))
    return Verdict(why="gpgv says nothing of a good signature")


def ask_gpgv(command: Sequence[str], pieces: Iterable[bytes]) -> Verdict:
    """Return what gpgv, called so that it says its status on stdout, means about the pieces of a file on its stdin."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as gpgv:
        # It may end before it has read all, for example where there is no signature.
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                gpgv.stdin.write(piece)
        with contextlib.suppress(BrokenPipeError):
            gpgv.stdin.close()
        return read_status(gpgv.stdout.read().decode("utf-8", "replace"))


def _why(said: Sequence[Sequence[str]], word: str) -> str:
    line = next(line for line in said if line[0] == word)
    key = f" (key {line[1]})" if len(line) > 1 and word != "NODATA" else ""
    return f"{STATUS[word]}{key}"
