# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How findings are decided, ignored and shown, whatever is checked."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._host.findings import (
    Judgement,
    decide,
    known,
    sentence,
    summary,
    table,
)

JUDGEMENTS = {
    "fine": Judgement(True, "all of it", "all of it"),
    "better": Judgement(True, "half of it", "some of it", "have all of it"),
    "doubtful": Judgement(False, "a part", "all of it", "get the rest", "warning"),
    "broken": Judgement(False, "nothing", "all of it", "get it"),
    "silent": None,
}
CHECKS = {name: lambda facts, question, judgement=judgement: judgement for name, judgement in JUDGEMENTS.items()}


def findings(*ignored: str) -> list:
    return decide(CHECKS, None, None, known(ignored, CHECKS))


def test_findings_come_in_the_order_of_the_checks_and_a_check_may_have_nothing_to_say() -> None:
    assert [finding.id for finding in findings()] == ["fine", "better", "doubtful", "broken"]


@pytest.mark.parametrize(
    ("ignored", "states", "stopping"),
    [
        ((), ["ok", "note", "WARNING", "ERROR"], ["broken"]),
        (("broken",), ["ok", "note", "WARNING", "ignored"], []),
        (("doubtful", "fine", "better"), ["ok", "note", "WARNING", "ERROR"], ["broken"]),
    ],
)
def test_only_an_error_stops_and_only_an_error_can_be_ignored(ignored: tuple, states: list, stopping: list) -> None:
    found = findings(*ignored)
    assert [finding.state for finding in found] == states
    assert [finding.id for finding in found if finding.stops] == stopping


def test_what_is_ignored_is_a_warning_that_says_so() -> None:
    broken = next(finding for finding in findings("broken") if finding.id == "broken")
    assert (broken.ok, broken.severity, broken.ignored) == (False, "warning", True)


@pytest.mark.parametrize(
    ("ignored", "said"),
    [
        ((), "this machine cannot run Kata: broken; warnings: doubtful"),
        (
            ("broken",),
            "nothing found that keeps this machine from running Kata (4 findings); warnings: doubtful; ignored: broken",
        ),
    ],
)
def test_the_summary_names_what_stops_what_warns_and_what_is_ignored(ignored: tuple, said: str) -> None:
    assert summary(findings(*ignored)) == said


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("brokn", "did you mean broken?"),
        ("Fine", "did you mean fine?"),
        ("colour", "there are fine, better, doubtful, broken, silent"),
    ],
)
def test_an_unknown_id_is_refused_with_what_may_have_been_meant(name: str, hint: str) -> None:
    with pytest.raises(Refused) as caught:
        known(["fine", name], CHECKS)
    assert str(caught.value) == f"ignore: there is no finding {name!r}: {hint}"


def test_a_sentence_names_what_was_found_and_needed_and_what_to_do() -> None:
    broken = next(finding for finding in findings() if finding.id == "broken")
    assert sentence(broken) == "broken: found nothing, needed all of it: get it"


def test_the_table_has_a_row_for_each_finding_in_columns_and_the_remedy_below() -> None:
    long = Judgement(
        False, "a reason so long that it does not fit into its column at all", "the same " * 9, "try again " * 30
    )
    found = decide({"cpu_virtualization": lambda facts, question: long, **CHECKS}, None, None)
    lines = table(found).splitlines()
    assert lines[0].split() == ["finding", "state", "found", "needed"]
    columns = [lines[0].index(word) for word in ("state", "found", "needed")]
    rows = {line.split()[0]: line for line in lines[1:] if not line.startswith(" ")}
    assert list(rows) == ["cpu_virtualization", "fine", "better", "doubtful", "broken"]
    assert all(line[column - 1] == " " and line[column] != " " for line in rows.values() for column in columns)
    assert [line.split()[1] for line in rows.values()] == ["ERROR", "ok", "note", "WARNING", "ERROR"]
    assert all(word in "\n".join(lines) for word in ("a reason so long that it does not fit into", "its column at all"))
    assert lines[lines.index(rows["better"]) + 1].strip() == "-> have all of it"
    assert lines[lines.index(rows["fine"]) + 1] == rows["better"]
    assert max(map(len, lines)) <= 120
