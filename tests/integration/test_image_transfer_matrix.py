# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images between real daemons of all kinds: this machine's, Debian's 26.1 and its newest one, and Docker 29, with
classic stores and containerd's.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image import copy
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import Daemon
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Part, verified
from ansible_collections.nested.kata.plugins.module_utils._image.locations import DaemonDestination
from ansible_collections.nested.kata.plugins.module_utils._image.options import parse
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Step
from ansible_runner import MARK, wait_until
from docker_in_docker import CONTAINERD, MOBY_IMAGE, NEWEST_IMAGE, btrfs_disk, docker, nested_daemon
from image_builder import Made, blob, digest, layer, legacy, made, tar
from image_parts import parts_of

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.loop]

MEBIBYTE = 1 << 20

# Each kind of daemon, and the hops to it.
DAEMONS = {
    "machine": (),
    "26.1 overlay2": (f"t-mx-{MARK}-overlay2",),
    "26.1 btrfs": (f"t-mx-{MARK}-btrfs",),
    "26.1 containerd": (f"t-mx-{MARK}-containerd",),
    "newest overlay2": (f"t-mx-{MARK}-newest",),
    "newest containerd": (f"t-mx-{MARK}-newest-containerd",),
    "29 overlay2": (f"t-mx-{MARK}-29",),
    "29 containerd": (f"t-mx-{MARK}-29-containerd",),
}
CLASSIC = [kind for kind in DAEMONS if "containerd" not in kind]
# Building it takes an eighth of all that the tests take.
BUILT = [kind for kind in DAEMONS if kind.startswith("29")]
# The oldest API version that Docker 29 serves. Docker 28, which serves older ones, can be told to refuse them too.
OLDEST_API = {"DOCKER_MIN_API_VERSION": "1.44"}

# A round in which each kind is once the source and once the destination, with classic stores and containerd's in every
# order.
ROUND = ("machine", "26.1 overlay2", "26.1 btrfs", "26.1 containerd", "newest containerd", "newest overlay2")
USUAL = set(zip(ROUND, (*ROUND[1:], ROUND[0]), strict=True))
PAIRS = [
    pair if pair in USUAL else pytest.param(*pair, marks=pytest.mark.thorough)
    for pair in itertools.permutations(DAEMONS, 2)
]


def each(kinds: Iterable[str]) -> list:
    """Return the kinds of daemons as parameters of a test."""
    return [pytest.param(kind, marks=pytest.mark.thorough) if kind in BUILT else kind for kind in kinds]


