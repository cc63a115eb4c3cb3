# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signature needs keys that can be read, and a file that gpgv finds good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._download import signature
from ansible_collections.nested.kata.plugins.module_utils._download.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._download.signature import Signature


def test_without_gpgv_a_signature_is_refused_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature.shutil, "which", lambda name: None)
    with pytest.raises(
        Refused, match=r"^signature: there is no gpgv on this machine: install it .Debian package gpgv.$"
    ):
        Signature(Wanted(("http://x/f",), "/f", None, ("/s",), "/k"), str(tmp_path))


@pytest.mark.skipif(not shutil.which("gpgv"), reason="needs gpgv")
def test_keys_and_signatures_that_cannot_be_read_are_refused_before_the_download(tmp_path: Path) -> None:
    keys, there = tmp_path / "keys", tmp_path / "s"
    with pytest.raises(Refused, match=f"^keyring: {keys}: No such file or directory$"):
        Signature(Wanted(("http://x/f",), "/f", None, (str(there),), str(keys)), str(tmp_path))
    keys.write_bytes(b"")
    with pytest.raises(Refused, match=f"^signature: {there}: No such file or directory$"):
        Signature(Wanted(("http://x/f",), "/f", None, (str(there),), str(keys)), str(tmp_path))
    there.write_bytes(b"no signature")
    with pytest.raises(Refused, match=f"^signature: {there}, with the keys in {keys}: there is no signature in it$"):
        Signature(Wanted(("http://x/f",), "/f", None, (str(there),), str(keys)), str(tmp_path))
