# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import CHECKOUT, module_command, module_environment

from ansible_collections.nested.kata.plugins.module_utils import client
from ansible_collections.nested.kata.plugins.module_utils.image import (
    Action,
    Image,
    Refused,
    absent,
    decide,
    messages,
    near,
    others_of,
    parse_reference,
    parse_references,
    parse_tags,
    refusal,
    same,
    trailing_error,
)
from ansible_collections.nested.kata.plugins.modules.image_transfer import DOCUMENTATION, Work, carry_out, summary, wanted
from ansible_collections.nested.kata.plugins.module_utils.daemon import Endpoint

OLDEST_SDK = ".".join(map(str, client.OLDEST_SDK))

# What a person writes, and the one spelling that daemons list.
SPELLINGS = [
    ("debian", "debian:latest"),
    ("debian:trixie-slim", "debian:trixie-slim"),
    ("docker.io/library/debian", "debian:latest"),
    ("index.docker.io/library/debian:12", "debian:12"),
    ("library/debian:12", "debian:12"),
    ("docker.io/somebody/thing:1", "somebody/thing:1"),
    ("somebody/thing", "somebody/thing:latest"),
    ("registry:5000/a/b:tag", "registry:5000/a/b:tag"),
    ("registry:5000/a/b", "registry:5000/a/b:latest"),
    ("localhost/a", "localhost/a:latest"),
    ("[fd00::1]:5000/a:1", "[fd00::1]:5000/a:1"),
    ("Upper.example/a", "Upper.example/a:latest"),
    ("a__b/c--d.e:T_1.2-x", "a__b/c--d.e:T_1.2-x"),
    ("deadbeef", "deadbeef:latest"),
]

# What is no reference, and the words that say why.
MALFORMED = [
    ("", "'' is no part of a name"),
    (":tag", "'' is no part of a name"),
    ("name:", "'' is no tag"),
    ("name:-x", "'-x' is no tag"),
    ("name:" + "x" * 129, "is no tag"),
    ("Debian", "lower case"),
    ("a//b", "'' is no part of a name"),
    ("-a", "'-a' is no part of a name"),
    ("a b", "'a b' is no part of a name"),
    ("a\nb", "is no part of a name"),
    ("regi_stry.x/a", "'regi_stry.x' is no registry"),
    ("https://registry/a", "is no registry"),
    ("x" * 256, "longer than 255"),
    ("a" * 64, "image id"),
    ("sha256:" + "a" * 64, "digest"),
    ("debian@sha256:" + "a" * 64, "digest"),
    ("debian:12@sha256:" + "a" * 64, "digest"),
]

# What GET /images/NAME/json answers: Docker 20.10, and Docker 29 with containerd's store, for the same image.
CLASSIC = {
    "Id": "sha256:" + "1" * 64,
    "Created": "2026-11-01T10:00:00.5Z",
    "Author": "",
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {
        "Hostname": "", "User": "", "AttachStdin": False, "OnBuild": None, "Image": "sha256:" + "9" * 64,
        "Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": {"/data": {}}, "Labels": {"a": ""},
    },
    "RootFS": {"Type": "layers", "Layers": ["sha256:" + "a" * 64, "sha256:" + "b" * 64]},
}
CONTAINERD = {
    "Id": "sha256:" + "2" * 64,
    "Created": "2026-11-01T10:00:00.5Z",
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": {"/data": {}}, "Labels": {"a": ""}},
    "RootFS": {"Type": "layers", "Layers": ["sha256:" + "a" * 64, "sha256:" + "b" * 64]},
    "Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json"},
}


@pytest.mark.parametrize("text, reference", SPELLINGS)
def test_every_spelling_of_a_name_becomes_the_one_that_daemons_list(text: str, reference: str) -> None:
    assert parse_reference(text) == reference
    assert parse_reference(reference) == reference


@pytest.mark.parametrize("text, why", MALFORMED)
def test_what_is_no_reference_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_reference(text)
    assert why in str(refused.value)
    assert repr(text) in str(refused.value)


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Refused:
        return
    assert parse_reference(reference) == reference


def test_an_image_that_is_named_twice_is_moved_once() -> None:
    assert parse_references(["b", "a:1", "docker.io/library/b:latest"]) == ("b:latest", "a:1")