@pytest.fixture(scope="module")
def daemons(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The kinds that run: those that must be built only where a test of all kinds is to run."""
    built = any(item.path == request.path and item.get_closest_marker("thorough") for item in request.session.items)
    with ExitStack() as stack:
        start = functools.partial(nested_daemon, network=False)
        disk = stack.enter_context(btrfs_disk(tmp_path_factory.mktemp("btrfs")))
        stack.enter_context(start(*DAEMONS["26.1 overlay2"]))
        stack.enter_context(start(*DAEMONS["26.1 btrfs"], storage=disk, **{"storage-driver": "btrfs"}))
        stack.enter_context(start(*DAEMONS["26.1 containerd"], **CONTAINERD))
        newest = functools.partial(start, image=NEWEST_IMAGE, environment=OLDEST_API)
        stack.enter_context(newest(*DAEMONS["newest overlay2"]))
        stack.enter_context(newest(*DAEMONS["newest containerd"], **CONTAINERD))
        if built:
            stack.enter_context(start(*DAEMONS["29 overlay2"], image=MOBY_IMAGE))
            stack.enter_context(start(*DAEMONS["29 containerd"], image=MOBY_IMAGE, **CONTAINERD))
        try:
            yield [kind for kind in DAEMONS if built or kind not in BUILT]
        finally:
            # Also those whose name another image has taken.
            docker("rmi", "--force", *LOADED, check=False)


@pytest.fixture(autouse=True)
def needs(daemons: list[str]) -> None:
    """Run each test with all daemons."""


def random_image(*sizes: int, base: Made | None = None) -> Made:
    return made([*(base.layers if base else ()), *(layer(os.urandom(size)) for size in sizes)])


LOADED: set[str] = set()


def load(image: Made, name: str, kind: str) -> None:
    """Have a daemon load an image, again where containerd's store loses a part of it on the way
    (copy.LOST_SNAPSHOT).
    """
    LOADED.add(image.id)
    for _dummy in range(3):
        docker("load", "--quiet", hops=DAEMONS[kind], data=legacy(image, [name]), check=False)
        if layers_there(name, kind) == image.diff_ids:
            return
    raise AssertionError(f"{kind} does not load {name}")


def layers_there(name: str, kind: str) -> tuple[str, ...]:
    """Return the layers of an image that a daemon has, or nothing."""
    found = docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", name, hops=DAEMONS[kind], check=False)
    return tuple(json.loads(found)) if found.startswith("[") else ()


def end(kind: str) -> dict:
    return {"hops": list(DAEMONS[kind])}


def transfer(*names: str, **more: object) -> dict:
    """Do what the module does with these options."""
    options = {
        "images": list(names),
        "source": None,
        "destination": None,
        "destinations": None,
        "tags": {},
        "platform": None,
        "prune_other_tags": False,
        "timeout": 60,
    }
    try:
        return {"failed": False, **copy.carry_out(parse({**options, **more}), False, pytest.fail)}
    except Refused as error:
        return {"failed": True, "msg": str(error), **error.details}


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_an_image_goes_from_any_daemon_to_any_other(source: str, destination: str) -> None:
    name = f"t-mx-{MARK}/{source}-{destination}:1".replace(" ", "-")
    ends = {"source": end(source), "destination": end(destination)}
    first = random_image(MEBIBYTE, 1000)
    second = random_image(MEBIBYTE // 2, base=made(first.layers[:1]))
    for image, left_out in ((first, 0), (second, destination in CLASSIC)):
        load(image, name, source)
        result = transfer(name, **ends)
        assert not result["failed"], result["msg"]
        (sent,) = result["images"]
        needed = sum(map(len, image.layers[left_out:]))
        assert (sent["changed"], sent["layers_sent"], sent["layers_skipped"]) == (True, 2 - left_out, left_out)
        assert needed < sent["bytes_sent"] < 1.05 * needed
        assert ("read from its store" if source in CLASSIC else "by docker save") in sent["reason"]
        assert layers_there(name, destination) == image.diff_ids
        again = transfer(name, **ends)
        assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)


@pytest.mark.parametrize("source", each(DAEMONS))
def test_what_docker_save_gives_is_less_for_those_who_have_the_base(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_collections.nested.kata.plugins.module_utils._image.layer_files.FILES", {})
    name = f"t-mx-{MARK}/saved-{source.replace(' ', '-')}:1"
    destinations = [kind for kind in CLASSIC[:2] if kind != source]
    base = random_image(100_000)
    # The base comes again on top: it must be sent although it is there.
    twice = made([*base.layers, layer(os.urandom(1000)), *base.layers])
    for image, layers in ((base, 1), (random_image(1000, base=base), 1), (twice, 2)):
        load(image, name, source)
        result = transfer(name, source=end(source), destinations=[end(kind) for kind in destinations])
        assert not result["failed"], result["msg"]
        assert [(sent["layers_sent"], "by docker save, since" in sent["reason"]) for sent in result["images"]] == [
            (layers, True)
        ] * len(destinations)
        assert [layers_there(name, kind) for kind in destinations] == [image.diff_ids] * len(destinations)


@pytest.mark.parametrize("destination", each(CLASSIC[1:]))
def test_a_part_that_is_refused_is_followed_by_everything_once(
    destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, image = f"t-mx-{MARK}/refused-{destination.replace(' ', '-')}:1", random_image(1000, 2000)
    load(image, name, "machine")
    # As if the base had been removed since it was looked up.
    monkeypatch.setattr(DaemonDestination, "leave_out", lambda end, image: (set(image.layers[:1]), "a part"))
    result = transfer(name, destination=end(destination))
    assert not result["failed"], result["msg"]
    assert (
        f"all layers, after the destination refused a part of them (destination t-mx-{MARK}-"
        in result["images"][0]["reason"]
    )
    assert result["images"][0]["layers_sent"] == 2
    assert layers_there(name, destination) == image.diff_ids


def test_one_of_several_destinations_that_fails_is_told_and_the_others_go_on() -> None:
    image = random_image(MEBIBYTE)
    load(image, f"t-mx-{MARK}/many:1", "machine")
    result = transfer(
        f"t-mx-{MARK}/many:1",
        destinations=[end("26.1 overlay2"), {"hops": [f"t-mx-{MARK}-no"]}, end("newest containerd")],
    )
    assert (result["failed"], result["changed"]) == (True, True)
    assert [one["failed"] for one in result["destinations"]] == [False, True, False]
    assert result["msg"].startswith(
        f"1 of 3 destinations failed: destination t-mx-{MARK}-no: hop 1 of 1 (t-mx-{MARK}-no on this machine): no such"
        " container"
    )
    assert (
        layers_there(f"t-mx-{MARK}/many:1", "26.1 overlay2")
        == layers_there(f"t-mx-{MARK}/many:1", "newest containerd")
        == image.diff_ids
    )
    assert {one["destination"] for one in result["images"]} == {
        f"t-mx-{MARK}-overlay2",
        f"t-mx-{MARK}-newest-containerd",
    }


@pytest.mark.parametrize("destination", ["26.1 overlay2", "26.1 containerd", "newest containerd"])
@pytest.mark.parametrize("before", [False, True], ids=["a new name", "a name that leads to another image"])
def test_a_layer_that_cannot_be_unpacked_leaves_every_name_as_it_was(
    destination: str, before: bool, tmp_path: Path
) -> None:
    name = f"t-mx-{MARK}/junk-{before}:1".lower()
    kept = random_image(1000)
    if before:
        load(kept, name, destination)
    junk = made([b"this is no tar " * 100])
    files = {f"{junk.id[7:]}.json": junk.config, blob(junk.layers[0]): junk.layers[0]}
    listed = [{"Config": f"{junk.id[7:]}.json", "RepoTags": [name], "Layers": [blob(junk.layers[0])]}]
    (tmp_path / "junk.tar").write_bytes(tar({**files, "manifest.json": json.dumps(listed).encode()}))
    result = transfer(name, source={"archive": str(tmp_path / "junk.tar")}, destination=end(destination))
    assert result["failed"]
    assert f"destination {DAEMONS[destination][0]}: loading {name}: " in result["msg"]
    assert layers_there(name, destination) == (kept.diff_ids if before else ())


def test_an_image_that_vanishes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"t-mx-{MARK}/vanished:1"
    load(random_image(1000), name, "26.1 overlay2")
    act = copy.act

    def too_late(*arguments: object) -> None:
        docker("rmi", name, hops=DAEMONS["26.1 overlay2"])
        act(*arguments)

    monkeypatch.setattr(copy, "act", too_late)
    result = transfer(name, source=end("26.1 overlay2"), destination={})
    assert result["failed"]
    assert result["msg"].startswith(f"source t-mx-{MARK}-overlay2: saving {name}: ")
    assert layers_there(name, "machine") == ()


@pytest.mark.parametrize("source", ["machine", "26.1 containerd", "newest containerd"])
def test_an_image_for_another_platform_is_told_and_not_sent(source: str) -> None:
    name = f"t-mx-{MARK}/platform:1"
    load(random_image(1000), name, source)
    result = transfer(name, source=end(source), destination=end("26.1 overlay2"), platform="linux/arm64")
    assert result["failed"]
    assert f"has {name} for linux/amd64, not for linux/arm64: nothing was sent" in result["msg"]
    assert layers_there(name, "26.1 overlay2") == ()


@pytest.mark.parametrize("destination", ["26.1 overlay2", "newest containerd"])
def test_names_are_given_on_the_way_and_other_tags_go_when_asked(destination: str) -> None:
    old, new = random_image(1000), random_image(2000)
    for tag in ("1", "2"):
        load(old, f"t-mx-{MARK}/app:{tag}", destination)
    load(old, f"t-mx-{MARK}/application:1", destination)
    load(new, f"t-mx-{MARK}/app:build", "machine")
    options = {
        "destination": end(destination),
        "tags": {f"t-mx-{MARK}/app:build": [f"t-mx-{MARK}/app:3", f"t-mx-{MARK}/app:latest"]},
    }
    kept = transfer(f"t-mx-{MARK}/app:build", **options)
    assert kept["destinations"][0]["pruned"] == []
    pruned = transfer(f"t-mx-{MARK}/app:build", prune_other_tags=True, **options)
    assert (kept["changed"], pruned["changed"], pruned["bytes_sent"]) == (True, True, 0)
    assert pruned["destinations"][0]["pruned"] == [f"t-mx-{MARK}/app:1", f"t-mx-{MARK}/app:2"]
    there = docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", f"t-mx-{MARK}/app*", hops=DAEMONS[destination]
    ).split()
    assert sorted(there) == [f"t-mx-{MARK}/app:3", f"t-mx-{MARK}/app:latest", f"t-mx-{MARK}/application:1"]
    again = transfer(f"t-mx-{MARK}/app:build", prune_other_tags=True, **options)
    assert (again["failed"], again["changed"]) == (False, False)


def test_another_name_for_what_is_there_costs_nothing() -> None:
    image = random_image(1000)
    load(image, f"t-mx-{MARK}/here:1", "machine")
    load(image, f"t-mx-{MARK}/there:1", "26.1 overlay2")
    result = transfer(f"t-mx-{MARK}/here:1", destination=end("26.1 overlay2"))
    assert (result["changed"], result["bytes_sent"], layers_there(f"t-mx-{MARK}/here:1", "26.1 overlay2")) == (
        True,
        0,
        image.diff_ids,
    )


def test_an_image_goes_through_a_file_into_every_daemon(daemons: list[str], tmp_path: Path) -> None:
    image, path = random_image(100_000, 1000), str(tmp_path / "a.tar.zst")
    load(image, f"t-mx-{MARK}/file:1", "26.1 containerd")
    assert not transfer(f"t-mx-{MARK}/file:1", source=end("26.1 containerd"), destination={"archive": path})["failed"]
    result = transfer(
        f"t-mx-{MARK}/file:1",
        source={"archive": path},
        destinations=[end(kind) for kind in daemons if kind != "26.1 containerd"],
    )
    assert not result["failed"], result["msg"]
    assert {layers_there(f"t-mx-{MARK}/file:1", kind) for kind in daemons} == {image.diff_ids}
    assert {one["id"] for one in result["images"] if "containerd" not in one["destination"]} == {digest(image.config)}


def kept_by(kind: str, marker: str, since: float) -> list[str]:
    """Return the files of a daemon that hold a marker, of those that were changed since some time. Of the others there
    may be gigabytes.
    """
    root = docker("info", "--format", "{{.DockerRootDir}}", hops=DAEMONS[kind])
    # A file may vanish while it is searched.
    search = f"find {root} -type f -newerct @{since:.3f} -exec grep -laF {marker} {{}} + 2>/dev/null || true"
    way = ["docker", "exec", *DAEMONS[kind]] if DAEMONS[kind] else []
    return subprocess.run([*way, "sh", "-c", search], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("kind", each(DAEMONS))
def test_a_daemon_has_no_use_for_what_it_got_of_a_layer_that_does_not_have_its_digest(kind: str) -> None:
    marker, good = os.urandom(16).hex(), os.urandom(16).hex()
    kept = functools.partial(kept_by, kind, marker, time.time() - 1)
    image = made([layer(os.urandom(1000)), tar({"file": good.encode() * 500_000})])
    name = f"t-mx-{MARK}/broken-{kind.replace(' ', '-')}:1"
    LOADED.add(image.id)

    def wrong() -> Iterator[Part]:
        *parts, last, _manifest = parts_of(image)
        for part in parts:
            yield part.replace(good.encode(), marker.encode()) if isinstance(part, bytes) else part
        wait_until(lambda: bool(kept()), f"{kind} to have a part of the layer", pause=0.2)
        yield last

    described = Image.from_config(image.id, json.loads(image.config))
    step = Step(name, described, (name,), (None,), Action.SEND, "")
    with contextlib.closing(DaemonDestination(Daemon(Endpoint(hops=DAEMONS[kind]), 60))) as destination:
        with pytest.raises(Damaged, match="has another digest"):
            destination.send(step, verified(wrong()), set())
        assert layers_there(name, kind) == ()
        if kind in CLASSIC:
            wait_until(
                lambda: not kept(),
                f"{kind} to have nothing of the layer",
                pause=0.2,
                log=lambda: str(kept()),
            )
        else:
            # Containerd removes it after a day (metadata/content.go): until then no image can have it.
            assert [path for path in kept() if "/ingest/" not in path] == []
        destination.send(step, verified(parts_of(image)), set())
    assert layers_there(name, kind) == image.diff_ids
    assert [path for path in kept() if "/ingest/" not in path] == []
