# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of every layout, read as streams."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import saved, unpacked
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Manifest, verified
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
    assert found == dict(zip(image.diff_ids, image.layers, strict=True))
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
    with tarfile.open(fileobj=io.BytesIO(FILES[kind])) as archive:
        found, manifest = layers_in(verified(unpacked(archive, one)))
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
