# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in archives of every builder: images, their names and layers, and what is no image."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable

import builders
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import measured, unpacked
from ansible_collections.nested.kata.plugins.module_utils._image.contents import EMPTY, Packed
from ansible_collections.nested.kata.plugins.module_utils._image.layers import verified
from builders import ARTIFACTS, COMPRESS, DOCKER, OCI, Layout, called, config_of, for_platform, listing
from hostile_tars import file, link, symlink
from hostile_tars import tar as tar_of
from image_builder import Made, digest, layer, legacy, made, oci, tar
from image_parts import layers_in, listed, pack

BASE, TOP = layer(b"base" * 1000), layer(b"top")
IMAGE = made([BASE, TOP])
TWICE = made([BASE, TOP, BASE])
OTHER = made([layer(b"other")])
ARM = made([BASE, layer(b"arm")], "arm64")
NIX = Made(
    json.dumps({**json.loads(IMAGE.config), "created": "1970-01-01T00:00:01+00:00"}, indent=4).encode(), IMAGE.layers
)
NIX_BUILD = Made(b"\n" + IMAGE.config + b"\n", IMAGE.layers)


def read(data: bytes, packed: Packed) -> dict[str, bytes]:
    """Return the layers of an image, read as a task reads them."""
    wanted = packed.needed(packed.image.layers)
    sizes = measured(io.BytesIO(data), wanted)
    return layers_in(verified(unpacked(io.BytesIO(data), wanted, sizes)))[0]


# By builder: the archive, its image, and the image's names and tags.
BUILT: dict[str, tuple[bytes, Made, tuple[str, ...], tuple[str, ...]]] = {
    "docker 20.10": (legacy(TWICE, ["shop:1"]), TWICE, ("shop:1",), ()),
    "docker 25": (oci({"shop:1": [TWICE]}), TWICE, ("shop:1",), ()),
    "docker 29, of an index": (
        builders.docker_save((TWICE, "amd64"), "shop:1", (ARM, "arm64"), (IMAGE, "s390x")),
        TWICE,
        ("shop:1",),
        (),
    ),
    "ours": (pack(TWICE, names=["shop:1"], as_oci=True), TWICE, ("shop:1",), ()),
    "crane": (
        builders.crane(TWICE, "shop/app:1", "ko.local/app:latest"),
        TWICE,
        ("shop/app:1", "ko.local/app:latest"),
        (),
    ),
    "crane, not compressed": (builders.crane(TWICE, "shop:1", kind=""), TWICE, ("shop:1",), ()),
    "crane, of a digest": (builders.crane(TWICE), TWICE, (), ()),
    "kaniko, with zstd": (builders.crane(TWICE, "shop:1", kind="zstd"), TWICE, ("shop:1",), ()),
    "jib": (builders.jib(TWICE, "shop:1", "shop:latest"), TWICE, ("shop:1", "shop:latest"), ()),
    "rules_oci": (builders.rules_oci(TWICE, "shop/app:1"), TWICE, ("shop/app:1",), ()),
    "podman": (builders.skopeo(TWICE, "localhost/shop:1"), TWICE, ("localhost/shop:1",), ()),
    "old skopeo": (builders.skopeo(TWICE, "shop:1", kind="gzip"), TWICE, ("shop:1",), ()),
    "a layer of bzip2": (builders.skopeo(TWICE, "shop:1", kind="bzip2"), TWICE, ("shop:1",), ()),
    "a layer of xz": (builders.skopeo(TWICE, "shop:1", kind="xz"), TWICE, ("shop:1",), ()),
    "nix, streamed": (builders.nix(IMAGE, "hello:1"), NIX, ("hello:1",), ()),
    "nix, built": (gzip.decompress(builders.nix_build(IMAGE, "hello:1")), NIX_BUILD, ("hello:1",), ()),
    "umoci": (builders.umoci(TWICE, "1.2"), TWICE, (), ("1.2",)),
    "podman, oci-archive": (builders.podman_oci(TWICE, "localhost/shop:1"), TWICE, ("localhost/shop:1",), ()),
    "buildah, with zstd": (builders.podman_oci(TWICE, "shop:1", kind="zstd"), TWICE, ("shop:1",), ()),
    "skopeo, without a name": (builders.podman_oci(TWICE, ""), TWICE, (), ()),
    "jib, OCI": (
        builders.podman_oci(TWICE, "registry.example/shop/app:1"),
        TWICE,
        ("registry.example/shop/app:1",),
        (),
    ),
    "buildx, type=docker": (builders.buildkit_docker(TWICE, "shop:1", "1"), TWICE, ("shop:1",), ()),
    "buildx, type=docker, with zstd": (builders.buildkit_docker(TWICE, "shop:1", "1", "zstd"), TWICE, ("shop:1",), ()),
    "buildx, type=oci": (
        builders.buildx((TWICE, "amd64"), name="docker.io/library/shop:1", ref_name="1"),
        TWICE,
        ("shop:1",),
        (),
    ),
    "regctl": (builders.regctl(TWICE, "shop:1"), TWICE, ("shop:1",), ()),
}


