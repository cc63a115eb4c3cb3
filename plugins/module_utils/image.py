# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as two docker daemons describe them: names, whether two are the same, what a load says. No I/O."""
from __future__ import annotations

import codecs
import difflib
import enum
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused

HUB = "docker.io"

# The grammar of github.com/distribution/reference, which every docker daemon parses names with.
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
DOMAIN = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
ID = re.compile(r"[0-9a-f]{64}")
LONGEST_NAME = 255

# The containerd store reports this as an ordinary line of a load that it then calls a success.
NOT_UNPACKED = "Error unpacking image"


# What tells two images of different stores apart beside their layers. The rest that daemons print is about
# the container a layer was built in, or about the daemon.
FIELDS = ("Architecture", "Author", "Created", "Os", "OsVersion", "Variant")
CONFIG_FIELDS = (
    "ArgsEscaped", "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User", "Volumes", "WorkingDir",
)


def split_domain(name: str) -> Tuple[str, str]:
    """Return the registry that a name says or means, and the rest of it."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return HUB, name


def parse_reference(text: str) -> str:
    """Return the one spelling of a reference: `debian` and `docker.io/library/debian:latest` are both `debian:latest`."""
    if "@" in text or text.startswith("sha256:"):
        raise Refused(f"{text!r} names a digest: give the image a tag (docker tag) and name that, because an image is loaded under a tag")
    head, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    tag = tag if colon else "latest"
    if not TAG.fullmatch(tag):
        raise Refused(f"{text!r} is not an image name: {tag!r} is no tag (letters, digits, '_', '.' and '-', at most 128)")
    domain, path = split_domain(name)
    if not DOMAIN.fullmatch(domain):
        raise Refused(f"{text!r} is not an image name: {domain!r} is no registry (host or host:port)")
    for component in path.split("/"):
        if not COMPONENT.fullmatch(component):
            hint = ", which is lower case" if component.lower() != component and COMPONENT.fullmatch(component.lower()) else ""
            raise Refused(f"{text!r} is not an image name: {component!r} is no part of a name{hint}")
    if ID.fullmatch(path):
        raise Refused(f"{text!r} is an image id: give the image a tag (docker tag) and name that, because an image is loaded under a tag")
    if domain in (HUB, f"index.{HUB}"):
        domain, path = "", path[len("library/"):] if path.startswith("library/") and path.count("/") == 1 else path
    name = f"{domain}/{path}" if domain else path
    if len(name) > LONGEST_NAME:
        raise Refused(f"{text!r} is not an image name: it is longer than {LONGEST_NAME} characters")
    return f"{name}:{tag}"


def parse_references(texts: Iterable[str]) -> Tuple[str, ...]:
    """Return the references in their order, each once."""
    return tuple(dict.fromkeys(parse_reference(text) for text in texts))


@dataclass(frozen=True)
class Image:
    """One image as a daemon describes it."""

    id: str
    layers: Tuple[str, ...]  # RootFS.Layers: the digests of the unpacked layers, base first
    config: str  # everything else by which two images of different stores can be told apart
    platform: str = ""  # os/architecture or os/architecture/variant

    @classmethod
    def parse(cls, inspected: Mapping[str, Any]) -> Image:
        """Take what GET /images/NAME/json answered."""
        config = _told(inspected, FIELDS)
        config["Config"] = _told(inspected.get("Config") or {}, CONFIG_FIELDS)
        # An image without a time of creation: older daemons print Go's zero time, newer ones nothing.
        if str(config.get("Created", "")).startswith("0001-01-01T00:00:00"):
            del config["Created"]
        return cls(
            id=inspected["Id"],
            layers=tuple((inspected.get("RootFS") or {}).get("Layers") or ()),
            config=json.dumps(config, sort_keys=True),
            platform="/".join(str(inspected[key]) for key in ("Os", "Architecture", "Variant") if inspected.get(key)),
        )

    @classmethod
    def from_config(cls, image_id: str, config: Mapping[str, Any]) -> Image:
        """Take an image's configuration as archives hold it (OCI image-spec, config.md)."""
        inspected = {key: config.get(name) for key, name in zip(FIELDS, ("architecture", "author", "created", "os", "os.version", "variant"))}
        layers = (config.get("rootfs") or {}).get("diff_ids")
        return cls.parse({**inspected, "Id": image_id, "Config": config.get("config"), "RootFS": {"Layers": layers}})

    def runs_on(self, platform: str) -> bool:
        """Return whether this is the image for a platform; one without a variant is content with any."""
        return f"{self.platform}/".startswith(f"{platform}/")


def _told(found: Mapping[str, Any], fields: Sequence[str]) -> Dict[str, Any]:
    """Return the fields that are not empty: daemons differ in whether they print the others."""
    return {key: found[key] for key in fields if found.get(key)}


def same(one: Image, other: Image, *, by_content: bool) -> bool:
    """Return whether two daemons hold the same image.

    Between classic stores the id, which is the digest of the configuration, decides. The containerd store
    gives the digest of a manifest instead: by_content compares what both can tell.
    """
    return one.id == other.id or (by_content and one.layers == other.layers and one.config == other.config)


PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")


def parse_platform(text: str) -> str:
    if not PLATFORM.fullmatch(text):
        raise Refused(f"{text!r} is no platform: write os/architecture or os/architecture/variant, such as linux/amd64 or linux/arm64/v8")
    return text


