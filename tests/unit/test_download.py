# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads, the pure part: options, a server's answers, gpgv's verdict."""
from __future__ import annotations

import base64

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils.download import (
    Answer, Checksum, Found, Verdict, Wanted, dearmored, decide, is_complete, parse, read_answer, read_status,
)

DIGEST = "ab" * 32
CHECKSUM = Checksum("sha256", DIGEST)
OTHER = Checksum("sha256", "cd" * 32)
URL = "http://mirror/file"

BAD_OPTIONS = {
    "no URL": ({"urls": []}, "urls: the list is empty"),
    "a URL of another kind": ({"urls": [URL, "ftp://mirror/file"]}, "urls: 'ftp://mirror/file' is no URL"),
    "a URL without a host": ({"urls": ["http:///file"]}, "urls: 'http:///file' is no URL"),
    "a path as URL": ({"urls": ["/srv/file"]}, "urls: '/srv/file' is no URL"),
    "a signature of another kind": ({"signatures": ["gopher://x/y"], "keyring": "/k"}, "signature: 'gopher://x/y' is no URL"),
    "nothing to verify with": ({"checksum": None}, "checksum: nothing says what the file is to be"),
    "a signature without keys": ({"signatures": ["/s"]}, "signature and keyring belong together"),
    "keys without a signature": ({"keyring": "/k"}, "signature and keyring belong together"),
    "a checksum without its kind": ({"checksum": DIGEST}, "does not begin with sha256: or sha512:"),
    "a checksum of another kind": ({"checksum": f"md5:{DIGEST[:32]}"}, "does not begin with sha256: or sha512:"),
    "a checksum that is too short": ({"checksum": "sha256:abcd"}, "is not sha256: and 64 hexadecimal digits"),
    "a checksum with other letters": ({"checksum": f"sha256:{'xy' * 32}"}, "is not sha256: and 64 hexadecimal digits"),
    "the URL of a checksum": ({"checksum": "sha256:http://mirror/sums"}, "is not sha256: and 64 hexadecimal digits"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(case: str) -> None:
    options, words = BAD_OPTIONS[case]
    with pytest.raises(Refused) as refused:
        parse(**{"urls": [URL], "path": "/f", "checksum": f"sha256:{DIGEST}", "signatures": (), "keyring": None, **options})
    assert words in str(refused.value)


def test_a_checksum_may_be_written_in_capitals() -> None:
    assert parse([URL], "/f", f"SHA256:{DIGEST.upper()}", (), None).checksum == CHECKSUM


DECISIONS = {
    "nothing is there": (Found(), CHECKSUM, "there is no /f yet", 0),
    "a part is there": (Found(part=5), CHECKSUM, "there is no /f yet, but 5 bytes of it", 5),
    "another file": (Found(True, OTHER), CHECKSUM, f"/f has another checksum, {OTHER}", 0),
    "the right file": (Found(True, CHECKSUM), CHECKSUM, "/f is there, with the right checksum", None),
    "a file that is not signed": (Found(True, OTHER), None, "/f is not what /s signs", 0),
    "a signed file": (Found(True, OTHER, "F00D"), None, "/f is there, with the right signature", None),
    "a signed file with another checksum": (Found(True, OTHER, "F00D"), CHECKSUM, f"/f has another checksum, {OTHER}", 0),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_file_is_fetched_unless_it_is_the_right_one(case: str) -> None:
    found, checksum, reason, offset = DECISIONS[case]
    plan = decide(found, Wanted((URL,), "/f", checksum, ("/s",)))
    assert plan.reason == reason
    assert [step.offset for step in plan.steps] == ([] if offset is None else [offset])


def test_a_step_names_the_first_mirror_without_its_password_and_counts_the_others() -> None:
    step, = decide(Found(part=7), Wanted(("https://me:secret@mirror:8443/f?a=b", URL), "/f", CHECKSUM, ())).steps
    assert str(step) == "get /f from https://mirror:8443/f?a=b (or 1 more), from byte 7 on"


ANSWERS = {
    "all of it": (200, {"content-length": "10"}, 0, Answer(0, 10)),
    "all of it, where a part was asked for": (200, {"content-length": "10"}, 4, Answer(0, 10)),
    "all of it, of unknown length": (200, {}, 0, Answer(0, None)),
    "a file": (None, {"content-length": "10"}, 4, Answer(0, 10)),
    "the part": (206, {"content-range": "bytes 4-9/10", "content-length": "6"}, 4, Answer(4, 10)),
    "the part, of unknown length": (206, {"content-range": "bytes 4-9/*"}, 4, Answer(4, 10)),
    "a part without its place": (206, {"content-length": "6"}, 4, None),
    "a part from elsewhere": (206, {"content-range": "bytes 0-9/10"}, 4, None),
    "a part with another length": (206, {"content-range": "bytes 4-9/10", "content-length": "10"}, 4, None),
    "a part that ends too early": (206, {"content-range": "bytes 4-7/10"}, 4, None),
    "several parts": (206, {"content-type": "multipart/byteranges; boundary=x"}, 4, None),
    "a place that makes no sense": (206, {"content-range": "bytes 4-2/10"}, 4, None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_believed_only_where_it_is_consistent(case: str) -> None:
    status, headers, asked, answer = ANSWERS[case]
    assert read_answer(status, headers, asked) == answer


def test_a_refused_range_means_the_end_only_at_the_end() -> None:
    assert is_complete({"content-range": "bytes */10"}, 10)
    assert not is_complete({"content-range": "bytes */9"}, 10)
    assert not is_complete({}, 10)


def test_armored_keys_become_binary_and_binary_ones_stay() -> None:
    keys = bytes(range(100))
    body = base64.encodebytes(keys)
    block = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n" + body + b"=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    assert dearmored(block) == keys
    assert dearmored(b"text before\n" + block + block.replace(b"\n", b"\r\n")) == keys + keys
    assert dearmored(keys) == keys
    with pytest.raises(Refused, match="keyring: .* no base64"):
        dearmored(block.replace(body, b"!!!!\n"))


VALID = "[GNUPG:] VALIDSIG AAAA 2026-01-01 1 0 4 0 1 8 00 BBBB\n"
SAID = {
    "good": ("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID, Verdict("BBBB")),
    "bad": ("[GNUPG:] NEWSIG\n[GNUPG:] BADSIG AA name\n", Verdict(why="it is not the signature of this file (key AA)", forged=True)),
    "good and bad": (
        "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID + "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG CC name\n",
        Verdict(why="it is not the signature of this file (key CC)", forged=True),
    ),
    "by an unknown key": ("[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG AA 1 8 00 1 9 -\n[GNUPG:] NO_PUBKEY AA\n", Verdict(why="keyring lacks the key (key AA)")),
    "by an unknown and a known key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG CC 1 8 00 1 9 -\n[GNUPG:] NO_PUBKEY CC\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID, Verdict("BBBB"),
    ),
    "by an expired key": ("[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG AA name\n" + VALID, Verdict(why="the key has expired (key AA)")),
    "by a revoked key": ("[GNUPG:] NEWSIG\n[GNUPG:] REVKEYSIG AA name\n" + VALID, Verdict(why="the key was revoked (key AA)")),
    "expired": ("[GNUPG:] NEWSIG\n[GNUPG:] EXPSIG AA name\n" + VALID, Verdict(why="the signature has expired (key AA)")),
    "good, then by an expired key": (
        "[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG AA name\n" + VALID + "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AA name\n" + VALID, Verdict("BBBB"),
    ),
    "none": ("[GNUPG:] NODATA 4\n", Verdict(why="there is no signature in it")),
    "silence": ("", Verdict(why="gpgv says nothing of a good signature")),
}


@pytest.mark.parametrize("case", SAID)
def test_only_a_good_signature_by_a_valid_key_counts(case: str) -> None:
    text, verdict = SAID[case]
    assert read_status(text) == verdict
