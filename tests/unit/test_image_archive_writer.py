# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that are written can be read again, by daemons and by the tools of OCI."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import saved
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import Packing
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, Part, verified
from image_builder import blob, digest, layer, made
from image_parts import cut, layers_in, listed, pack, parts_of

BASE, MIDDLE, TOP = layer(b"base" * 1000), layer(b"middle"), layer(b"top")
IMAGE = made([BASE, MIDDLE, TOP])
TWICE = made([BASE, MIDDLE, BASE, TOP])


@pytest.mark.parametrize("left", [(), (BASE,), (BASE, MIDDLE), (BASE, MIDDLE, TOP)])
def test_the_manifest_lists_layers_that_are_left_out(left: tuple[bytes, ...]) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(IMAGE, map(digest, left), ["b:2", "c:3"]))) as archive:
        names = archive.getnames()
        (told,) = json.load(archive.extractfile("manifest.json"))
        assert archive.extractfile(told["Config"]).read() == IMAGE.config
    assert told["Layers"] == [blob(content) for content in IMAGE.layers]
    assert told["RepoTags"] == ["b:2", "c:3"]
    assert [name for name in told["Layers"] if name in names] == [
        blob(content) for content in IMAGE.layers if content not in left
    ]


def test_an_archive_that_was_packed_is_one_that_is_read() -> None:
    found, manifest = layers_in(verified(saved(cut(pack(TWICE)), TWICE.diff_ids)))
    assert found == dict(zip(TWICE.diff_ids, TWICE.layers))
    assert manifest == Manifest(TWICE.config, TWICE.diff_ids)


def test_two_images_in_a_file_share_their_layers() -> None:
    packing, other = Packing(), made([BASE, layer(b"other")])
    data = b"".join(
        [*packing.image(parts_of(IMAGE), ["a:1"]), *packing.image(parts_of(other), ["b:1"]), *packing.end(oci=True)]
    )
    assert packing.layers == 4
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))
    assert len(names) == len(set(names))
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == [
        "docker.io/library/a:1",
        "docker.io/library/b:1",
    ]
    assert {one.label.names: one.image.id for one in listed(data).images} == {("a:1",): IMAGE.id, ("b:1",): other.id}


def test_packing_holds_no_more_than_a_piece() -> None:
    taken = 0

    def endless() -> Iterator[Part]:
        nonlocal taken
        yield Blob("sha256:a", 1 << 30)
        while True:
            taken += 1
            yield os.urandom(1000)

    members = Packing().image(endless(), ["a:1"])
    for _dummy in range(50):
        next(members)
    assert taken == 49
