# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as daemons of all kinds and archives describe them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, same

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


@pytest.mark.parametrize(
    ("platform", "fits"),
    [
        ("linux/arm64", True),
        ("linux/arm64/v8", True),
        ("linux/arm64/v9", False),
        ("linux/arm", False),
        ("linux/amd64", False),
    ],
)
def test_a_platform_without_a_variant_is_content_with_any(platform: str, fits: bool) -> None:
    assert Image.parse({**CLASSIC, "Architecture": "arm64", "Variant": "v8"}).runs_on(platform) is fits


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