@pytest.mark.parametrize("builder", BUILT)
def test_the_image_of_every_builder_is_found_and_read(builder: str) -> None:
    archive, image, names, tags = BUILT[builder]
    (packed,) = listed(archive).images
    assert (packed.label.names, packed.label.tags) == (names, tags)
    assert (packed.image.id, packed.image.layers, packed.image.platform) == (image.id, image.diff_ids, "linux/amd64")
    assert (packed.config, packed.lacks) == (image.config, {})
    assert read(archive, packed) == dict(zip(image.diff_ids, image.layers))


def test_images_that_share_layers_have_one_of_each() -> None:
    other = made([BASE, layer(b"other")])
    layout = Layout()
    archive = layout.archive(
        called(layout.image(IMAGE, "gzip"), "a:1"),
        called(layout.image(other, "zstd"), "b:1"),
        called(layout.image(TWICE, ""), "c:1"),
    )
    images = listed(archive).images
    assert [packed.label.names for packed in images] == [("a:1",), ("b:1",), ("c:1",)]
    for packed, image in zip(images, (IMAGE, other, TWICE)):
        assert read(archive, packed) == dict(zip(image.diff_ids, image.layers))


def test_one_image_that_is_compressed_in_two_ways_is_one() -> None:
    layout = Layout()
    index = layout.index(
        for_platform(layout.image(IMAGE, "gzip"), "amd64"), for_platform(layout.image(IMAGE, "zstd"), "amd64")
    )
    (packed,) = listed(layout.archive(called(index, "a:1"))).images
    assert packed.label.names == ("a:1",)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a": b"text"}, "neither manifest.json nor index.json"),
        ({"manifest.json": b"[1]"}, "in neither OCI's nor Docker's format (AttributeError"),
        ({"manifest.json": b'[{"RepoTags":["a:1"]}]'}, "in neither OCI's nor Docker's format (KeyError"),
        ({"manifest.json": b'[{"Config":1,"Layers":[]}]'}, "in neither OCI's nor Docker's format (AttributeError"),
        ({"manifest.json": b'[{"Config":"c","Layers":1}]'}, "in neither OCI's nor Docker's format (TypeError"),
        ({"manifest.json": b'[{"Config":"c","Layers":[1]}]'}, "in neither OCI's nor Docker's format (AttributeError"),
        ({"manifest.json": b'[{"Config":"c","RepoTags":[1]}]'}, "in neither OCI's nor Docker's format (TypeError"),
        ({"index.json": b"[]"}, "in neither OCI's nor Docker's format (AttributeError"),
        ({"index.json": b'{"manifests":[{}]}'}, "in neither OCI's nor Docker's format (KeyError"),
        ({"index.json": b'{"manifests":[{"digest":1}]}'}, "in neither OCI's nor Docker's format (Unexpected"),
        (
            {"index.json": b'{"manifests":[{"digest":"sha256:0","annotations":["a"]}]}'},
            "in neither OCI's nor Docker's format (Unexpected",
        ),
        (
            {"index.json": b'{"manifests":[{"digest":"sha256:0","platform":"linux/amd64"}]}'},
            "in neither OCI's nor Docker's format (Unexpected",
        ),
        ({"manifest.json": b"[{"}, "manifest.json in it is not valid JSON"),
    ],
)
def test_what_is_no_archive_of_images_is_told(files: dict[str, bytes], why: str) -> None:
    with pytest.raises(Damaged) as damaged:
        listed(tar(files))
    assert why in str(damaged.value)


