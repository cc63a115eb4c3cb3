# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are given to gpgv as it takes them, and only its good verdict counts."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._download.gpgv import Verdict, dearmored, read_status


def test_armored_keys_become_binary_and_binary_ones_stay() -> None:
    keys = bytes(range(100))
    body = base64.encodebytes(keys)
    block = (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n" + body + b"=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    assert dearmored(block) == keys
    assert dearmored(b"text before\n" + block + block.replace(b"\n", b"\r\n")) == keys + keys
    assert dearmored(keys) == keys
    with pytest.raises(Refused, match=r"keyring: .* not valid base64"):
        dearmored(block.replace(body, b"!!!!\n"))


VALID = "[GNUPG:] VALIDSIG AAAA 2026-01-01 1 0 4 0 1 8 00 BBBB\n"
SAID = {
    "good": ("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID, Verdict("BBBB")),
    "bad": (
        "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG AA name\n",
        Verdict(why="it is not the signature of this file (key AA)", forged=True),
    ),
    "good and bad": (
        "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID + "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG CC name\n",
        Verdict(why="it is not the signature of this file (key CC)", forged=True),
    ),
    "by an unknown key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG AA 1 8 00 1 9 -\n[GNUPG:] NO_PUBKEY AA\n",
        Verdict(why="keyring lacks the key (key AA)"),
    ),
    "by an unknown and a known key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG CC 1 8 00 1 9 -\n[GNUPG:] NO_PUBKEY CC\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA"
        " name\n" + VALID,
        Verdict("BBBB"),
    ),
    "by an expired key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG AA name\n" + VALID,
        Verdict(why="the key has expired (key AA)"),
    ),
    "by a revoked key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] REVKEYSIG AA name\n" + VALID,
        Verdict(why="the key was revoked (key AA)"),
    ),
    "expired": (
        "[GNUPG:] NEWSIG\n[GNUPG:] EXPSIG AA name\n" + VALID,
        Verdict(why="the signature has expired (key AA)"),
    ),
    "good, then by an expired key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG AA name\n" + VALID + "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID,
        Verdict("BBBB"),
    ),
    "none": ("[GNUPG:] NODATA 4\n", Verdict(why="there is no signature in it")),
    "silence": ("", Verdict(why="gpgv reports no good signature")),
}


@pytest.mark.parametrize("case", SAID)
def test_only_a_good_signature_by_a_valid_key_counts(case: str) -> None:
    text, verdict = SAID[case]
    assert read_status(text) == verdict
