# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents of an archive say: the images in it with their names and layers, and what is no image. Both lists
are read, Docker's and OCI's, and an image that both have is one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Collection, Iterable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import mapping, shown, text
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import (
    Layer,
    Member,
    Reading,
    inside,
    limit,
    metadata,
    parsed,
)
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import INDEX, MANIFEST, blob_path
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import sha256, short_digest
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import normal, platform_of
from ansible_collections.nested.kata.plugins.module_utils._image.reference import ID, TAG, parse_reference

# Limits, far above what real archives have.
MOST_IMAGES = 1 << 12
MOST_ENTRIES = 1 << 16  # of its indexes, each as often as it is named
MOST_LAYERS = 1 << 16  # of all its images
DEEPEST_INDEX = 4  # an index for a name, with one for platforms in it, is 2

CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")  # and more
NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"  # annotations
REFERENCE_TYPE = "vnd.docker.reference.type"  # an annotation of buildx

# By a part of a media type, what has it.
KINDS = {
    "in-toto": "an attestation",
    "dsse": "an attestation",
    "attestation": "an attestation",
    "simplesigning": "a signature",
    "signature": "a signature",
    "sigstore": "a signature",
    "spdx": "an SBOM",
    "cyclonedx": "an SBOM",
    "syft": "an SBOM",
    "cncf.helm": "a Helm chart",
    "docker.plugin": "a Docker plugin",
    "wasm": "a WebAssembly module",
    ".model": "a model",
}

EMPTY = sha256(b"")
LEFT_OUT = "base layers were left out of it, as pack leaves them out for a daemon that has them"


@dataclass(frozen=True)
class Label:
    """What an archive calls an image."""

    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # without a repository
    digests: frozenset[str] = frozenset()
    platform: str = ""

    @classmethod
    def of(cls, names: Iterable[str], bare: bool = False) -> Label:
        """Return the label that these names make. `bare`: one may be a tag."""
        full: list[str] = []
        tags: list[str] = []
        digests: set[str] = set()
        for name in names:
            if "@" in name:
                digests.add(name.rpartition("@")[2])
            elif bare and TAG.fullmatch(name):
                tags.append(name)
            else:
                with contextlib.suppress(Refused):  # such as an empty one
                    full.append(parse_reference(name))
        return cls(tuple(full), tuple(tags), frozenset(digests))

    def under(self, entry: Mapping[str, Any]) -> Label:
        """Return the label of an entry in an index that has this one."""
        annotations = mapping(entry.get("annotations"), "annotations")
        name, ref_name = (text(annotations.get(key) or "", key) for key in (NAME, REF_NAME))
        own = Label.of([name])
        if not own.names:
            own = own.and_also(Label.of([ref_name], bare=True))
        called = own if own.names or own.tags else self
        platform = mapping(entry.get("platform"), "platform")
        return Label(
            called.names,
            called.tags,
            self.digests | own.digests | {text(entry["digest"], "a digest")},
            platform_of(*(platform.get(part) for part in ("os", "architecture", "variant"))),
        )

    def and_also(self, other: Label) -> Label:
        """Return the label of an image that has both: a full name says more than a tag."""
        names = tuple(dict.fromkeys((*self.names, *other.names)))
        tags = () if names else tuple(dict.fromkeys((*self.tags, *other.tags)))
        return Label(names, tags, self.digests | other.digests)

    def is_for(self, reference: str) -> bool:
        """Return whether a reference has a tag of this label, or spells it as a name."""
        return any(reference in (f"{reference.rpartition(':')[0]}:{tag}", f"{tag}:latest") for tag in self.tags)

    def __str__(self) -> str:
        called = (*self.names, *(f"tag {tag}" for tag in self.tags))
        return ", ".join(called or (shown(digest, 80) for digest in sorted(self.digests)))


@dataclass(frozen=True)
class Packed:
    """One image in an archive file."""

    label: Label
    image: Image
    config: bytes
    layers: Mapping[str, Member]  # by digest, uncompressed
    lacks: Mapping[str, str]  # by digest, why a layer is not there

    def needed(self, wanted: Collection[str]) -> dict[int, Layer]:
        """Return the wanted layers by the number of the member that has them."""
        needed: dict[int, Layer] = {}
        for digest in dict.fromkeys(digest for digest in self.image.layers if digest in wanted):
            if digest in self.lacks:
                raise Damaged(self.lacks[digest])
            member = self.layers[digest]
            if needed.setdefault(member.number, Layer(digest, member.kind)).digest != digest:
                raise Damaged(f"layers {short_digest(digest)} and {short_digest(needed[member.number].digest)} are one")
        return needed


@dataclass(frozen=True)
class PassedOver:
    """Something in an archive that is no image, or none that can be read."""

    label: Label
    why: str

    def __str__(self) -> str:
        return shown(f"{self.label}: {self.why}")


