# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of plugins/ a test uses, found in its syntax: a name in a comment, or quoted for another reason, is no
use.
"""

from __future__ import annotations

import ast
import contextlib
import re
import textwrap
from collections.abc import Iterator

PREFIX = "ansible_collections.nested.kata.plugins."
THROUGH_ANSIBLE = ("run_module",)  # of playing.py: the module's action plugin runs, too
RUNNERS = (*THROUGH_ANSIBLE, "started", "module_command")
FULL_NAME = re.compile(r"nested\.kata\.(\w+)")
NAME = re.compile(r"(?:nested\.kata\.)?(\w+)")
TASK = re.compile(r"^[ -]*nested\.kata\.(\w+):", re.MULTILINE)
CONNECTION = re.compile(r"^\s*(?:ansible_)?connection: nested\.kata\.(\w+)\s*$", re.MULTILINE)


def of_python(text: str) -> Iterator[str]:
    """Yield `DIRECTORY.NAME` for each file that a test imports, runs as a module, has Ansible load, or names in a
    playbook that it writes.
    """
    tree = ast.parse(text)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(PREFIX) for alias in node.names if alias.name.startswith(PREFIX))
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(PREFIX):
            module = f"{node.module}.".removeprefix(PREFIX)
            yield module.removesuffix(".")
            yield from (f"{module}{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                yield from _of_entry(_text_of(key), _text_of(value))
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            yield from of_yaml(_text_of(node))
            yield from _of_program(_text_of(node))


def _of_program(text: str) -> Iterator[str]:
    """Yield what a program uses that a test writes and runs."""
    if PREFIX.removesuffix(".") in text:
        with contextlib.suppress(SyntaxError):
            yield from of_python(textwrap.dedent(text))


def of_yaml(text: str) -> Iterator[str]:
    """Yield what a playbook or an inventory uses: a task's module, whose action plugin runs it, and a host's
    connection.
    """
    for found in TASK.finditer(text):
        yield from (f"modules.{found[1]}", f"action.{found[1]}")
    yield from (f"connection.{found[1]}" for found in CONNECTION.finditer(text))


def _of_call(node: ast.Call) -> Iterator[str]:
    function = node.func.id if isinstance(node.func, ast.Name) else ""
    if function in RUNNERS and node.args and (found := NAME.fullmatch(_text_of(node.args[0]))):
        yield f"modules.{found[1]}"
        if function in THROUGH_ANSIBLE:
            yield f"action.{found[1]}"
    for keyword in node.keywords:
        if keyword.arg == "ANSIBLE_STDOUT_CALLBACK" and (found := FULL_NAME.fullmatch(_text_of(keyword.value))):
            yield f"callback.{found[1]}"


def _of_entry(key: str, value: str) -> Iterator[str]:
    """Yield what an entry of a task or of a host's variables uses, where these are written as dictionaries."""
    if found := FULL_NAME.fullmatch(key):
        yield from (f"modules.{found[1]}", f"action.{found[1]}")
    elif key == "ansible_connection" and (found := FULL_NAME.fullmatch(value)):
        yield f"connection.{found[1]}"


def _text_of(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
