# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A detached signature: fetched, and verified by gpgv."""

from __future__ import annotations

import http.client
import os
import shutil
from typing import Iterator

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import open_url
from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    HEAD,
    READ_BY,
    compression_of,
    uncompressed,
)
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._download.fetch import (
    Failed,
    Wrong,
    name_of,
    reason_of,
)
from ansible_collections.nested.kata.plugins.module_utils._download.gpgv import Verdict, ask_gpgv, dearmored
from ansible_collections.nested.kata.plugins.module_utils._download.options import Wanted

LARGEST_SIGNATURE = 1 << 20


class Signature:
    """A detached signature with the keys that may have made it, for gpgv."""

    def __init__(self, wanted: Wanted, scratch: str) -> None:
        self._keyring = wanted.keyring or ""
        self._uncompressed = wanted.uncompressed
        if not shutil.which("gpgv"):
            raise Refused("signature: there is no gpgv on this machine: install it (Debian package gpgv)")
        try:
            with open(self._keyring, "rb") as file:
                keys = dearmored(file.read())
        except OSError as error:
            raise Refused(f"keyring: {self._keyring}: {error.strerror}") from error
        with open(os.path.join(scratch, "keys"), "wb") as file:
            file.write(keys)
        stored = os.path.join(scratch, "signature")
        self._gpgv = [
            "gpgv",
            "--homedir",
            scratch,
            "--status-fd",
            "1",
            "--keyring",
            os.path.join(scratch, "keys"),
            stored,
            "-",
        ]
        failures = []
        for self._origin in wanted.signatures:
            try:
                with open(stored, "wb") as file:
                    file.write(self._content(wanted.timeout))
                # A signature that no file could satisfy is detected before a long download.
                verdict = ask_gpgv(self._gpgv, ())
                if verdict.forged or verdict.signed_by:
                    return
                failures.append(self._bad(verdict))
            except Failed as error:
                failures.append(f"{self._origin}: {error}")
        raise Refused(f"signature: {'; '.join(failures)}")

    def _content(self, timeout: int) -> bytes:
        try:
            if "://" in self._origin:
                with open_url(self._origin, timeout=timeout, decompress=False) as answer:
                    content: bytes = answer.read(LARGEST_SIGNATURE)
                    return content
            with open(self._origin, "rb") as file:
                return file.read(LARGEST_SIGNATURE)
        except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
            raise Failed(reason_of(error)) from error

    def _bad(self, verdict: Verdict) -> str:
        return f"{self._origin}, with the keys in {self._keyring}: {verdict.why}"

    def signer(self, path: str, progress: Progress) -> str:
        """Return the fingerprint of the key that signed the file, or raise Wrong."""
        verdict = ask_gpgv(self._gpgv, self._pieces(path, progress))
        if verdict.forged:
            raise Wrong(f"signature: {self._bad(verdict)}")
        if not verdict.signed_by:
            raise Refused(f"signature: {self._bad(verdict)}")
        return verdict.signed_by

    def _pieces(self, path: str, progress: Progress) -> Iterator[bytes]:
        with open(path, "rb") as file:
            kind = compression_of(file.read(HEAD), READ_BY)
            if self._uncompressed and not kind:
                raise Wrong("it is not compressed by xz, gzip or bzip2, though signed is uncompressed")
            size = os.path.getsize(path)
            file.seek(0)
            try:
                for piece in uncompressed(file, kind if self._uncompressed else ""):
                    yield piece
                    progress.say(f"{name_of(path)}: verifying the signature, {amount(file.tell(), size)}")
            except Damaged as error:
                raise Wrong(str(error)) from error