@dataclass(frozen=True)
class Contents:
    """What is in an archive."""

    images: tuple[Packed, ...]
    passed_over: tuple[PassedOver, ...]

    def called(self, reference: str) -> tuple[list[Packed], str]:
        """Return the images that a reference leads to, several where they are for several platforms, and what is to be
        said of them where it is none of their names.
        """
        if "@" in reference or ID.fullmatch(reference):
            digest = reference.rpartition("@")[2]
            return [packed for packed in self.images if digest in packed.label.digests], ""
        named = [packed for packed in self.images if reference in packed.label.names]
        tagged = [packed for packed in self.images if packed.label.is_for(reference)]
        if named or tagged:
            return named or tagged, ""
        labels = {packed.label.tags for packed in self.images if not packed.label.names}
        platforms = {normal(packed.image.platform) for packed in self.images if not packed.label.names}
        if len(labels) == 1 and len(platforms) == len(self.images):
            tags = labels.pop()
            return list(self.images), f"whose only image has {f'the tag {tags[0]}, and ' if tags else ''}no name"
        return [], ""


def contents(reading: Reading) -> Contents:
    """Return what is in an archive that was read to its end."""
    if MANIFEST not in reading.documents and INDEX not in reading.documents:
        raise Damaged(f"it has neither {MANIFEST} nor {INDEX}: it is not an archive of images, or ends too early")
    listing = Listing(reading)
    with metadata():
        if MANIFEST in reading.documents:
            for entry in reading.json(MANIFEST) or ():
                listing.add_docker(entry)
        if INDEX in reading.documents:
            listing.add_index(reading.json(INDEX), Label(), ())
    return Contents(completed(listing.images.values()), tuple(listing.passed_over))


def completed(images: Collection[Packed]) -> tuple[Packed, ...]:
    """Return the images, each with the layers that only others have a file for."""
    there = {digest: member for packed in images for digest, member in packed.layers.items()}
    return tuple(
        replace(
            packed,
            layers={digest: there[digest] for digest in packed.image.layers if digest in there},
            lacks={digest: why for digest, why in packed.lacks.items() if digest not in there},
        )
        if packed.lacks
        else packed
        for packed in images
    )


Found = Sequence["tuple[Member | None, str]"]  # for each layer its file, or why there is none


