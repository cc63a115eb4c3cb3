# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json, Docker's configuration: parsed as dockerd does, merged, and written like the existing text. No I/O."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Callable, Dict, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

RUNTIMES = "runtimes"

Settings = Dict[str, Any]


class NoSettings(ValueError):
    """A text that dockerd would not start with. `line` is 0 where the error is in no line."""

    def __init__(self, what: str, line: int = 0, content: str = "", comment: bool = False) -> None:
        super().__init__(what)
        self.what, self.line, self.content, self.comment = what, line, content, comment


def no_duplicates(pairs: list[tuple[str, Any]]) -> Settings:
    table: Settings = {}
    for key, value in pairs:
        if key in table:
            raise Refused(f"the key {key!r} is there twice, and Docker uses the last one: remove one")
        table[key] = value
    return table


def read(text: str, pairs: Callable[[list[tuple[str, Any]]], Settings] | None = None) -> Settings:
    """Return the settings of a daemon.json, or raise NoSettings; an empty file has none, as for dockerd. `pairs` makes
    an object of its pairs.
    """
    if not text.strip():
        return {}
    try:
        settings = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:  # from json, with a position, or from Python, about a number that is too long
        position = getattr(error, "pos", 0)
        line = text.count("\n", 0, position) + 1
        comment = text[position:].lstrip().startswith(("//", "/*", "#"))
        raise NoSettings(getattr(error, "msg", str(error)), line, text.split("\n")[line - 1].strip(), comment) from None
    if not isinstance(settings, dict):
        raise NoSettings(f"{type(settings).__name__}, not a JSON object")
    return settings


def parse(text: str) -> Settings:
    """Return the settings of a daemon.json that can be changed, or raise Refused."""
    try:
        return read(text, no_duplicates)
    except NoSettings as error:
        if error.comment:
            found = (
                f"line {error.line} has a comment ({error.content[:60]!r}), which JSON and dockerd do not know:"
                " remove it"
            )
        elif error.line:
            found = f"line {error.line} is not valid JSON ({error.what}): {error.content[:60]!r}; correct it"
        else:
            found = f"it holds {error.what} ({{…}}): correct it"
        raise Refused(f"{found}, then run this again") from None


def render(settings: Settings, like: str | None) -> str:
    """Return the settings as JSON, indented like the existing text."""
    indent = re.search(r"^([ \t]+)\S", like or "", re.MULTILINE)
    return json.dumps(settings, indent=indent.group(1) if indent else "  ", ensure_ascii=False) + "\n"


def merged(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> Settings:
    """Return settings with the wanted ones: objects are merged, None removes a key, and an object that becomes empty is
    removed, too.
    """
    result = dict(settings)
    for key, value in wanted.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            table = merged(below if isinstance(below, Mapping) else {}, value)
            if table or not value:
                result[key] = table
            else:
                result.pop(key, None)
        else:
            result[key] = value
    return result


def program(runtime: Any) -> str:
    """Return the program of a runtime of daemon.json or of the daemon."""
    return str(runtime.get("runtimeType") or runtime.get("path") or "") if isinstance(runtime, Mapping) else ""


def is_below(runtime: Any, directory: str) -> bool:
    """Return whether the program of a runtime of daemon.json is in a directory."""
    return os.path.normpath(program(runtime)).startswith(directory.rstrip("/") + "/")
