# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json, Docker's configuration: what it says, what it is to say, and what of that a running daemon takes over.

Nothing is read or written here. Sources: https://docs.docker.com/reference/cli/dockerd/ and moby's daemon/reload.go.
"""
from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

RUNTIMES = "runtimes"

# What dockerd takes over at SIGHUP ("Configuration reload behavior" in its reference); all else it reads only when it starts.
RELOADED = frozenset({
    "allow-nondistributable-artifacts", "authorization-plugins", "debug", "default-runtime", "features", "insecure-registries", "labels", "live-restore",
    "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "registry-mirrors", RUNTIMES, "shutdown-timeout",
})

Settings = Dict[str, Any]


class NoSettings(ValueError):
    """A text that dockerd would not start with. `line` is 0 where no line of it is to blame."""

    def __init__(self, what: str, line: int = 0, content: str = "", comment: bool = False) -> None:
        super().__init__(what)
        self.what, self.line, self.content, self.comment = what, line, content, comment


@dataclass(frozen=True)
class Wanted:
    """What the task asked for."""

    settings: Mapping[str, Any]
    """Merged deeply; None takes a key away."""
    ours: str
    """Directory below which the runtimes are that may be replaced or removed."""

    @classmethod
    def of(cls, settings: Mapping[str, Any], ours: str) -> "Wanted":
        """Return what was asked for, or raise Refused where it is none that dockerd could have."""
        runtimes = settings.get(RUNTIMES, {})
        if not isinstance(runtimes, Mapping):
            raise Refused(f"{RUNTIMES} is {type(runtimes).__name__} and must be a dictionary by the runtimes' names: nothing was changed")
        for name, runtime in runtimes.items():
            if runtime is not None and not (isinstance(runtime, Mapping) and bool(runtime.get("runtimeType")) != bool(runtime.get("path"))):
                raise Refused(f"{RUNTIMES}.{name} must be null or have either runtimeType or path, with a value: nothing was changed")
        return cls(settings, ours)

    @property
    def runtimes(self) -> Mapping[str, Optional[Mapping[str, Any]]]:
        return self.settings.get(RUNTIMES) or {}


@dataclass(frozen=True)
class Found:
    """What the machine has."""

    text: Optional[str] = None
    """Of the file; None where there is none."""
    read: Optional[bool] = None
    """Whether the running daemon has read this text; None where no daemon runs."""


@dataclass(frozen=True)
class Write:
    """Put the text into the file, once Docker itself has found it valid."""

    text: str

    def __str__(self) -> str:
        return "write the file"


@dataclass(frozen=True)
class Remove:
    """Remove the file, in which nothing is left."""

    def __str__(self) -> str:
        return "remove the file"


@dataclass(frozen=True)
class Reload:
    """Have the daemon read the file, and wait until it says that it has."""

    def __str__(self) -> str:
        return "have dockerd read it"


@dataclass(frozen=True)
class Plan:
    """The steps from what was found to what is wanted, and why."""

    steps: Tuple[Any, ...]
    reason: str
    before: Settings
    after: Settings
    restart: Tuple[str, ...] = ()
    """The changed settings which the daemon only reads when it starts."""


def no_duplicates(pairs: List[Tuple[str, Any]]) -> Settings:
    table: Settings = {}
    for key, value in pairs:
        if key in table:
            raise Refused(f"the key {key!r} stands there twice, of which Docker takes the last: remove one")
        table[key] = value
    return table


def read(text: str, pairs: Optional[Callable[[List[Tuple[str, Any]]], Settings]] = None) -> Settings:
    """Return what a daemon.json says, or raise NoSettings; an empty file says nothing, as for dockerd. `pairs` makes an object of its pairs."""
    if not text.strip():
        return {}
    try:
        settings = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:  # of json itself, which names a place, or of Python, for which a number is too long
        place = getattr(error, "pos", 0)
        line = text.count("\n", 0, place) + 1
        comment = text[place:].lstrip().startswith(("//", "/*", "#"))
        raise NoSettings(getattr(error, "msg", str(error)), line, text.split("\n")[line - 1].strip(), comment) from None
    if not isinstance(settings, dict):
        raise NoSettings(f"{type(settings).__name__} and no JSON object")
    return settings


def parse(text: str) -> Settings:
    """Return what a daemon.json says that is to be changed, or raise Refused."""
    try:
        return read(text, no_duplicates)
    except NoSettings as error:
        if error.comment:
            found = f"line {error.line} has a comment ({error.content[:60]!r}), which JSON and dockerd do not know: remove it"
        elif error.line:
            found = f"line {error.line} is no JSON ({error.what}): {error.content[:60]!r}; mend it"
        else:
            found = f"it holds {error.what} ({{…}}): mend it"
        raise Refused(f"{found}, then run this again") from None


def render(settings: Settings, like: Optional[str]) -> str:
    """Return the settings as JSON, indented as the text that is there."""
    indent = re.search(r"^([ \t]+)\S", like or "", re.MULTILINE)
    return json.dumps(settings, indent=indent.group(1) if indent else "  ", ensure_ascii=False) + "\n"


def merged(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> Settings:
    """Return settings with the wanted ones: objects are merged, None takes a key away, an object that is left empty thereby goes too."""
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


def replaced(settings: Settings, wanted: Wanted) -> Settings:
    """Return the settings as they are to be. A runtime is one thing: it is replaced whole, and removed only where it is ours."""
    old = settings.get(RUNTIMES, {})
    if not isinstance(old, Mapping):
        raise Refused(f"{RUNTIMES} is {type(old).__name__} and no JSON object ({{…}}): mend it, then run this again")
    table = dict(old)
    for name, runtime in wanted.runtimes.items():
        foreign = name in old and not is_below(old[name], wanted.ours)
        if runtime is not None and foreign and old[name] != runtime:
            raise Refused(f"the runtime {name!r} there is somebody else's ({program(old[name])}, not below {wanted.ours}): choose another name, or remove it")
        if runtime is not None:
            table[name] = dict(runtime)
        elif not foreign:
            table.pop(name, None)
    result = merged(settings, {key: value for key, value in wanted.settings.items() if key != RUNTIMES})
    if table != old:
        result[RUNTIMES] = table
        if not table:
            del result[RUNTIMES]
    return result


def program(runtime: Any) -> str:
    """Return what a runtime of daemon.json or of the daemon runs."""
    return str(runtime.get("runtimeType") or runtime.get("path") or "") if isinstance(runtime, Mapping) else ""


def is_below(runtime: Any, directory: str) -> bool:
    """Say whether a runtime of daemon.json is one of those in a directory, by what it runs."""
    return os.path.normpath(program(runtime)).startswith(directory.rstrip("/") + "/")


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return how the file and the daemon come to say what is wanted, or raise Refused."""
    before = parse(found.text or "")
    after = replaced(before, wanted)
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key) or (key in before) != (key in after)]
    steps: List[Any] = []
    reasons = []
    final = Write(render(after, found.text)) if after else Remove()
    if changed:
        steps.append(final)
        reasons.append(f"{', '.join(sorted(changed))} differed")
    if found.read is not None and (RELOADED.intersection(changed) or not found.read):
        if RUNTIMES in before and RUNTIMES not in after:
            # dockerd keeps the runtimes that it has where the file says nothing of any (moby's daemon/runtime_unix.go, IsValueSet).
            steps = [Write(render({**after, RUNTIMES: {}}, found.text)), Reload(), final]
        else:
            steps.append(Reload())
        if not found.read:
            reasons.append("dockerd has not read it since it was changed")
    restart = tuple(sorted(set(changed) - RELOADED)) if found.read is not None else ()
    return Plan(tuple(steps), "; ".join(reasons) or "it says what is wanted, and dockerd has read it", before, after, restart)
