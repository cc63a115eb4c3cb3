# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of image_transfer, parsed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._image.locations import (
    ArchiveLocation,
    DaemonLocation,
    Location,
)
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import parse_platform
from ansible_collections.nested.kata.plugins.module_utils._image.reference import (
    names_a_digest,
    parse_source,
    parse_tags,
)


@dataclass(frozen=True)
class Wanted:
    """The transfer that the task asks for."""

    names: dict[str, tuple[str, ...]]  # by reference: its names at the destination
    source: Location
    destinations: tuple[Location, ...]
    platform: str
    prune: bool
    silence: float

    @property
    def at_destination(self) -> set[str]:
        return {name for names in self.names.values() for name in names}


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the transfer that the options ask for, or raise Refused."""
    try:
        references = tuple(dict.fromkeys(map(parse_source, options["images"])))
    except Refused as error:
        raise Refused(f"images: {error}") from error
    try:
        names = parse_tags(options["tags"], references)
    except Refused as error:
        raise Refused(f"tags: {error}") from error
    for reference in references:
        if names_a_digest(reference) and names[reference] == (reference,):
            raise Refused(
                f"images: {reference!r} names a digest, and an image is loaded under a name: give it one in tags"
            )
    source = parse_location("source", options["source"])
    many = options["destinations"]
    if many is not None and not many:
        raise Refused("destinations: the list is empty: name at least one, or remove the option")
    locations = [("destinations", given) for given in many] if many else [("destination", options["destination"])]
    destinations = [parse_location(option, given) for option, given in locations]
    if source in destinations:
        raise Refused(f"source and destination are the same {source.kind} ({source}): change one of them")
    if len(set(destinations)) < len(destinations):
        twice = next(location for location in destinations if destinations.count(location) > 1)
        raise Refused(f"destinations: {twice} is named twice: name it once")
    if options["prune_other_tags"] and not all(location.prunable for location in destinations):
        raise Refused("prune_other_tags: an archive holds no other tags: leave the option out, or name daemons only")
    if options["timeout"] < 1:
        raise Refused(f"timeout: {options['timeout']} is less than 1: give a number of seconds")
    try:
        platform = parse_platform(options["platform"]) if options["platform"] else ""
    except Refused as error:
        raise Refused(f"platform: {error}") from error
    return Wanted(names, source, tuple(destinations), platform, options["prune_other_tags"], options["timeout"])


def parse_location(option: str, given: Mapping[str, Any] | None) -> Location:
    """Return the location that an option names: without one, this machine's own daemon."""
    found = dict(given or {})
    path = found.pop("archive", None)
    if path is not None:
        if not path.startswith("/"):
            raise Refused(f"{option}: archive {path!r} is not the absolute path of a file")
        by = found.get("transport") or "auto"
        if by != "auto":
            raise Refused(f"{option}: transport {by} and archive exclude each other: a transport leads through hops")
        return ArchiveLocation(os.path.normpath(path))
    try:
        return DaemonLocation(Endpoint.parse(found))
    except ValueError as error:
        raise Refused(f"{option}: {error}") from error