class Listing:
    """What was found in an archive until now: the images by their ids, and what is none."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.images: dict[str, Packed] = {}
        self.passed_over: list[PassedOver] = []
        self._count = 0

    # Docker's list

    def add_docker(self, entry: Mapping[str, Any]) -> None:
        """Add an image that manifest.json has."""
        label, config = Label.of(entry.get("RepoTags") or ()), entry["Config"]
        self._add(label, config, [self._file(path) for path in entry.get("Layers") or ()])

    def _file(self, path: str) -> tuple[Member | None, str]:
        """Return the file that a path leads to, or why it leads to none."""
        if not inside(path):
            return None, LEFT_OUT
        target = self._reading.target(path)
        member = self._reading.files.get(target)
        if member:
            return member, ""
        what = f"a link to {shown(target, 200)}, which is not" if target != inside(path) else "missing"
        return None, f"{shown(path, 200)} is {what} in it"

    # OCI's index

    def add_index(self, index: Mapping[str, Any], label: Label, way: tuple[str, ...]) -> None:
        """Add the images of an index and of the indexes in it. `way`: the indexes that lead to this one."""
        if not way:
            self._count = 0
        if len(way) > DEEPEST_INDEX:
            raise Damaged(f"its indexes are more than {DEEPEST_INDEX} deep")
        for entry in index.get("manifests") or ():
            self._reading.entries += 1
            limit("entries in its indexes", self._reading.entries, MOST_ENTRIES)
            self._add_entry(entry, label.under(entry), way)

    def _add_entry(self, entry: Mapping[str, Any], label: Label, way: tuple[str, ...]) -> None:
        path, other = blob_path(entry["digest"]), other_digest(entry["digest"])
        if other:
            self._pass_over(label, f"its manifest {other}")
        elif path in way:
            raise Damaged(f"{path} in it is an index that names itself")
        elif path in self._reading.documents:
            data = self._reading.document(path)
            try:
                found = parsed(path, data)
            except Damaged as error:
                self._pass_over(label, str(error))
            else:
                self._add_named(entry, found, label, (*way, path))
        elif path in self._reading.files:
            self._pass_over(label, sort_of(entry.get("mediaType")))
        elif not way:
            self._pass_over(label, f"its manifest {path} is missing in it")
        # Of an index for several platforms, an archive may have some.

    def _add_named(self, entry: Mapping[str, Any], found: Any, label: Label, way: tuple[str, ...]) -> None:
        """Add what an entry leads to: an index, or a manifest that may be that of an image."""
        if isinstance(found, dict) and "manifests" in found:
            self.add_index(found, label, way)
            return
        why = no_image(entry, found) or other_digest(found["config"]["digest"])
        if why:
            self._pass_over(label, why)
        else:
            layers = [self._blob(layer) for layer in found.get("layers") or ()]
            self._add(label, blob_path(found["config"]["digest"]), layers)

    def _blob(self, layer: Mapping[str, Any]) -> tuple[Member | None, str]:
        """Return the file of a layer, or why there is none."""
        digest, kind = text(layer["digest"], "a digest"), shown(layer.get("mediaType") or "", 80)
        if other_digest(digest):
            return None, other_digest(digest)
        if "encrypted" in kind:
            return None, f"{shown(digest, 80)} is encrypted ({kind})"
        member, why = self._file(blob_path(digest))
        if member is None and ("nondistributable" in kind or "foreign" in kind or layer.get("urls")):
            why = f"{shown(digest, 80)} is not in it, since it may not be distributed ({kind})"
        return member, why

    # Both

    def _pass_over(self, label: Label, why: str) -> None:
        self.passed_over.append(PassedOver(label, why))

    def _add(self, label: Label, config_path: str, layers: Found) -> None:
        self._count += 1
        limit("images", self._count, MOST_IMAGES)
        self._reading.layers += len(layers)
        limit("layers", self._reading.layers, MOST_LAYERS)
        if self._reading.target(config_path) not in self._reading.documents:
            self._pass_over(label, f"its configuration {config_path} is missing in it")
            return
        config = self._reading.document(config_path)
        label = replace(label, digests=label.digests | {sha256(config)})
        try:
            image = Image.from_config(sha256(config), parsed(config_path, config))
        except (AttributeError, Damaged, KeyError, TypeError, ValueError) as error:
            self._pass_over(label, f"its configuration is not that of an image ({shown(error, 200)})")
            return
        other = next(filter(None, map(other_digest, image.layers)), "")
        if other or len(image.layers) != len(layers):
            why = other or f"it has {len(layers)} layers, but {len(image.layers)} in its configuration"
            self._pass_over(label, why)
            return
        image = replace(image, platform=described(image.platform, label.platform))
        packed = self.images.get(image.id)
        if packed:
            label = packed.label.and_also(label)
        there = dict(packed.layers) if packed else {}
        lacks: dict[str, str] = {}
        for digest, (member, why) in zip(image.layers, layers):
            if member and (member.size or digest == EMPTY):
                there.setdefault(digest, member)
            else:
                lacks.setdefault(digest, why or LEFT_OUT)
        lacks = {digest: why for digest, why in lacks.items() if digest not in there}
        self.images[image.id] = Packed(label, image, config, there, lacks)


def described(configured: str, listed: str) -> str:
    """Return the platform of an image: what its configuration says, and the variant that only the index has."""
    same = normal(configured).split("/")[:2] == normal(listed).split("/")[:2]
    return listed if not configured or (same and configured.count("/") < listed.count("/")) else configured


def other_digest(digest: str) -> str:
    """Return that a digest is of a kind that no store of Docker's has, or nothing."""
    kind = text(digest, "a digest").partition(":")[0]
    return "" if kind == "sha256" else f"{shown(digest, 40)} is a {shown(kind, 20)} digest: only sha256 is supported"


def no_image(entry: Mapping[str, Any], manifest: Any) -> str:
    """Return why what an entry leads to is not the manifest of an image, or nothing."""
    annotations = mapping(entry.get("annotations"), "annotations")
    platform = mapping(entry.get("platform"), "platform")
    if annotations.get(REFERENCE_TYPE) == "attestation-manifest" or platform.get("os") == "unknown":
        return "it is an attestation"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        return sort_of(entry.get("mediaType"))
    kind = manifest.get("artifactType") or entry.get("artifactType")
    if kind and kind not in CONFIGS:
        return sort_of(kind)
    kinds = [str(layer.get("mediaType") or "") for layer in manifest.get("layers") or ()]
    strange = next((kind for kind in kinds if kind and not kind.startswith(LAYERS)), "")
    kind = manifest["config"].get("mediaType")
    if kind and kind not in CONFIGS:
        return sort_of(kind, strange)
    return sort_of(strange) if strange else ""


def sort_of(*kinds: Any) -> str:
    """Return what has these media types, as far as it is known."""
    known = [words for kind in kinds for part, words in KINDS.items() if part in str(kind)]
    named = ", ".join(shown(kind, 80) for kind in kinds if kind) or "of no type"
    return f"it is {known[0] if known else 'not an image'} ({named})"