@pytest.mark.parametrize("files", [{"manifest.json": b"[]"}, {"index.json": b"{}"}])
def test_an_archive_may_be_empty(files: dict[str, bytes]) -> None:
    found = listed(tar(files))
    assert (found.images, found.passed_over) == ((), ())


# What is no image


@pytest.mark.parametrize("what", ARTIFACTS)
def test_what_is_no_image_is_passed_over_and_the_images_beside_it_are_found(what: str) -> None:
    make, why = ARTIFACTS[what]
    layout = Layout()
    archive = layout.archive(make(layout), called(layout.image(IMAGE), "shop:1"), called(make(layout), "chart:1"))
    found = listed(archive)
    assert [packed.label.names for packed in found.images] == [("shop:1",)]
    assert [one.label.names for one in found.passed_over] == [(), ("chart:1",)]
    assert all(why in str(one) for one in found.passed_over)
    assert str(found.passed_over[1]).startswith("chart:1: ")
    assert read(archive, found.images[0]) == dict(zip(IMAGE.diff_ids, IMAGE.layers))


def test_what_an_index_says_of_an_image_is_passed_over() -> None:
    found = listed(builders.buildx((IMAGE, "amd64"), (ARM, "arm64"), name="shop:1", ref_name="1"))
    assert [(packed.label.names, packed.image.platform) for packed in found.images] == [
        (("shop:1",), "linux/amd64"),
        (("shop:1",), "linux/arm64"),
    ]
    assert [str(one) for one in found.passed_over] == ["shop:1: it is an attestation"] * 2


WITH_ANOTHER = {
    "layers that are no layers of its configuration": (
        lambda layout: layout.image(Made(made([BASE]).config, (BASE, TOP))),
        "it has 2 layers, but 1 in its configuration",
    ),
    "a configuration that is no object": (
        lambda layout: layout.image(Made(b"[1]", ())),
        "its configuration is not that of an image (",
    ),
    "a configuration that is no JSON": (
        lambda layout: layout.image(Made(b'{"a": }', ())),
        "its configuration is not that of an image (blobs/sha256/",
    ),
    "layers that are numbers in its configuration": (
        lambda layout: layout.image(Made(b'{"rootfs":{"diff_ids":[1]}}', (BASE,))),
        "its configuration is not that of an image (Layers is not a text",
    ),
    "a configuration that is not there": (
        lambda layout: layout.document(f"{OCI}.manifest.v1+json", {"config": {"digest": "sha256:0"}, "layers": []}),
        "its configuration blobs/sha256/0 is missing in it",
    ),
    "a configuration named by another digest": (
        lambda layout: layout.document(
            f"{OCI}.manifest.v1+json", {"config": {"digest": f"sha512:{'0' * 128}"}, "layers": []}
        ),
        "is a sha512 digest: only sha256 is supported",
    ),
    "layers named by another digest in its configuration": (
        lambda layout: layout.image(Made(b'{"rootfs":{"diff_ids":["sha512:00"]}}', (BASE,))),
        "sha512:00 is a sha512 digest: only sha256 is supported",
    ),
}


