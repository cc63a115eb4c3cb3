# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The types of what daemon.json holds, judged as dockerd judges them: where Docker is too old for `dockerd --validate`,
where it is not installed yet, and in an instance before it starts.

The machine image gets this file too, for docker_prepare.py. It then has only the standard library, and nothing else of
the collection.

Source: moby's daemon/config (config.go, config_linux.go, builder.go), from Docker 20.10 to 29. What one of these
versions starts with is taken.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, Iterator, Mapping

TEXT, LABEL, MIRROR, ADDRESS, LEVEL, MEMORY = "text", "label", "mirror", "address", "level", "memory"
BOOLEAN, NUMBER, COUNT, ANY = "boolean", "number", "count", "any"
EACH = ""  # the name that stands for all of an object

TEXTS = """
  api-cors-header apparmor-profile bip bip6 bridge bridge-accept-fwmark cgroup-parent cluster-advertise cluster-store
  containerd containerd-namespace containerd-plugin-namespace data-root default-cgroupns-mode default-init
  default-ipc-mode default-runtime deprecated-key-path exec-root firewall-backend fixed-cidr fixed-cidr-v6 graph group
  init-path log-driver log-format metrics-addr min-api-version pidfile resolv-conf seccomp-profile storage-driver
  swarm-default-advertise-addr tlscacert tlscert tlskey userland-proxy-path userns-remap
"""
BOOLEANS = """
  allow-direct-routing cri-containerd debug experimental icc init ip-forward ip-forward-no-drop ip-masq ip6tables
  iptables ipv6 live-restore no-new-privileges raw-logs rootless selinux-enabled tls tlsverify userland-proxy
"""
NUMBERS = """
  cpu-rt-period cpu-rt-runtime mtu network-control-plane-mtu network-diagnostic-port oom-score-adjust shutdown-timeout
"""
COUNTS = """
  default-stop-timeout max-concurrent-downloads max-concurrent-uploads max-download-attempts swarm-raft-election-tick
  swarm-raft-heartbeat-tick
"""
LISTS = """
  allow-nondistributable-artifacts authorization-plugins cdi-spec-dirs dns-opts dns-search exec-opts extension-dirs
  hosts insecure-registries node-generic-resources storage-opts
"""
# What dockerd takes for a key: one of the names above, [a list of such], or an object by its names.
TYPES: Mapping[str, Any] = {
    **dict.fromkeys(TEXTS.split(), TEXT),
    **dict.fromkeys(BOOLEANS.split(), BOOLEAN),
    **dict.fromkeys(NUMBERS.split(), NUMBER),
    **dict.fromkeys(COUNTS.split(), COUNT),
    **{key: [TEXT] for key in LISTS.split()},
    **dict.fromkeys(("default-gateway", "default-gateway-v6", "host-gateway-ip", "ip"), ADDRESS),
    **{key: [ADDRESS] for key in ("dns", "host-gateway-ips")},
    **{key: {EACH: TEXT} for key in ("cluster-store-opts", "log-opts")},
    "builder": {
        "gc": {
            "enabled": BOOLEAN,
            "policy": [
                {
                    "all": BOOLEAN,
                    "filter": ANY,
                    **dict.fromkeys(("keepstorage", "reservedspace", "maxusedspace", "minfreespace"), TEXT),
                }
            ],
            **dict.fromkeys(
                ("defaultkeepstorage", "defaultreservedspace", "defaultmaxusedspace", "defaultminfreespace"), TEXT
            ),
        },
        "entitlements": dict.fromkeys(("network-host", "security-insecure", "device"), BOOLEAN),
        "history": {"maxentries": NUMBER, "maxage": TEXT},
    },
    "default-address-pools": [{"base": TEXT, "size": NUMBER}],
    "default-network-opts": {EACH: {EACH: TEXT}},
    "default-shm-size": MEMORY,
    "default-ulimits": {EACH: {"name": TEXT, "hard": NUMBER, "soft": NUMBER}},
    "features": {EACH: BOOLEAN},
    "labels": [LABEL],
    "log-level": LEVEL,
    "nri-opts": {"enable": BOOLEAN, **dict.fromkeys(("plugin-path", "plugin-config-path", "socket-path"), TEXT)},
    "proxies": dict.fromkeys(("http-proxy", "https-proxy", "no-proxy"), TEXT),
    "registry-mirrors": [MIRROR],
    "runtimes": {EACH: {"path": TEXT, "runtimeargs": [TEXT], "runtimetype": TEXT, "options": {EACH: ANY}}},
}
WORDS = {**dict.fromkeys(("1", "true", "yes", "on"), "true"), **dict.fromkeys(("0", "false", "no", "off"), "false")}
LEVELS = ("", "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")
RESERVED = ("com.docker.", "io.docker.", "org.dockerproject.")  # the names of labels that are Docker's own
SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)? ?[kmgtp]?i?b?", re.IGNORECASE)
READ_NULL = (LABEL, MEMORY, MIRROR)  # for Go null is nothing of any type, but these are read as texts
LARGEST = (1 << 63) - 1

