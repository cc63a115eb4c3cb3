# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's store is made of files, and the shell that reads it is real."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Split, Store, Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, chain_ids
from image_builder import Made, digest, layer, made, tar


def split_of(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return tar-split's description of a tar as Docker keeps it, and the files."""
    lines, files, at = [], {}, 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            lines.append({"type": 2, "payload": base64.b64encode(content[at : member.offset_data]).decode()})
            at = member.offset_data
            if member.isfile():
                files[member.name] = content[at : at + member.size]
                lines.append({"type": 1, "name": member.name, "size": member.size, "payload": "crc"})
                at += member.size
    lines.append({"type": 2, "payload": base64.b64encode(content[at:]).decode()})
    return gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()), files


def make_store(root: Path, image: Made, driver: str) -> None:
    below = root / "image" / driver
    config = below / "imagedb" / "content" / "sha256" / image.id[7:]
    config.parent.mkdir(parents=True)
    config.write_bytes(image.config)
    for number, (content, chain) in enumerate(zip(image.layers, chain_ids(image.diff_ids), strict=True)):
        split, files = split_of(content)
        told = below / "layerdb" / "sha256" / chain[7:]
        told.mkdir(parents=True)
        (told / "diff").write_text(digest(content))
        (told / "cache-id").write_text(f"cache{number}")
        (told / "tar-split.json.gz").write_bytes(split)
        directory = (
            root / {"overlay2": f"overlay2/cache{number}/diff", "btrfs": f"btrfs/subvolumes/cache{number}"}[driver]
        )
        for name, data in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)


def store_image(image: Made) -> Image:
    return Image.from_config(image.id, json.loads(image.config))


def store_of(root: Path, driver: str = "overlay2") -> Store:
    return Store({"Driver": driver, "DockerRootDir": str(root)}, (), quiet=3)


MANY = made(
    [
        layer(b"base"),
        tar(
            {
                **{f"directory {number % 7}/file{number}": os.urandom(number % 3 * 100) for number in range(3000)},
                "large": os.urandom(3_000_000),
                "-x": b"option",
            }
        ),
        layer(b"top"),
    ]
)


@pytest.mark.parametrize("driver", ["overlay2", "btrfs"])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (1, 2), (2,), ()])
def test_the_layers_that_are_wanted_come_out_of_a_store(tmp_path: Path, driver: str, wanted: tuple[int, ...]) -> None:
    make_store(tmp_path, MANY, driver)
    found: dict[str, bytes] = {}
    now = ""
    *parts, manifest = store_of(tmp_path, driver).parts(store_image(MANY), {MANY.diff_ids[number] for number in wanted})
    for part in parts:
        if isinstance(part, Blob):
            now = part.digest
            found[now] = b""
        else:
            found[now] += part
            assert len(part) <= 2 << 20
    assert found == {MANY.diff_ids[number]: MANY.layers[number] for number in wanted}
    assert manifest == Manifest(MANY.config, MANY.diff_ids)


DAMAGE = {
    "a file is gone": (lambda root: (root / "overlay2/cache1/diff/large").unlink(), "No such file"),
    "a file is shorter": (lambda root: (root / "overlay2/cache2/diff/file").write_bytes(b"t"), "end too early"),
    "a file is shorter below": (
        lambda root: (root / "overlay2/cache1/diff/large").write_bytes(b"t"),
        "digest|end too early|timed out",
    ),
    "a file differs": (lambda root: (root / "overlay2/cache1/diff/-x").write_bytes(b"opt-on"), "has another digest"),
    "the configuration is another": (
        lambda root: next((root / "image/overlay2/imagedb/content/sha256").iterdir()).write_bytes(b"{}"),
        "of another image",
    ),
    "there is no store": (shutil.rmtree, "cannot cd|can't cd"),
    "tar-split is no gzip": (
        lambda root: [path.write_bytes(b"x" * 100) for path in root.rglob("tar-split.json.gz")],
        "gzip",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_store_that_is_not_what_it_seems_cannot_be_read(tmp_path: Path, case: str) -> None:
    damage, why = DAMAGE[case]
    make_store(tmp_path, MANY, "overlay2")
    damage(tmp_path)
    with pytest.raises(Unreadable, match=why):
        list(store_of(tmp_path).parts(store_image(MANY), set(MANY.diff_ids)))


def test_a_store_of_another_kind_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="it keeps layers in overlayfs"):
        store_of(tmp_path, "overlayfs")


def test_the_shell_ends_when_nobody_reads_on(tmp_path: Path) -> None:
    make_store(tmp_path, MANY, "overlay2")
    parts = store_of(tmp_path).parts(store_image(MANY), set(MANY.diff_ids))
    next(parts)
    parts.close()
    found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


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
