# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive file as a source: which of its images a task means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import builders
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._image import archive_source
from ansible_collections.nested.kata.plugins.module_utils._image.archive_source import ArchiveSource
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import DaemonError
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Blob, Manifest
from builders import ARTIFACTS, Layout, called, config_of, for_platform
from image_builder import Made, digest, layer, made, oci
from image_parts import layers_in

BASE, TOP = layer(b"base" * 1000), layer(b"top")
IMAGE = made([BASE, TOP])
OTHER = made([BASE, layer(b"other")])
PLATFORMS = {
    name: made([layer(name.encode())], name.partition("/")[0])
    for name in ("amd64", "amd64/v3", "arm64", "arm/v6", "arm/v7", "s390x")
}


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., ArchiveSource]:
    def opened(archive: bytes, platform: str = "") -> ArchiveSource:
        (tmp_path / "a.tar").write_bytes(archive)
        return ArchiveSource(str(tmp_path / "a.tar"), platform)

    return opened


def nobody() -> str:
    pytest.fail("nobody had to be asked for a platform")


def several(*names: str) -> bytes:
    """Return an archive of an image for several platforms."""
    layout = Layout()
    entries = [for_platform(layout.image(PLATFORMS[name]), *name.split("/")) for name in names]
    return layout.archive(called(layout.index(*entries), "shop:1"))


def test_an_archive_is_read_in_one_way_only(source: Callable[..., ArchiveSource]) -> None:
    opened = source(oci({"a:1": [IMAGE]}))
    assert opened.image("a:1", nobody).id == IMAGE.id
    assert opened.image("a:2", nobody) is None
    assert (opened.by_content(), opened.taken, opened.lacking("a:1"), opened.passed_over) == (False, None, {}, [])
    assert not opened.forgo(Unreadable("it is another machine's"))
    opened.close()


def test_an_archive_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^source: archive /.*/no.tar cannot be read: No such file or directory$"):
        ArchiveSource(str(tmp_path / "no.tar"), "")


def test_only_the_layers_that_are_wanted_are_given_and_the_manifest_names_all(
    source: Callable[..., ArchiveSource],
) -> None:
    opened = source(builders.crane(IMAGE, "a:1"))
    image = opened.image("a:1", nobody)
    assert layers_in(opened.parts("a:1", image, [digest(TOP)])) == (
        {digest(TOP): TOP},
        Manifest(IMAGE.config, IMAGE.diff_ids),
    )
    assert opened.read_from == "read from the archive"


