# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of kernel_config: what is there, how the tree's Kconfig answers a request, and how files are written."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import replace
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed
from ansible_collections.nested.kata.plugins.module_utils._kernel import kconfig, source_tree
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
    sha256,
)
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Answer, Assignment
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Workplace
from ansible_collections.nested.kata.plugins.module_utils._kernel.why import ask

KCONFIG_TARGET = {"no": "allnoconfig", "default": "alldefconfig"}
FORMAT = 1  # of the file that remembers a run


def look(wanted: Wanted) -> Found:
    """Return the configuration and the remembered run at the path."""
    try:
        with open(wanted.path, encoding="utf-8", errors="surrogateescape") as file:
            config: str | None = file.read()
    except FileNotFoundError:
        config = None
    try:
        with open(wanted.path + REMEMBERED, encoding="utf-8") as file:
            remembered = json.load(file)
    except (OSError, ValueError):
        remembered = {}
    return Found(config, remembered if isinstance(remembered, dict) else {})


def fingerprint(wanted: Wanted) -> str:
    """Return a hash over all that the result depends on."""
    return sha256(repr((FORMAT, wanted, source_tree.fingerprint(wanted.tree))))


def ask_kconfig(wanted: Wanted, directory: str) -> Outcome:
    """Return the result of the request from the tree's Kconfig, which is run in a scratch directory."""
    place = source_tree.workplace(wanted.tree, directory)
    base, layers = list(wanted.base), wanted.layers
    if wanted.base_target:
        started = place.scratch("base")
        source_tree.configure(place, wanted.base_target, started)
        with open(started, encoding="utf-8") as file:
            base = kconfig.parse(file.read(), wanted.base_target)
    request, redefined = kconfig.merge(base, layers)
    config = configured(place, wanted, request)
    values, types = kconfig.values(config, place.tree.path), dict[str, str]()
    doubtful = kconfig.doubtful(layers, kconfig.lost(request.values(), values))
    if doubtful:
        types = {symbol: answer.type for symbol, answer in ask(place, doubtful).items()}
        base, *layers = ([kconfig.fitted(each, types.get(each.symbol, "")) for each in one] for one in (base, *layers))
        before = kconfig.render(request)
        request, redefined = kconfig.merge(base, layers)
        if kconfig.render(request) != before:
            config = configured(place, wanted, request)
            values = kconfig.values(config, place.tree.path)
    of_base = {id(each) for each in base}
    lost = kconfig.lost(request.values(), values, types)
    missing = [
        replace(each, allowed=kconfig.allow(each, wanted.allowed)) for each in lost if id(each.wanted) not in of_base
    ]
    answers = ask_why(place, [each.wanted.symbol for each in missing if each.allowed is None])
    missing = [
        (
            replace(each, why=kconfig.reason(each, answers[each.wanted.symbol], values.get("MODULES") == "y"))
            if each.wanted.symbol in answers
            else each
        )
        for each in missing
    ]
    return Outcome(config, missing, [each for each in lost if id(each.wanted) in of_base], redefined)


def configured(place: Workplace, wanted: Wanted, request: Mapping[str, Assignment]) -> str:
    """Return the configuration that Kconfig makes of a request."""
    asked, result = place.scratch("request"), place.scratch("config")
    with open(asked, "w", encoding="utf-8") as file:
        file.write(kconfig.render(request))
    source_tree.configure(place, KCONFIG_TARGET[wanted.new_symbols], result, asked)
    with open(result, encoding="utf-8") as file:
        return file.read()


def ask_why(place: Workplace, symbols: Sequence[str]) -> Mapping[str, Answer]:
    """Return Kconfig's answers; none where it cannot be asked: the rest of the result is valid anyway."""
    if not symbols:
        return {}
    try:
        return ask(place, symbols)
    except CommandFailed:
        return {}


def carry_out(step: Write) -> None:
    """Replace the file; readers find the old one or the new one. The next run overwrites what a killed run left."""
    new = step.path + ".new"
    with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(step.text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, step.path)


def fit_for_make(directory: str) -> str | None:
    """Return the directory, or None where its path has what Linux's Makefile takes for a separator."""
    return None if re.search(r"[\s:]", directory) else directory


def apply(wanted: Wanted, scratch: Callable[[], str], check_mode: bool) -> tuple[Plan, Found, str, Mapping[str, Any]]:
    """Return what was planned, what was found before, the configuration, and what is remembered of it. `scratch`
    returns a directory.
    """
    source_tree.require(source_tree.tools_of_kconfig(wanted.tree))
    found, request = look(wanted), fingerprint(wanted)
    if made_before(found, request):
        return Plan((), f"{wanted.path}: already made from the same input"), found, found.config or "", found.remembered
    with tempfile.TemporaryDirectory(dir=fit_for_make(scratch())) as directory:
        outcome = ask_kconfig(wanted, directory)
    remembered = memory(outcome, request)
    plan = decide(found, wanted, outcome, remembered)
    for step in () if check_mode else plan.steps:
        carry_out(step)
    return plan, found, outcome.config, remembered
