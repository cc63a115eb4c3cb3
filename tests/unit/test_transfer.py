# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one end to others: archive files are real, a daemon's store is made of files, and the shell that reads it is real, too."""
from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from made_images import Made, digest, layer, legacy, made, oci, tar
from playing import run_module

from ansible_collections.nested.kata.plugins.module_utils import archive_file
from ansible_collections.nested.kata.plugins.module_utils.archive import Blob, Manifest, Part, chain_ids
from ansible_collections.nested.kata.plugins.module_utils.archive_file import Unwritable, Writing
from ansible_collections.nested.kata.plugins.module_utils.image import Image
from ansible_collections.nested.kata.plugins.module_utils.store import Store, Unreadable
from ansible_collections.nested.kata.plugins.module_utils.transfer import DEPTH, Feed, Sent, deliver, unpacking
from ansible_collections.nested.kata.plugins.modules.image_transfer import carry_out, wanted

IMAGE = made([layer(b"base" * 5000), layer(b"top")])
OTHER = made([layer(b"base" * 5000), layer(b"other")])


# From one to many


def numbered(count: int, told: list[int]) -> Iterator[Part]:
    for number in range(count):
        told.append(number)
        yield b"%d" % number


def everything(parts: Iterator[Part]) -> Sent:
    return Sent("", sum(len(part) for part in parts))


def test_every_destination_gets_everything_and_the_source_is_read_once() -> None:
    told: list[int] = []
    jobs = deliver(numbered(100, told), [everything] * 4, lambda line: None)
    assert told == list(range(100))
    assert [job.sent for job in jobs] == [Sent("", 190)] * 4


def test_a_destination_that_fails_does_not_stop_the_others() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        next(parts)
        raise RuntimeError("it broke")

    jobs = deliver(numbered(100, []), [everything, broken, everything], lambda line: None)
    assert [str(job.error) for job in jobs] == ["None", "it broke", "None"]
    assert [job.sent for job in jobs] == [Sent("", 190), None, Sent("", 190)]


def test_a_source_is_not_read_on_when_nobody_takes_anything_any_more() -> None:
    def broken(parts: Iterator[Part]) -> Sent:
        raise RuntimeError("it broke")

    told: list[int] = []
    deliver(numbered(10_000, told), [broken, broken], lambda line: None)
    assert len(told) < 10_000


def test_a_source_that_fails_fails_for_all() -> None:
    def failing() -> Iterator[Part]:
        yield b"1"
        raise RuntimeError("the source broke")

    jobs = deliver(failing(), [everything, everything], lambda line: None)
    assert [str(job.error) for job in jobs] == ["the source broke"] * 2


def test_a_destination_lags_behind_by_a_few_parts_only() -> None:
    go, told = threading.Event(), []

    def waiting(parts: Iterator[Part]) -> Sent:
        go.wait(10)
        return everything(parts)

    reading = threading.Thread(target=deliver, args=(numbered(100, told), [everything, waiting], lambda line: None))
    reading.start()
    time.sleep(0.5)
    lag = len(told)
    go.set()
    reading.join(10)
    assert DEPTH <= lag <= DEPTH + 2
    assert len(told) == 100


def test_what_is_put_for_one_who_has_left_is_dropped_at_once() -> None:
    feed = Feed()
    feed.left.set()
    start = time.monotonic()
    for dummy in range(10 * DEPTH):
        feed.put(b"")
    assert time.monotonic() - start < 1


def test_how_far_it_is_is_told_while_it_goes_on() -> None:
    said: list[str] = []
    parts: Iterable[Part] = (part for part in [Blob("a", 2 << 20), bytes(2 << 20), Blob("b", 1 << 20), bytes(1 << 20), Manifest(b"", ())])
    deliver(parts, [lambda given: Sent("", len(list(given)))], said.append)
    assert said[:2] == ["2 MiB, layer 1", "3 MiB, layer 2"]


@pytest.mark.parametrize("message, line", [
    ({"status": "Loading layer", "id": "d4f7", "progressDetail": {"current": 3 << 20, "total": 12 << 20}}, "unpacking d4f7, 3 of 12 MiB, 25 %"),
    ({"stream": "Loaded image: a:1"}, ""),
    ({"status": "Loading layer", "progressDetail": {}}, ""),
])
def test_a_layer_that_is_unpacked_is_told(message: dict, line: str) -> None:
    assert unpacking(message) == line


# From file to file


