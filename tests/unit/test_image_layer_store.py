# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's store is made of files, which this process reads, or a Python as at the end of hops."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import Way
from ansible_collections.nested.kata.plugins.module_utils._image import layer_files
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layer_files import entries
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Store, Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest, chain_ids
from image_builder import Made, layer, made, make_store, tar


def store_image(image: Made) -> Image:
    return Image.from_config(image.id, json.loads(image.config))


def store_of(root: Path, driver: str = "overlay2", hops: tuple[str, ...] = ()) -> Store:
    return Store({"Driver": driver, "DockerRootDir": str(root)}, hops, quiet=3)


BOTH = ("here", "at the end of hops")


@pytest.fixture(params=BOTH)
def hops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Read by this process, and then by the program, which is started as in a container."""
    monkeypatch.setattr(Way, "into", lambda way, depth, argv: argv)
    return () if request.param == "here" else ("a",)


MANY = made(
    [
        layer(b"base"),
        tar(
            {
                **{f"directory {number % 7}/file{number}": os.urandom(number % 3 * 100) for number in range(300)},
                "large": os.urandom(3_000_000),
                "-x": b"option",
            }
        ),
        layer(b"top"),
    ]
)


@pytest.mark.parametrize("driver", ["overlay2", "btrfs"])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (1, 2), (2,), ()])
def test_the_layers_that_are_wanted_come_out_of_a_store(
    tmp_path: Path, driver: str, wanted: tuple[int, ...], hops: tuple[str, ...]
) -> None:
    make_store(tmp_path, MANY, driver)
    found: dict[str, bytes] = {}
    now = ""
    *parts, manifest = store_of(tmp_path, driver, hops).parts(
        store_image(MANY), {MANY.diff_ids[number] for number in wanted}
    )
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
    "a file is shorter": (
        lambda root: (root / "overlay2/cache2/diff/file").write_bytes(b"t"),
        "is not a regular file of 3 bytes",
    ),
    "a file is shorter below": (
        lambda root: (root / "overlay2/cache1/diff/large").write_bytes(b"t"),
        "is not a regular file of 3000000 bytes",
    ),
    "a file differs": (lambda root: (root / "overlay2/cache1/diff/-x").write_bytes(b"opt-on"), "has another digest"),
    "the configuration is another": (
        lambda root: next((root / "image/overlay2/imagedb/content/sha256").iterdir()).write_bytes(b"{}"),
        "of another image",
    ),
    "there is no store": (shutil.rmtree, "No such file"),
    "tar-split is no gzip": (
        lambda root: [path.write_bytes(b"x" * 100) for path in root.rglob("tar-split.json.gz")],
        "gzip",
    ),
}


@pytest.mark.parametrize(
    ("case", "hops"),
    [*((case, "here") for case in DAMAGE), ("a file is gone", "at the end of hops")],
    indirect=["hops"],
)
def test_a_store_that_is_not_what_it_seems_cannot_be_read(tmp_path: Path, hops: tuple[str, ...], case: str) -> None:
    damage, why = DAMAGE[case]
    make_store(tmp_path, MANY, "overlay2")
    damage(tmp_path)
    with pytest.raises(Unreadable, match=why):
        list(store_of(tmp_path, hops=hops).parts(store_image(MANY), set(MANY.diff_ids)))


def test_a_store_of_another_kind_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="it keeps layers in overlayfs"):
        store_of(tmp_path, "overlayfs")


def test_the_program_ends_when_nobody_reads_on(tmp_path: Path, hops: tuple[str, ...]) -> None:
    make_store(tmp_path, MANY, "overlay2")
    parts = store_of(tmp_path, hops=hops).parts(store_image(MANY), set(MANY.diff_ids))
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
    record = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    assert list(entries(record)) == [
        (b"header", b"", 0),
        (b"", b"directory/", 0),
        (b"", b"a b", 7),
        (b"", b"\xff", 3),
        (bytes(1024), b"", 0),
    ]


# Stores whose records lead elsewhere.

SECRET = b"root:secret"


def record_of(*entries: tuple[str, object]) -> bytes:
    """Return a record that has nothing but names and sizes."""
    return gzip.compress(
        "".join(json.dumps({"type": 1, "name": name, "size": size}) + "\n" for name, size in entries).encode()
    )


HOSTILE = {
    "a link to a directory": (
        lambda diff: (diff / "a").symlink_to(diff.parents[3] / "outside"),
        record_of(("file", 4), ("a/secret", 11)),
        "Not a directory: b'a'",
    ),
    "a link to a file": (
        lambda diff: (diff / "a").symlink_to(diff.parents[3] / "outside/secret"),
        record_of(("a", 11)),
        "'a' is not a regular file of 11 bytes",
    ),
    "a name that leads up": (lambda diff: None, record_of(("../../../../outside/secret", 11)), "does not lead down"),
    "a file twice": (lambda diff: None, record_of(("file", 4), ("./file", 4)), "is a file that it had before"),
    "a file by two names": (
        lambda diff: os.link(diff / "file", diff / "other"),
        record_of(("file", 4), ("other", 4)),
        "is a file that it had before",
    ),
    "a name below a file": (lambda diff: None, record_of(("file", 4), ("file/x", 4)), "Not a directory"),
    "a named pipe": (lambda diff: os.mkfifo(diff / "a"), record_of(("a", 11)), "is not a regular file of 11 bytes"),
    "a directory": (lambda diff: (diff / "a").mkdir(), record_of(("a", 4096)), "is not a regular file of 4096 bytes"),
    "a file that is larger": (lambda diff: None, record_of(("file", 3)), "is not a regular file of 3 bytes"),
    "a negative size": (lambda diff: None, record_of(("file", -4)), "of the size -4"),
    "a size that is a truth": (lambda diff: None, record_of(("file", True)), "a file of the size True"),
    "a size that is not a number": (lambda diff: None, record_of(("file", ["4"])), r"a file of the size \['4'\]"),
    "an empty name": (lambda diff: None, record_of(("", 4)), "does not lead down"),
    "a name that is not a text": (lambda diff: None, record_of((4, 4)), "not as tar-split writes it"),
    "an entry that is not an object": (lambda diff: None, gzip.compress(b"[]\n"), "not as tar-split writes it"),
    "a name as deep as the sea": (lambda diff: None, record_of(("a/" * 2000, 4)), "is too deep"),
    "nested lists": (lambda diff: None, gzip.compress(b"[" * 100_000), "recursion"),
    "a line without end": (lambda diff: None, gzip.compress(bytes(50 << 20)), "4194304 in a line"),
    "a record that is cut off": (lambda diff: None, record_of(("file", 4))[:-12], "end-of-stream|end of|truncated"),
    "a record that is damaged": (lambda diff: None, record_of(("file", 4))[:10] + b"\xff" * 30, "decompressing"),
}


@pytest.mark.parametrize(
    ("case", "hops"),
    [*((case, "here") for case in HOSTILE), ("a link to a directory", "at the end of hops")],
    indirect=["hops"],
)
def test_a_record_that_leads_elsewhere_is_refused_before_a_byte_is_read(
    tmp_path: Path, hops: tuple[str, ...], case: str
) -> None:
    prepare, record, why = HOSTILE[case]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    image = made([layer(b"good"), layer(b"base")])
    make_store(tmp_path / "docker", image, "overlay2")
    prepare(tmp_path / "docker/overlay2/cache1/diff")
    chain = chain_ids(image.diff_ids)[1][7:]
    (tmp_path / "docker/image/overlay2/layerdb/sha256" / chain / "tar-split.json.gz").write_bytes(record)
    got = []
    with pytest.raises(Unreadable, match=why):
        got += store_of(tmp_path / "docker", hops=hops).parts(store_image(image), set(image.diff_ids))
    assert got == []


def test_a_record_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_files, "LARGEST_RECORD", 100)
    image = made([tar({f"file{number}": b"x" for number in range(10)})])
    make_store(tmp_path, image, "overlay2")
    with pytest.raises(Unreadable, match="a layer's record has more than 100 bytes"):
        next(store_of(tmp_path).parts(store_image(image), set(image.diff_ids)))


@pytest.mark.parametrize("swap", ["directory", "file"])
def test_a_link_that_appears_while_layers_are_read_is_not_followed(tmp_path: Path, swap: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    image = made([tar({"a": os.urandom(2 << 20), "b/secret": b"twelve bytes"[:11]})])
    make_store(tmp_path / "docker", image, "overlay2")
    b = tmp_path / "docker/overlay2/cache0/diff/b"
    parts = store_of(tmp_path / "docker").parts(store_image(image), set(image.diff_ids))
    got = [next(parts)]  # now all files were checked
    if swap == "directory":
        b.rename(b.with_name("c"))
        b.symlink_to(tmp_path / "outside")
    else:
        (b / "secret").unlink()
        (b / "secret").symlink_to(tmp_path / "outside/secret")
    with pytest.raises(Unreadable, match=r"Not a directory|symbolic links"):
        got += parts
    assert SECRET not in b"".join(part for part in got if isinstance(part, bytes))


def test_another_file_system_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with (
        layer_files.Directory(descriptor, os.fstat(descriptor).st_dev + 1) as files,
        pytest.raises(ValueError, match="'file' is on another file system"),
    ):
        files.check(b"file", 4)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (Image("sha256:../../../../../../etc/shadow", (), ""), "not named by a digest"),
        (Image(MANY.id, ("sha256:../../x",), ""), "not named by a digest"),
    ],
)
def test_an_image_that_is_not_named_by_digests_has_no_files(tmp_path: Path, image: Image, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        next(store_of(tmp_path).parts(image, set(image.layers)))


LIES = {
    "nothing": ("", "there is no python3"),
    "a text": ("echo no such program", "there is no python3"),
    "a line without end": ("cat /dev/zero", "there is no python3"),
    "numbers without end": ("yes 1 2>&1 | tr '\\n' ' ' 2>&1", "there is no python3"),
    "a size beyond all measure": ("echo 9999999999999999 1 1 1", "there is no python3"),
    "a negative size": ("echo -1 1 1 1", "there is no python3"),
    "a configuration without end": ("echo 4194305 1 1 1; cat /dev/zero", "not those that were asked for"),
    "fewer layers": ("echo 1 1 1", "not those that were asked for"),
    "a configuration of another image": ("echo 2 1 1 1; printf '{}'; cat /dev/zero", "is of another image"),
}


@pytest.mark.parametrize("case", LIES)
def test_what_a_hostile_python_answers_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    answer, why = LIES[case]
    monkeypatch.setattr(Way, "into", lambda way, depth, argv: ["sh", "-c", answer])
    with pytest.raises(Unreadable, match=why):
        next(store_of(tmp_path, hops=("a",)).parts(store_image(MANY), set(MANY.diff_ids)))