def parse_tags(tags: Mapping[str, Any], references: Sequence[str]) -> Dict[str, Tuple[str, ...]]:
    """Return the names that each reference gets at the destination: its own, unless `tags` says others."""
    names = {reference: (reference,) for reference in references}
    for text, given in tags.items():
        reference = parse_reference(text)
        if reference not in names:
            raise Refused(f"{text!r} is not among the images: name it there, or remove it here")
        names[reference] = parse_references([given] if isinstance(given, str) else given)
        if not names[reference]:
            raise Refused(f"{text!r} has no name: give it one, or remove it here")
    owners: Dict[str, str] = {}
    for reference, given in names.items():
        for name in given:
            if owners.setdefault(name, reference) != reference:
                raise Refused(f"{name!r} would name both {owners[name]} and {reference}: give one of them another name")
    return names


class Action(enum.Enum):
    """What is to happen to one image at one destination."""

    KEEP = "leave it alone"
    TAG = "give it a name"
    SEND = "send it"


@dataclass(frozen=True)
class Step:
    """What is to happen to one image at one destination."""

    reference: str
    image: Image  # as the source has it
    names: Tuple[str, ...]  # those that it is to have
    replaced: Tuple[Optional[Image], ...]  # what the destination has under each of them
    action: Action
    reason: str
    there: Optional[Image] = None  # the same image at the destination


def decide(
    reference: str, source: Image, names: Tuple[str, ...], replaced: Tuple[Optional[Image], ...], unnamed: Optional[Image] = None, *, by_content: bool,
) -> Step:
    """Return the step that makes the destination's image of each name the source's. `unnamed`: what it has under the source's id."""
    right = [image for image in replaced if image is not None and same(source, image, by_content=by_content)]
    if len(right) == len(names):
        return Step(reference, source, names, replaced, Action.KEEP, "the destination has the same image", right[0])
    missing = [name for name, image in zip(names, replaced) if image is None]
    other = [image for image in replaced if image is not None and image not in right]
    why = "the destination has no image of this name" if missing else f"the destination has another image of this name ({short(other[0].id)})"
    held = right + ([unnamed] if unnamed is not None and same(source, unnamed, by_content=by_content) else [])
    if held:
        return Step(reference, source, names, replaced, Action.TAG, f"{why}, and the same image under another one", held[0])
    return Step(reference, source, names, replaced, Action.SEND, why)


def others_of(names: Iterable[str], tags: Iterable[str]) -> Tuple[str, ...]:
    """Return the tags of the same repositories that are not among the names."""
    wanted = set(names)
    repositories = {name.rpartition(":")[0] for name in wanted}
    return tuple(sorted(tag for tag in tags if tag.rpartition(":")[0] in repositories and tag not in wanted))


def short(image_id: str) -> str:
    """Return an id as `docker images` prints it."""
    return image_id.rpartition(":")[2][:12]


def near(reference: str, tags: Sequence[str]) -> Tuple[str, ...]:
    """Return the names that are most like a reference that was not found, other tags of the same repository first."""
    repository = reference.rpartition(":")[0]
    repositories = {}
    for tag in tags:
        repositories.setdefault(tag.rpartition(":")[0], []).append(tag)
    siblings = difflib.get_close_matches(reference, repositories.pop(repository, []), n=3, cutoff=0)
    cousins = [tag for name in difflib.get_close_matches(repository, repositories, n=3) for tag in repositories[name]]
    return tuple(siblings + cousins)[:5]


def absent(references: Sequence[str], tags: Sequence[str]) -> str:
    """Return the sentence about references that the source does not have."""
    sentences = []
    for reference in references:
        names = near(reference, tags)
        hint = f" (near: {', '.join(names)})" if names else f" (nothing there is like it; {len(tags)} names in all)"
        sentences.append(f"no image {reference}{hint}")
    return "; ".join(sentences)


def messages(pieces: Iterable[bytes]) -> Iterator[dict]:
    """Yield the JSON objects of a stream, however it is cut into pieces."""
    text, utf8, json_decoder = "", codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder()
    for piece in pieces:
        text = (text + utf8.decode(piece)).lstrip()
        while text:
            try:
                message, end = json_decoder.raw_decode(text)
            except ValueError:
                break  # the rest of this object is still to come
            text = text[end:].lstrip()
            if isinstance(message, dict):
                yield message
    if text:
        raise ValueError(f"the stream ends in the middle of a message: {text[:200]!r}")


def refusal(message: Mapping[str, Any]) -> Optional[str]:
    """Return what a message of a load complains about, or None."""
    detail = message.get("errorDetail")
    if message.get("error") or detail:
        return str((detail or {}).get("message") or message.get("error") or detail).strip()
    for key in ("status", "stream"):
        line = str(message.get(key) or "")
        if NOT_UNPACKED in line:
            return line[line.index(NOT_UNPACKED):].strip()
    return None


def trailing_error(tail: bytes) -> Optional[str]:
    """Return the error that a daemon appended to an archive which it could not finish, or None.

    A save that fails on the way has already answered 200: the daemon writes the error after the bytes of
    the archive, where a whole archive has nothing but zeros.
    """
    start = tail.rfind(b'{"errorDetail"')
    if start < 0:
        return None
    try:
        return refusal(json.loads(tail[start:]))
    except ValueError:
        return None
