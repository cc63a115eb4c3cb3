# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons and archives as sources and destinations: what both must do where only one of them has something to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import builders
import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image.archive_destination import ArchiveDestination
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import DaemonError
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Part
from ansible_collections.nested.kata.plugins.module_utils._image.locations import (
    ArchiveLocation,
    DaemonDestination,
    DaemonLocation,
    DaemonSource,
)
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Sent, Step
from builders import ARTIFACTS, Layout, called
from image_builder import Made, layer, made, make_store, oci
from image_parts import layers_in, parts_of

MADE = made([layer(b"only")])
IMAGE = Image(MADE.id, MADE.diff_ids, "config")
OTHER = Image("sha256:" + "2" * 64, (), "another")


class FakeDaemon:
    """A daemon with images by their names, which keeps one of the names. `asked` notes what it was asked to do."""

    title, endpoint = "destination fake", Endpoint()

    def __init__(self, **images: Image) -> None:
        self.images = images
        self.asked: list[tuple[str, ...]] = []

    def image(self, name: str) -> Image | None:
        return self.images.get(name)

    def tag(self, image_id: str, name: str) -> None:
        self.asked.append(("tag", name))
        self.images[name] = next(image for image in self.images.values() if image.id == image_id)

    def untag(self, name: str) -> str | None:
        self.asked.append(("untag", name))
        return "it is used" if name == "kept" else None


def step(action: Action, *replaced: Image | None) -> Step:
    return Step("a", IMAGE, ("a", "b"), replaced, action, "", None if action is Action.SEND else IMAGE)


@pytest.fixture
def archive(tmp_path: Path) -> ArchiveLocation:
    path = tmp_path / "a.tar"
    path.write_bytes(oci({"a:1": [MADE]}))
    return ArchiveLocation(str(path))


def test_a_daemon_is_asked_to_name_what_has_no_name_or_a_wrong_one() -> None:
    daemon = FakeDaemon(a=IMAGE, b=OTHER)
    assert DaemonDestination(daemon).settle(step(Action.TAG, IMAGE, OTHER)) == Sent(IMAGE.id)
    assert daemon.asked == [("tag", "b")]


@pytest.mark.parametrize(("action", "sent"), [(Action.KEEP, Sent(IMAGE.id)), (Action.SEND, None)])
def test_what_is_kept_or_sent_asks_a_daemon_for_nothing_before(action: Action, sent: Sent | None) -> None:
    daemon = FakeDaemon()
    assert (DaemonDestination(daemon).settle(step(action, IMAGE, IMAGE)), daemon.asked) == (sent, [])


def test_a_name_that_leads_to_another_image_afterwards_is_an_error() -> None:
    daemon = FakeDaemon(a=IMAGE)
    daemon.tag = lambda image_id, name: daemon.images.update({name: OTHER})
    with pytest.raises(
        DaemonError, match=r"^destination fake: naming a: it reported no error, but has 222222222222 as b instead of "
    ):
        DaemonDestination(daemon).settle(step(Action.TAG, IMAGE, None))


def test_a_daemon_tells_of_each_name_whether_it_keeps_it() -> None:
    assert list(DaemonDestination(FakeDaemon()).prune(("gone", "kept"))) == [("gone", None), ("kept", "it is used")]


def test_an_archive_keeps_an_image_or_is_written_and_has_nothing_else_to_name_or_to_prune(
    archive: ArchiveLocation,
) -> None:
    destination = archive.destination(None, 1, {"a:1"})
    assert destination.whole
    assert destination.settle(step(Action.KEEP, IMAGE, IMAGE)) == Sent(IMAGE.id)
    assert destination.settle(step(Action.SEND, None, None)) is None
    assert destination.leave_out(IMAGE) == (set(), "all layers, since an archive must hold them")
    assert (destination.tags(), list(destination.prune(())), destination.taken) == ([], [], None)
    destination.finish()
    destination.close()
    assert Path(archive.path).read_bytes() == oci({"a:1": [MADE]})


SECRET = b"root:secret" * 1000


def breaking(image: Made) -> Iterator[Part]:
    """Yield the parts of an image up to the middle of its last layer, which has something else."""
    *parts, _manifest = parts_of(image)
    yield from parts[:-2]
    yield SECRET[: len(parts[-2])]
    raise Unreadable("its layer has another digest")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_nothing_of_a_layer_that_broke_off_stays_in_an_archive(tmp_path: Path, suffix: str) -> None:
    location = ArchiveLocation(str(tmp_path / f"a.{suffix}"))
    before = made([layer(os.urandom(3000))])
    image = made([layer(os.urandom(3000)), layer(os.urandom(5000))])
    destination = location.destination(None, 1, ())
    steps = [
        Step(name, Image(one.id, one.diff_ids, ""), (name,), (None,), Action.SEND, "")
        for name, one in (("a:1", before), ("b:1", image))
    ]
    destination.send(steps[0], parts_of(before), set())
    for _dummy in range(2):
        with pytest.raises(Unreadable):
            destination.send(steps[1], breaking(image), set())
    sent = destination.send(steps[1], parts_of(image), set())
    destination.finish()
    destination.close()
    assert (sent.image_id, sent.layers) == (image.id, 2)
    source = location.source(None, 1, "")
    for name, one in (("a:1", before), ("b:1", image)):
        found, manifest = layers_in(source.parts(name, source.image(name, str), one.diff_ids))
        assert (found, manifest.config) == (dict(zip(one.diff_ids, one.layers)), one.config)
    content = Path(location.path).read_bytes()
    if suffix != "tar":
        command = ["gzip" if suffix == "tar.gz" else "zstd", "-dc"]
        content = subprocess.run(command, input=content, capture_output=True, check=True).stdout
    assert SECRET[:1000] not in content
    assert os.listdir(tmp_path) == [f"a.{suffix}"]


