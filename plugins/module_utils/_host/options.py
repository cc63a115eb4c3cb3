# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of host_check, parsed and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.overcommit import parse_overcommit
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import parse_size
from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of
from ansible_collections.nested.kata.plugins.module_utils._host.checks import CHECKS, Question
from ansible_collections.nested.kata.plugins.module_utils._host.findings import known

OVERHEAD = 32 << 20  # bytes of memory that Kata gives a VM beside what was asked for: its overhead_memory
KINDS = {"container": "containers", "network": "networks", "volume": "volumes"}


@dataclass(frozen=True)
class WantedPart:
    """Something that takes room, by its options. A path that is not absolute is below Docker's data root."""

    path: str
    size: int
    purpose: str
    sparse: bool = False
    creates: str = ""


@dataclass(frozen=True)
class WantedAnswer:
    """A resource that must be reached at one place at least, unless a path or an image is there already."""

    urls: tuple[str, ...]
    purpose: str
    required: bool = True
    creates: str = ""
    image: str = ""


@dataclass(frozen=True)
class Wanted:
    """The options of the task."""

    question: Question
    names: Mapping[str, Sequence[str]]
    """Of containers, networks and volumes, by kind."""
    parts: tuple[WantedPart, ...]
    answers: tuple[WantedAnswer, ...]
    disks: str | None
    now: float | None
    timeout: float
    ignored: frozenset[str]

    @property
    def images(self) -> tuple[str, ...]:
        """The images that need not be fetched where Docker has them."""
        return tuple(answer.image for answer in self.answers if answer.image)


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the parsed options of the module, or raise Refused."""
    return Wanted(
        question=parse_question(options),
        names={kind: tuple(options[option]) for kind, option in KINDS.items()},
        parts=tuple(parse_part(entry) for entry in options["space"]),
        answers=tuple(parse_answer(entry) for entry in options["reachable"]),
        disks=options["disks"],
        now=options["now"],
        timeout=options["timeout"],
        ignored=known(options["ignore"], CHECKS),
    )


def parse_question(options: Mapping[str, Any]) -> Question:
    """Return the wanted use of the machine."""
    kata = options["kata_version"] or ""
    if kata and not version_of(kata):
        raise Refused(f"kata_version: {kata!r} is not a valid version: write it like 4.1.0")
    return Question(
        target=options["target"],
        runtime=options["runtime"],
        runtimes=tuple(options["runtimes"]),
        kata=kata,
        names=tuple(name for kind in KINDS.values() for name in options[kind]),
        memory=sum(parse_size(size, "memory") + OVERHEAD for size in options["memory"]),
        overcommit=parse_overcommit(options["overcommit"]),
    )


def parse_part(entry: Mapping[str, Any]) -> WantedPart:
    """Return an entry of `space`."""
    return WantedPart(
        entry["path"],
        parse_size(entry["size"], "space: size"),
        entry["purpose"],
        entry["sparse"],
        entry["creates"] or "",
    )


def parse_answer(entry: Mapping[str, Any]) -> WantedAnswer:
    """Return an entry of `reachable`."""
    if not entry["urls"]:
        raise Refused(f"reachable: urls is empty for {entry['purpose']!r}: name one place at least")
    return WantedAnswer(
        tuple(entry["urls"]), entry["purpose"], entry["required"], entry["creates"] or "", entry["image"] or ""
    )
