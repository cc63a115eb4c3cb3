# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon in a thread, which takes archives as `docker load` does and describes the images in them."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import urllib.parse
from pathlib import Path
from typing import BinaryIO

from image_builder import Made, digest
from scripted_daemon import answer
from unix_server import UnixServer


class StoringDaemon(UnixServer):
    """Has images by their names. `created`: the time that it prints for all of them, as Go spells it."""

    def __init__(
        self, path: Path, *, containerd: bool = False, architecture: str = "amd64", created: str | None = None
    ) -> None:
        self.images: dict[str, Made] = {}
        self.saves: bytes = b""  # the archive of each image
        self.loaded: list[list[str]] = []  # the members of each archive
        self._containerd, self._architecture, self._created = containerd, architecture, created
        super().__init__(path)

    def _id(self, image: Made) -> str:
        return digest(b"manifest of " + image.config) if self._containerd else image.id

    def _described(self, image: Made) -> dict:
        config = json.loads(image.config)
        return {
            "Id": self._id(image),
            "Architecture": config.get("architecture"),
            "Os": config.get("os"),
            "Created": self._created or config.get("created"),
            "Config": config.get("config"),
            "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
            "RepoTags": [name for name, other in self.images.items() if other == image],
        }

    def _found(self, name: str) -> Made | None:
        return self.images.get(name) or next((one for one in self.images.values() if self._id(one) == name), None)

    def attend(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while line := stream.readline().decode():
                method, target = line.split()[:2]
                headers = {}
                while field := stream.readline().decode().strip():
                    headers[field.partition(":")[0].lower()] = field.partition(":")[2].strip()
                path, _mark, query = target.partition("?")
                asked = dict(urllib.parse.parse_qsl(query))
                connection.sendall(self._answer(method, urllib.parse.unquote(path), asked, body_of(stream, headers)))

    def _answer(self, method: str, path: str, asked: dict[str, str], body: bytes) -> bytes:
        path = re.sub(r"^/v[0-9.]+", "", path)
        name = path[len("/images/") :].rpartition("/")[0]
        if path == "/version":
            return answer({"ApiVersion": "1.41", "Os": "linux", "Arch": self._architecture})
        if path == "/info":
            status = [["driver-type", "io.containerd.snapshotter.v1"]] if self._containerd else []
            return answer({"Driver": "unknown", "DriverStatus": status, "DockerRootDir": "/nowhere"})
        if path == "/images/json":
            return answer([self._described(image) for image in self.images.values()])
        if path == "/images/load":
            complaint = self._load(body)
            return answer({"error": complaint} if complaint else {"stream": "Loaded image"})
        if method == "DELETE":
            self.images.pop(path[len("/images/") :], None)
            return answer([])
        image = self._found(name)
        if image is None:
            return answer({"message": f"No such image: {name}"}, "404 Not Found")
        if path.endswith("/get"):
            return answer(self.saves)
        if path.endswith("/tag"):
            self.images[f"{asked['repo']}:{asked['tag']}"] = image
        return answer(self._described(image))

    def _load(self, body: bytes) -> str:
        """Take the images of an archive, or return why not. A classic store reads no layer that it has."""
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            there = {name: archive.extractfile(name).read() for name in archive.getnames()}
        self.loaded.append(list(there))
        held = {} if self._containerd else {digest(one): one for made in self.images.values() for one in made.layers}
        for entry in json.loads(there["manifest.json"]):
            config = there[entry["Config"]]
            layers = []
            for path, diff_id in zip(entry["Layers"], json.loads(config)["rootfs"]["diff_ids"]):
                content = held[diff_id] if diff_id in held else there.get(path)
                if content is None:
                    return f"open {path}: no such file or directory"
                if digest(content) != diff_id:
                    return f"invalid diffID: expected {diff_id}, got {digest(content)}"
                layers.append(content)
            self.images.update({name: Made(config, tuple(layers)) for name in entry["RepoTags"]})
        return ""


def body_of(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return stream.read(int(headers.get("content-length") or 0))
    pieces = []
    while size := int(stream.readline() or b"-1", 16):
        if size < 0:
            raise ConnectionAbortedError("it broke off")
        pieces.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(pieces)
