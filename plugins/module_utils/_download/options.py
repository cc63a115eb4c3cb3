# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of download, parsed and checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Mapping
from urllib.parse import urlsplit

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

DIGITS = {"sha256": 64, "sha512": 128}
SCHEMES = ("http", "https", "file")
PART = ".part"


@dataclass(frozen=True)
class Checksum:
    """The checksum of the wanted content."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


@dataclass(frozen=True)
class Wanted:
    """The options of the task."""

    urls: tuple[str, ...]
    path: str
    checksum: Checksum | None = None
    signatures: tuple[str, ...] = ()
    keyring: str | None = None
    uncompressed: bool = False
    """Whether the signature is of the uncompressed content."""
    timeout: int = 30
    retries: int = 2

    @property
    def part(self) -> str:
        return self.path + PART


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the parsed options of the module, or raise Refused."""
    urls, checksum, signatures, keyring = options["urls"], options["checksum"], options["signature"], options["keyring"]
    if options["timeout"] < 1 or options["retries"] < 0:
        raise Refused(
            f"timeout must be at least 1 and retries at least 0, found {options['timeout']} and {options['retries']}"
        )
    if not urls:
        raise Refused("urls: the list is empty: name at least one URL")
    for option, url in [*(("urls", url) for url in urls), *(("signature", url) for url in signatures if "://" in url)]:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "file" else parts.hostname):
            raise Refused(f"{option}: {url!r} is not a URL that begins with http://, https:// or file://")
    if not checksum and not signatures:
        raise Refused("checksum: there is nothing to verify the file with: give its checksum, or signature and keyring")
    if bool(signatures) != bool(keyring):
        raise Refused("signature and keyring belong together: give both or none")
    return Wanted(
        urls=tuple(urls),
        path=os.path.realpath(options["path"]),
        checksum=parse_checksum(checksum) if checksum else None,
        signatures=tuple(signatures),
        keyring=keyring,
        uncompressed=options["signed"] == "uncompressed",
        timeout=options["timeout"],
        retries=options["retries"],
    )


def parse_checksum(text: str) -> Checksum:
    """Return a checksum, or raise Refused."""
    algorithm, colon, digest = text.strip().partition(":")
    algorithm, digest = algorithm.lower(), digest.lower()
    if not colon or algorithm not in DIGITS:
        raise Refused(f"checksum: {text!r} does not begin with {' or '.join(f'{name}:' for name in DIGITS)}")
    if not re.fullmatch(r"[0-9a-f]*", digest) or len(digest) != DIGITS[algorithm]:
        raise Refused(f"checksum: {text!r} is not {algorithm}: and {DIGITS[algorithm]} hexadecimal digits")
    return Checksum(algorithm, digest)
