# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The findings of checks, their severity, and how they are shown. The checks themselves are elsewhere.

As with kubeadm, an error stops, a warning does not, and ids that are ignored turn errors into warnings.
"""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

ERROR = "error"
WARNING = "warning"

FOUND_WIDTH = 44
NEEDED_WIDTH = 36
REMEDY_WIDTH = 110


@dataclass(frozen=True)
class Judgement:
    """The judgement of a check. A remedy where all is as needed is a note: what the roles do, or what would be better
    still.
    """

    ok: bool
    found: str
    needed: str
    remedy: str = ""
    severity: str = ERROR


@dataclass(frozen=True)
class Finding:
    """A requirement, and whether it is met."""

    id: str
    ok: bool
    severity: str
    found: str
    needed: str
    remedy: str
    ignored: bool = False

    @property
    def stops(self) -> bool:
        """Whether it keeps Kata from running."""
        return not self.ok and self.severity == ERROR

    @property
    def state(self) -> str:
        """The state, in one word."""
        if not self.ok:
            return "ignored" if self.ignored else self.severity.upper()
        return "note" if self.remedy else "ok"


Check = Callable[[Any, Any], Optional[Judgement]]


def known(ids: Sequence[str], checks: Iterable[str]) -> frozenset[str]:
    """Return the ids as a set, or raise Refused for the first that no check has."""
    names = list(checks)
    for name in ids:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise Refused(f"ignore: there is no finding {name!r}: {hint}")
    return frozenset(ids)


def decide(
    checks: Mapping[str, Check], facts: Any, question: Any, ignored: frozenset[str] = frozenset()
) -> list[Finding]:
    """Return the findings, in the order of the checks; errors to ignore become warnings."""
    findings = []
    for name, check in checks.items():
        judgement = check(facts, question)
        if judgement is not None:
            ignore = name in ignored and not judgement.ok and judgement.severity == ERROR
            severity = WARNING if ignore else judgement.severity
            findings.append(
                Finding(name, judgement.ok, severity, judgement.found, judgement.needed, judgement.remedy, ignore)
            )
    return findings


def sentence(finding: Finding) -> str:
    """Return the problem and its remedy in one line."""
    return f"{finding.id}: found {finding.found}, needed {finding.needed}: {finding.remedy}"


def summary(findings: Sequence[Finding]) -> str:
    """Return a summary of the findings in one line."""
    stopping = [finding.id for finding in findings if finding.stops]
    warned = [finding.id for finding in findings if finding.state == "WARNING"]
    ignored = [finding.id for finding in findings if finding.ignored]
    if stopping:
        text = f"this machine cannot run Kata: {', '.join(stopping)}"
    else:
        text = f"nothing found that keeps this machine from running Kata ({len(findings)} findings)"
    return (
        text
        + (f"; warnings: {', '.join(warned)}" if warned else "")
        + (f"; ignored: {', '.join(ignored)}" if ignored else "")
    )


def result_of(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the result of the module."""
    stopping = [finding for finding in findings if finding.stops]
    return {
        "changed": False,
        "ok": not stopping,
        "findings": [asdict(finding) for finding in findings],
        "problems": [sentence(finding) for finding in stopping],
        "table": table(findings),
        "msg": summary(findings),
    }


def table(findings: Sequence[Finding]) -> str:
    """Render findings as plain text, at most 120 columns wide: a row each, and the remedy, if any, under it."""
    id_width = max(len(name) for name in ["finding", *(finding.id for finding in findings)])
    state_width = max(len(state) for state in ["state", *(finding.state for finding in findings)])

    def row(name: str, state: str, found: str, needed: str) -> str:
        return "  ".join((name.ljust(id_width), state.ljust(state_width), found.ljust(FOUND_WIDTH), needed)).rstrip()

    indent = " " * (id_width + state_width + 4)
    lines = [row("finding", "state", "found", "needed")]
    for finding in findings:
        found = textwrap.wrap(finding.found, FOUND_WIDTH) or [""]
        needed = textwrap.wrap(finding.needed, NEEDED_WIDTH) or [""]
        height = max(len(found), len(needed))
        cells = zip(
            [finding.id, *[""] * (height - 1)],
            [finding.state, *[""] * (height - 1)],
            found + [""] * (height - len(found)),
            needed + [""] * (height - len(needed)),
        )
        lines += [row(*cell) for cell in cells]
        if finding.remedy:
            lines += textwrap.wrap(
                f"-> {finding.remedy}", REMEDY_WIDTH, initial_indent=indent, subsequent_indent=f"{indent}   "
            )
    return "\n".join(lines)
