# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kernel_config writes what Kconfig made, remembers it, and refuses what was not kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_plan import (
    REMEMBERED,
    Found,
    Outcome,
    Plan,
    Write,
    decide,
    made_before,
    memory,
    result_of,
    sha256,
    warnings,
)
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Assignment, Lost, Redefined
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Tree

NET, IPV6 = Assignment("NET", "y", "a:1"), Assignment("IPV6", "m", "a:2")
WANTED = Wanted(Tree("/src", "x86_64", (), "6.12.1"), "/src/.config", [], None, [[NET, IPV6]], "no", {}, "warn")
CONFIG = "# Linux/x86 6.12.1\nCONFIG_NET=y\nCONFIG_IPV6=m\n"
OUTCOME = Outcome(CONFIG, [], [], [])
MEMORY = memory(OUTCOME, "the request")
LOST = Lost(IPV6, "n", "IPV6 needs INET=y, is n")
REDEFINED = Redefined(NET, Assignment("NET", "n", "b:1"))


def test_a_new_configuration_is_written_and_remembered() -> None:
    plan = decide(Found(None, {}), WANTED, OUTCOME, MEMORY)
    remembered = Write("/src/.config" + REMEMBERED, json.dumps(MEMORY, indent=1) + "\n")
    assert plan == Plan((Write("/src/.config", CONFIG), remembered), "/src/.config: there is none yet")


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (CONFIG.replace("IPV6=m", "IPV6=y"), "1 symbols change"),
        (CONFIG.replace("CONFIG_NET=y\n", ""), "1 symbols change"),
        (CONFIG.replace("Linux/x86", "Linux"), "the heading changes"),
    ],
)
def test_another_configuration_is_replaced(before: str, reason: str) -> None:
    plan = decide(Found(before, MEMORY), WANTED, OUTCOME, MEMORY)
    assert plan == Plan((Write("/src/.config", CONFIG),), f"/src/.config: {reason}")


def test_the_same_configuration_is_left_alone() -> None:
    plan = decide(Found(CONFIG, MEMORY), WANTED, OUTCOME, MEMORY)
    assert plan == Plan((), "/src/.config: it is as requested")
    assert not result_of(WANTED, plan, Found(CONFIG, MEMORY), CONFIG, MEMORY)["changed"]


def test_a_file_that_is_only_remembered_anew_is_no_change() -> None:
    found = Found(CONFIG, {})
    plan = decide(found, WANTED, OUTCOME, MEMORY)
    assert [step.path for step in plan.steps] == ["/src/.config" + REMEMBERED]
    assert not result_of(WANTED, plan, found, CONFIG, MEMORY)["changed"]


def test_what_was_not_kept_is_refused_with_all_of_it_and_what_is_allowed_is_not() -> None:
    outcome = replace(OUTCOME, missing=[LOST])
    with pytest.raises(Refused, match=r"^1 of 2 requested symbols is not in the result") as refused:
        decide(Found(None, {}), WANTED, outcome, memory(outcome, ""))
    assert [each["symbol"] for each in refused.value.details["missing"]] == ["IPV6"]
    assert refused.value.details["redefined"] == []
    allowed = replace(OUTCOME, missing=[replace(LOST, allowed="not here")])
    assert decide(Found(None, {}), WANTED, allowed, memory(allowed, "")).steps


def test_a_symbol_with_two_values_is_an_error_a_warning_or_nothing() -> None:
    outcome = replace(OUTCOME, redefined=[REDEFINED])
    told = memory(outcome, "")
    with pytest.raises(Refused, match=r"^on_redefine: 1 symbols get two values: NET: y .a:1., then n .b:1."):
        decide(Found(None, {}), replace(WANTED, on_redefine="error"), outcome, told)
    assert warnings(WANTED, told["redefined"]) == ["NET is y in a:1, then n in b:1: the last one counts"]
    assert warnings(replace(WANTED, on_redefine="ignore"), told["redefined"]) == []


@pytest.mark.parametrize(
    ("found", "before"),
    [
        (Found(CONFIG, MEMORY), True),
        (Found(None, MEMORY), False),
        (Found(CONFIG + "#", MEMORY), False),
        (Found(CONFIG, {}), False),
        (Found(CONFIG, {**MEMORY, "request": "another"}), False),
        (Found(CONFIG, {"request": "the request", "sha256": sha256("")}), False),
    ],
)
def test_kconfig_is_not_asked_where_request_and_result_are_those_of_the_last_run(found: Found, before: bool) -> None:
    assert made_before(found, "the request") is before


def test_the_result_counts_what_is_built_in_and_what_is_a_module() -> None:
    config = result_of(WANTED, Plan((), ""), Found(CONFIG, MEMORY), CONFIG, MEMORY)["config"]
    assert config == {
        "path": "/src/.config",
        "kernel": "6.12.1",
        "arch": "x86_64",
        "requested": 2,
        "built_in": 1,
        "modules": 1,
    }
