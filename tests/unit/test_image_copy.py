# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole module without a daemon: its SDK, and images from file to file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import hostile_tars
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.versions import written
from ansible_collections.nested.kata.plugins.module_utils._docker import client
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import Writing, listed
from ansible_collections.nested.kata.plugins.module_utils._image.copy import carry_out
from ansible_collections.nested.kata.plugins.module_utils._image.options import parse
from ansible_collections.nested.kata.plugins.modules.image_transfer import DOCUMENTATION
from ansible_runner import CHECKOUT, module_command, module_environment, run_module
from image_builder import layer, legacy, made, oci
from scripted_daemon import HOSTILE as HOSTILE_ANSWERS
from scripted_daemon import ScriptedDaemon, answer

IMAGE = made([layer(b"base" * 5000), layer(b"top")])
OTHER = made([layer(b"base" * 5000), layer(b"other")])


def copied(*, check: bool = False, **options: object) -> dict:
    """Return the result of the module with these options."""
    defaults = {
        "source": None,
        "destination": None,
        "destinations": None,
        "tags": {},
        "platform": None,
        "prune_other_tags": False,
        "timeout": 60,
    }
    try:
        return {"failed": False, **carry_out(parse({**defaults, **options}), check, pytest.fail)}
    except Refused as error:
        return {"failed": True, "msg": str(error), **error.details}


def test_no_images_are_no_work() -> None:
    result = copied(images=[], destination={"socket": "/nowhere.sock"})
    assert (result["failed"], result["changed"], result["images"], result["msg"]) == (
        False,
        False,
        [],
        "no images were asked for",
    )


@pytest.mark.controller
def test_a_missing_sdk_is_told_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "__init__.py").write_text("raise ImportError('there is none')\n")
    command = module_command("image_transfer", {"images": ["a:1"], "destination": {"hops": ["t-nobody"]}})
    environment = module_environment(PYTHONPATH=f"{tmp_path}:{CHECKOUT / '.collections'}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    answer = json.loads(done.stdout)
    assert answer["failed"]
    assert not answer["changed"]
    assert "docker (package python3-docker of Debian, docker of PyPI)" in answer["msg"]


def test_an_sdk_that_is_too_old_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SDK_VERSION", "4.1.0")
    monkeypatch.setattr(client, "sdk_too_old", lambda: True)
    result = copied(images=["a"], source={}, destination={"socket": "/nowhere.sock"})
    assert result["failed"]
    assert (
        result["msg"]
        == f"the Docker SDK for Python here is 4.1.0, and {written(client.OLDEST_SDK)} is needed: upgrade package"
        " python3-docker of Debian, docker of PyPI"
    )


def test_the_documentation_names_the_oldest_sdk() -> None:
    assert f"Docker SDK for Python, {written(client.OLDEST_SDK)} or newer" in DOCUMENTATION


# From file to file


def transfer(source: Path, destination: Path, *names: str, **more: object) -> dict:
    """Copy images from file to file."""
    return copied(
        images=list(names), source={"archive": str(source)}, destination={"archive": str(destination)}, **more
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "source.tar"
    path.write_bytes(oci({"a:1": [IMAGE], "b:1": [OTHER]}))
    return path


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [
        (".tar", b"blobs"),
        (".tar.gz", b"\x1f\x8b"),
        (".tgz", b"\x1f\x8b"),
        (".tar.zst", b"\x28\xb5\x2f\xfd"),
        (".tar.xz", b"\xfd7zXZ"),
        (".tar.bz2", b"BZh"),
    ],
)
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
    assert {name: packed.image.id for packed in listed(str(back)) for name in packed.names} == {
        "a:1": IMAGE.id,
        "c:2": OTHER.id,
    }
    assert sorted(os.listdir(tmp_path)) == sorted(["source.tar", there.name, "back.tar"])


def test_a_file_is_written_as_a_whole_when_one_image_differs_and_keeps_its_mode(tmp_path: Path, archive: Path) -> None:
    path = tmp_path / "there.tar"
    path.write_bytes(legacy(IMAGE, ["a:1"]))
    path.chmod(0o640)
    result = transfer(archive, path, "a:1", "b:1")
    assert [one["reason"].partition(":")[0] for one in result["images"]] == [
        "the archive is written as a whole",
        "the destination has no image of this name",
    ]
    assert {name for packed in listed(str(path)) for name in packed.names} == {"a:1", "b:1"}
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.controller
def test_check_mode_writes_nothing(tmp_path: Path, archive: Path) -> None:
    options = {
        "images": ["a:1"],
        "source": {"archive": str(archive)},
        "destination": {"archive": str(tmp_path / "there.tar")},
    }
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
    "no archive": (b"text" * 1000, "archive {path} cannot be used: it is not a tar archive"),
    "an empty file": (b"", "archive {path} cannot be used: it is not a tar archive"),
    "cut in a layer": (
        oci({"a:1": [IMAGE]})[:9000],
        "archive {path} cannot be used: it is not a tar archive, or ends too early",
    ),
    "cut before the manifest": (legacy(IMAGE, ["a:1"])[:27000], "archive {path} cannot be used: "),
    "cut, gzip": (
        gzip.compress(oci({"a:1": [IMAGE]}))[:-40],
        "archive {path} cannot be used: gzip: unexpected end of file",
    ),
    "a layer with another digest": (
        oci({"a:1": [IMAGE]}).replace(b"basebase", b"bassbass", 1),
        "reading a:1: layer {digest} has another digest",
    ),
    "a layer with another digest, before Docker 25": (
        legacy(IMAGE, ["a:1"]).replace(b"basebase", b"bassbass", 1),
        "reading a:1: layer {digest} has another digest",
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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"precious", "the file there cannot be read as an archive of images"),
        (oci({"mine:1": [OTHER]}), "it also holds mine:1, which would be lost"),
    ],
)
def test_a_file_that_holds_something_else_is_left_alone(
    tmp_path: Path, archive: Path, content: bytes, why: str
) -> None:
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


