# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kconfig's expressions, as it prints them: NET [=y] && (IPV6 [=n] || !EXPERT [=y])."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Tuple, TypeVar, Union

TRISTATE = ("n", "m", "y")


@dataclass(frozen=True)
class Term:
    """A symbol, or two of them compared."""

    name: str
    value: str
    operator: str = ""
    other: str = ""

    def level(self) -> int:
        if self.operator:
            return 2 * int(_compare(self.value, self.operator, self.other))
        return TRISTATE.index(self.value) if self.value in TRISTATE else 0


@dataclass(frozen=True)
class Not:
    """The opposite of an expression."""

    inner: Expression

    def level(self) -> int:
        return 2 - self.inner.level()


@dataclass(frozen=True)
class Both:
    """Expressions that all have to hold."""

    parts: tuple[Expression, ...]

    def level(self) -> int:
        return min(part.level() for part in self.parts)


@dataclass(frozen=True)
class Either:
    """Expressions of which one has to hold."""

    parts: tuple[Expression, ...]

    def level(self) -> int:
        return max(part.level() for part in self.parts)


Expression = Union[Term, Not, Both, Either]
Tokens = List[Tuple[Optional[str], Optional[str], Optional[str]]]
"""Each has an operator, or a name and a value."""
Side = TypeVar("Side", int, str)


TOKEN = re.compile(
    r'\s*(?:(?P<name><choice>|"[^"]*"|[^\s!()=<>&|\[]+)(?:'
    r" \[=(?P<value>[^\]]*)\])?|(?P<operator>&&|\|\||!=|<=|>=|[!()=<>]))"
)


def _compare(left: str, operator: str, right: str) -> bool:
    """Compare as Kconfig does: as numbers where both are, as texts otherwise."""
    numbers = [re.fullmatch(r"-?[0-9]+|0[xX][0-9a-fA-F]+", side) for side in (left, right)]
    if all(numbers) and not (left + right).startswith("0"):
        return _holds(int(left, 0), operator, int(right, 0))
    return _holds(left, operator, right)


def _holds(one: Side, operator: str, other: Side) -> bool:
    return {
        "=": one == other,
        "!=": one != other,
        "<": one < other,
        ">": one > other,
        "<=": one <= other,
        ">=": one >= other,
    }[operator]


def parse_expression(text: str) -> Expression:
    """Return the tree of an expression, or raise ValueError."""
    tokens: Tokens = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"not an expression of Kconfig: {text!r}")
        tokens.append((match.group("operator"), match.group("name"), match.group("value")))
        at = match.end()
    expression, rest = _either(tokens)
    if rest:
        raise ValueError(f"not an expression of Kconfig: {text!r}")
    return expression


def _either(tokens: Tokens) -> tuple[Expression, Tokens]:
    return _chain(tokens, "||", _both, Either)


def _both(tokens: Tokens) -> tuple[Expression, Tokens]:
    return _chain(tokens, "&&", _single, Both)


def _chain(
    tokens: Tokens,
    operator: str,
    inner: Callable[[Tokens], tuple[Expression, Tokens]],
    kind: type[Both | Either],
) -> tuple[Expression, Tokens]:
    part, tokens = inner(tokens)
    parts = [part]
    while tokens and tokens[0][0] == operator:
        part, tokens = inner(tokens[1:])
        parts.append(part)
    return (parts[0] if len(parts) == 1 else kind(tuple(parts))), tokens


def _single(tokens: Tokens) -> tuple[Expression, Tokens]:
    if not tokens:
        raise ValueError("an expression of Kconfig ends too early")
    (operator, name, value), tokens = tokens[0], tokens[1:]
    if operator == "!":
        inner, tokens = _single(tokens)
        return Not(inner), tokens
    if operator == "(":
        inner, tokens = _either(tokens)
        if not tokens or tokens[0][0] != ")":
            raise ValueError("an expression of Kconfig lacks a bracket")
        return inner, tokens[1:]
    if name is None:
        raise ValueError(f"an expression of Kconfig has {operator} in a wrong place")
    # A choice in question is always open, and a constant stands for itself.
    value = "y" if name == "<choice>" else name.strip('"') if value is None else value
    if len(tokens) > 1 and tokens[0][0] in ("=", "!=", "<", ">", "<=", ">="):
        comparison, right = tokens[0][0], tokens[1]
        if right[1] is None:
            raise ValueError(f"an expression of Kconfig compares with {right[0]}")
        return Term(name, value, comparison, right[1].strip('"') if right[2] is None else right[2]), tokens[2:]
    return Term(name, value), tokens


def unmet(expression: str, level: int) -> list[str]:
    """Return the parts of an expression that keep it below a level (1: m, 2: y), each with its current value."""
    try:
        tree = parse_expression(expression)
    except ValueError:
        return [expression]
    return list(dict.fromkeys(_unmet(tree, level)))


def _unmet(tree: Expression, level: int) -> Iterator[str]:
    if tree.level() >= level:
        return
    if isinstance(tree, Both):
        for part in tree.parts:
            yield from _unmet(part, level)
    elif isinstance(tree, Either):
        yield " or ".join(" and ".join(_unmet(part, level)) for part in tree.parts)
    elif isinstance(tree, Not) and isinstance(tree.inner, Term) and not tree.inner.operator:
        yield f"{tree.inner.name}=n, is {tree.inner.value}"
    elif isinstance(tree, Not):
        yield _written(tree)
    elif tree.operator:
        yield f"{tree.name}{tree.operator}{tree.other}, is {tree.value or 'empty'}"
    else:
        yield f"{tree.name}=y, is {tree.value}"


def _written(tree: Expression) -> str:
    if isinstance(tree, Term):
        return f"{tree.name}{tree.operator}{tree.other}"
    if isinstance(tree, Not):
        return f"not ({_written(tree.inner)})"
    parts = (f"({_written(part)})" if isinstance(part, (Both, Either)) else _written(part) for part in tree.parts)
    return (" and " if isinstance(tree, Both) else " or ").join(parts)


def _terms(tree: Expression) -> Iterator[str]:
    if isinstance(tree, Term):
        yield tree.name
    elif isinstance(tree, Not):
        yield from _terms(tree.inner)
    else:
        for part in tree.parts:
            yield from _terms(part)


def _alternatives(expression: str) -> tuple[Expression, ...]:
    try:
        tree = parse_expression(expression)
    except ValueError:
        return ()
    return tree.parts if isinstance(tree, Either) else (tree,)


def _first(tree: Expression) -> str:
    return next(_terms(tree))


def true_alternatives(expression: str) -> list[str]:
    """Return the symbols that select a symbol now. Kconfig puts the selecting symbol first in each alternative."""
    return list(dict.fromkeys(_first(part) for part in _alternatives(expression) if part.level() > 0))


def names_in(expression: str) -> list[str]:
    """Return the symbols that could select a symbol."""
    return list(dict.fromkeys(_first(part) for part in _alternatives(expression)))