def test_two_stores_agree_about_the_same_image_by_its_content() -> None:
    classic, containerd = Image.parse(CLASSIC), Image.parse(CONTAINERD)
    assert same(classic, containerd, by_content=True)
    assert not same(classic, containerd, by_content=False)


def test_the_zero_time_of_older_daemons_is_no_time() -> None:
    assert Image.parse({**CLASSIC, "Created": "0001-01-01T00:00:00Z"}).config == Image.parse({**CONTAINERD, "Created": ""}).config


@pytest.mark.parametrize("change", [
    {"Architecture": "arm64"},
    {"Created": "2026-11-01T10:00:00.6Z"},
    {"RootFS": {"Layers": CLASSIC["RootFS"]["Layers"][:1]}},
    {"RootFS": {"Layers": CLASSIC["RootFS"]["Layers"][::-1]}},
    {"RootFS": None},
    {"Config": {**CONTAINERD["Config"], "Cmd": ["bash"]}},
    {"Config": {**CONTAINERD["Config"], "Volumes": {"/other": {}}}},
    {"Config": {**CONTAINERD["Config"], "Labels": {"a": "b"}}},
    {"Config": None},
], ids=json.dumps)
def test_content_that_differs_is_another_image(change: dict) -> None:
    assert not same(Image.parse(CLASSIC), Image.parse({**CONTAINERD, **change}), by_content=True)


SOURCE = Image.parse(CLASSIC)
OTHER = Image.parse({**CONTAINERD, "Config": None})
SAME = replace(SOURCE, config="printed in another way")

# What the destination has under each name, under the source's id, and what follows.
DECISIONS = [
    ((None,), None, Action.SEND, "the destination has no image of this name"),
    ((SAME,), None, Action.KEEP, "the destination has the same image"),
    ((OTHER,), None, Action.SEND, "the destination has another image of this name (222222222222)"),
    ((None,), SAME, Action.TAG, "the destination has no image of this name, and the same image under another one"),
    ((None,), OTHER, Action.SEND, "the destination has no image of this name"),
    ((SAME, SAME), None, Action.KEEP, "the destination has the same image"),
    ((SAME, None), None, Action.TAG, "the destination has no image of this name, and the same image under another one"),
    ((SAME, OTHER), None, Action.TAG, "the destination has another image of this name (222222222222), and the same image under another one"),
    ((OTHER, None), None, Action.SEND, "the destination has no image of this name"),
]


@pytest.mark.parametrize("replaced, unnamed, action, reason", DECISIONS)
def test_what_a_destination_has_decides_what_it_gets(
    replaced: tuple[Image | None, ...], unnamed: Image | None, action: Action, reason: str,
) -> None:
    step = decide("a:1", SOURCE, tuple(f"b:{number}" for number in range(len(replaced))), replaced, unnamed, by_content=False)
    assert (step.action, step.reason, step.replaced) == (action, reason, replaced)
    assert (step.there is SAME) is (action is not Action.SEND)


def test_tags_are_the_names_that_an_image_gets_instead_of_its_own() -> None:
    assert parse_tags({"a": "b:2", "docker.io/c:1": ["c:1", "c"]}, ("a:latest", "c:1", "d:1")) == {
        "a:latest": ("b:2",), "c:1": ("c:1", "c:latest"), "d:1": ("d:1",),
    }


