# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as daemons of all kinds and archives describe them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, moment, same

# What GET /images/NAME/json answers: Docker 20.10, and Docker 29 with containerd's store, for the same image.
CLASSIC = {
    "Id": "sha256:" + "1" * 64,
    "Created": "2026-11-01T10:00:00.5Z",
    "Author": "",
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {
        "Hostname": "",
        "User": "",
        "AttachStdin": False,
        "OnBuild": None,
        "Image": "sha256:" + "9" * 64,
        "Env": ["PATH=/bin"],
        "Cmd": ["sh"],
        "Volumes": {"/data": {}},
        "Labels": {"a": ""},
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


def test_two_stores_agree_about_the_same_image_by_its_content() -> None:
    classic, containerd = Image.parse(CLASSIC), Image.parse(CONTAINERD)
    assert same(classic, containerd, by_content=True)
    assert not same(classic, containerd, by_content=False)


def test_the_zero_time_of_older_daemons_is_no_time() -> None:
    assert (
        Image.parse({**CLASSIC, "Created": "0001-01-01T00:00:00Z"}).config
        == Image.parse({**CONTAINERD, "Created": ""}).config
    )


# Spellings of one time: of Go, nix, jq, Java, and by hand.
SAME_TIMES = [
    [
        "1970-01-01T00:00:01Z",
        "1970-01-01T00:00:01+00:00",
        "1970-01-01T00:00:01-00:00",
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T01:00:01+01:00",
        "1969-12-31T18:30:01-05:30",
        "1970-01-01t00:00:01z",
    ],
    [
        "2024-01-31T10:00:00.5Z",
        "2024-01-31T10:00:00.500000000Z",
        "2024-01-31T10:00:00.500+00:00",
        "2024-01-31T10:00:00,5Z",
        "2024-01-31T12:00:00.50+02:00",
        "2024-02-01T00:00:00.5000000001+14:00",
    ],
    ["2024-02-29T23:59:59.999999999Z", "2024-03-01T00:59:59.999999999+01:00"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00.000000000Z", "", None],
]


@pytest.mark.parametrize("times", SAME_TIMES, ids=str)
def test_times_are_the_same_whatever_their_spelling(times: list) -> None:
    images = [Image.parse({**CLASSIC, "Created": time}) for time in times]
    assert len({image.config for image in images}) == 1
    assert all(same(images[0], Image.parse({**CONTAINERD, "Created": time}), by_content=True) for time in times)


def test_times_that_differ_by_a_nanosecond_or_a_zone_are_others() -> None:
    others = ["2024-01-31T10:00:00.500000001Z", "2024-01-31T10:00:00.5+01:00", "2024-01-31T10:00:00.05Z", "2024-01-31"]
    moments = [moment(time) for time in (*[times[0] for times in SAME_TIMES], *others)]
    assert len(set(moments)) == len(moments)


@pytest.mark.parametrize(
    "time", ["2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "yesterday", "2024-01-31 10:00:00", 7, [1], {}]
)
def test_what_is_no_time_is_compared_as_it_is(time: object) -> None:
    assert moment(time) == time
    assert Image.parse({**CLASSIC, "Created": time}).config != Image.parse(CLASSIC).config


@pytest.mark.parametrize("change", [{"Architecture": "arm64", "Variant": "v8"}, {"Architecture": "aarch64"}])
def test_another_spelling_of_the_platform_is_the_same_image(change: dict) -> None:
    arm = Image.parse({**CLASSIC, "Architecture": "arm64"})
    assert same(arm, Image.parse({**CONTAINERD, **change}), by_content=True)
    assert not same(arm, Image.parse({**CONTAINERD, "Architecture": "arm64", "Variant": "v9"}), by_content=True)


@pytest.mark.parametrize(
    "change",
    [
        {"Architecture": "arm64"},
        {"Created": "2026-11-01T10:00:00.6Z"},
        {"RootFS": {"Layers": CLASSIC["RootFS"]["Layers"][:1]}},
        {"RootFS": {"Layers": CLASSIC["RootFS"]["Layers"][::-1]}},
        {"RootFS": None},
        {"Config": {**CONTAINERD["Config"], "Cmd": ["bash"]}},
        {"Config": {**CONTAINERD["Config"], "Volumes": {"/other": {}}}},
        {"Config": {**CONTAINERD["Config"], "Labels": {"a": "b"}}},
        {"Config": None},
    ],
    ids=json.dumps,
)
def test_content_that_differs_is_another_image(change: dict) -> None:
    assert not same(Image.parse(CLASSIC), Image.parse({**CONTAINERD, **change}), by_content=True)


def test_an_image_is_the_same_by_what_an_archive_says() -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": CLASSIC["Created"],
        "config": CONTAINERD["Config"],
        "history": [],
        "rootfs": {"type": "layers", "diff_ids": CLASSIC["RootFS"]["Layers"]},
    }
    assert same(Image.from_config("sha256:" + "3" * 64, config), Image.parse(CLASSIC), by_content=True)
