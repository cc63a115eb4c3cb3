# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as daemons and archives describe them, and whether two descriptions are of the same image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import mapping, text, texts

# The fields that distinguish images of different stores, beside their layers. The other fields describe the container
# in which a layer was built, or the daemon.
FIELDS = ("Architecture", "Author", "Created", "Os", "OsVersion", "Variant")
CONFIG_FIELDS = (
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
)


@dataclass(frozen=True)
class Image:
    """One image as a daemon or an archive describes it."""

    id: str
    layers: tuple[str, ...]  # RootFS.Layers: the digests of the unpacked layers, base first
    config: str  # all other fields that distinguish images of different stores
    platform: str = ""  # os/architecture or os/architecture/variant

    @classmethod
    def parse(cls, inspected: Mapping[str, Any]) -> Image:
        """Parse the answer to GET /images/NAME/json."""
        config: dict[str, Any] = _filled(mapping(inspected, "an image"), FIELDS)
        config["Config"] = _filled(mapping(inspected.get("Config"), "Config"), CONFIG_FIELDS)
        # An image without a time of creation: older daemons print Go's zero time, newer ones nothing.
        if str(config.get("Created", "")).startswith("0001-01-01T00:00:00"):
            del config["Created"]
        return cls(
            id=text(inspected["Id"], "Id"),
            layers=tuple(texts(mapping(inspected.get("RootFS"), "RootFS").get("Layers"), "Layers")),
            config=json.dumps(config, sort_keys=True),
            platform="/".join(str(inspected[key]) for key in ("Os", "Architecture", "Variant") if inspected.get(key)),
        )

    @classmethod
    def from_config(cls, image_id: str, config: Mapping[str, Any]) -> Image:
        """Parse the configuration of an image as archives hold it (OCI image-spec, config.md)."""
        inspected = {
            key: config.get(name)
            for key, name in zip(FIELDS, ("architecture", "author", "created", "os", "os.version", "variant"))
        }
        layers = mapping(config.get("rootfs"), "rootfs").get("diff_ids")
        return cls.parse({**inspected, "Id": image_id, "Config": config.get("config"), "RootFS": {"Layers": layers}})

    def runs_on(self, platform: str) -> bool:
        """Return whether this is the image for a platform. A platform without a variant accepts any."""
        return f"{self.platform}/".startswith(f"{platform}/")


def _filled(found: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the fields that are not empty. Only some daemons print the others."""
    return {key: found[key] for key in fields if found.get(key)}


def same(first: Image, second: Image, *, by_content: bool) -> bool:
    """Return whether two descriptions are of the same image.

    Between classic stores the id, which is the digest of the configuration, decides. The containerd store has the
    digest of a manifest instead: by_content compares what both stores describe.
    """
    return first.id == second.id or (by_content and first.layers == second.layers and first.config == second.config)


def short(image_id: str) -> str:
    """Return an id as `docker images` prints it."""
    return image_id.rpartition(":")[2][:12]
