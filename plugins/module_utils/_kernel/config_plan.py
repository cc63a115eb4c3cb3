# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kernel_config: from what was found and Kconfig's result to files to write, or to a refusal."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Lost, Redefined, complaint, listing

REMEMBERED = ".nested-kata"


@dataclass(frozen=True)
class Found:
    """The state of the configuration."""

    config: str | None
    remembered: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The result of Kconfig for the request."""

    config: str
    missing: Sequence[Lost]
    base_missing: Sequence[Lost]
    redefined: Sequence[Redefined]


@dataclass(frozen=True)
class Write:
    """Replace a file as a whole."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class Plan:
    """The files to write, and why."""

    steps: tuple[Write, ...]
    reason: str


def made_before(found: Found, request: str) -> bool:
    """Return whether the configuration that is there was made from the same request, and is unchanged since."""
    return (
        found.config is not None
        and found.remembered.get("request") == request
        and found.remembered.get("sha256") == sha256(found.config)
    )


def decide(found: Found, wanted: Wanted, outcome: Outcome, remembered: Mapping[str, Any]) -> Plan:
    """Return the files to write and the reason, or raise Refused where Kconfig's result is not what was asked for."""
    details = {key: remembered[key] for key in ("missing", "redefined")}
    if wanted.on_redefine == "error" and outcome.redefined:
        raise Refused(
            f"on_redefine: {len(outcome.redefined)} symbols get two values: {listing(outcome.redefined)}", **details
        )
    if any(each.allowed is None for each in outcome.missing):
        raise Refused(complaint(wanted.requested, outcome.missing), **details)
    steps: list[Write] = []
    if found.config is None:
        why = "there is none yet"
    elif found.config != outcome.config:
        before, after = (
            dict(re.findall(r"^(?:# )?(CONFIG_\w+)(.*)$", text, re.MULTILINE))
            for text in (found.config, outcome.config)
        )
        changed = sum(before.get(symbol) != after.get(symbol) for symbol in {**before, **after})
        why = f"{changed} symbols change" if changed else "the heading changes"
    else:
        why = "it is as requested"
    if found.config != outcome.config:
        steps.append(Write(wanted.path, outcome.config))
    if found.remembered != remembered:
        steps.append(Write(wanted.path + REMEMBERED, json.dumps(remembered, indent=1) + "\n"))
    return Plan(tuple(steps), f"{wanted.path}: {why}")


def memory(outcome: Outcome, request: str) -> dict[str, Any]:
    """Return the facts to remember of a run: the next run compares with them, and returns the rest."""
    return {
        "request": request,
        "sha256": sha256(outcome.config),
        "missing": [described(each) for each in outcome.missing],
        "base_missing": [described(each) for each in outcome.base_missing],
        "redefined": [
            {
                "symbol": each.before.symbol,
                "from": each.before.value,
                "from_source": each.before.source,
                "to": each.after.value,
                "to_source": each.after.source,
            }
            for each in outcome.redefined
        ],
    }


def described(lost: Lost) -> dict[str, Any]:
    return {
        "symbol": lost.wanted.symbol,
        "requested": lost.wanted.value,
        "actual": lost.actual,
        "source": lost.wanted.source,
        "why": lost.why,
        "allowed": lost.allowed,
    }


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def result_of(wanted: Wanted, plan: Plan, found: Found, config: str, remembered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result."""
    set_to = re.findall(r"^CONFIG_\w+=(.*)$", config, re.MULTILINE)
    return {
        "changed": any(step.path == wanted.path for step in plan.steps),
        "config": {
            "path": wanted.path,
            "kernel": wanted.tree.version,
            "arch": wanted.tree.arch,
            "requested": wanted.requested,
            "built_in": set_to.count("y"),
            "modules": set_to.count("m"),
        },
        **{key: remembered[key] for key in ("missing", "base_missing", "redefined", "sha256")},
        "diff": {
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": found.config or "",
            "after": config,
        },
        "msg": plan.reason,
    }


def warnings(wanted: Wanted, redefined: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a warning for each symbol that gets two values, where warnings are wanted."""
    if wanted.on_redefine != "warn":
        return []
    return [
        f"{each['symbol']} is {each['from']} in {each['from_source']}, then {each['to']} in {each['to_source']}: the"
        " last one counts"
        for each in redefined
    ]
