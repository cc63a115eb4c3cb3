# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole module without a daemon: its SDK, and images from file to file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import builders
import hostile_tars
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.versions import written
from ansible_collections.nested.kata.plugins.module_utils._docker import client
from ansible_collections.nested.kata.plugins.module_utils._image import archive_reader
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import Writing, listed
from ansible_collections.nested.kata.plugins.module_utils._image.copy import carry_out
from ansible_collections.nested.kata.plugins.module_utils._image.options import parse
from ansible_collections.nested.kata.plugins.modules.image_transfer import DOCUMENTATION
from ansible_runner import CHECKOUT, module_command, module_environment, run_module
from image_builder import digest, layer, legacy, made, oci, tar
from scripted_daemon import HOSTILE as HOSTILE_ANSWERS
from scripted_daemon import ScriptedDaemon, answer
from storing_daemon import StoringDaemon

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
    assert {name: packed.image.id for packed in listed(str(back)).images for name in packed.label.names} == {
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
    assert {name for packed in listed(str(path)).images for name in packed.label.names} == {"a:1", "b:1"}
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
    assert result["msg"].endswith("has a:1 for linux/amd64 and linux/arm64, not for linux/s390x: nothing was sent")
    result = transfer(path, tmp_path / "there.tar", "a:1")
    assert (
        result["msg"]
        == f"platform: source {path} has a:1 for linux/amd64 and linux/arm64: name one of them: nothing was"
        " sent"
    )


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


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., StoringDaemon]]:
    with ExitStack() as stack:

        def started(name: str = "docker", **options: object) -> StoringDaemon:
            daemon = StoringDaemon(tmp_path / f"{name}.sock", **options)
            stack.callback(daemon.close)
            return daemon

        yield started


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("wrong", ["a bomb", "another digest", "cut"])
def test_nothing_of_a_compressed_layer_that_is_not_what_it_should_be_is_kept(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], kind: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_reader, "LARGEST_LAYER", 1 << 20)
    monkeypatch.setattr(archive_reader, "LARGEST_RATIO", 1)
    made_of = bytes(10 << 20) if wrong == "a bomb" else os.urandom(100_000)
    blob = builders.COMPRESS[kind](made_of)
    config = made([IMAGE.layers[0] if wrong == "another digest" else made_of]).config
    files = {"c.json": config, "l.tar.gz": blob[:-1000] if wrong == "cut" else blob}
    path, daemon = tmp_path / "source.tar", daemons()
    path.write_bytes(tar({**files, "manifest.json": builders.listing(("c.json", ["a:1"], ["l.tar.gz"]))}))
    result = copied(
        images=["a:1"],
        source={"archive": str(path)},
        destinations=[{"socket": daemon.path}, {"archive": str(tmp_path / "there.tar")}],
    )
    why = {"a bomb": "is uncompressed to more than", "another digest": "has another digest", "cut": f"a:1: {kind}: "}
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith(f"2 of 2 destinations failed: source {path}: reading a:1: ")
    assert why[wrong] in result["msg"]
    assert daemon.images == {}
    assert sorted(os.listdir(tmp_path)) == ["docker.sock", "source.tar"]


# Archives of other tools, into files and daemons

BUILT = {
    "crane": builders.crane(IMAGE, "a:1"),
    "jib": builders.jib(IMAGE, "a:1"),
    "rules_oci": builders.rules_oci(IMAGE, "a:1"),
    "old skopeo": builders.skopeo(IMAGE, "a:1", kind="gzip"),
    "buildah": builders.podman_oci(IMAGE, "a:1", kind="zstd"),
    "buildx": builders.buildx((IMAGE, "amd64"), name="docker.io/library/a:1", ref_name="1"),
    "umoci": builders.umoci(IMAGE, "1"),
    "crane, of a digest": builders.crane(IMAGE),
    "crane, compressed again by bzip2": bz2.compress(builders.crane(IMAGE, "a:1")),
    "skopeo, compressed by xz": lzma.compress(builders.skopeo(IMAGE, "a:1")),
}


@pytest.mark.parametrize("builder", BUILT)
@pytest.mark.parametrize("containerd", [False, True], ids=["classic", "containerd"])
def test_an_archive_of_every_builder_goes_into_files_and_daemons_and_is_there_afterwards(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], builder: str, containerd: bool
) -> None:
    (tmp_path / "source.tar").write_bytes(BUILT[builder])
    daemon = daemons(containerd=containerd)
    ends = {
        "source": {"archive": str(tmp_path / "source.tar")},
        "destinations": [{"socket": daemon.path}, {"archive": str(tmp_path / "there.tar")}],
    }
    result = copied(images=["a:1"], **ends)
    assert (result["failed"], result["changed"]) == (False, True), result["msg"]
    assert [(one["layers_sent"], one["layers_skipped"]) for one in result["images"]] == [(2, 0)] * 2
    assert daemon.images == {"a:1": IMAGE}
    there = (tmp_path / "there.tar").read_bytes()
    (packed,) = listed(str(tmp_path / "there.tar")).images
    assert (packed.image.id, packed.label.names) == (IMAGE.id, ("a:1",))
    again = copied(images=["a:1"], **ends)
    assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0), again["msg"]
    assert (tmp_path / "there.tar").read_bytes() == there


