# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of every layout, read as streams."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator

import hostile_tars
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._image import archive_reader
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import (
    Reading,
    Stream,
    packed,
    saved,
    unpacked,
)
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Manifest, verified
from hostile_tars import END, HEADERS, Entry, entry, file
from hypothesis import given
from hypothesis import strategies as st
from image_builder import Made, digest, layer, legacy, made, oci, tar
from image_parts import cut, layers_in, listed, pack

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


# Archive files


FILES = {
    "docker 20.10": legacy(TWICE, ["a:1"]),
    "docker 25": oci({"a:1": [TWICE]}),
    "oci": oci({"docker.io/library/a:1": [TWICE]}, docker=False),
    "oci, compressed": oci({"a:1": [TWICE]}, docker=False, compress=True),
    "ours": pack(TWICE, as_oci=True),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_images_of_every_kind_of_archive_are_found_and_read(kind: str) -> None:
    (one,) = listed(FILES[kind])
    assert (one.names, one.image.id, one.image.layers, one.image.platform) == (
        ("a:1",),
        TWICE.id,
        TWICE.diff_ids,
        "linux/amd64",
    )
    found, manifest = layers_in(verified(unpacked(io.BytesIO(FILES[kind]), one)))
    contents = [found[layer_digest] for layer_digest in manifest.layers]
    assert [gzip.decompress(content) if "compressed" in kind else content for content in contents] == list(TWICE.layers)


def test_an_image_for_several_platforms_is_listed_once_for_each() -> None:
    arm = made([layer(b"arm")], "arm64")
    found = listed(oci({"a:1": [IMAGE, arm]}, docker=False))
    assert [(one.names, one.image.platform, one.image.id) for one in found] == [
        (("a:1",), "linux/amd64", IMAGE.id),
        (("a:1",), "linux/arm64", arm.id),
    ]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a": b"text"}, "neither manifest.json nor index.json"),
        ({"manifest.json": b"[1]"}, "in neither OCI's nor Docker's format (TypeError"),
        ({"index.json": b'{"manifests":[{}]}'}, "in neither OCI's nor Docker's format (KeyError"),
        ({"manifest.json": b"[{"}, "manifest.json in it is not valid JSON"),
        ({"manifest.json": b'[{"Config":"c.json","Layers":[]}]'}, "c.json is missing in it"),
        (
            {"manifest.json": b'[{"Config":"c.json","Layers":["x"]}]', "c.json": b"{ }"},
            "has 1 layers, but 0 in its configuration",
        ),
        (
            {"manifest.json": b'[{"Config":"c.json","Layers":["x"]}]', "c.json": b'{"rootfs":{"diff_ids":["y"]}}'},
            "x is missing in it",
        ),
    ],
)
def test_what_is_no_archive_of_images_is_told(files: dict[str, bytes], why: str) -> None:
    with pytest.raises(Damaged) as damaged:
        listed(tar(files))
    assert why in str(damaged.value)


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
    "a layer whose digest is not a text": (
        of_members(
            json_file("manifest.json", [{"Config": "c", "Layers": ["x"]}]),
            json_file("c", {"rootfs": {"diff_ids": [1]}}),
            file("x"),
        ),
        "in neither OCI's nor Docker's format (Unexpected: Layers is not a text",
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
        packed(reading)
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
