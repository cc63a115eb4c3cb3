# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import Made, blob, digest, layer, legacy, made, oci, tar

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils.archive import (
    Blob, Manifest, Packing, Part, Reading, Split, base_held, chain_ids, full_name, left_out, packed, saved, unpacked,
    verified,
)

BASE, MIDDLE, TOP = layer(b"base" * 1000), layer(b"middle"), layer(b"top")
IMAGE = made([BASE, MIDDLE, TOP])
TWICE = made([BASE, MIDDLE, BASE, TOP])


def cut(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at:at + size] for at in range(0, len(data), size))


def layers_in(parts: Iterable[Part]) -> tuple[dict[str, bytes], Manifest]:
    """Return the bytes of each layer by its digest, and the manifest, which must come last."""
    found: dict[str, bytes] = {}
    now = manifest = None
    for part in parts:
        assert manifest is None
        if isinstance(part, Blob):
            now = part.digest
            found[now] = b""
        elif isinstance(part, Manifest):
            manifest = part
        else:
            found[now] += part
    return found, manifest


# Layers


def test_a_chain_id_names_a_layer_with_all_below_it() -> None:
    assert chain_ids(["sha256:a", "sha256:b", "sha256:c"]) == (
        "sha256:a", digest(b"sha256:a sha256:b"), digest(f"{digest(b'sha256:a sha256:b')} sha256:c".encode()),
    )


@pytest.mark.parametrize("others, base", [
    ([], 0), (["abc"], 3), (["ab"], 2), (["ba", "bc"], 0), (["ab", "abx"], 2), (["abcd"], 3), (["x", "a"], 1),
])
def test_only_layers_from_the_base_on_are_held(others: list[str], base: int) -> None:
    held = {chain for other in others for chain in chain_ids(tuple(other))}
    assert base_held(tuple("abc"), held) == base


@pytest.mark.parametrize("base, left", [(0, set()), (1, set()), (2, {"b"}), (4, {"a", "b", "c"})])
def test_a_layer_that_comes_again_above_the_base_is_not_left_out(base: int, left: set[str]) -> None:
    assert left_out(("a", "b", "a", "c"), base) == left


# Reading what daemons save

LAYOUTS = {"20.10": lambda image: legacy(image, ["a:1"]), "25": lambda image: oci({"a:1": [image]})}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("image", [IMAGE, TWICE, made([layer(b"only")]), made([])], ids=["three", "twice", "one", "none"])
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
        layers_in(saved(cut(archive[:int(needed * at)]), IMAGE.diff_ids))


def test_an_error_behind_an_archive_that_broke_off_is_the_one_that_is_told() -> None:
    def pieces() -> Iterator[bytes]:
        yield legacy(IMAGE, ["a:1"])[:3000]
        yield b'{"errorDetail":{"message":"layer is gone"}}'
        raise RuntimeError("layer is gone")

    with pytest.raises(RuntimeError, match="layer is gone"):
        layers_in(saved(pieces(), IMAGE.diff_ids))


def test_a_layer_that_is_none_of_the_images_is_damaged() -> None:
    with pytest.raises(Damaged, match="none of the image's layers"):
        layers_in(saved(cut(legacy(IMAGE, ["a:1"])), made([MIDDLE]).diff_ids))


def test_a_layer_that_is_not_what_its_digest_says_is_damaged() -> None:
    archive = oci({"a:1": [IMAGE]}).replace(b"middle", b"muddle")
    with pytest.raises(Damaged, match=f"layer {digest(MIDDLE)[:19]} has another digest"):
        layers_in(verified(saved(cut(archive), IMAGE.diff_ids)))


# Writing


def parts_of(image: Made) -> Iterator[Part]:
    for content in dict.fromkeys(image.layers):
        yield Blob(digest(content), len(content))
        yield from cut(content)
    yield Manifest(image.config, image.diff_ids)


def pack(image: Made, leave_out: Iterable[str] = (), names: Iterable[str] = ("a:1",), *, as_oci: bool = False) -> bytes:
    packing = Packing(set(leave_out))
    return b"".join([*packing.image(parts_of(image), list(names)), *packing.end(as_oci)])


@pytest.mark.parametrize("left", [(), (BASE,), (BASE, MIDDLE), (BASE, MIDDLE, TOP)])
def test_the_manifest_lists_layers_that_are_left_out(left: tuple[bytes, ...]) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(IMAGE, map(digest, left), ["b:2", "c:3"]))) as archive:
        names = archive.getnames()
        (told,) = json.load(archive.extractfile("manifest.json"))
        assert archive.extractfile(told["Config"]).read() == IMAGE.config
    assert told["Layers"] == [blob(content) for content in IMAGE.layers]
    assert told["RepoTags"] == ["b:2", "c:3"]
    assert [name for name in told["Layers"] if name in names] == [blob(content) for content in IMAGE.layers if content not in left]