@pytest.mark.parametrize("case", WITH_ANOTHER)
def test_an_image_that_cannot_be_read_does_not_spoil_the_others(case: str) -> None:
    make, why = WITH_ANOTHER[case]
    layout = Layout()
    found = listed(layout.archive(called(make(layout), "bad:1"), called(layout.image(IMAGE), "shop:1")))
    assert [packed.label.names for packed in found.images] == [("shop:1",)]
    (passed_over,) = found.passed_over
    assert str(passed_over).startswith("bad:1: ")
    assert why in str(passed_over)


# Layers that are not there


def with_layer(layer_descriptor: dict) -> Callable[[Layout], dict]:
    """Return what adds an image whose lowest layer is described so."""

    def add(layout: Layout) -> dict:
        config = {"mediaType": f"{OCI}.config.v1+json", **layout.blob(TWICE.config)}
        there = [{"mediaType": f"{OCI}.layer.v1.tar", **layout.blob(one)} for one in (TOP,)]
        return layout.document(
            f"{OCI}.manifest.v1+json", {"config": config, "layers": [layer_descriptor, *there, layer_descriptor]}
        )

    return add


AWAY = {"digest": digest(gzip.compress(BASE, mtime=0)), "size": 1}
LACKING = {
    "a foreign layer": (
        {"mediaType": f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip", "urls": ["https://x.example/l"], **AWAY},
        "is not in it, since it may not be distributed (application/vnd.docker.image.rootfs.foreign.diff.tar.gzip)",
    ),
    "a nondistributable layer": (
        {"mediaType": f"{OCI}.layer.nondistributable.v1.tar+gzip", **AWAY},
        "is not in it, since it may not be distributed (application/vnd.oci.image.layer.nondistributable.v1.tar+gzip)",
    ),
    "a layer that is missing": (
        {"mediaType": f"{OCI}.layer.v1.tar+gzip", **AWAY},
        f"blobs/sha256/{AWAY['digest'][7:]} is missing in it",
    ),
    "a layer that is encrypted": (
        {"mediaType": f"{OCI}.layer.v1.tar+gzip+encrypted", **AWAY},
        "is encrypted (application/vnd.oci.image.layer.v1.tar+gzip+encrypted)",
    ),
    "a layer named by another digest": (
        {"mediaType": f"{OCI}.layer.v1.tar", "digest": f"sha512:{'0' * 128}", "size": 1},
        "is a sha512 digest: only sha256 is supported",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_layer_that_is_not_there_is_named_with_the_reason_and_does_not_spoil_other_images(case: str) -> None:
    descriptor, why = LACKING[case]
    layout = Layout()
    archive = layout.archive(called(with_layer(descriptor)(layout), "bad:1"), called(layout.image(OTHER), "shop:1"))
    bad, good = listed(archive).images
    assert [*bad.lacks] == [digest(BASE)]
    assert why in bad.lacks[digest(BASE)]
    assert good.lacks == {}
    assert read(archive, good) == dict(zip(OTHER.diff_ids, OTHER.layers))
    with pytest.raises(Damaged) as damaged:
        bad.needed(TWICE.diff_ids)
    assert why in str(damaged.value)
    assert [one.digest for one in bad.needed([digest(TOP)]).values()] == [digest(TOP)]


@pytest.mark.parametrize("blank", [False, True], ids=["no name", "an empty file"])
def test_base_layers_that_pack_leaves_out_are_said_to_be_left_out(blank: bool) -> None:
    archive = builders.pack(IMAGE, "index.docker.io/library/shop:latest", base=1, blank=blank)
    (packed,) = listed(archive).images
    assert packed.label.names == ("shop:latest",)
    assert [*packed.lacks] == [digest(BASE)]
    assert "base layers were left out of it, as pack leaves them out" in packed.lacks[digest(BASE)]
    wanted = packed.needed([digest(TOP)])
    assert layers_in(verified(unpacked(io.BytesIO(archive), wanted, {})))[0] == {digest(TOP): TOP}


def test_a_layer_that_only_another_image_has_is_there() -> None:
    config = {"Config": "c.json", "RepoTags": ["shop:1"], "Layers": ["", "t.tar"]}
    base = {"Config": "base.json", "RepoTags": ["base:1"], "Layers": ["b.tar"]}
    files = {"c.json": IMAGE.config, "base.json": made([BASE]).config, "b.tar": BASE, "t.tar": TOP}
    archive = tar({**files, "manifest.json": json.dumps([config, base]).encode()})
    packed = listed(archive).images[0]
    assert (packed.image.id, packed.lacks) == (IMAGE.id, {})
    assert read(archive, packed) == dict(zip(IMAGE.diff_ids, IMAGE.layers))


def test_a_layer_that_is_empty_is_there() -> None:
    image = made([b"", TOP])
    assert image.diff_ids[0] == EMPTY
    archive = builders.skopeo(image, "shop:1")
    (packed,) = listed(archive).images
    assert packed.lacks == {}
    assert read(archive, packed) == dict(zip(image.diff_ids, image.layers))


# The forms of names, links and documents


def docker_archive(*entries: tuple, layers: list[str], image: Made = IMAGE, config: str = "c.json") -> bytes:
    return tar_of(*entries, file("c.json", image.config), file("manifest.json", listing((config, ["shop:1"], layers))))


FORMS = {
    "a dot before names": docker_archive(
        file("./b.tar", BASE), file("./t.tar", TOP), layers=["b.tar", "./t.tar"], config="./c.json"
    ),
    "a slash before names": docker_archive(
        file("/b.tar", BASE), file("t.tar", TOP), layers=["b.tar", "/t.tar"], config="/c.json"
    ),
    "two slashes": docker_archive(
        file("x//b.tar", BASE), file("//t.tar", TOP), layers=["x/b.tar", "t.tar"], config="c.json"
    ),
    "names that would lead out": docker_archive(
        file("../b.tar", BASE), file("t.tar", TOP), layers=["../../b.tar", "x/../t.tar"]
    ),
    "a symlink": docker_archive(
        symlink("a/b.tar", "../b.tar"), file("b.tar", BASE), file("t.tar", TOP), layers=["a/b.tar", "t.tar"]
    ),
    "a symlink from the root": docker_archive(
        symlink("a/b.tar", "/x/b.tar"), file("x/b.tar", BASE), file("t.tar", TOP), layers=["a/b.tar", "t.tar"]
    ),
    "a hard link": docker_archive(
        file("b.tar", BASE), link("a/b.tar", "b.tar"), file("t.tar", TOP), layers=["a/b.tar", "t.tar"]
    ),
    "a link to a link": docker_archive(
        file("b.tar", BASE),
        link("a/b.tar", "b.tar"),
        symlink("l.tar", "a/b.tar"),
        file("t.tar", TOP),
        layers=["l.tar", "t.tar"],
    ),
    "a link to the configuration": docker_archive(
        file("b.tar", BASE), file("t.tar", TOP), symlink("d.json", "c.json"), layers=["b.tar", "t.tar"], config="d.json"
    ),
    "a layer that comes twice": docker_archive(
        file("b.tar", BASE), file("t.tar", TOP), file("b.tar", BASE), layers=["b.tar", "t.tar"]
    ),
    "a layer in place of another one": docker_archive(
        file("b.tar", b"before"), file("t.tar", TOP), file("b.tar", BASE), layers=["b.tar", "t.tar"]
    ),
    "a layer in place of a link": docker_archive(
        symlink("b.tar", "t.tar"), file("t.tar", TOP), file("b.tar", BASE), layers=["b.tar", "t.tar"]
    ),
    "a document in place of another one": docker_archive(
        file("c.json", b"{}"), file("b.tar", BASE), file("t.tar", TOP), layers=["b.tar", "t.tar"]
    ),
    "layers of all compressions": docker_archive(
        file("b.tar", COMPRESS["xz"](BASE)), file("t.tar.gz", COMPRESS["zstd"](TOP)), layers=["b.tar", "t.tar.gz"]
    ),
    "gzip in several members": docker_archive(
        file("b.tar", gzip.compress(BASE[:700]) + gzip.compress(BASE[700:])),
        file("t.tar", TOP),
        layers=["b.tar", "t.tar"],
    ),
    "a frame of zstd that is skipped": docker_archive(
        file("b.tar", b"\x50\x2a\x4d\x18\x04\0\0\0\1\2\3\4" + COMPRESS["zstd"](BASE)),
        file("t.tar", TOP),
        layers=["b.tar", "t.tar"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_archive_is_read(form: str) -> None:
    (packed,) = listed(FORMS[form]).images
    assert (packed.image.id, packed.lacks) == (IMAGE.id, {})
    assert read(FORMS[form], packed) == dict(zip(IMAGE.diff_ids, IMAGE.layers))


@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n", b" " * 1000], ids=repr)
def test_blanks_before_a_document_are_passed_over(blank: bytes) -> None:
    image = Made(blank + IMAGE.config, IMAGE.layers)
    files = {"c": image.config, "b": BASE, "t": TOP, "manifest.json": blank + listing(("c", ["shop:1"], ["b", "t"]))}
    (packed,) = listed(tar(files)).images
    assert packed.image.id == image.id
    layout = Layout(lambda data: blank.decode() + json.dumps(data))
    (packed,) = listed(layout.archive(called(layout.index(layout.image(image)), "shop:1"))).images
    assert packed.image.id == image.id


@pytest.mark.parametrize("name", ["[slug].html", "{id}.json", "[[...path]]/page.js", " {x}", "BZh9.txt", "(x"])
def test_a_layer_whose_first_file_begins_like_something_else_is_a_layer(name: str) -> None:
    image = made([tar({name: b"x"}), TOP])
    for archive in (
        oci({"web:1": [image]}),
        legacy(image, ["web:1"]),
        builders.crane(image, "web:1"),
        builders.skopeo(image, "web:1"),
        oci({"web:1": [image]}, docker=False),
    ):
        (packed,) = listed(archive).images
        assert read(archive, packed) == dict(zip(image.diff_ids, image.layers))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([symlink("a/b.tar", ".bb.tar"), file(".bb.tar", BASE)], "a/b.tar is a link to a/.bb.tar, which is not in it"),
        ([link("a/b.tar", "gone.tar")], "a/b.tar is a link to gone.tar, which is not in it"),
        ([symlink("a/b.tar", "../../../etc/shadow")], "a/b.tar is a link to etc/shadow, which is not in it"),
        ([symlink("a/b.tar", "b.tar")], "a/b.tar is missing in it"),
        ([symlink("a/b.tar", "c.tar"), symlink("a/c.tar", "b.tar")], "a/b.tar is missing in it"),
        ([], "a/b.tar is missing in it"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(entries: list, why: str) -> None:
    archive = docker_archive(*entries, file("t.tar", TOP), layers=["a/b.tar", "t.tar"])
    (packed,) = listed(archive).images
    assert packed.lacks == {digest(BASE): why}


def test_two_layers_in_one_file_are_damaged() -> None:
    (packed,) = listed(docker_archive(file("b.tar", BASE), layers=["b.tar", "b.tar"])).images
    with pytest.raises(Damaged, match=r"layers sha256:\w{12} and sha256:\w{12} are one"):
        packed.needed(IMAGE.diff_ids)


# Images without layers

NOTHING = {
    "null, as daemons save it": listing(("c", ["empty:1"], None)),
    "an empty list": listing(("c", ["empty:1"], [])),
    "no list": b'[{"Config":"c","RepoTags":["empty:1"]}]',
}


@pytest.mark.parametrize("rootfs", [{"type": "layers"}, {"type": "layers", "diff_ids": None}, {"diff_ids": []}, None])
@pytest.mark.parametrize("form", NOTHING)
def test_an_image_without_layers_is_one(form: str, rootfs: object) -> None:
    image = Made(json.dumps({"os": "linux", "config": {"Env": ["A=b"]}, "rootfs": rootfs}).encode(), ())
    archive = tar({"c": image.config, "manifest.json": NOTHING[form]})
    (packed,) = listed(archive).images
    assert (packed.image.id, packed.image.layers, packed.label.names) == (image.id, (), ("empty:1",))
    assert read(archive, packed) == {}


@pytest.mark.parametrize("layers", [None, []])
def test_a_manifest_without_layers_is_that_of_an_image(layers: object) -> None:
    image, layout = made([]), Layout()
    config = {"mediaType": f"{OCI}.config.v1+json", **layout.blob(image.config)}
    manifest = layout.document(f"{OCI}.manifest.v1+json", {"config": config, "layers": layers})
    (packed,) = listed(layout.archive(called(manifest, "empty:1"))).images
    assert (packed.image.id, packed.image.layers) == (image.id, ())


# Names


def named(name: str = "", ref_name: str = "") -> tuple:
    layout = Layout()
    (packed,) = listed(layout.archive(called(layout.image(IMAGE), name, ref_name))).images
    return packed.label.names, packed.label.tags, packed.label.digests


@pytest.mark.parametrize(
    ("name", "ref_name", "names", "tags"),
    [
        ("docker.io/library/shop:1", "1", ("shop:1",), ()),
        ("", "1.2", (), ("1.2",)),
        ("", "latest", (), ("latest",)),
        ("", "shop:1", ("shop:1",), ()),
        ("", "docker.io/library/shop:1", ("shop:1",), ()),
        ("", "localhost/shop:1", ("localhost/shop:1",), ()),
        ("", "shop/app", ("shop/app:latest",), ()),
        ("", "v1.2+k3s1", (), ()),
        ("registry.example/ubi@sha256:" + "f" * 64, "", (), ()),
        ("registry.example/ubi@sha256:" + "f" * 64, "9", (), ("9",)),
        ("Not A Name", "shop:1", ("shop:1",), ()),
        ("", "", (), ()),
    ],
)
def test_the_names_of_an_entry_are_those_that_can_be_asked_for(
    name: str, ref_name: str, names: tuple, tags: tuple
) -> None:
    assert named(name, ref_name)[:2] == (names, tags)


def test_an_entry_in_an_index_has_the_names_of_the_index_or_its_own() -> None:
    layout = Layout()
    inner = [
        called(for_platform(layout.image(IMAGE), "amd64"), "docker.io/library/shop:1", "1"),
        called(for_platform(layout.image(ARM), "arm64"), ref_name="arm"),
        for_platform(layout.image(OTHER), "s390x"),
    ]
    archive = layout.archive(called(layout.index(*inner), "docker.io/library/shop:1", "1"))
    assert [(packed.label.names, packed.label.tags) for packed in listed(archive).images] == [
        (("shop:1",), ()),
        ((), ("arm",)),
        (("shop:1",), ()),
    ]


def test_an_image_has_the_digests_of_all_that_leads_to_it() -> None:
    layout = Layout()
    manifest = layout.image(IMAGE)
    index = layout.index(manifest)
    archive = layout.archive(called(index, f"registry.example/ubi@sha256:{'f' * 64}"))
    (packed,) = listed(archive).images
    assert packed.label.digests == {IMAGE.id, manifest["digest"], index["digest"], f"sha256:{'f' * 64}"}


def asked(archive: bytes, reference: str) -> list[str]:
    return [packed.image.id for packed in listed(archive).called(reference)[0]]


def layout_of(*images: tuple[Made, str]) -> bytes:
    layout = Layout()
    return layout.archive(*(called(layout.image(image), ref_name=tag) for image, tag in images))


@pytest.mark.parametrize(
    ("archive", "reference", "found"),
    [
        (layout_of((IMAGE, "1.2")), "shop:1.2", [IMAGE]),
        (layout_of((IMAGE, "1.2")), "1.2:latest", [IMAGE]),
        (layout_of((IMAGE, "1.2"), (OTHER, "1.3")), "shop:1.2", [IMAGE]),
        (layout_of((IMAGE, "1.2"), (OTHER, "1.3")), "any/thing:1.3", [OTHER]),
        (layout_of((IMAGE, "1.2"), (OTHER, "1.3")), "shop:1", []),
        (layout_of((IMAGE, "1.2"), (OTHER, "1.2")), "shop:1.2", [IMAGE, OTHER]),
        (layout_of((IMAGE, "")), "shop:1", [IMAGE]),
        (layout_of((IMAGE, "latest")), "shop:1", [IMAGE]),
        (layout_of((IMAGE, "shop:2")), "shop:1", []),
        (layout_of((IMAGE, ""), (OTHER, "")), "shop:1", []),
        (layout_of((IMAGE, ""), (OTHER, "shop:2")), "shop:1", []),
        (layout_of((IMAGE, ""), (ARM, "")), "shop:1", [IMAGE, ARM]),
        (layout_of((IMAGE, "")), IMAGE.id, [IMAGE]),
        (layout_of((IMAGE, ""), (OTHER, "shop:2")), OTHER.id, [OTHER]),
        (layout_of((IMAGE, "")), OTHER.id, []),
        (layout_of((IMAGE, "")), f"shop@{IMAGE.id}", [IMAGE]),
        (builders.crane(IMAGE), "shop:1", [IMAGE]),
        (builders.crane(IMAGE), IMAGE.id, [IMAGE]),
        (builders.regctl(IMAGE, "shop:1"), "other:1", []),
    ],
)
def test_an_image_is_had_by_its_name_its_tag_its_id_or_as_the_only_one(
    archive: bytes, reference: str, found: list[Made]
) -> None:
    assert asked(archive, reference) == [image.id for image in found]


def test_what_is_taken_without_its_name_is_said() -> None:
    assert listed(layout_of((IMAGE, "1.2"))).called("shop:1")[1] == "whose only image has the tag 1.2, and no name"
    assert listed(layout_of((IMAGE, ""))).called("shop:1")[1] == "whose only image has no name"
    assert listed(layout_of((IMAGE, "1"))).called("shop:1")[1] == ""


# Platforms


@pytest.mark.parametrize(
    ("configured", "listed_as", "platform"),
    [
        ({"os": "linux", "architecture": "arm"}, ("arm", "v6"), "linux/arm/v6"),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, ("arm", "v6"), "linux/arm/v7"),
        ({"os": "linux", "architecture": "arm64"}, ("arm64", ""), "linux/arm64"),
        ({"os": "linux", "architecture": "arm64"}, ("amd64", "v2"), "linux/arm64"),
        ({}, ("s390x", ""), "linux/s390x"),
    ],
)
def test_a_variant_that_only_the_index_has_is_the_images(
    configured: dict, listed_as: tuple[str, str], platform: str
) -> None:
    image = Made(json.dumps({"rootfs": {"diff_ids": [digest(TOP)]}, **configured}).encode(), (TOP,))
    layout = Layout()
    (packed,) = listed(layout.archive(called(for_platform(layout.image(image), *listed_as), "a:1"))).images
    assert packed.image.platform == platform


def test_of_an_index_those_that_the_archive_has_are_found() -> None:
    found = listed(builders.docker_save((IMAGE, "amd64"), "shop:1", (ARM, "arm64")))
    assert [packed.image.platform for packed in found.images] == ["linux/amd64"]
    assert found.passed_over == ()


def test_another_image_with_the_same_layers_is_another_one() -> None:
    other = config_of(IMAGE, author="somebody")
    assert [packed.image.id for packed in listed(oci({"a:1": [IMAGE], "b:1": [other]})).images] == [IMAGE.id, other.id]
