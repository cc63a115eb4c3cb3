# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of every layout, read as streams."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_tars
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._image import archive_reader
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import (
    Layer,
    Reading,
    Stream,
    measured,
    saved,
    unpacked,
)
from ansible_collections.nested.kata.plugins.module_utils._image.contents import contents
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, verified
from builders import COMPRESS
from hostile_tars import END, HEADERS, Entry, entry, file
from hypothesis import given
from hypothesis import strategies as st
from image_builder import Made, digest, layer, legacy, made, oci, tar
from image_parts import cut, layers_in

BASE, MIDDLE, TOP = layer(b"base" * 1000), layer(b"middle"), layer(b"top")
IMAGE = made([BASE, MIDDLE, TOP])
TWICE = made([BASE, MIDDLE, BASE, TOP])


# What daemons save


LAYOUTS = {"20.10": lambda image: legacy(image, ["a:1"]), "25": lambda image: oci({"a:1": [image]})}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "image", [IMAGE, TWICE, made([layer(b"only")]), made([])], ids=["three", "twice", "one", "none"]
)
def test_layers_of_every_layout_are_told_as_they_come_by(layout: str, image: Made) -> None:
    found, manifest = layers_in(verified(saved(cut(LAYOUTS[layout](image)), image.diff_ids)))
    assert found == dict(zip(image.diff_ids, image.layers))
    assert manifest == Manifest(image.config, image.diff_ids)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(at=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_an_archive_that_ends_anywhere_is_damaged(layout: str, at: float) -> None:
    archive = LAYOUTS[layout](IMAGE)
    needed = archive.index(b"\0", archive.index(b"RepoTags")) if layout == "20.10" else archive.rindex(b"RepoTags")
    with pytest.raises(Damaged):
        layers_in(saved(cut(archive[: int(needed * at)]), IMAGE.diff_ids))


def test_an_error_behind_an_archive_that_broke_off_is_the_one_that_is_told() -> None:
    def pieces() -> Iterator[bytes]:
        yield legacy(IMAGE, ["a:1"])[:3000]
        yield b'{"errorDetail":{"message":"layer is gone"}}'
        raise RuntimeError("layer is gone")

    with pytest.raises(RuntimeError, match="layer is gone"):
        layers_in(saved(pieces(), IMAGE.diff_ids))


def test_a_layer_that_is_none_of_the_images_is_damaged() -> None:
    with pytest.raises(Damaged, match="in it is not a layer of the image"):
        layers_in(saved(cut(legacy(IMAGE, ["a:1"])), made([MIDDLE]).diff_ids))


def test_a_layer_that_is_not_what_its_digest_says_is_damaged() -> None:
    archive = oci({"a:1": [IMAGE]}).replace(b"middle", b"muddle")
    with pytest.raises(Damaged, match=f"layer {digest(MIDDLE)[:19]} has another digest"):
        layers_in(verified(saved(cut(archive), IMAGE.diff_ids)))


# Layers of archive files


def archive_of(*blobs: bytes) -> bytes:
    return hostile_tars.tar(*(file(f"{number}", blob) for number, blob in enumerate(blobs, 1)))


def as_layers(*blobs: bytes) -> dict[int, Layer]:
    """Return the layers of an archive of these, each by the number of its member."""
    return {number: Layer(f"sha256:{number}", kind_of(blob)) for number, blob in enumerate(blobs, 1)}


def kind_of(blob: bytes) -> str:
    return next((kind for kind, compress in COMPRESS.items() if kind and blob == compress(BASE)), "")


KINDS = {kind: compress(BASE) for kind, compress in COMPRESS.items()}


def test_layers_are_uncompressed_one_after_the_other_and_their_sizes_are_known_before() -> None:
    blobs = [*KINDS.values()]
    layers = as_layers(*blobs)
    assert [layer.kind for layer in layers.values()] == [*KINDS]
    sizes = measured(io.BytesIO(archive_of(*blobs)), layers)
    assert sizes == {number: len(BASE) for number, layer in layers.items() if layer.kind}
    parts = [*unpacked(io.BytesIO(archive_of(*blobs)), layers, sizes)]
    assert [part for part in parts if isinstance(part, Blob)] == [
        Blob(layer.digest, len(BASE)) for layer in layers.values()
    ]
    assert b"".join(part for part in parts if isinstance(part, bytes)) == BASE * len(KINDS)


def test_only_the_layers_that_are_wanted_are_read() -> None:
    broken = b"\x1f\x8b" + bytes(1000)
    layers = {2: Layer("sha256:2", "gzip")}
    archive = archive_of(broken, KINDS["gzip"], broken)
    sizes = measured(io.BytesIO(archive), layers)
    assert sizes == {2: len(BASE)}
    assert next(unpacked(io.BytesIO(archive), layers, sizes)) == Blob("sha256:2", len(BASE))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
@pytest.mark.parametrize(
    "spoil", [lambda blob: blob[:-20], lambda blob: blob[:30] + bytes(10) + blob[40:]], ids=["cut", "wrong"]
)
def test_a_compressed_layer_that_is_damaged_is_told_in_its_commands_words(
    kind: str, spoil: Callable[[bytes], bytes]
) -> None:
    archive = archive_of(spoil(COMPRESS[kind](os.urandom(100_000))))
    with pytest.raises(Damaged, match=f"^{kind}: "):
        measured(io.BytesIO(archive), {1: Layer("sha256:1", kind)})


def test_an_archive_that_ends_in_a_compressed_layer_is_damaged() -> None:
    archive = archive_of(COMPRESS["gzip"](os.urandom(3 * PIECE)))
    with pytest.raises(Damaged, match="it ends in the middle of a member"):
        measured(io.BytesIO(archive[: 2 * PIECE]), {1: Layer("sha256:1", "gzip")})


def test_a_layer_that_is_not_in_the_archive_is_damaged() -> None:
    with pytest.raises(Damaged, match="it ends before layer sha256:2"):
        layers_in(unpacked(io.BytesIO(archive_of(BASE)), {2: Layer("sha256:2", "")}, {}))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
def test_a_compressed_layer_has_a_limit_that_it_reaches_soon(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "LARGEST_LAYER", 50 * PIECE)
    monkeypatch.setattr(archive_reader, "LARGEST_RATIO", 0)
    zeros = COMPRESS[kind](bytes(50 * PIECE))
    layers = {1: Layer(f"sha256:{'0' * 64}", kind)}
    assert measured(io.BytesIO(archive_of(zeros)), layers) == {1: 50 * PIECE}
    bomb = zeros * 40
    began = time.monotonic()
    with pytest.raises(Damaged, match=f"layer sha256:0{{12}} is uncompressed to more than {50 * PIECE} bytes, from"):
        measured(io.BytesIO(archive_of(bomb)), layers)
    assert time.monotonic() - began < 20


def test_what_gzip_can_do_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "LARGEST_LAYER", 0)
    zeros = gzip.compress(bytes(20 * PIECE), 9)
    assert len(zeros) * 1000 < 20 * PIECE
    assert measured(io.BytesIO(archive_of(zeros)), {1: Layer("sha256:1", "gzip")}) == {1: 20 * PIECE}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
