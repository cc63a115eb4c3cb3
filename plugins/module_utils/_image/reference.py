# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, tags and ids of images, as options and daemons spell them."""

from __future__ import annotations

import difflib
import re
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

HUB = "docker.io"

# The grammar of github.com/distribution/reference, which every docker daemon parses names with.
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
HEX = re.compile(r"[0-9a-f]{64}")
ID = re.compile(r"sha256:[0-9a-f]{64}")
LONGEST_NAME = 255
HANDFUL = 5  # names that are listed where none is near


def split_domain(name: str) -> tuple[str, str]:
    """Return the registry of a name, the default one where it names none, and the rest of the name."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return HUB, name


def parse_reference(text: str) -> str:
    """Return the one spelling of a reference: `debian` and `docker.io/library/debian` are both `debian:latest`."""
    if "@" in text or text.startswith("sha256:"):
        raise Refused(
            f"{text!r} names a digest: give the image a tag (docker tag) and name that, because an image is loaded"
            " under a tag"
        )
    head, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    tag = tag if colon else "latest"
    if not TAG.fullmatch(tag):
        raise Refused(
            f"{text!r} is not an image name: {tag!r} is not a valid tag (letters, digits, '_', '.' and '-', at most"
            " 128)"
        )
    domain, path = split_domain(name)
    if not DOMAIN.fullmatch(domain):
        raise Refused(f"{text!r} is not an image name: {domain!r} is not a valid registry (host or host:port)")
    for component in path.split("/"):
        if not COMPONENT.fullmatch(component):
            hint = (
                ", which must be lower case"
                if component.lower() != component and COMPONENT.fullmatch(component.lower())
                else ""
            )
            raise Refused(f"{text!r} is not an image name: {component!r} is not a valid part of a name{hint}")
    if HEX.fullmatch(path):
        raise Refused(
            f"{text!r} is an image id: give the image a tag (docker tag) and name that, because an image is loaded"
            " under a tag"
        )
    if domain in (HUB, f"index.{HUB}"):
        domain, path = "", path[len("library/") :] if path.startswith("library/") and path.count("/") == 1 else path
    name = f"{domain}/{path}" if domain else path
    if len(name) > LONGEST_NAME:
        raise Refused(f"{text!r} is not an image name: it is longer than {LONGEST_NAME} characters")
    return f"{name}:{tag}"


def parse_references(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the references in their order, each once."""
    return tuple(dict.fromkeys(parse_reference(text) for text in texts))


def parse_source(text: str) -> str:
    """Return the one spelling of an image at its source, which may be an id, or a name with a digest and no tag."""
    name, at, digest = text.rpartition("@")
    if HEX.fullmatch(text):
        digest = f"sha256:{text}"
    elif not at and not text.startswith(("sha256:", "sha384:", "sha512:")):
        return parse_reference(text)
    if not ID.fullmatch(digest):
        raise Refused(f"{text!r} names a digest that is not valid: write sha256: and 64 digits of 0-9 and a-f")
    # Docker takes no notice of a tag beside a digest.
    return f"{parse_reference(name).rpartition(':')[0]}@{digest}" if at else digest


def names_a_digest(reference: str) -> bool:
    """Return whether a reference leads to an image by its id or a digest, which is no name to load it by."""
    return "@" in reference or ID.fullmatch(reference) is not None


def full_name(reference: str) -> str:
    """Return a name with its registry, as containerd spells it."""
    domain, path = split_domain(reference)
    return f"{domain}/{path}" if "/" in reference else f"{domain}/library/{path}"


def parse_tags(tags: Mapping[str, Any], references: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names that each reference gets at the destination: its own, unless `tags` has others."""
    names: dict[str, tuple[str, ...]] = {reference: (reference,) for reference in references}
    for text, given in tags.items():
        reference = parse_source(text)
        if reference not in names:
            raise Refused(f"{text!r} is not among the images: name it there, or remove it here")
        names[reference] = parse_references([given] if isinstance(given, str) else given)
        if not names[reference]:
            raise Refused(f"{text!r} has no name: give it one, or remove it here")
    owners: dict[str, str] = {}
    for reference, given in names.items():
        for name in given:
            if owners.setdefault(name, reference) != reference:
                raise Refused(f"{name!r} would name both {owners[name]} and {reference}: give one of them another name")
    return names


def others_of(names: Iterable[str], tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of the same repositories that are not among the names."""
    wanted = set(names)
    repositories = {name.rpartition(":")[0] for name in wanted}
    return tuple(sorted(tag for tag in tags if tag.rpartition(":")[0] in repositories and tag not in wanted))


def near(reference: str, tags: Sequence[str]) -> tuple[str, ...]:
    """Return the names most similar to a reference that was not found: other tags of the same repository first, then
    the same repository of another registry.
    """
    repository = reference.rpartition(":")[0]
    repositories: dict[str, list[str]] = {}
    for tag in tags:
        repositories.setdefault(tag.rpartition(":")[0], []).append(tag)
    siblings = difflib.get_close_matches(reference, repositories.pop(repository, []), n=3, cutoff=0)
    last = repository.rpartition("/")[2]
    namesakes = [tag for name in repositories if name.rpartition("/")[2] == last for tag in repositories[name]]
    namesakes.sort(key=lambda tag: tag.rpartition(":")[2] != reference.rpartition(":")[2])
    cousins = [tag for name in difflib.get_close_matches(repository, repositories, n=3) for tag in repositories[name]]
    return tuple(dict.fromkeys([*siblings, *namesakes, *cousins]))[:5]


def absent(reference: str, tags: Sequence[str], nameless: Sequence[str] = ()) -> str:
    """Return the message about a reference that the source does not have, where it has these names, and these ids of
    images without a name.
    """
    by_podman = f"localhost/{reference}"
    names = () if names_a_digest(reference) else near(reference, tags)
    there = [enumerated(tags)] if tags else []
    if nameless:
        there.append(f"without a name {enumerated(nameless)}, to be named by id")
    if by_podman in tags:
        hint = f"near: {by_podman}, since podman names what it builds so: name that, and in tags the name that it gets"
    elif names:
        hint = f"near: {', '.join(names)}"
    elif len(tags) + len(nameless) <= HANDFUL:
        hint = f"it has {' and '.join(there)}" if there else "there is none with a name"
    else:
        hint = f"none of the {len(tags) + len(nameless)} images there has a name near it"
    return f"no image {reference} ({hint})"


def enumerated(words: Iterable[str]) -> str:
    """Return words as a sentence lists them."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
