# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nested.kata.plugins.module_utils.image import (
    Image,
    Refused,
    absent,
    decide,
    messages,
    near,
    parse_reference,
    parse_references,
    refusal,
    same,
    trailing_error,
)
from ansible_collections.nested.kata.plugins.modules.image_transfer import summary, wanted
from ansible_collections.nested.kata.plugins.module_utils.daemon import Endpoint

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


def test_an_image_that_the_destination_lacks_is_sent() -> None:
    step = decide("a:1", Image.parse(CLASSIC), None, by_content=False)
    assert (step.send, step.replaced, step.reason) == (True, None, "the destination has no image of this name")


def test_the_same_image_is_left_alone() -> None:
    image = Image.parse(CLASSIC)
    assert not decide("a:1", image, replace(image, config="printed in another way"), by_content=False).send


def test_another_image_of_the_same_name_is_replaced_and_named() -> None:
    step = decide("a:1", Image.parse(CLASSIC), Image.parse(CONTAINERD), by_content=False)
    assert step.send
    assert step.reason == "the destination has another image of this name (222222222222)"


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
    return {"images": ["a"], "source": None, "destination": None, "timeout": 600, **given_options}


@pytest.mark.parametrize("given_options, why", [
    ({"images": ["A"], "destination": {"hops": ["kata"]}}, "images: 'A' is not an image name"),
    ({}, "source and destination are the same daemon (/var/run/docker.sock)"),
    ({"destination": {"socket": "/var/run/docker.sock", "hops": None}}, "the same daemon"),
    ({"source": {"socket": None, "hops": ["a1", "b1"]}, "destination": {"hops": ["a1", "b1"]}}, "the same daemon (a1 > b1)"),
    ({"destination": {"hops": ["kata", "--help"]}}, "destination: '--help' in hops is no name of a container"),
    ({"destination": {"hops": ["kata"], "socket": "/x"}}, "destination: socket and hops exclude each other"),
    ({"source": {"socket": "relative.sock"}}, "source: socket 'relative.sock' is not the absolute path"),
    ({"destination": {"hops": ["kata"]}, "timeout": 0}, "timeout: 0 is no number of seconds"),
])
def test_bad_options_are_refused_by_name(given_options: dict, why: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(options(**given_options))
    assert why in str(refused.value)


def test_no_source_and_no_hops_are_this_machines_own_daemon() -> None:
    references, source, destination = wanted(options(destination={"hops": ["kata-in-docker", "kata"], "socket": None}))
    assert references == ("a:latest",)
    assert (source, destination) == (Endpoint(), Endpoint(hops=("kata-in-docker", "kata")))
    assert str(destination) == "kata-in-docker > kata"
    assert wanted(options(source={"hops": ["kata"]}, destination={"hops": []}))[2] == Endpoint()


@pytest.mark.parametrize("changed, check_mode, line", [
    ([], False, "no images were asked for"),
    ([True, False], False, "kata: sent 1 image (2.0 MB in 1.5 s), 1 was there"),
    ([True, True], True, "kata: would send 2 images, 0 were there"),
    ([False, False], False, "kata: nothing to send, 2 were there"),
])
def test_the_result_is_told_in_one_line(changed: list[bool], check_mode: bool, line: str) -> None:
    done = [{"changed": sent, "bytes_sent": 2_000_000 * sent, "seconds": 1.5 * sent} for sent in changed]
    assert summary(Endpoint(hops=("kata",)), done, check_mode) == line
