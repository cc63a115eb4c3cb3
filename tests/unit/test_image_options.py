# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of image_transfer, and what is refused of them."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image.locations import ArchiveLocation, DaemonLocation
from ansible_collections.nested.kata.plugins.module_utils._image.options import parse

OWN = DaemonLocation(Endpoint())


def options(**given_options: object) -> dict:
    return {
        "images": ["a"],
        "source": None,
        "destination": None,
        "destinations": None,
        "tags": {},
        "platform": None,
        "prune_other_tags": False,
        "timeout": 600,
        **given_options,
    }


@pytest.mark.parametrize(
    ("given_options", "why"),
    [
        ({"images": ["A"], "destination": {"hops": ["kata"]}}, "images: 'A' is not an image name"),
        (
            {"images": ["sha256:" + "a" * 64], "destination": {"hops": ["kata"]}},
            f"images: 'sha256:{'a' * 64}' names a digest, and an image is loaded under a name: give it one in tags",
        ),
        (
            {"images": ["b", "debian:12@sha256:" + "a" * 64], "tags": {"b": "c"}, "destination": {"hops": ["kata"]}},
            f"images: 'debian@sha256:{'a' * 64}' names a digest",
        ),
        (
            {"images": ["sha256:12"], "destination": {"hops": ["kata"]}},
            "images: 'sha256:12' names a digest that is not",
        ),
        ({}, "source and destination are the same daemon (/var/run/docker.sock)"),
        ({"destination": {"socket": "/var/run/docker.sock", "hops": None}}, "the same daemon"),
        (
            {"source": {"socket": None, "hops": ["a1", "b1"]}, "destination": {"hops": ["a1", "b1"]}},
            "the same daemon (a1 > b1)",
        ),
        ({"source": {"archive": "/x/a.tar"}, "destination": {"archive": "/x//a.tar"}}, "the same archive (/x/a.tar)"),
        ({"destinations": [{"hops": ["kata"]}, {}]}, "the same daemon (/var/run/docker.sock)"),
        ({"destinations": [{"hops": ["kata"]}, {"hops": ["kata"]}]}, "destinations: kata is named twice"),
        ({"destinations": []}, "destinations: the list is empty"),
        (
            {"destination": {"hops": ["kata", "--help"]}},
            "destination: '--help' in hops is not a valid name of a container",
        ),
        ({"destination": {"hops": ["kata"], "socket": "/x"}}, "destination: socket and hops exclude each other"),
        ({"destination": {"archive": "a.tar"}}, "destination: archive 'a.tar' is not the absolute path"),
        ({"source": {"socket": "relative.sock"}}, "source: socket 'relative.sock' is not the absolute path"),
        ({"destination": {"hops": ["kata"]}, "timeout": 0}, "timeout: 0 is less than 1: give a number of seconds"),
        ({"destination": {"hops": ["kata"]}, "tags": {"b": "c"}}, "tags: 'b' is not among the images"),
        ({"destination": {"hops": ["kata"]}, "platform": "arm64"}, "platform: 'arm64' is not a valid platform"),
        (
            {"destination": {"archive": "/a.tar"}, "prune_other_tags": True},
            "prune_other_tags: an archive holds no other tags",
        ),
    ],
)
def test_bad_options_are_refused_by_name(given_options: dict, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(options(**given_options))
    assert why in str(refused.value)


def test_no_source_and_no_hops_are_this_machines_own_daemon() -> None:
    wanted = parse(options(destination={"hops": ["kata-in-docker", "kata"], "socket": None}))
    assert wanted.names == {"a:latest": ("a:latest",)}
    assert (wanted.source, wanted.destinations) == (OWN, (DaemonLocation(Endpoint(hops=("kata-in-docker", "kata"))),))
    assert str(wanted.destinations[0]) == "kata-in-docker > kata"
    assert parse(options(source={"hops": ["kata"]}, destination={"hops": []})).destinations == (OWN,)


def test_an_image_that_is_named_by_its_id_gets_the_name_that_tags_have() -> None:
    wanted = parse(options(images=["a" * 64], tags={"sha256:" + "a" * 64: "shop:1"}, destination={"hops": ["kata"]}))
    assert wanted.names == {"sha256:" + "a" * 64: ("shop:1",)}


def test_an_archive_is_the_same_by_whatever_path() -> None:
    wanted = parse(options(destinations=[{"archive": "/x//a.tar", "transport": "auto"}, {"hops": ["kata"]}]))
    assert wanted.destinations == (ArchiveLocation("/x/a.tar"), DaemonLocation(Endpoint(hops=("kata",))))
    assert str(wanted.destinations[0]) == "/x/a.tar"