@pytest.mark.parametrize("tags, why", [
    ({"b": "c:1"}, "'b' is not among the images"),
    ({"a": "C"}, "'C' is not an image name"),
    ({"a": []}, "'a' has no name"),
    ({"a": "d:1"}, "'d:1' would name both a:latest and d:1"),
])
def test_tags_that_cannot_be_are_refused(tags: dict, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_tags(tags, ("a:latest", "d:1"))
    assert why in str(refused.value)


@pytest.mark.parametrize("platform, fits", [
    ("linux/arm64", True), ("linux/arm64/v8", True), ("linux/arm64/v9", False), ("linux/arm", False), ("linux/amd64", False),
])
def test_a_platform_without_a_variant_is_content_with_any(platform: str, fits: bool) -> None:
    assert Image.parse({**CLASSIC, "Architecture": "arm64", "Variant": "v8"}).runs_on(platform) is fits


def test_an_image_is_the_same_by_what_an_archive_says() -> None:
    config = {
        "architecture": "amd64", "os": "linux", "created": CLASSIC["Created"], "config": CONTAINERD["Config"], "history": [],
        "rootfs": {"type": "layers", "diff_ids": CLASSIC["RootFS"]["Layers"]},
    }
    assert same(Image.from_config("sha256:" + "3" * 64, config), SOURCE, by_content=True)


def test_other_tags_are_those_of_the_same_repositories() -> None:
    assert others_of(["a:2", "r:5/b:1"], ["a:1", "a:2", "ab:1", "r:5/b:1", "r:5/b:0", "b:0"]) == ("a:1", "r:5/b:0")


def test_other_tags_of_the_repository_are_the_nearest_names() -> None:
    tags = ["debian:trixie-slim", "debian:bookworm", "debiam:1", "nginx:latest"]
    assert near("debian:trixi-slim", tags)[0] == "debian:trixie-slim"
    assert "debian:bookworm" in near("debian:trixi-slim", tags)
    assert "nginx:latest" not in near("debian:trixi-slim", tags)


def test_a_repository_that_is_misspelt_has_near_names() -> None:
    assert near("debain:1.2.3.4", ["debian:trixie-slim", "nginx:latest"]) == ("debian:trixie-slim",)


def test_every_image_that_is_absent_is_told_with_its_near_names() -> None:
    assert absent(["debain:12", "zzz:latest"], ["debian:12", "nginx:latest"]) == (
        "no image debain:12 (near: debian:12); no image zzz:latest (nothing there is like it; 2 names in all)"
    )


STREAM = b'{"status":"Loading layer","id":"\xc3\xa9"}\r\n{"stream":"Loaded image: a:1\\n"}\r\n{"a":{"b":"}{"}}'


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=8))
def test_messages_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in zip(edges, edges[1:])]
    assert list(messages(pieces)) == [{"status": "Loading layer", "id": "é"}, {"stream": "Loaded image: a:1\n"}, {"a": {"b": "}{"}}]


def test_a_stream_that_breaks_off_in_a_message_is_an_error() -> None:
    found = messages([b'{"status":"x"}{"stre'])
    assert next(found) == {"status": "x"}
    with pytest.raises(ValueError, match="in the middle of a message"):
        next(found)


@pytest.mark.parametrize("message, complaint", [
    ({"errorDetail": {"message": "no space left on device"}, "error": "no space left on device"}, "no space left on device"),
    ({"error": "alone"}, "alone"),
    ({"errorDetail": {"message": "alone"}}, "alone"),
    ({"errorDetail": {"code": 1}}, "{'code': 1}"),
    ({"status": "Error unpacking image a:1: failed to extract layer"}, "Error unpacking image a:1: failed to extract layer"),
    ({"stream": "Loaded image: a:1\nError unpacking image a:1: gone\n"}, "Error unpacking image a:1: gone"),
    ({"stream": "Loaded image: a:1\n"}, None),
    ({"status": "Loading layer", "progressDetail": {"current": 1}}, None),
    ({}, None),
])
def test_what_a_load_complains_about_is_found(message: dict, complaint: str | None) -> None:
    assert refusal(message) == complaint


@pytest.mark.parametrize("tail, failure", [
    (bytes(1024), None),
    (bytes(512) + b'{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}\r\n', "layer is gone"),
    (b'{"errorDetail" is a text in a file' + bytes(512), None),
    (b"", None),
])
def test_an_error_behind_an_archive_is_found(tail: bytes, failure: str | None) -> None:
    assert trailing_error(tail) == failure


def options(**given_options: object) -> dict:
    return {
        "images": ["a"], "source": None, "destination": None, "destinations": None, "tags": {}, "platform": None, "prune_other_tags": False, "timeout": 600,
        **given_options,
    }