def test_an_archive_that_was_packed_is_one_that_is_read() -> None:
    found, manifest = layers_in(verified(saved(cut(pack(TWICE)), TWICE.diff_ids)))
    assert found == dict(zip(TWICE.diff_ids, TWICE.layers))
    assert manifest == Manifest(TWICE.config, TWICE.diff_ids)


def test_two_images_in_a_file_share_their_layers() -> None:
    packing, other = Packing(), made([BASE, layer(b"other")])
    data = b"".join([*packing.image(parts_of(IMAGE), ["a:1"]), *packing.image(parts_of(other), ["b:1"]), *packing.end(oci=True)])
    assert packing.layers == 4
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))
    assert len(names) == len(set(names))
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == ["docker.io/library/a:1", "docker.io/library/b:1"]
    assert {one.names: one.image.id for one in listed(data)} == {("a:1",): IMAGE.id, ("b:1",): other.id}


@pytest.mark.parametrize("name, full", [
    ("debian:12", "docker.io/library/debian:12"), ("a/b:1", "docker.io/a/b:1"), ("r:5/a:1", "r:5/a:1"), ("localhost/a:1", "localhost/a:1"),
    ("r.example/a:1", "r.example/a:1"),
])
def test_a_name_with_its_registry_is_what_containerd_wants(name: str, full: str) -> None:
    assert full_name(name) == full


# Archive files


def listed(data: bytes) -> tuple:
    reading = Reading()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        list(reading.members(archive))
    return packed(reading)


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
    assert (one.names, one.image.id, one.image.layers, one.image.platform) == (("a:1",), TWICE.id, TWICE.diff_ids, "linux/amd64")
    with tarfile.open(fileobj=io.BytesIO(FILES[kind])) as archive:
        found, manifest = layers_in(verified(unpacked(archive, one)))
    contents = [found[layer_digest] for layer_digest in manifest.layers]
    assert [gzip.decompress(content) if "compressed" in kind else content for content in contents] == list(TWICE.layers)


def test_an_image_for_several_platforms_is_listed_once_for_each() -> None:
    arm = made([layer(b"arm")], "arm64")
    found = listed(oci({"a:1": [IMAGE, arm]}, docker=False))
    assert [(one.names, one.image.platform, one.image.id) for one in found] == [(("a:1",), "linux/amd64", IMAGE.id), (("a:1",), "linux/arm64", arm.id)]


@pytest.mark.parametrize("files, why", [
    ({"a": b"text"}, "neither manifest.json nor index.json"),
    ({"manifest.json": b"[1]"}, "not what OCI or Docker say (TypeError"),
    ({"index.json": b'{"manifests":[{}]}'}, "not what OCI or Docker say (KeyError"),
    ({"manifest.json": b"[{"}, "manifest.json in it is no JSON"),
    ({"manifest.json": b'[{"Config":"c.json","Layers":[]}]'}, "c.json is missing in it"),
    ({"manifest.json": b'[{"Config":"c.json","Layers":["x"]}]', "c.json": b"{ }"}, "has 1 layers, and 0 by its configuration"),
    ({"manifest.json": b'[{"Config":"c.json","Layers":["x"]}]', "c.json": b'{"rootfs":{"diff_ids":["y"]}}'}, "x is missing in it"),
])
def test_what_is_no_archive_of_images_is_told(files: dict[str, bytes], why: str) -> None:
    with pytest.raises(Damaged) as damaged:
        listed(tar(files))
    assert why in str(damaged.value)


# tar-split


def test_a_layers_tar_comes_from_what_is_between_its_files() -> None:
    lines = [
        {"type": 2, "payload": base64.b64encode(b"header").decode(), "position": 0},
        {"type": 1, "name": "directory/", "payload": None, "position": 1},
        {"type": 1, "name": "a b", "size": 7, "payload": "crc", "position": 2},
        {"type": 1, "name_raw": base64.b64encode(b"\xff").decode(), "size": 3, "payload": "crc", "position": 3},
        {"type": 2, "payload": base64.b64encode(bytes(1024)).decode(), "position": 4},
    ]
    split = Split(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    assert list(split.entries()) == [(b"header", b"", 0), (b"", b"a b", 7), (b"", b"\xff", 3), (bytes(1024), b"", 0)]
    assert split.size() == 6 + 7 + 3 + 1024


def test_packing_holds_no_more_than_a_piece() -> None:
    taken = 0

    def endless() -> Iterator[Part]:
        nonlocal taken
        yield Blob("sha256:a", 1 << 30)
        while True:
            taken += 1
            yield os.urandom(1000)

    members = Packing().image(endless(), ["a:1"])
    for dummy in range(50):
        next(members)
    assert taken == 49
