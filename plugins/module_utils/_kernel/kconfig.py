# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel configurations: reading fragments, merging them into a request, and judging the tree's Kconfig result.

Pure: text in, objects out. source_tree.py runs the tree's own Kconfig, which alone decides.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Iterable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.expression import (
    TRISTATE,
    names_in,
    true_alternatives,
    unmet,
)

SYMBOL = re.compile(r"[A-Za-z0-9_]+")
# Kconfig accepts more than these, CONFIG_NET=yes for example, with another meaning or none.
VALUE = re.compile(r'[ymn]|-?[0-9]+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')
SETTING = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")
# Comments for Kconfig, but not for whoever wrote them: `#CONFIG_A is not set`, `# CONFIG_A is not set: too old`.
NEARLY_UNSET = re.compile(
    r"#\W*(?:CONFIG_\S+\W*\b(?:is\s*not\s*set|not\s+set|isn['\u2019]?t\s+set|is\s+unset)\b.*"
    r"|(?-i:[A-Z0-9_]+)\s+is\s+not\s+set\W*)",
    re.IGNORECASE,
)
DECIMAL, HEXADECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)"), re.compile(r"0[xX][0-9a-fA-F]+")
# How a value was given, where its meaning depends on the type of the symbol, which only the tree knows.
NOT_SET, NUMBER, TEXT = "not set", "number", "text"
EMPTY = ('""', "unset")  # a text that is not set
TYPES = {"integer": "int", "hex": "hex"}  # by the names in Kconfig's program: those in Kconfig's files
NAMED = 5  # symbols that a message spells out


@dataclass(frozen=True)
class Assignment:
    """A requested value."""

    symbol: str
    value: str
    """As in a .config: y, m, n, 12, 0x1f, "text"."""
    source: str
    """FILE:LINE, or the name of the option."""
    given: str = field(default="", compare=False)
    """NOT_SET: as a line that says so, or as false. NUMBER, TEXT: in YAML, as a number, or as a text that reads as one
    or as y, m or n. Empty: in a form that means the same for each type.
    """

    def __str__(self) -> str:
        return f"{self.symbol}={self.value} ({self.source})"


@dataclass(frozen=True)
class Redefined:
    """A symbol that was requested twice, with two values."""

    before: Assignment
    after: Assignment

    def __str__(self) -> str:
        return (
            f"{self.before.symbol}: {self.before.value} ({self.before.source}), then {self.after.value}"
            f" ({self.after.source})"
        )


@dataclass(frozen=True)
class Menu:
    """A place where a symbol can be set by hand; a symbol may have several, or one without a prompt."""

    prompt: str = ""
    visible: str = ""
    """Kconfig's expression, with values: EXPERT [=n]. Empty: always."""


@dataclass(frozen=True)
class Answer:
    """The answer of the tree's Kconfig about a symbol in a configuration. Expressions are its own, with values."""

    type: str = "unknown"
    depends: str = ""
    selected: str = ""
    chosen: str = ""
    """The symbol that is y in the choice of which this symbol is part."""
    menus: tuple[Menu, ...] = ()


@dataclass(frozen=True)
class Lost:
    """A request that the tree did not keep."""

    wanted: Assignment
    actual: str
    why: str = ""
    allowed: str | None = None
    """The reason why it may be missing; None: it may not."""

    def __str__(self) -> str:
        return f"{self.wanted}" + (f": {self.why}" if self.why else f", is {self.actual}")


# --- reading ---


def parse(text: str, name: str) -> list[Assignment]:
    """Return the assignments in a .config or a fragment, line by line, or raise Refused."""
    found = []
    for number, line in enumerate(map(str.rstrip, text.split("\n")), 1):
        unset, setting = UNSET.fullmatch(line), SETTING.fullmatch(line)
        if unset:
            found.append(Assignment(unset.group(1), "n", f"{name}:{number}", NOT_SET))
        elif setting:
            if not VALUE.fullmatch(setting.group(2)):
                raise Refused(
                    f"{name}:{number}: {setting.group(1)} has the value {setting.group(2) or 'nothing'}; {VALUES}"
                )
            found.append(Assignment(setting.group(1), setting.group(2), f"{name}:{number}"))
        elif NEARLY_UNSET.fullmatch(line):
            raise Refused(
                f"{name}:{number}: {line!r} is only a comment for Kconfig: write '# CONFIG_NAME is not set', with one"
                " blank between the words and nothing behind them, or word the comment differently"
            )
        elif line and not line.startswith("#"):
            raise Refused(
                f"{name}:{number}: {line!r} is neither CONFIG_NAME=VALUE nor '# CONFIG_NAME is not set' nor a comment"
            )
    return found