ZEROS = gzip.compress(bytes(1 << 20)) * 100  # a stream of many parts, as gzip -dc reads it
HOSTILE = {
    "an index that names itself": (
        hostile_tars.tar(
            *(
                hostile_tars.file(name, b'{"manifests":[{"digest":"sha256:a"}]}')
                for name in ("index.json", "blobs/sha256/a")
            )
        ),
        "is an index that names itself",
    ),
    "a long name": (hostile_tars.header(b"L", b"x" * 100_000), "the headers of a member are larger than 8 KiB"),
    "zeros without end": (gzip.compress(oci({"a:1": [IMAGE]})) + ZEROS, "it has more data after its end"),
}


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_at_both_ends(tmp_path: Path, archive: Path, case: str, check: bool) -> None:
    content, why = HOSTILE[case]
    hostile = tmp_path / "hostile.tar"
    hostile.write_bytes(content)
    for result in (
        transfer(hostile, tmp_path / "new.tar", "a:1", check=check),
        transfer(archive, hostile, "a:1", check=check),
    ):
        assert result["failed"]
        assert why in result["msg"]
    assert hostile.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["hostile.tar", "source.tar"]


# Several destinations, of which one is hostile


@pytest.mark.parametrize("answered", ["a list", "many levels", "other types", "an error that is a list"])
@pytest.mark.parametrize("question", ["/version", "/images/a:1/json", "/info", "/images/load", "/images/json"])
def test_whatever_one_destination_answers_the_others_get_their_images(
    tmp_path: Path, archive: Path, question: str, answered: str
) -> None:
    other = {"Id": OTHER.id, "RootFS": {"Layers": [*OTHER.diff_ids]}, "Config": {}, "RepoTags": ["a:1"]}
    with ExitStack() as stack:
        daemon = ScriptedDaemon(tmp_path / "docker.sock")
        stack.callback(daemon.close)
        daemon.answers.update({"/images/a:1/json": answer(other), "/info": answer({}), "/images/json": answer([other])})
        daemon.answers[question] = HOSTILE_ANSWERS[answered]
        hostile, good = {"socket": daemon.path}, {"archive": str(tmp_path / "good.tar")}
        result = copied(images=["a:1"], source={"archive": str(archive)}, destinations=[hostile, good])
    assert result["failed"]
    assert result["msg"].startswith("1 of 2 destinations failed: ")
    assert str(tmp_path / "docker.sock") in result["msg"]
    assert [(one["name"], one["destination"]) for one in result["images"]] == [("a:1", str(tmp_path / "good.tar"))]
    again = copied(images=["a:1"], source={"archive": str(archive)}, destination=good)
    assert (again["failed"], again["changed"]) == (False, False)
