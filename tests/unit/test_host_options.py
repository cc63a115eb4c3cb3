# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of host_check are parsed, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._host.checks import Question
from ansible_collections.nested.kata.plugins.module_utils._host.options import WantedAnswer, WantedPart, parse

OPTIONS: dict[str, Any] = {
    "target": "host",
    "runtime": "kata",
    "runtimes": ["kata"],
    "kata_version": "4.1.0",
    "overcommit": 2.0,
    "disks": "/disks",
    "now": 1.5,
    "timeout": 5.0,
    "space": [{"path": "/disks", "size": "1G", "purpose": "a disk", "sparse": True, "creates": None}],
    "memory": ["1G", "512M"],
    "containers": ["a"],
    "networks": ["b"],
    "volumes": [],
    "ignore": ["time"],
    "reachable": [
        {"urls": ["https://a"], "purpose": "image", "required": True, "creates": None, "image": "debian:trixie"},
        {"urls": ["https://b"], "purpose": "release", "required": False, "creates": "kata", "image": None},
    ],
}
BAD = {
    "no version": ({"kata_version": "new"}, "kata_version: 'new' is not a valid version: write it like 4.1.0"),
    "no size of memory": ({"memory": ["much"]}, "memory: 'much' is not a valid size"),
    "no size of a part": (
        {"space": [{**OPTIONS["space"][0], "size": "much"}]},
        "space: size: 'much' is not a valid size",
    ),
    "no place": (
        {"reachable": [{**OPTIONS["reachable"][0], "urls": []}]},
        "reachable: urls is empty for 'image': name one place at least",
    ),
    "no factor": ({"overcommit": -1.0}, "overcommit: -1.0 is not a valid factor"),
    "no finding": ({"ignore": ["tiem"]}, "ignore: there is no finding 'tiem': did you mean time?"),
}


def test_options_become_what_is_wanted() -> None:
    wanted = parse(OPTIONS)
    assert wanted.question == Question("host", "kata", ("kata",), "4.1.0", ("a", "b"), (1536 + 2 * 32) << 20, 2.0)
    assert wanted.names == {"container": ("a",), "network": ("b",), "volume": ()}
    assert wanted.parts == (WantedPart("/disks", 1 << 30, "a disk", sparse=True),)
    assert wanted.answers[1] == WantedAnswer(("https://b",), "release", required=False, creates="kata")
    assert (wanted.images, wanted.disks, wanted.now, wanted.timeout, wanted.ignored) == (
        ("debian:trixie",),
        "/disks",
        1.5,
        5.0,
        {"time"},
    )


@pytest.mark.parametrize("case", BAD)
def test_options_that_cannot_be_meant_are_refused(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(Refused) as refused:
        parse({**OPTIONS, **options})
    assert str(refused.value).startswith(message)