VALUES = "it must be y, m, n, a number, a number that begins with 0x, or a text in double quotes"


def from_options(options: Mapping[str, object]) -> list[Assignment]:
    """Return the assignments in a dictionary of symbols, or raise Refused. A text without quotes gets them, unless it
    depends on the symbol's type whether it is one.
    """
    found = []
    for key, value in options.items():
        symbol = key[len("CONFIG_") :] if key.startswith("CONFIG_") else key
        if not SYMBOL.fullmatch(symbol):
            raise Refused(f"options: {key!r} is not a valid symbol name (letters, digits and underscores only)")
        given = ""
        if isinstance(value, bool):
            text, given = ("y", "") if value else ("n", NOT_SET)
        elif isinstance(value, int):
            text, given = str(value), NUMBER
        elif isinstance(value, float):
            raise Refused(f"options: {symbol} has the value {value!r}; put it into quotes if it is a text; {VALUES}")
        elif not isinstance(value, str) or not _is_line(value):
            raise Refused(f"options: {symbol} has the value {value!r}; {VALUES}")
        elif VALUE.fullmatch(value):
            text, given = value, "" if value.startswith('"') else TEXT
        else:
            text = _quoted(value)
        found.append(Assignment(symbol, text, f"options.{key}", given))
    return found


def _is_line(text: str) -> bool:
    """Return whether a text can stand in a line of a file: without a line break, a NUL, or half a character."""
    return not re.search(r"[\n\0\ud800-\udfff]", text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def values(text: str, name: str) -> dict[str, str]:
    """Return the symbols of a .config that Kconfig wrote."""
    return {each.symbol: each.value for each in parse(text, name)}


# --- asking ---


def merge(
    base: Sequence[Assignment], layers: Iterable[Sequence[Assignment]]
) -> tuple[dict[str, Assignment], list[Redefined]]:
    """Return the last value of each symbol, in the order of their last mention, and the symbols that layers redefine.

    A layer may always change a value of the base.
    """
    request = {each.symbol: each for each in base}
    asked: dict[str, Assignment] = {}
    redefined = []
    for each in (assignment for layer in layers for assignment in layer):
        before = asked.get(each.symbol)
        if before is not None and before.value != each.value:
            redefined.append(Redefined(before, each))
        # As merge_config.sh does it, since in a choice the last requested symbol wins.
        request.pop(each.symbol, None)
        request[each.symbol] = asked[each.symbol] = each
    return request, redefined


def render(request: Mapping[str, Assignment]) -> str:
    """Return a request as a file for KCONFIG_ALLCONFIG."""
    return "".join(
        f"# CONFIG_{each.symbol} is not set\n" if each.value == "n" else f"CONFIG_{each.symbol}={each.value}\n"
        for each in request.values()
    )


# --- types ---


def doubtful(layers: Iterable[Sequence[Assignment]], missing: Iterable[Lost]) -> list[str]:
    """Return the symbols whose type decides what was asked for: numbers of YAML, and what was lost and could have been
    meant in another way.
    """
    numbers = [
        each.symbol
        for layer in layers
        for each in layer
        if each.given == NUMBER or (each.given == TEXT and DECIMAL.fullmatch(each.value))
    ]
    others = [each.wanted.symbol for each in missing if each.wanted.given and each.actual not in TRISTATE]
    return list(dict.fromkeys([*numbers, *others]))


def fitted(wanted: Assignment, type_: str) -> Assignment:
    """Return the assignment in the form that a symbol of this type has, where it can only mean that."""
    value = wanted.value
    if type_ == "string" and wanted.given == NOT_SET:
        value = '""'
    elif type_ == "string" and wanted.given == TEXT and value != "n":
        value = _quoted(value)
    elif type_ == "hex" and wanted.given == NUMBER and not value.startswith("-"):
        value = hex(int(value))
    return wanted if value == wanted.value else replace(wanted, value=value)


# --- judging ---


def lost(
    request: Iterable[Assignment], config: Mapping[str, str], types: Mapping[str, str] = MappingProxyType({})
) -> list[Lost]:
    """Return the requested values that are not in the resulting configuration. `types`: those of doubtful symbols."""
    found = []
    for each in request:
        actual = config.get(each.symbol, "n" if each.value in TRISTATE else "unset")
        kept = actual == each.value or (each.given == NOT_SET and actual in EMPTY)
        # Kconfig would take the digits of a decimal number for hexadecimal ones.
        ambiguous = each.given == TEXT and types.get(each.symbol) == "hex" and each.value.isdecimal()
        if not kept or (ambiguous and len(each.value) > 1):
            found.append(Lost(each, actual))
    return found


def reason(missing: Lost, answer: Answer, modules: bool) -> str:
    """Return why a request was not kept. `modules`: whether the configuration has loadable modules at all."""
    symbol, wanted = missing.wanted.symbol, fitted(missing.wanted, answer.type).value
    if answer.type == "unknown":
        return "no such symbol in this tree"
    misfit = _misfit(wanted, answer.type, modules)
    if misfit:
        return misfit
    if answer.chosen and answer.chosen != symbol:
        return f"is a choice, {answer.chosen} was chosen"
    raised = answer.type in ("bool", "tristate") and TRISTATE.index(wanted) < TRISTATE.index(missing.actual)
    if raised and answer.chosen:
        return f"is a choice, {symbol} was chosen: ask for another symbol of the choice"
    if raised:
        selecting = true_alternatives(answer.selected)
        if selecting:
            return f"set by select from {', '.join(selecting)}"
    # A symbol without a visible prompt cannot be turned off either.
    needs = _unmet_of(answer, "m" if raised else wanted)
    if needs:
        return f"{symbol} needs {' and '.join(needs)}"
    if not any(menu.prompt for menu in answer.menus):
        selecting = names_in(answer.selected)
        return "has no prompt" + (
            f", only a select sets it: {', '.join(selecting[:NAMED])}" if selecting else ", only its default counts"
        )
    return f"out of its range, or changed by this tree's Kconfig: is {missing.actual}"


def _misfit(wanted: str, type_: str, modules: bool) -> str:
    """Return what is wrong with a value for a symbol of that type, or nothing."""
    if type_ in ("bool", "tristate"):
        if wanted not in TRISTATE:
            return f"is of type {type_}: it must be y{', m' if type_ == 'tristate' else ''} or n"
        if wanted == "m" and type_ == "bool":
            return "is of type bool, which cannot be m: y or n"
        if wanted == "m" and not modules:
            return "this configuration has no modules (MODULES is n): y or n"
        return ""
    unquoted = wanted.strip('"')
    if type_ == "string" and not wanted.startswith('"'):
        if wanted == "n":
            return """is of type string: write "" for no text, or '"n"' for the letter"""
        return "is of type string: write " + ("a text in double quotes" if wanted in TRISTATE else f'"{wanted}"')
    if type_ in ("integer", "hex") and wanted == "n":
        return f"is of type {TYPES[type_]}, which is always set: write a number, or leave it out for its default"
    if type_ == "integer" and not DECIMAL.fullmatch(wanted):
        if DECIMAL.fullmatch(unquoted) or HEXADECIMAL.fullmatch(unquoted):
            return f"is of type int: write a decimal number, {int(unquoted, 0)}"
        return "is of type int: write a decimal number" + (" without zeros before it" if unquoted.isdecimal() else "")
    if type_ == "hex" and not HEXADECIMAL.fullmatch(wanted):
        if HEXADECIMAL.fullmatch(unquoted):
            return f"is of type hex: write {unquoted}"
        if not re.fullmatch(r"[0-9a-fA-F]+", unquoted):
            return "is of type hex: write 0x and hexadecimal digits"
        decimal = unquoted.isdecimal() and len(unquoted) > 1
        return f"is of type hex: write 0x{unquoted}" + (f", or {int(unquoted):#x} if it is decimal" if decimal else "")
    return ""


def allow(missing: Lost, allowed: Mapping[str, str]) -> str | None:
    """Return the reason why a request may be missing, None where it may not."""
    for pattern, why in allowed.items():
        without_prefix = pattern[len("CONFIG_") :] if pattern.startswith("CONFIG_") else pattern
        if fnmatch.fnmatchcase(missing.wanted.symbol, without_prefix):
            return why
    return None


def complaint(requested: int, missing: Sequence[Lost]) -> str:
    """Return one line about the requests that are not in the result."""
    refused = [each for each in missing if each.allowed is None]
    return (
        f"{len(refused)} of {requested} requested symbols {'is' if len(refused) == 1 else 'are'} not in the result, and"
        " .config is unchanged: " + listing(refused)
    )


def listing(what: Sequence[object]) -> str:
    """Return the first few, and how many more there are."""
    more = len(what) - NAMED
    return "; ".join(str(each) for each in what[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _unmet_of(answer: Answer, wanted: str) -> list[str]:
    """Return the conditions that keep a symbol from being set by hand: its dependencies, then the condition of its
    prompt.
    """
    level = TRISTATE.index(wanted) if wanted in TRISTATE else 2
    for expression in (answer.depends, *(menu.visible for menu in answer.menus if menu.prompt)):
        if expression:
            found = unmet(expression, level)
            if found:
                return found
    return []
