# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of daemon_config: the new settings of daemon.json, whether dockerd would take them, and those that a running
daemon reloads. Nothing is read or written here.

Sources: https://docs.docker.com/reference/cli/dockerd/ and moby's daemon/reload.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import (
    RUNTIMES,
    NoSettings,
    Settings,
    is_below,
    merged,
    parse,
    program,
    read,
    render,
    same,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_types import listing, problems
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import refusal

# The settings that dockerd reloads at SIGHUP ("Configuration reload behavior" in its reference); it reads the
# others only when it starts.
RELOADED = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        RUNTIMES,
        "shutdown-timeout",
    }
)


@dataclass(frozen=True)
class Wanted:
    """The settings that the task wants."""

    settings: Mapping[str, Any]  # merged deeply; None removes a key
    runtimes_below: str  # the directory of the runtimes that may be replaced or removed
    path: str
    timeout: int  # seconds that dockerd may take to read the file

    @property
    def runtimes(self) -> Mapping[str, Mapping[str, Any] | None]:
        return self.settings.get(RUNTIMES) or {}


def parse_options(options: Mapping[str, Any]) -> Wanted:
    """Return the wanted settings, or raise Refused where dockerd could not have them."""
    settings = options["settings"]
    runtimes = settings.get(RUNTIMES, {})
    if not isinstance(runtimes, Mapping):
        raise Refused(
            f"settings: {RUNTIMES} is {type(runtimes).__name__} and must be a dictionary by the runtimes' names:"
            " nothing was changed"
        )
    for name, runtime in runtimes.items():
        if runtime is not None and not (
            isinstance(runtime, Mapping) and bool(runtime.get("runtimeType")) != bool(runtime.get("path"))
        ):
            raise Refused(
                f"settings: {RUNTIMES}.{name} must be null or have either runtimeType or path, with a value: nothing"
                " was changed"
            )
    found = problems({key: value for key, value in settings.items() if value is not None})
    if found:
        raise Refused(f"settings: {listing(found)}: nothing was changed")
    return Wanted(settings, options["runtimes_below"], options["path"], options["timeout"])


@dataclass(frozen=True)
class Found:
    """The state of the machine."""

    text: str | None = None  # of the file; None where there is none
    read: bool | None = None  # whether the running daemon has read this text; None where no daemon runs
    arguments: tuple[str, ...] = ()  # of dockerd, with the program: as it runs, or as its unit starts it
    systemd: bool = False  # whether a unit starts it


@dataclass(frozen=True)
class Write:
    """Write the text to the file, if Docker itself accepts it."""

    text: str

    def __str__(self) -> str:
        return "write the file"


@dataclass(frozen=True)
class Remove:
    """Remove the file, which would be empty."""

    def __str__(self) -> str:
        return "remove the file"


@dataclass(frozen=True)
class Reload:
    """Have the daemon read the file, and wait until it reports that it has."""

    def __str__(self) -> str:
        return "have dockerd read it"


@dataclass(frozen=True)
class Plan:
    """The steps from the found to the wanted state, and the reason."""

    steps: tuple[Any, ...]
    reason: str
    before: Settings
    after: Settings
    restart: tuple[str, ...] = ()  # the changed settings that the daemon reads only when it starts


def replaced(settings: Settings, wanted: Wanted) -> Settings:
    """Return the wanted settings. A runtime is replaced as a whole, and removed only where its program is below
    `runtimes_below`.
    """
    old = {} if settings.get(RUNTIMES) is None else settings[RUNTIMES]
    if not isinstance(old, Mapping):
        raise Refused(f"{RUNTIMES} is {type(old).__name__}, not a JSON object ({{…}}): correct it, then run this again")
    table = dict(old)
    for name, runtime in wanted.runtimes.items():
        foreign = name in old and not is_below(old[name], wanted.runtimes_below)
        if runtime is not None and foreign and not same(old[name], runtime):
            raise Refused(
                f"the runtime {name!r} there is not managed by nested.kata ({program(old[name])}, not below"
                f" {wanted.runtimes_below}): choose another name, or remove it"
            )
        if runtime is not None:
            table[name] = dict(runtime)
        elif not foreign:
            table.pop(name, None)
    result = merged(settings, {key: value for key, value in wanted.settings.items() if key != RUNTIMES})
    if not same(table, old):
        result[RUNTIMES] = table
        if not table:
            del result[RUNTIMES]
    return result


def understood(reader: Callable[[str], Settings], found: Found) -> Settings:
    """Return the settings in the file, or raise Refused."""
    try:
        return reader(found.text or "")
    except NoSettings as error:
        raise Refused(f"{error}, then run this again") from None


def check(settings: Settings, found: Found) -> None:
    """Raise Refused where dockerd would not start with the settings: with what the file holds beside those that are
    wanted, or with its flags.
    """
    wrong = problems(settings)
    if wrong:
        raise Refused(f"{listing(wrong)}: correct it, then run this again")
    clash = refusal(found.arguments, settings, found.systemd)
    if clash:
        raise Refused(f"{clash}, then run this again; nothing was changed")


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the plan by which the file and the daemon get the wanted settings, or raise Refused."""
    before = understood(read, found)
    after = replaced(before, wanted)
    changed = [
        key
        for key in {**before, **after}
        if not same(before.get(key), after.get(key)) or (key in before) != (key in after)
    ]
    if changed:
        understood(parse, found)
        check(after, found)
    steps: list[Any] = []
    reasons = []
    final = Write(render(after, found.text)) if after else Remove()
    if changed:
        steps.append(final)
        reasons.append(f"{', '.join(sorted(changed))} differed")
    if found.read is not None and (RELOADED.intersection(changed) or not found.read):
        if RUNTIMES in before and RUNTIMES not in after:
            # dockerd keeps its runtimes where the file has no key for them (moby's daemon/runtime_unix.go, IsValueSet).
            steps = [Write(render({**after, RUNTIMES: {}}, found.text)), Reload(), final]
        else:
            steps.append(Reload())
        if not found.read:
            reasons.append("dockerd has not read it since it was changed")
    restart = tuple(sorted(set(changed) - RELOADED)) if found.read is not None else ()
    return Plan(
        tuple(steps), "; ".join(reasons) or "it says what is wanted, and dockerd has read it", before, after, restart
    )