def test_the_size_of_a_compressed_layer_is_measured_once(
    source: Callable[..., ArchiveSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, asked = archive_source.measured, []
    monkeypatch.setattr(
        archive_source, "measured", lambda file, layers: asked.append(sorted(layers)) or measured(file, layers)
    )
    opened = source(builders.crane(IMAGE, "a:1"))
    image = opened.image("a:1", nobody)
    for wanted in ([digest(TOP)], IMAGE.diff_ids, IMAGE.diff_ids):
        list(opened.parts("a:1", image, wanted))
    assert [len(numbers) for numbers in asked] == [1, 1]


def test_an_archive_that_changes_before_it_is_read_is_told(source: Callable[..., ArchiveSource]) -> None:
    opened = source(builders.crane(IMAGE, "a:1"))
    image = opened.image("a:1", nobody)
    source(builders.crane(OTHER, "a:1"))
    with pytest.raises(DaemonError, match=r"reading a:1: layer sha256:\w{12} "):
        layers_in(opened.parts("a:1", image, IMAGE.diff_ids))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
def test_nobody_gets_the_whole_of_a_compressed_layer_that_does_not_have_its_digest(
    source: Callable[..., ArchiveSource], kind: str
) -> None:
    opened = source(builders.crane(Made(IMAGE.config, (BASE, layer(b"pot"))), "a:1", kind=kind))
    parts, got = opened.parts("a:1", opened.image("a:1", nobody), IMAGE.diff_ids), []
    with pytest.raises(DaemonError, match=f"layer {digest(TOP)[:19]} has another digest"):
        for part in parts:
            got.append(part)  # what was passed on before the error counts
    assert got[0] == Blob(digest(BASE), len(BASE))
    assert not any(isinstance(part, Manifest) for part in got)
    assert b"".join(part for part in got if isinstance(part, bytes)) == BASE


# Several platforms


@pytest.mark.parametrize(
    ("names", "platform", "own", "chosen"),
    [
        (["amd64", "arm64"], "linux/arm64", nobody, "arm64"),
        (["amd64", "arm64"], "linux/arm64/v8", nobody, "arm64"),
        (["amd64", "arm64"], "", lambda: "linux/arm64", "arm64"),
        (["arm64", "amd64"], "", lambda: "linux/amd64", "amd64"),
        (["amd64/v3", "amd64"], "", lambda: "linux/amd64", "amd64"),
        (["amd64/v3", "amd64"], "linux/amd64/v3", nobody, "amd64/v3"),
        (["arm64", "amd64/v3"], "", lambda: "linux/amd64", "amd64/v3"),
        (["arm/v6", "arm/v7"], "", lambda: "linux/arm", "arm/v7"),
        (["arm/v6", "arm/v7"], "linux/arm/v6", nobody, "arm/v6"),
        (["arm64"], "", nobody, "arm64"),
    ],
)
def test_of_several_platforms_it_is_the_one_that_is_named_or_the_destinations(
    source: Callable[..., ArchiveSource], names: list[str], platform: str, own: Callable[[], str], chosen: str
) -> None:
    assert source(several(*names), platform).image("shop:1", own).id == PLATFORMS[chosen].id


@pytest.mark.parametrize(
    ("names", "platform", "own", "why"),
    [
        (["amd64", "arm64"], "", "", "has shop:1 for linux/amd64 and linux/arm64: name one of them"),
        (
            ["amd64", "arm64"],
            "",
            "linux/s390x",
            "has shop:1 for linux/amd64 and linux/arm64, and the destination runs linux/s390x: name one of them",
        ),
        (
            ["amd64", "arm64", "s390x"],
            "linux/riscv64",
            "",
            "has shop:1 for linux/amd64, linux/arm64 and linux/s390x, not for linux/riscv64",
        ),
        (["amd64"], "linux/arm64", "", "has shop:1 for linux/amd64, not for linux/arm64"),
        (["arm/v6", "arm64"], "linux/arm/v7", "", "has shop:1 for linux/arm/v6 and linux/arm64, not for linux/arm/v7"),
    ],
)
def test_several_platforms_of_which_none_is_meant_are_listed(
    source: Callable[..., ArchiveSource], names: list[str], platform: str, own: str, why: str
) -> None:
    opened = source(several(*names), platform)
    with pytest.raises(Refused) as refused:
        opened.image("shop:1", lambda: own)
    assert str(refused.value) == f"platform: {opened.title} {why}: nothing was sent"


def test_a_platform_whose_layers_are_not_there_is_not_the_one_that_is_meant(
    source: Callable[..., ArchiveSource],
) -> None:
    layout = Layout()
    amd, arm = (for_platform(layout.image(PLATFORMS[name]), name) for name in ("amd64", "arm64"))
    blob = f"blobs/sha256/{builders.hexadecimal(builders.COMPRESS['gzip'](PLATFORMS['arm64'].layers[0]))}"
    del layout._blobs[blob]
    archive = layout.archive(called(layout.index(arm, amd), "shop:1"))
    assert source(archive).image("shop:1", nobody).id == PLATFORMS["amd64"].id
    opened = source(archive, "linux/arm64")
    assert opened.image("shop:1", nobody).id == PLATFORMS["arm64"].id
    assert opened.lacking("shop:1") == {PLATFORMS["arm64"].diff_ids[0]: f"{blob} is missing in it"}


def test_two_images_of_one_name_are_named_by_their_ids(source: Callable[..., ArchiveSource]) -> None:
    archive = oci({"a:1": [IMAGE], "docker.io/library/a:1": [OTHER]})
    opened = source(archive)
    with pytest.raises(Refused) as refused:
        opened.image("a:1", lambda: "linux/amd64")
    assert str(refused.value) == (
        f"images: {opened.title} has a:1 for linux/amd64 2 times: name one by its id ({IMAGE.id} and {OTHER.id}), and"
        " in tags the name that it gets: nothing was sent"
    )
    assert opened.image(OTHER.id, nobody).id == OTHER.id


# Names


def test_an_image_without_a_name_is_had_as_the_only_one_and_said_so(source: Callable[..., ArchiveSource]) -> None:
    opened = source(builders.umoci(IMAGE, "1.2"))
    for reference, how in (
        ("shop:1", "read from the archive, whose only image has the tag 1.2, and no name"),
        ("shop:1.2", "read from the archive"),
        (IMAGE.id, "read from the archive"),
    ):
        image = opened.image(reference, nobody)
        assert image.id == IMAGE.id
        list(opened.parts(reference, image, ()))
        assert opened.read_from == how


def test_what_is_there_is_told_of_an_image_that_is_not(source: Callable[..., ArchiveSource]) -> None:
    layout = Layout()
    chart = ARTIFACTS["a Helm chart"][0](layout)
    archive = layout.archive(
        called(layout.image(IMAGE), "a:1"), called(layout.image(OTHER), ref_name="3"), called(chart, "chart:1")
    )
    opened = source(archive)
    assert opened.absence("zzz:1") == (
        f"no image zzz:1 (it has a:1 and without a name {OTHER.id} (tag 3), to be named by id)"
    )
    assert opened.absence("chart:1").startswith("no image chart:1 (chart:1: it is a Helm chart (")
    assert [one.partition(" (")[0] for one in opened.passed_over] == ["chart:1: it is a Helm chart"]


def test_an_archive_of_nothing_but_a_chart_says_so(source: Callable[..., ArchiveSource]) -> None:
    layout = Layout()
    opened = source(layout.archive(called(ARTIFACTS["a Helm chart"][0](layout), "chart:1")))
    assert opened.image("shop:1", nobody) is None
    assert opened.absence("shop:1").startswith("no image shop:1 (chart:1: it is a Helm chart (")


def test_an_image_that_lacks_layers_is_passed_over_unless_it_is_asked_for(source: Callable[..., ArchiveSource]) -> None:
    opened = source(builders.pack(IMAGE, "shop:1", base=1))
    why = "base layers were left out of it, as pack leaves them out for a daemon that has them"
    assert opened.passed_over == [f"shop:1: {why}"]
    image = opened.image("shop:1", nobody)
    assert (opened.lacking("shop:1"), opened.passed_over) == ({digest(BASE): why}, [])
    with pytest.raises(DaemonError, match=why):
        list(opened.parts("shop:1", image, IMAGE.diff_ids))


def test_a_name_that_would_hide_something_is_made_visible(source: Callable[..., ArchiveSource]) -> None:
    bad = config_of(IMAGE, rootfs={"diff_ids": ["sha512:\u202e\n"]})
    (passed_over,) = source(oci({"a:1": [bad]}, docker=False)).passed_over
    assert passed_over == "a:1: sha512:\\u202e is a sha512 digest: only sha256 is supported"