def test_a_daemon_behind_a_socket_does_not_choose_which_files_of_this_machine_are_read(tmp_path: Path) -> None:
    class Hostile(FakeDaemon):
        endpoint = Endpoint(socket=str(tmp_path / "docker.sock"))
        silence = 1

        def info(self) -> dict[str, str]:
            return {"Driver": "overlay2", "DockerRootDir": str(tmp_path)}

        def tunnelled(self) -> bool:
            return False

        def save(self, reference: str, platform: str) -> Iterator[bytes]:
            self.asked.append(("save", reference))
            yield oci({"a:1": [MADE]})

    make_store(tmp_path, MADE, "overlay2")
    daemon = Hostile()
    source = DaemonSource(daemon, "")
    list(source.parts("a:1", IMAGE, MADE.diff_ids))
    assert daemon.asked == [("save", "a:1")]
    assert (
        source.read_from
        == "by docker save, since only the daemon at /var/run/docker.sock is known to be this machine's"
    )


def test_an_archive_at_a_destination_runs_nothing_and_a_daemon_has_a_platform(archive: ArchiveLocation) -> None:
    class Arm(FakeDaemon):
        def platform(self) -> str:
            return "linux/arm64"

    assert DaemonDestination(Arm()).platform() == "linux/arm64"
    assert archive.destination(None, 1, {"a:1"}).platform() == ""


def test_a_daemon_as_a_source_lacks_nothing_and_tells_what_is_near() -> None:
    class Listing(FakeDaemon):
        def tags(self) -> list[str]:
            return ["shop:2"]

    source = DaemonSource(Listing(shop=IMAGE), "")
    assert source.image("shop", pytest.fail) is IMAGE
    assert (source.lacking("shop"), source.passed_over) == ({}, ())
    assert source.absence("shop:1") == "no image shop:1 (near: shop:2)"


def test_a_daemon_is_asked_for_the_one_spelling_of_a_platform() -> None:
    class Saving(FakeDaemon):
        def tunnelled(self) -> bool:
            return False

        def save(self, reference: str, platform: str) -> Iterator[bytes]:
            self.asked.append((reference, platform))
            yield oci({"a:1": [MADE]})

    for platform in ("linux/arm64/v8", ""):
        daemon = Saving()
        daemon.endpoint = Endpoint(socket="/nowhere/docker.sock")
        list(DaemonSource(daemon, platform).parts("a:1", IMAGE, MADE.diff_ids))
        assert daemon.asked == [("a:1", platform and "linux/arm64")]


BESIDE = {
    "an image without a name": (lambda layout: layout.image(made([layer(b"other")])), "sha256:"),
    "a chart": (ARTIFACTS["a Helm chart"][0], "it is a Helm chart"),
    "an image for another platform": (
        lambda layout: called(layout.image(made([layer(b"arm")], "arm64")), "a:1"),
        "a:1 for linux/arm64",
    ),
    "another name": (lambda layout: called(layout.image(made([layer(b"other")])), "mine:1"), "mine:1"),
}


@pytest.mark.parametrize("what", BESIDE)
def test_an_archive_that_would_lose_something_is_refused_as_a_destination(tmp_path: Path, what: str) -> None:
    make, words = BESIDE[what]
    layout = Layout()
    path = tmp_path / "there.tar"
    path.write_bytes(layout.archive(called(layout.image(MADE), "a:1"), make(layout)))
    with pytest.raises(Refused, match=f"it also holds .*{words}.*, which would be lost: name that in the task, or"):
        ArchiveDestination(str(path), {"a:1"})


def test_an_archive_without_all_of_an_images_layers_does_not_have_it(tmp_path: Path) -> None:
    path = tmp_path / "there.tar"
    path.write_bytes(builders.pack(MADE, "a:1", base=1))
    assert ArchiveDestination(str(path), {"a:1"}).image("a:1") is None


def test_where_there_are_only_daemons_nothing_is_imported_that_reads_archives() -> None:
    module = "ansible_collections.nested.kata.plugins.modules.image_transfer"
    asked = f"import sys, {module}; print([name for name in sys.modules if '_image.archive_' in name])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run([sys.executable, "-c", asked], env=environment, check=True, capture_output=True, text=True)
    assert shown.stdout == f"['{module.replace('modules.image_transfer', 'module_utils._image.archive_writer')}']\n"


def test_only_a_daemon_has_a_transport_and_may_hold_other_images(archive: ArchiveLocation) -> None:
    daemon = DaemonLocation(Endpoint(socket="/x.sock"))
    assert (daemon.kind, daemon.prunable, daemon.transport().taken.name) == ("daemon", True, "socket")
    assert (archive.kind, archive.prunable, archive.transport()) == ("archive", False, None)