def transfer(source: Path, destination: Path, *names: str, **more: object) -> dict:
    """Do what the module does with these options."""
    given = {
        "images": list(names), "source": {"archive": str(source)}, "destination": {"archive": str(destination)}, "destinations": None,
        "tags": {}, "platform": None, "prune_other_tags": False, "timeout": 60, **more,
    }
    return carry_out(wanted(given), False, pytest.fail)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "source.tar"
    path.write_bytes(oci({"a:1": [IMAGE], "b:1": [OTHER]}))
    return path


@pytest.mark.parametrize("suffix, magic", [(".tar", b"blobs"), (".tar.gz", b"\x1f\x8b"), (".tgz", b"\x1f\x8b"), (".tar.zst", b"\x28\xb5\x2f\xfd")])
def test_images_go_into_a_file_and_out_of_it_again(tmp_path: Path, archive: Path, suffix: str, magic: bytes) -> None:
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.tar"
    result = transfer(archive, there, "a:1", "b:1", tags={"b:1": ["c:1", "c:2"]})
    assert (result["failed"], result["changed"]) == (False, True), result["msg"]
    assert there.read_bytes().startswith(magic)
    assert there.stat().st_mode & 0o777 == 0o600
    before = there.stat()
    again = transfer(archive, there, "a:1", "b:1", tags={"b:1": ["c:1", "c:2"]})
    assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)
    assert (there.stat().st_ino, there.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    result = transfer(there, back, "a:1", "c:2")
    assert [one["id"] for one in result["images"]] == [IMAGE.id, OTHER.id]
    assert {name: one.image.id for one in archive_file.listed(str(back)) for name in one.names} == {"a:1": IMAGE.id, "c:2": OTHER.id}
    assert sorted(os.listdir(tmp_path)) == sorted(["source.tar", there.name, "back.tar"])


def test_a_file_is_written_as_a_whole_when_one_image_differs_and_keeps_its_mode(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "there.tar"
    path.write_bytes(legacy(IMAGE, ["a:1"]))
    path.chmod(0o640)
    result = transfer(archive, path, "a:1", "b:1")
    assert [one["reason"].partition(":")[0] for one in result["images"]] == ["the archive is written as a whole", "the destination has no image of this name"]
    assert {name for one in archive_file.listed(str(path)) for name in one.names} == {"a:1", "b:1"}
    assert path.stat().st_mode & 0o777 == 0o640


def test_check_mode_writes_nothing(tmp_path: Path, archive: Path) -> None:
    options = {"images": ["a:1"], "source": {"archive": str(archive)}, "destination": {"archive": str(tmp_path / "there.tar")}}
    result = run_module("image_transfer", options, check=True)
    assert (result["failed"], result["changed"]) == (False, True)
    assert result["diff"] == {"before": {"a:1": None}, "after": {"a:1": IMAGE.id}}
    assert os.listdir(tmp_path) == ["source.tar"]


def test_the_image_for_a_platform_is_taken_out_of_several(tmp_path: Path) -> None:
    arm, path = made([layer(b"arm")], "arm64"), tmp_path / "source.tar"
    path.write_bytes(oci({"a:1": [IMAGE, arm]}, docker=False))
    assert transfer(path, tmp_path / "there.tar", "a:1", platform="linux/arm64")["images"][0]["id"] == arm.id
    result = transfer(path, tmp_path / "there.tar", "a:1", platform="linux/s390x")
    assert result["msg"] == f"platform: source {path} has a:1 for linux/amd64, not for linux/s390x: nothing was sent"


BROKEN = {
    "there is none": (None, "archive {path} cannot be read: No such file or directory"),
    "no archive": (b"text" * 1000, "archive {path} cannot be used: it is no tar archive"),
    "an empty file": (b"", "archive {path} cannot be used: it is no tar archive"),
    "cut in a layer": (oci({"a:1": [IMAGE]})[:9000], "archive {path} cannot be used: it is no tar archive, or ends too early"),
    "cut before the manifest": (legacy(IMAGE, ["a:1"])[:27000], "archive {path} cannot be used: "),
    "cut, gzip": (gzip.compress(oci({"a:1": [IMAGE]}))[:-40], "archive {path} cannot be used: gzip: stdin: unexpected end of file"),
    "a layer with another digest": (oci({"a:1": [IMAGE]}).replace(b"basebase", b"bassbass", 1), "reading a:1: layer {digest} has another digest"),
    "a layer with another digest, before Docker 25": (
        legacy(IMAGE, ["a:1"]).replace(b"basebase", b"bassbass", 1), "reading a:1: layer {digest} has another digest"
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_archive_that_is_damaged_is_told_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    content, why = BROKEN[case]
    path, there = tmp_path / "source.tar", tmp_path / "there.tar"
    if content is not None:
        path.write_bytes(content)
    result = transfer(path, there, "a:1")
    assert result["failed"]
    assert why.format(path=path, digest=IMAGE.diff_ids[0][:19]) in result["msg"]
    assert "\n" not in result["msg"]
    assert not result["changed"]
    assert [name for name in os.listdir(tmp_path) if name != "source.tar"] == []


@pytest.mark.parametrize("content, why", [
    (b"precious", "what is there cannot be read as an archive of images"),
    (oci({"mine:1": [OTHER]}), "it holds mine:1, too, and would lose that"),
])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, archive: Path, content: bytes, why: str) -> None:
    path = tmp_path / "there.tar"
    path.write_bytes(content)
    result = transfer(archive, path, "a:1")
    assert result["failed"]
    assert why in result["msg"]
    assert path.read_bytes() == content


def test_a_missing_directory_and_a_missing_image_are_told(tmp_path: Path, archive: Path) -> None:
    assert f"there is no directory {tmp_path}/no: make it" in transfer(archive, tmp_path / "no" / "x.tar", "a:1")["msg"]
    assert f"source {archive} has no image a:2 (near: a:1" in transfer(archive, tmp_path / "x.tar", "a:2")["msg"]


def test_what_an_interrupted_task_left_is_overwritten_and_one_at_a_time_writes(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "there.tar"
    left = tmp_path / ".there.tar.part"
    left.write_bytes(b"left" * 100_000)
    first = Writing(str(path))
    first.start()
    assert "another task is writing it" in transfer(archive, path, "a:1")["msg"]
    assert left.exists()
    first.give_up()
    left.write_bytes(b"left" * 100_000)
    assert transfer(archive, path, "a:1")["changed"]
    assert not left.exists()
    assert path.stat().st_size < 400_000


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    writing = Writing(str(tmp_path / "full.tar"))
    (tmp_path / ".full.tar.part").symlink_to("/dev/full")
    with pytest.raises(Unwritable, match="cannot be made"):  # a link is not followed
        writing.start()
    writing._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(Unwritable, match="No space left on device"):
        writing.write(b"x")
    writing._file.close()


# A daemon's store


def split_of(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return tar-split's description of a tar as Docker keeps it, and the files."""
    lines, files, at = [], {}, 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            lines.append({"type": 2, "payload": base64.b64encode(content[at:member.offset_data]).decode()})
            at = member.offset_data
            if member.isfile():
                files[member.name] = content[at:at + member.size]
                lines.append({"type": 1, "name": member.name, "size": member.size, "payload": "crc"})
                at += member.size
    lines.append({"type": 2, "payload": base64.b64encode(content[at:]).decode()})
    return gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()), files


def make_store(root: Path, image: Made, driver: str) -> None:
    below = root / "image" / driver
    config = below / "imagedb" / "content" / "sha256" / image.id[7:]
    config.parent.mkdir(parents=True)
    config.write_bytes(image.config)
    for number, (content, chain) in enumerate(zip(image.layers, chain_ids(image.diff_ids))):
        split, files = split_of(content)
        told = below / "layerdb" / "sha256" / chain[7:]
        told.mkdir(parents=True)
        (told / "diff").write_text(digest(content))
        (told / "cache-id").write_text(f"cache{number}")
        (told / "tar-split.json.gz").write_bytes(split)
        directory = root / {"overlay2": f"overlay2/cache{number}/diff", "btrfs": f"btrfs/subvolumes/cache{number}"}[driver]
        for name, data in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)


def store_image(image: Made) -> Image:
    return Image.from_config(image.id, json.loads(image.config))


def store_of(root: Path, driver: str = "overlay2") -> Store:
    return Store({"Driver": driver, "DockerRootDir": str(root)}, (), quiet=3)


MANY = made([
    layer(b"base"),
    tar({**{f"directory {number % 7}/file{number}": os.urandom(number % 3 * 100) for number in range(3000)}, "large": os.urandom(3_000_000), "-x": b"option"}),
    layer(b"top"),
])


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
    "a file is shorter below": (lambda root: (root / "overlay2/cache1/diff/large").write_bytes(b"t"), "digest|end too early|timed out"),
    "a file differs": (lambda root: (root / "overlay2/cache1/diff/-x").write_bytes(b"opt-on"), "has another digest"),
    "the configuration is another": (lambda root: next((root / "image/overlay2/imagedb/content/sha256").iterdir()).write_bytes(b"{}"), "of another image"),
    "there is no store": (shutil.rmtree, "cannot cd|can't cd"),
    "tar-split is no gzip": (lambda root: [path.write_bytes(b"x" * 100) for path in root.rglob("tar-split.json.gz")], "gzip"),
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
