# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images without a daemon: a configuration, layers, and the archives that daemons and other tools write of them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a tar of files, and of symlinks by their targets, in alphabetical order as daemons write it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted({**files, **(links or {})}):
            member = tarfile.TarInfo(name)
            if links and name in links:
                member.type, member.linkname = tarfile.SYMTYPE, links[name]
                archive.addfile(member)
            else:
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))
    return made.getvalue()


def layer(content: bytes) -> bytes:
    return tar({"file": content})


@dataclass(frozen=True)
class Made:
    """An image: its configuration, and the tar of each layer, base first."""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(map(digest, self.layers))


def made(layers: Sequence[bytes], architecture: str = "amd64") -> Made:
    diff_ids = [digest(one) for one in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return Made(json.dumps(config).encode(), tuple(layers))


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest(data).partition(':')[2]}"


def legacy(image: Made, names: Iterable[str]) -> bytes:
    """Return what Docker 20.10 to 24 save: directories named by a digest over what is in `json` and the layer's
    ChainID, links for repeated layers.
    """
    files: dict[str, bytes] = {f"{image.id[7:]}.json": image.config}
    links: dict[str, str] = {}
    paths: list[str] = []
    first: dict[str, str] = {}
    chain = parent = ""
    for number, (content, diff_id) in enumerate(zip(image.layers, image.diff_ids)):
        top = number == len(image.layers) - 1
        chain = digest(f"{chain} {diff_id}".encode()) if chain else diff_id
        told = {"created": "1970-01-01T00:00:00Z", "container_config": {"Hostname": "", "Cmd": None}}
        told.update({"os": "linux", "author": "<>&"} if top else {})
        key = {**told, "layer_id": chain, **({"parent": f"sha256:{parent}"} if parent else {})}
        # Go spells these three in JSON in another way.
        spelt = json.dumps(dict(sorted(key.items())), separators=(",", ":")).replace("<>&", "\\u003c\\u003e\\u0026")
        name = hashlib.sha256(spelt.encode()).hexdigest()
        described = {"id": name, **({"parent": parent} if parent else {}), **told, "os": "linux"}
        files[f"{name}/VERSION"] = b"1.0"
        files[f"{name}/json"] = (
            json.dumps(described, separators=(",", ":")).replace("<>&", "\\u003c\\u003e\\u0026").encode()
        )
        if diff_id in first:
            links[f"{name}/layer.tar"] = f"../{first[diff_id]}/layer.tar"
        else:
            files[f"{name}/layer.tar"] = content
            first[diff_id] = name
        paths.append(f"{name}/layer.tar")
        parent = name
    files["manifest.json"] = json.dumps(
        [{"Config": f"{image.id[7:]}.json", "RepoTags": list(names), "Layers": paths}]
    ).encode()
    files["repositories"] = b"{}"
    return tar(files, links)


def oci(images: Mapping[str, Sequence[Made]], *, docker: bool = True, compress: bool = False) -> bytes:
    """Return what Docker 25 and newer save, or without `docker` what other tools write; an image for several platforms
    gets an index of its own.
    """
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries, listed = [], []
    for name, variants in images.items():
        manifests = []
        for image in variants:
            layers = [gzip.compress(one, mtime=0) if compress else one for one in image.layers]
            files.update({blob(one): one for one in layers})
            files[blob(image.config)] = image.config
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "config": {"digest": image.id},
                    "layers": [{"digest": digest(one)} for one in layers],
                }
            ).encode()
            files[blob(manifest)] = manifest
            manifests.append({"digest": digest(manifest), "size": len(manifest)})
            listed.append({"Config": blob(image.config), "RepoTags": [name], "Layers": [blob(one) for one in layers]})
        if len(manifests) > 1:
            index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
            files[blob(index)] = index
            manifests = [{"digest": digest(index), "size": len(index)}]
        entries.append({**manifests[0], "annotations": {"io.containerd.image.name": name}})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    if docker:
        files["manifest.json"] = json.dumps(listed).encode()
    return tar(files)


def split_of(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return tar-split's description of a tar as Docker keeps it, and the files."""
    lines, files, at = [], {}, 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            lines.append({"type": 2, "payload": base64.b64encode(content[at : member.offset_data]).decode()})
            at = member.offset_data
            if member.isfile():
                files[member.name] = content[at : at + member.size]
                lines.append({"type": 1, "name": member.name, "size": member.size, "payload": "crc"})
                at += member.size
    lines.append({"type": 2, "payload": base64.b64encode(content[at:]).decode()})
    return gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()), files


def make_store(root: Path, image: Made, driver: str) -> None:
    """Make the files of a daemon that has one image."""
    below = root / "image" / driver
    config = below / "imagedb" / "content" / "sha256" / image.id[7:]
    config.parent.mkdir(parents=True)
    config.write_bytes(image.config)
    chain = ""
    for number, (content, diff_id) in enumerate(zip(image.layers, image.diff_ids)):
        chain = digest(f"{chain} {diff_id}".encode()) if chain else diff_id
        split, files = split_of(content)
        told = below / "layerdb" / "sha256" / chain[7:]
        told.mkdir(parents=True)
        (told / "diff").write_text(digest(content))
        (told / "cache-id").write_text(f"cache{number}")
        (told / "tar-split.json.gz").write_bytes(split)
        directory = (
            root / {"overlay2": f"overlay2/cache{number}/diff", "btrfs": f"btrfs/subvolumes/cache{number}"}[driver]
        )
        for name, data in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
