# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as daemons and archives describe them, and whether two descriptions are of the same image."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import mapping, text, texts
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import normal, platform_of

# The fields that distinguish images of different stores, beside their layers. The other fields describe the container
# in which a layer was built, or the daemon.
FIELDS = ("Author", "Created", "OsVersion")
PLATFORM_FIELDS = ("Os", "Architecture", "Variant")
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

# RFC 3339, as Go reads it: with any fraction of a second, of which nine digits count.
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
NO_TIME = "0001-01-01T00:00:00Z"
EPOCH = datetime(1970, 1, 1)


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
        config["Created"] = moment(config.get("Created") or NO_TIME)
        platform = platform_of(*(inspected.get(key) for key in PLATFORM_FIELDS))
        config["Platform"] = normal(platform)
        return cls(
            id=text(inspected["Id"], "Id"),
            layers=tuple(texts(mapping(inspected.get("RootFS"), "RootFS").get("Layers"), "Layers")),
            config=json.dumps(config, sort_keys=True),
            platform=platform,
        )

    @classmethod
    def from_config(cls, image_id: str, config: Mapping[str, Any]) -> Image:
        """Parse the configuration of an image as archives hold it (OCI image-spec, config.md)."""
        keys = (*FIELDS, *PLATFORM_FIELDS)
        names = ("author", "created", "os.version", "os", "architecture", "variant")
        inspected = {key: config.get(name) for key, name in zip(keys, names)}
        layers = mapping(config.get("rootfs"), "rootfs").get("diff_ids")
        return cls.parse({**inspected, "Id": image_id, "Config": config.get("config"), "RootFS": {"Layers": layers}})


def _filled(found: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the fields that are not empty. Only some daemons print the others."""
    return {key: found[key] for key in fields if found.get(key)}


def moment(time: Any) -> Any:
    """Return the nanoseconds of a time since 1970, so that each spelling of it is the same; what is no time unchanged.

    Daemons print a time as Go does, and builders write it into a configuration as they please.
    """
    found = TIME.fullmatch(time) if isinstance(time, str) else None
    if not found:
        return time
    with contextlib.suppress(ValueError):  # such as month 13
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        since = datetime(year, month, day, hour, minute, second) - EPOCH
        fraction, sign, hours, minutes = found.groups()[6:]
        east = int(f"{sign}1") * (int(hours) * 60 + int(minutes)) if sign else 0
        return (since.days * 86400 + since.seconds - east * 60) * 10**9 + int(f"{fraction or ''}{'0' * 9}"[:9])
    return time


def same(first: Image, second: Image, *, by_content: bool) -> bool:
    """Return whether two descriptions are of the same image.

    Between classic stores the id, which is the digest of the configuration, decides. The containerd store has the
    digest of a manifest instead: by_content compares what both stores describe.
    """
    return first.id == second.id or (by_content and first.layers == second.layers and first.config == second.config)


def short(image_id: str) -> str:
    """Return an id as `docker images` prints it."""
    return image_id.rpartition(":")[2][:12]