NAMED = 3  # problems that a message spells out


def problems(settings: Mapping[str, Any]) -> list[str]:
    """Return why dockerd would refuse settings. Of keys that are not in TYPES it may know more."""
    found = [*_unwritable(settings, "")]
    for key, value in settings.items():
        found += _misfits(value, TYPES.get(key, ANY), key)
    return found


def listing(found: list[str]) -> str:
    """Return the first problems in one line."""
    more = len(found) - NAMED
    return "; ".join(found[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _misfits(value: Any, wanted: Any, place: str) -> Iterator[str]:
    if wanted == ANY or (value is None and wanted not in READ_NULL):
        return
    if isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{place} is {_shown(value)}, and dockerd takes only a list: write [...]"
            return
        for index, each in enumerate(value):
            yield from _misfits(each, wanted[0], f"{place}[{index}]")
    elif isinstance(wanted, dict):
        if not isinstance(value, dict):
            yield f"{place} is {_shown(value)}, and dockerd takes only an object by names: write {{...}}"
            return
        for name, each in value.items():
            # The names of Go's structures are found in any case.
            yield from _misfits(each, wanted.get(EACH, wanted.get(name.lower(), ANY)), f"{place}.{name}")
    else:
        advice = _advice(value, wanted)
        if advice:
            yield f"{place} is {_shown(value)}, and dockerd takes only {advice}"


def _advice(value: Any, wanted: str) -> str:
    """Return what dockerd takes in place of a single value, and nothing where it takes this one."""
    if wanted == BOOLEAN:
        word = WORDS.get(str(value).lower())
        return "" if isinstance(value, bool) else "true or false" + (f": write {word} without quotes" if word else "")
    if wanted in (NUMBER, COUNT):
        if not isinstance(value, int) or isinstance(value, bool):
            number = re.fullmatch(r"(-?[0-9]+)(?:\.0*)?", str(value))
            return "a whole number" + (f": write {number[1]} without quotes" if number else "")
        least = 0 if wanted == COUNT else -LARGEST - 1
        return "" if least <= value <= LARGEST else f"a number from {least} to {LARGEST}"
    if not isinstance(value, str):
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "a text" + (f': write "{value}" with the quotes' if numeric else " in double quotes")
    if wanted == LABEL and ("=" not in value or value.lower().startswith(RESERVED)):
        return f"a text like name=value, whose name does not begin with {' or '.join(RESERVED)}"
    if wanted == MIRROR and not value.lower().startswith(("http://", "https://")):
        return "an address that begins with https:// or http://"
    if wanted == ADDRESS and not _is_address(value.strip()):
        return "an IP address"
    if wanted == LEVEL and value.lower() not in LEVELS:
        return f"one of {', '.join(LEVELS[1:])}"
    if wanted == MEMORY and not SIZE.fullmatch(value):
        return "a size such as 64M"
    return ""


def _is_address(text: str) -> bool:
    import ipaddress  # noqa: PLC0415 - it takes as long as all the rest, and few have such keys

    with contextlib.suppress(ValueError):
        return not text or bool(ipaddress.ip_address(text))
    return False


def _unwritable(value: Any, place: str) -> Iterator[str]:
    """Yield what in a value can stand in no JSON in UTF-8."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}, which is no number of JSON"
    elif isinstance(value, str) and re.search(r"[\ud800-\udfff]", value):
        yield f"{place or 'a key'} has half a character ({ascii(value)[:60]}), which is no text"
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _unwritable(key, place)
            yield from _unwritable(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _unwritable(each, f"{place}[{index}]")


def _shown(value: Any) -> str:
    if isinstance(value, (list, Mapping)):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    kind = "the text " if isinstance(value, str) else "" if value is None or isinstance(value, bool) else "the number "
    return kind + (text if len(text) <= 40 else f"{text[:38]} …")
