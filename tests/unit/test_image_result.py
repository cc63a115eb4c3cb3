# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module returns about each destination."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.locations import ArchiveLocation, DaemonLocation
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Sent, Step
from ansible_collections.nested.kata.plugins.module_utils._image.result import (
    MOST_PASSED_OVER,
    Work,
    outcome,
    passed_over,
    result_of,
    summary,
)


@pytest.mark.parametrize(
    ("changed", "pruned", "check_mode", "line"),
    [
        ([], [], False, "no images were asked for"),
        ([True, False], [], False, "kata: sent 1 image (2.0 MB in 1.5 s), 1 was there"),
        ([True, True], ["a:1"], True, "kata: would send 2 images, 0 were there; would remove a:1"),
        ([False, False], [], False, "kata: nothing to send, 2 were there"),
        ([False], ["a:1", "a:2"], False, "kata: nothing to send, 1 was there; removed a:1, a:2"),
    ],
)
def test_the_result_is_told_in_one_line(changed: list[bool], pruned: list[str], check_mode: bool, line: str) -> None:
    done = [{"changed": sent, "bytes_sent": 2_000_000 * sent, "seconds": 1.5 * sent} for sent in changed]
    assert summary(Work(DaemonLocation(Endpoint(hops=("kata",))), done=done, pruned=pruned), check_mode) == line


IMAGE = Image("sha256:1", ("a", "b", "a"), "config")
KATA, FILE = DaemonLocation(Endpoint(hops=("kata",))), ArchiveLocation("/a.tar")


def done(work: Work, action: Action, sent: Sent, how: str = "") -> Work:
    work.done.append(outcome(work, Step("a:1", IMAGE, ("b:1",), (None,), action, "why"), sent, how))
    return work


def test_an_image_that_was_sent_is_told_with_what_was_left_out() -> None:
    (image,) = done(Work(KATA), Action.SEND, Sent("sha256:2", 1000, 1, 0.126), "how").done
    assert image == {
        "name": "a:1",
        "destination": "kata",
        "names": ["b:1"],
        "id": "sha256:2",
        "changed": True,
        "bytes_sent": 1000,
        "layers_sent": 1,
        "layers_skipped": 1,
        "seconds": 0.13,
        "reason": "why: how",
    }


def test_names_of_several_destinations_are_told_apart_in_the_difference() -> None:
    kata = done(Work(KATA, before={"b:1": None}, pruned=["b:0"]), Action.SEND, Sent("sha256:2", 1000, 1))
    file = done(Work(FILE, before={"b:1": "sha256:1"}), Action.KEEP, Sent("sha256:1"))
    result = result_of([kata, file], False)
    assert (result["changed"], result["bytes_sent"]) == (True, 1000)
    assert [(each["destination"], each["changed"], each["failed"]) for each in result["destinations"]] == [
        ("kata", True, False),
        ("/a.tar", False, False),
    ]
    assert result["diff"] == {
        "before": {"kata: b:1": None, "kata: b:0": "a tag", "/a.tar: b:1": "sha256:1"},
        "after": {"kata: b:1": "sha256:2", "kata: b:0": None, "/a.tar: b:1": "sha256:1"},
    }


def test_a_destination_with_trouble_is_told_with_what_was_done_before() -> None:
    work = done(Work(KATA, trouble="it hung up"), Action.TAG, Sent("sha256:1"))
    (destination,) = result_of([work], False)["destinations"]
    assert (destination["failed"], destination["changed"], destination["msg"]) == (True, True, "it hung up")


@pytest.mark.parametrize(
    ("told", "result"),
    [
        ([], {}),
        (["chart:1: it is a Helm chart"], {"passed_over": ["chart:1: it is a Helm chart"]}),
        (["x"] * MOST_PASSED_OVER, {"passed_over": ["x"] * MOST_PASSED_OVER}),
        (["x"] * 1000, {"passed_over": ["x"] * MOST_PASSED_OVER + [f"{1000 - MOST_PASSED_OVER} more"]}),
    ],
)
def test_what_is_no_image_is_listed_up_to_a_number(told: list[str], result: dict) -> None:
    assert passed_over(SimpleNamespace(passed_over=told)) == result