def test_of_compressed_layers_those_that_a_daemon_has_are_left_out(
    tmp_path: Path, daemons: Callable[..., StoringDaemon]
) -> None:
    (tmp_path / "source.tar").write_bytes(builders.crane(IMAGE, "a:1"))
    daemon = daemons()
    daemon.images["base:1"] = made(IMAGE.layers[:1])
    result = copied(
        images=["a:1"], source={"archive": str(tmp_path / "source.tar")}, destination={"socket": daemon.path}
    )
    assert not result["failed"], result["msg"]
    assert [(one["layers_sent"], one["layers_skipped"]) for one in result["images"]] == [(1, 1)]
    assert daemon.images["a:1"] == IMAGE
    assert [name for name in daemon.loaded[0] if name.endswith(digest(IMAGE.layers[0])[7:])] == []


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_an_archive_without_base_layers_is_for_daemons_that_have_them(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], blank: bool, check: bool
) -> None:
    path = tmp_path / "source.tar"
    path.write_bytes(builders.pack(IMAGE, "index.docker.io/library/a:latest", base=1, blank=blank))
    having, lacking, containerd = daemons("having"), daemons("lacking"), daemons("containerd", containerd=True)
    for daemon in (having, containerd):
        daemon.images["base:1"] = made(IMAGE.layers[:1])
    ends = [{"socket": daemon.path} for daemon in (having, lacking, containerd)]
    result = copied(
        images=["a"],
        source={"archive": str(path)},
        destinations=[*ends, {"archive": str(tmp_path / "there.tar")}],
        check=check,
    )
    assert [one["failed"] for one in result["destinations"]] == [False, True, True, True]
    assert [one["destination"] for one in result["images"]] == [having.path]
    assert having.images.get("a:latest") == (None if check else IMAGE)
    assert result["destinations"][1]["msg"] == (
        f"images: source {path} has a:latest without 1 of its 2 layers, which destination {lacking.path} does not have:"
        " base layers were left out of it, as pack leaves them out for a daemon that has them: bring the image that"
        " they come from there first, or an archive that has them all"
    )
    assert not lacking.loaded
    assert not (tmp_path / "there.tar").exists()


@pytest.mark.parametrize("created", ["1970-01-01T00:00:01Z", "1970-01-01T00:00:01.000Z"])
def test_an_image_of_nix_is_recognised_in_containerds_store(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], created: str
) -> None:
    (tmp_path / "source.tar").write_bytes(builders.nix(IMAGE, "hello:1"))
    daemon = daemons(containerd=True, created=created)
    ends = {"source": {"archive": str(tmp_path / "source.tar")}, "destination": {"socket": daemon.path}}
    first, again = (copied(images=["hello:1"], **ends) for _dummy in range(2))
    assert (first["failed"], first["changed"]) == (False, True), first["msg"]
    assert (again["failed"], again["changed"]) == (False, False), again["msg"]


def test_a_layer_that_begins_like_json_comes_out_of_a_daemon(
    tmp_path: Path, daemons: Callable[..., StoringDaemon]
) -> None:
    web = made([tar({"[slug].html": b"x"}), tar({"{id}.json": b"x"})])
    for number, saved in enumerate((oci({"web:1": [web]}), legacy(web, ["web:1"]))):
        daemon = daemons(f"docker{number}")
        daemon.images["web:1"], daemon.saves = web, saved
        there = tmp_path / f"{number}.tar"
        result = copied(images=["web:1"], source={"socket": daemon.path}, destination={"archive": str(there)})
        assert not result["failed"], result["msg"]
        assert listed(str(there)).images[0].image.id == web.id


@pytest.mark.parametrize("layers", [b"null", b"[]"])
def test_an_image_without_layers_comes_out_of_a_daemon_and_goes_into_one(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], layers: bytes
) -> None:
    empty = made([])
    source, destination = daemons("source"), daemons("destination")
    source.images["empty:1"] = empty
    listing = b'[{"Config":"c.json","RepoTags":["empty:1"],"Layers":' + layers + b"}]"
    source.saves = tar({"c.json": empty.config, "manifest.json": listing})
    ends = [{"socket": destination.path}, {"archive": str(tmp_path / "there.tar")}]
    result = copied(images=["empty:1"], source={"socket": source.path}, destinations=ends)
    assert not result["failed"], result["msg"]
    assert destination.images == {"empty:1": empty}
    again = copied(images=["empty:1"], source=ends[1], destination=ends[0])
    assert (again["failed"], again["changed"]) == (False, False), again["msg"]


