# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of image_transfer, from the work at each destination."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Sequence

from ansible_collections.nested.kata.plugins.module_utils._image.locations import Destination, Location, Source
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Plan, Sent, Step

MOST_PASSED_OVER = 20  # that a result lists


@dataclass
class Work:
    """One destination: its plan, and what was done there."""

    location: Location
    opened: Destination | None = None
    plan: Plan = Plan((), ())
    before: dict[str, str | None] = field(default_factory=dict)
    done: list[dict[str, Any]] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def destination(self) -> Destination:
        if self.opened is None:
            raise TypeError(f"{self.location} was not opened")
        return self.opened

    @property
    def changed(self) -> bool:
        return bool(self.pruned) or any(image["changed"] for image in self.done)


def outcome(work: Work, step: Step, sent: Sent, how: str = "") -> dict[str, Any]:
    """Return the result of one image at one destination."""
    return {
        "name": step.reference,
        "destination": str(work.location),
        "names": list(step.names),
        "id": sent.image_id,
        "changed": step.action is not Action.KEEP,
        "bytes_sent": sent.size,
        "layers_sent": sent.layers,
        "layers_skipped": len(set(step.image.layers)) - sent.layers,
        "seconds": round(sent.seconds, 2),
        "reason": f"{step.reason}: {how}" if how else step.reason,
    }


def summary(work: Work, check_mode: bool) -> str:
    """Return one line about a destination."""
    sent = [image for image in work.done if image["changed"]]
    kept = len(work.done) - len(sent)
    if not work.done:
        return "no images were asked for"
    count = f"{len(sent)} image{'' if len(sent) == 1 else 's'}"
    there = f"{kept} {'was' if kept == 1 else 'were'} there"
    pruned = f"; {'would remove' if check_mode else 'removed'} {', '.join(work.pruned)}" if work.pruned else ""
    if not sent:
        return f"{work.location}: nothing to send, {there}{pruned}"
    size, seconds = sum(image["bytes_sent"] for image in sent), sum(image["seconds"] for image in sent)
    what = f"would send {count}" if check_mode else f"sent {count} ({size / 1e6:.1f} MB in {seconds:.1f} s)"
    return f"{work.location}: {what}, {there}{pruned}"


def result_of(works: Sequence[Work], check_mode: bool) -> dict[str, Any]:
    """Return the part of the module's result that is about the destinations."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for work in works:
        prefix = f"{work.location}: " if len(works) > 1 else ""
        now = {**work.before, **{name: image["id"] for image in work.done for name in image["names"]}}
        before.update(
            {prefix + name: image for name, image in {**work.before, **dict.fromkeys(work.pruned, "a tag")}.items()}
        )
        after.update({prefix + name: image for name, image in {**now, **dict.fromkeys(work.pruned)}.items()})
    destinations = [
        {
            "destination": str(work.location),
            "failed": bool(work.trouble),
            "changed": work.changed,
            "pruned": work.pruned,
            "bytes_sent": sum(image["bytes_sent"] for image in work.done),
            "msg": work.trouble or summary(work, check_mode),
            **taken_by(work.opened),
        }
        for work in works
    ]
    return {
        "changed": any(work.changed for work in works),
        "images": [image for work in works for image in work.done],
        "destinations": destinations,
        "bytes_sent": sum(destination["bytes_sent"] for destination in destinations),
        "diff": {"before": before, "after": after},
    }


def taken_by(opened: Source | Destination | None) -> dict[str, Any]:
    """Return the part of a result about the transport of archives."""
    return {"transport": asdict(opened.taken)} if opened and opened.taken else {}


def passed_over(source: Source) -> dict[str, Any]:
    """Return the part of a result about what the source has beside images."""
    told = list(source.passed_over)
    more = [f"{len(told) - MOST_PASSED_OVER} more"] if len(told) > MOST_PASSED_OVER else []
    return {"passed_over": [*told[:MOST_PASSED_OVER], *more]} if told else {}
