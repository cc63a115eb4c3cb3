# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values for keys of daemon.json that dockerd takes, and such that it refuses: one key at least for each type."""

from __future__ import annotations

from typing import Any

TEXT, NUMBER, BOOLEAN, LIST, OBJECT = "x", 7, True, ["x"], {"x": "y"}

TAKEN: dict[str, list[Any]] = {
    "log-driver": ["json-file", None],
    "cgroup-parent": ["/docker", ""],
    "debug": [True, False, None],
    "mtu": [1400, 0, None],
    "max-concurrent-downloads": [3, 0, None],
    "hosts": [["unix:///run/x.sock"], [], None],
    "storage-opts": [["x=1", None]],
    "labels": [["a=b", "c="], [], None],
    "registry-mirrors": [["https://mirror.example.org", "HTTP://mirror:5000/"], [], None],
    "log-opts": [{"max-size": "10m", "max-file": None}, {}, None],
    "default-network-opts": [{"bridge": {"com.docker.network.driver.mtu": "1400"}, "ipvlan": None}, {}, None],
    "features": [{"containerd-snapshotter": False}, {}, None],
    "default-ulimits": [{"nofile": {"Name": "nofile", "Hard": 9, "soft": 9}, "core": None}, {}, None],
    "default-address-pools": [[{"base": "10.1.0.0/16", "size": 24}], [], None],
    "default-shm-size": ["64M", "1.5 GiB", "1024"],
    "ip": ["127.0.0.1", "::1", "", None],
    "dns": [["192.0.2.1", "2001:db8::1"], [], None],
    "log-level": ["warn", "DEBUG", "", None],
    "proxies": [{"http-proxy": "http://proxy:3128", "no-proxy": None}, {}],
    "builder": [
        {"gc": {"enabled": True, "defaultKeepStorage": "1GB", "policy": [{"all": True, "filter": ["unused-for=1h"]}]}},
        {"GC": {"Policy": [{"keepStorage": "1GB"}]}, "entitlements": {"network-host": True}},
        {"history": {"maxEntries": 3, "maxAge": "48h"}},
        {},
        None,
    ],
    "nri-opts": [{"enable": True, "plugin-path": None}, None],  # since Docker 29
    "runtimes": [
        {
            "x": {"path": "/bin/true", "runtimeArgs": ["--debug"]},
            "y": {"runtimeType": "io.x.v1", "options": {"a": [1]}},
        },
        {"x": {"PATH": "/bin/true"}},
        {},
        None,
    ],
}
REFUSED: dict[str, list[Any]] = {
    "log-driver": [NUMBER, BOOLEAN, LIST, OBJECT, 1.5],
    "cgroup-parent": [NUMBER, BOOLEAN, LIST],
    "debug": [1, 0, "true", LIST, {}],
    "mtu": ["1400", 1400.0, BOOLEAN, LIST, {}, 1 << 63],
    "max-concurrent-downloads": ["3", -1, 1.5, BOOLEAN],
    "hosts": ["fd://", [NUMBER], {}],
    "storage-opts": ["x=1", [NUMBER], [LIST], {}],
    "labels": ["a=b", {}, [NUMBER], ["a"], [None], ["io.docker.x=1"]],
    "registry-mirrors": ["https://mirror.example.org", ["ftp://mirror"], [NUMBER]],
    "log-opts": [{"max-file": 3}, {"compress": True}, LIST, TEXT, {"labels": ["a"]}],
    "default-network-opts": [{"bridge": {"com.docker.network.driver.mtu": 1400}}, {"bridge": TEXT}, LIST],
    "features": [{"containerd-snapshotter": "true"}, {"buildkit": 1}, LIST],
    "default-ulimits": [{"nofile": "9"}, {"nofile": 9}, {"nofile": {"Hard": "9"}}, {"nofile": {"Soft": 1.5}}, LIST],
    "default-address-pools": [{"base": "10.1.0.0/16"}, ["10.1.0.0/16"], [{"base": "10.1.0.0/16", "size": "24"}]],
    "default-shm-size": [64, "", "much", BOOLEAN, None, "-1M"],
    "ip": ["localhost", NUMBER, ["127.0.0.1"]],
    "dns": ["192.0.2.1", ["dns.example.org"], [NUMBER]],
    "log-level": ["loud", NUMBER],
    "proxies": [{"http-proxy": 3128}, {"no-proxy": ["a", "b"]}],
    "builder": [
        {"gc": {"enabled": "true"}},
        {"gc": {"defaultKeepStorage": 20}},
        {"GC": {"Policy": {}}},
        {"gc": {"policy": [{"keepStorage": 1}]}},
        {"entitlements": {"network-host": 1}},
        {"history": {"maxEntries": "3"}},
        {"history": {"maxAge": 3600}},
        LIST,
    ],
    "runtimes": [
        {"x": "/bin/true"},
        {"x": {"path": 1}},
        {"x": {"path": "/bin/true", "runtimeArgs": "--debug"}},
        {"x": {"path": "/bin/true", "runtimeArgs": [1]}},
        {"x": {"runtimeType": "io.x.v1", "options": LIST}},
        LIST,
    ],
    "nri-opts": [{"enable": 1}, LIST],
}