def test_a_layer_is_uncompressed_in_little_memory(kind: str) -> None:
    layers = {1: Layer("sha256:1", kind)}
    archive = archive_of(COMPRESS[kind](bytes(60 * PIECE)))
    tracemalloc.start()
    try:
        sizes = measured(io.BytesIO(archive), layers)
        assert sum(len(part) for part in unpacked(io.BytesIO(archive), layers, sizes) if isinstance(part, bytes))
        assert tracemalloc.get_traced_memory()[1] < 10 * PIECE
    finally:
        tracemalloc.stop()


def test_who_stops_in_the_middle_of_a_compressed_layer_leaves_no_command_behind() -> None:
    archive = archive_of(COMPRESS["gzip"](os.urandom(10 * PIECE)))
    parts = unpacked(io.BytesIO(archive), {1: Layer("sha256:1", "gzip")}, {1: 10 * PIECE})
    assert [type(next(parts)) for _dummy in range(2)] == [Blob, bytes]
    threads, there = threading.active_count(), children()
    parts.close()
    assert threading.active_count() == threads - 1
    assert len(there - children()) == 1


def children() -> set[str]:
    return {
        child for path in Path(f"/proc/{os.getpid()}/task").glob("*/children") for child in path.read_text().split()
    }


# Archives that would take all memory, or never end.


def json_file(name: str, data: object) -> Entry:
    return file(name, json.dumps(data).encode())


def of_members(*entries: Entry) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([hostile_tars.tar(*entries)])


def empty_files(count: int) -> Iterator[bytes]:
    yield from (hostile_tars.members(file(f"file{number}", b"")) for number in range(count))
    yield END


def large_documents(count: int, size: int) -> Iterator[bytes]:
    content = b"{" + b" " * (size - 1)
    yield from (hostile_tars.members(file(f"file{number}", content)) for number in range(count))
    yield END


def index(name: str, *digests: str) -> Entry:
    return json_file(name, {"manifests": [{"digest": f"sha256:{one}"} for one in digests]})


