# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compression is detected from the first bytes, and undone."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    COMMANDS,
    HEAD,
    MAGIC,
    PACKAGES,
    READ_BY,
    compression_of,
    through_command,
    uncompressed,
)
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from builders import COMPRESS
from image_builder import tar
from image_parts import cut

ALL = ("bzip2", "gzip", "xz", "zstd")
HEADS = {
    "xz": [lzma.compress(b"")[:HEAD]],
    "gzip": [gzip.compress(b"")[:3]],
    "bzip2": [bz2.compress(b"x")[:HEAD], bz2.compress(b"")[:HEAD], bz2.compress(b"x", 1)[:HEAD]],
    "zstd": [b"\x28\xb5\x2f\xfd", *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))],
    "": [b"ustar", b"BZh", b"BZh9", tar({"BZh91.txt": b"x"})[:512], b"(x", b"P*"],
}


@pytest.mark.parametrize(("kind", "head"), [(kind, head) for kind, heads in HEADS.items() for head in heads])
def test_a_compression_is_detected_from_the_first_bytes(kind: str, head: bytes) -> None:
    assert compression_of(head, ALL) == kind


def test_an_empty_file_is_not_compressed() -> None:
    assert compression_of(b"", ALL) == ""


@pytest.mark.parametrize("kind", ALL)
def test_a_compression_that_the_caller_cannot_read_is_none(kind: str) -> None:
    assert compression_of(HEADS[kind][0], set(ALL) - {kind}) == ""


def test_each_compression_has_a_command_in_a_package() -> None:
    assert set(MAGIC) == set(COMMANDS) == set(PACKAGES) == set(ALL)


# By Python


CONTENT = bytes(range(256)) * 9000  # several pieces


@pytest.mark.parametrize("kind", ["", *READ_BY])
def test_what_was_compressed_comes_out_in_pieces(kind: str) -> None:
    pieces = list(uncompressed(io.BytesIO(COMPRESS[kind](CONTENT)), kind))
    assert (b"".join(pieces), len(pieces) > 1) == (CONTENT, True)


@pytest.mark.parametrize("kind", READ_BY)
@pytest.mark.parametrize("damage", ["cut", "changed", "none at all"])
def test_damaged_data_is_an_error(kind: str, damage: str) -> None:
    data = COMPRESS[kind](CONTENT)
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "changed": data[:middle] + b"\xff" * 99 + data[middle + 99 :],
        "none at all": b"x" * 99,
    }
    with pytest.raises(Damaged, match=r"^it cannot be uncompressed: ."):
        list(uncompressed(io.BytesIO(damaged[damage]), kind))


def test_a_file_that_cannot_be_read_is_no_damage() -> None:
    with open("/proc/self/mem", "rb") as file, pytest.raises(OSError, match="Input/output error"):
        list(uncompressed(file, ""))


# By commands


DATA = os.urandom(1 << 20) + bytes(5 << 20)


@pytest.mark.parametrize("fed", [False, True], ids=["a file", "pieces"])
@pytest.mark.parametrize("kind", ALL)
def test_what_was_compressed_is_read(tmp_path: Path, kind: str, fed: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(COMPRESS[kind](DATA))
    with open(path, "rb") as file, through_command(cut(file.read()) if fed else file, kind) as content:
        assert content.read() == DATA


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("spoilt", ["cut", "with more behind it"])
def test_what_is_damaged_is_told_in_the_words_of_the_command(kind: str, spoilt: str) -> None:
    data = COMPRESS[kind](DATA)
    data = data[:-1000] if spoilt == "cut" else data + b"more" * 100
    if (kind, spoilt) == ("bzip2", "with more behind it"):  # which says so, and reads it all the same
        with through_command(cut(data), kind) as content:
            assert content.read() == DATA
        return
    with pytest.raises(Damaged, match=rf"^{kind}: \w") as damaged, through_command(cut(data), kind) as content:
        content.read()
    assert "\n" not in str(damaged.value)
    assert "stdin" not in str(damaged.value)


def test_a_command_says_more_than_who_reads_what_broke_off() -> None:
    cut_off, whole = COMPRESS["gzip"](DATA)[:-1000], COMPRESS["gzip"](DATA)
    with (
        pytest.raises(Damaged, match=r"^gzip: unexpected end of file$"),
        through_command(cut(cut_off), "gzip") as content,
    ):
        content.read()
        raise Damaged("it breaks off")
    with pytest.raises(Damaged, match=r"^it is another one$"), through_command(cut(whole), "gzip") as content:
        content.read()
        raise Damaged("it is another one")


@pytest.mark.parametrize("error", [OSError("gone"), Damaged("it ends in the middle")])
def test_what_the_pieces_raise_is_raised_and_not_what_comes_of_it(error: Exception) -> None:
    def pieces() -> Iterator[bytes]:
        yield COMPRESS["gzip"](DATA)[:1000]
        raise error

    with pytest.raises(type(error), match=str(error)), through_command(pieces(), "gzip") as content:
        content.read()


def test_who_reads_a_part_or_fails_leaves_no_thread_and_takes_no_more_pieces() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield COMPRESS["gzip"](os.urandom(1 << 16))

    before = threading.active_count()
    with through_command(endless(), "gzip") as content:
        assert len(content.read(10)) == 10
    with pytest.raises(KeyboardInterrupt), through_command(endless(), "gzip"):
        raise KeyboardInterrupt
    assert threading.active_count() == before
    assert len(taken) < 200


@pytest.mark.parametrize("kind", ALL)
def test_a_command_that_is_not_there_is_named_with_its_package(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Damaged) as damaged, through_command(cut(b""), kind):
        pass
    assert str(damaged.value) == (
        f"it is compressed with {kind}, and there is no command {kind} here: install it (Debian package"
        f" {PACKAGES[kind]})"
    )