@pytest.mark.parametrize("architectures", [["arm64"], ["arm64", "arm64"]])
def test_of_several_platforms_the_destinations_own_is_sent(
    tmp_path: Path, daemons: Callable[..., StoringDaemon], architectures: list[str]
) -> None:
    arm, path = made([layer(b"arm")], "arm64"), tmp_path / "source.tar"
    path.write_bytes(builders.buildx((IMAGE, "amd64"), (arm, "arm64"), name="a:1", ref_name="1"))
    there = [daemons(f"{number}", architecture=name) for number, name in enumerate(architectures)]
    result = copied(
        images=["a:1"], source={"archive": str(path)}, destinations=[{"socket": daemon.path} for daemon in there]
    )
    assert not result["failed"], result["msg"]
    assert [daemon.images for daemon in there] == [{"a:1": arm}] * len(there)
    assert result["passed_over"] == ["a:1: it is an attestation"] * 2


def test_destinations_of_several_platforms_are_told_to_name_one(
    tmp_path: Path, daemons: Callable[..., StoringDaemon]
) -> None:
    arm, path = made([layer(b"arm")], "arm64"), tmp_path / "source.tar"
    path.write_bytes(builders.buildx((IMAGE, "amd64"), (arm, "arm64"), name="a:1", ref_name="1"))
    amd, gone = daemons(), {"socket": str(tmp_path / "gone.sock")}
    for others in ([{"socket": daemons("arm", architecture="arm64").path}], [{"archive": str(tmp_path / "a.tar")}]):
        result = copied(images=["a:1"], source={"archive": str(path)}, destinations=[{"socket": amd.path}, *others])
        assert f"platform: source {path} has a:1 for linux/amd64 and linux/arm64: name one of them" in result["msg"]
        assert not amd.loaded
    result = copied(images=["a:1"], source={"archive": str(path)}, destinations=[gone, {"socket": amd.path}])
    assert result["msg"].startswith(f"1 of 2 destinations failed: destination {gone['socket']}: there is no socket")
    assert amd.images == {"a:1": IMAGE}


def test_what_is_no_image_is_told_and_the_image_beside_it_is_had(tmp_path: Path) -> None:
    path, lay = tmp_path / "source.tar", builders.Layout()
    chart = builders.ARTIFACTS["a Helm chart"][0](lay)
    path.write_bytes(lay.archive(builders.called(chart, "chart:1"), builders.called(lay.image(IMAGE), "a:1")))
    for check in (True, False):
        result = transfer(path, tmp_path / "there.tar", "a:1", check=check)
        assert (result["failed"], result["changed"]) == (False, True)
        (passed_over,) = result["passed_over"]
        assert passed_over.startswith("chart:1: it is a Helm chart (")
    result = transfer(path, tmp_path / "there.tar", "chart:1")
    assert result["msg"].startswith(f"images: source {path} has no image chart:1 (chart:1: it is a Helm chart (")


def test_an_image_is_had_by_its_id_under_the_name_that_tags_have(
    tmp_path: Path, daemons: Callable[..., StoringDaemon]
) -> None:
    path, daemon = tmp_path / "source.tar", daemons()
    path.write_bytes(builders.crane(IMAGE))
    for name in (IMAGE.id, IMAGE.id[7:], f"registry.example/ubi@{IMAGE.id}", "anything:2"):
        options = {"source": {"archive": str(path)}, "destination": {"socket": daemon.path}}
        result = copied(images=[name], tags={name: "shop:9"}, **options)
        assert not result["failed"], result["msg"]
        assert daemon.images.pop("shop:9") == IMAGE
    daemon.images["held:1"] = IMAGE
    result = copied(
        images=[IMAGE.id],
        tags={IMAGE.id: "shop:9"},
        source={"socket": daemon.path},
        destination={"archive": str(tmp_path / "there.tar")},
    )
    assert "saving" in result["msg"]  # it has no archive to give, but was asked for it
    daemon.saves = legacy(IMAGE, [])
    result = copied(
        images=[IMAGE.id],
        tags={IMAGE.id: "shop:9"},
        source={"socket": daemon.path},
        destination={"archive": str(tmp_path / "there.tar")},
    )
    assert not result["failed"], result["msg"]
    assert listed(str(tmp_path / "there.tar")).images[0].label.names == ("shop:9",)


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