@pytest.mark.parametrize("given_options, why", [
    ({"images": ["A"], "destination": {"hops": ["kata"]}}, "images: 'A' is not an image name"),
    ({}, "source and destination are the same daemon (/var/run/docker.sock)"),
    ({"destination": {"socket": "/var/run/docker.sock", "hops": None}}, "the same daemon"),
    ({"source": {"socket": None, "hops": ["a1", "b1"]}, "destination": {"hops": ["a1", "b1"]}}, "the same daemon (a1 > b1)"),
    ({"source": {"archive": "/x/a.tar"}, "destination": {"archive": "/x//a.tar"}}, "the same archive (/x/a.tar)"),
    ({"destinations": [{"hops": ["kata"]}, {}]}, "the same daemon (/var/run/docker.sock)"),
    ({"destinations": [{"hops": ["kata"]}, {"hops": ["kata"]}]}, "destinations: kata is named twice"),
    ({"destinations": []}, "destinations: it is an empty list"),
    ({"destination": {"hops": ["kata", "--help"]}}, "destination: '--help' in hops is no name of a container"),
    ({"destination": {"hops": ["kata"], "socket": "/x"}}, "destination: socket and hops exclude each other"),
    ({"destination": {"archive": "a.tar"}}, "destination: archive 'a.tar' is not the absolute path"),
    ({"source": {"socket": "relative.sock"}}, "source: socket 'relative.sock' is not the absolute path"),
    ({"destination": {"hops": ["kata"]}, "timeout": 0}, "timeout: 0 is no number of seconds"),
    ({"destination": {"hops": ["kata"]}, "tags": {"b": "c"}}, "tags: 'b' is not among the images"),
    ({"destination": {"hops": ["kata"]}, "platform": "arm64"}, "platform: 'arm64' is no platform"),
    ({"destination": {"archive": "/a.tar"}, "prune_other_tags": True}, "prune_other_tags: an archive holds no other tags"),
])
def test_bad_options_are_refused_by_name(given_options: dict, why: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(options(**given_options))
    assert why in str(refused.value)


def test_no_source_and_no_hops_are_this_machines_own_daemon() -> None:
    asked = wanted(options(destination={"hops": ["kata-in-docker", "kata"], "socket": None}))
    assert asked.names == {"a:latest": ("a:latest",)}
    assert (asked.source, asked.destinations) == (Endpoint(), (Endpoint(hops=("kata-in-docker", "kata")),))
    assert str(asked.destinations[0]) == "kata-in-docker > kata"
    assert wanted(options(source={"hops": ["kata"]}, destination={"hops": []})).destinations == (Endpoint(),)


@pytest.mark.parametrize("changed, pruned, check_mode, line", [
    ([], [], False, "no images were asked for"),
    ([True, False], [], False, "kata: sent 1 image (2.0 MB in 1.5 s), 1 was there"),
    ([True, True], ["a:1"], True, "kata: would send 2 images, 0 were there; would remove a:1"),
    ([False, False], [], False, "kata: nothing to send, 2 were there"),
    ([False], ["a:1", "a:2"], False, "kata: nothing to send, 1 was there; removed a:1, a:2"),
])
def test_the_result_is_told_in_one_line(changed: list[bool], pruned: list[str], check_mode: bool, line: str) -> None:
    done = [{"changed": sent, "bytes_sent": 2_000_000 * sent, "seconds": 1.5 * sent} for sent in changed]
    assert summary(Work(Endpoint(hops=("kata",)), done=done, pruned=pruned), check_mode) == line


def test_a_missing_sdk_is_told_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "__init__.py").write_text("raise ImportError('there is none')\n")
    command = module_command("image_transfer", {"images": ["a:1"], "destination": {"hops": ["t-nobody"]}})
    environment = module_environment(PYTHONPATH=f"{tmp_path}:{CHECKOUT / '.collections'}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    answer = json.loads(done.stdout)
    assert answer["failed"] and not answer["changed"] and "docker (package python3-docker of Debian, docker of PyPI)" in answer["msg"]


def test_an_sdk_that_is_too_old_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SDK_VERSION", "4.1.0")
    monkeypatch.setattr(client, "sdk_too_old", lambda: True)
    result = carry_out(wanted(options(destination={"socket": "/nowhere.sock"})), False, pytest.fail)
    assert result["failed"] and result["msg"] == (
        f"the Docker SDK for Python here is 4.1.0, and {OLDEST_SDK} is needed: upgrade package python3-docker of Debian, docker of PyPI"
    )


def test_the_documentation_names_the_oldest_sdk() -> None:
    assert f"Docker SDK for Python, {OLDEST_SDK} or newer" in DOCUMENTATION