INDEXES = [index(f"blobs/sha256/{number}", f"{number + 1}") for number in range(9)]
HUGE = {"rootfs": {"diff_ids": ["sha256:a"] * 40_000}}

HOSTILE: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    **{f"headers: {case}": (lambda make=make: iter([make()]), "") for case, (make, _why) in HEADERS.items()},
    "a long name of 400 MiB": (
        lambda: itertools.chain(
            [hostile_tars.members(entry("././@LongLink", b"L", size=400 << 20))],
            itertools.repeat(b"x" * PIECE, 400),
            [END],
        ),
        "the headers of a member are larger than 8 KiB",
    ),
    "a name of 2000 characters": (of_members(file("x" * 2000)), "a name in it has more than 1024 characters"),
    "documents of 80 MB": (lambda: large_documents(20, 4_000_000), "it has more than 67108864 bytes of JSON"),
    "a document that is deeply nested": (of_members(file("manifest.json", b"[" * 100_000)), "is not valid JSON"),
    "an index that names itself": (
        of_members(index("index.json", "a"), index("blobs/sha256/a", "a")),
        "blobs/sha256/a in it is an index that names itself",
    ),
    "indexes that name each other": (
        of_members(index("index.json", "a"), index("blobs/sha256/a", "b"), index("blobs/sha256/b", "a")),
        "blobs/sha256/a in it is an index that names itself",
    ),
    "indexes in indexes": (of_members(index("index.json", "0"), *INDEXES), "its indexes are more than 4 deep"),
    "indexes that name one a thousand times": (
        of_members(
            index("index.json", *["a"] * 1000),
            index("blobs/sha256/a", *["b"] * 1000),
            index("blobs/sha256/b", *["c"] * 1000),
        ),
        "",
    ),
    "images without number": (
        of_members(json_file("manifest.json", [{"Config": "c", "Layers": []}] * 5000), json_file("c", {})),
        "it has more than 4096 images",
    ),
    "layers without number": (
        of_members(
            json_file("manifest.json", [{"Config": "c", "Layers": ["x"] * 40_000}] * 2), json_file("c", HUGE), file("x")
        ),
        "it has more than 65536 layers",
    ),
    "one configuration again and again": (
        of_members(
            json_file("manifest.json", [{"Config": "c", "Layers": []}] * 1000), file("c", b"{}" + b" " * 1_000_000)
        ),
        "named again and again",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_archive_that_would_take_everything_is_refused_soon(case: str) -> None:
    make, why = HOSTILE[case]
    reading, began = Reading(), time.process_time()
    with pytest.raises(Damaged) as damaged:
        for _path, _size, pieces in reading.members(io.BufferedReader(Stream(make()))):
            for _dummy in pieces:
                pass
        contents(reading)
    assert why in str(damaged.value)
    assert time.process_time() - began < 20


def test_the_number_of_members_and_of_documents_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "MOST_MEMBERS", 100)
    monkeypatch.setattr(archive_reader, "MOST_DOCUMENTS", 50)
    list(Reading().members(io.BytesIO(b"".join(empty_files(100)))))
    list(Reading().members(io.BytesIO(b"".join(large_documents(50, 1)))))
    with pytest.raises(Damaged, match="it has more than 100 members"):
        list(Reading().members(io.BytesIO(b"".join(empty_files(101)))))
    with pytest.raises(Damaged, match="it has more than 50 JSON documents"):
        list(Reading().members(io.BytesIO(b"".join(large_documents(51, 1)))))


def test_what_follows_an_archive_that_a_daemon_sends_has_an_end() -> None:
    with pytest.raises(Damaged, match="it has more data after its end"):
        layers_in(saved(itertools.chain([legacy(IMAGE, ["a:1"])], itertools.repeat(bytes(PIECE))), IMAGE.diff_ids))


@pytest.mark.parametrize(
    "documents",
    [
        {"manifest.json": b"[1]"},
        {"manifest.json": b"[{}]"},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[[]]"},
        {"manifest.json": b'[{"Config":1,"Layers":[]}]'},
        {"manifest.json": b'[{"Config":"c","Layers":1}]'},
        {"manifest.json": b'[{"Config":"c","Layers":[[]]}]'},
        {"x/json": b"[" * 10_000, "x/layer.tar": b"layer"},
        {"x/json": b"[1]", "x/layer.tar": b"layer", "y/json": b"{}", "y/layer.tar": b"layer"},
    ],
)
def test_what_a_hostile_daemon_sends_in_place_of_metadata_is_damaged(documents: dict[str, bytes]) -> None:
    with pytest.raises(Damaged):
        layers_in(verified(saved(cut(tar(documents)), IMAGE.diff_ids)))
