# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether there is something to do for a container: a state in which all is as wanted, and what differs from it."""

from __future__ import annotations

import copy
import functools
import hashlib
import operator
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.filter.container_plan import container_plan
from ansible_collections.nested.kata.plugins.filter.containers_found import containers_found
from ansible_collections.nested.kata.plugins.filter.differing import differing
from ansible_collections.nested.kata.plugins.filter.firewall_rules import firewall_rules
from ansible_collections.nested.kata.plugins.filter.settled import settled
from ansible_collections.nested.kata.plugins.module_utils._host.state import look_at_files
from ansible_collections.nested.kata.plugins.plugin_utils.settled import is_as_wanted, unsettled

RULES, ENV, NOTE = "/etc/firewall/web.nft", "/etc/instances/web.env", "/var/lib/differences/web.json"
NOTES = "/var/lib/differences"
DISK, LINK = "/srv/web.img", "/run/disks/web"
FIREWALL, UNIT = "firewall.service", "instance@web.service"
UP = {"load": "loaded", "active": "active", "enabled": "enabled", "reload": "no"}
IDS = "sha256:8\nsha256:9\n"

IMAGE = {"Id": "sha256:1", "RootFS": {"Layers": ["sha256:a"]}, "Config": {}}
BRIDGE = {"Name": "bridge", "Id": "1" * 64, "Labels": {}, "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}
NETWORK = {"Name": "n-web", "Id": "2" * 64, "Labels": {"nested.kata.instance": "web"}, "IPAM": {"Config": None}}
NETWORKS = [BRIDGE, NETWORK, {**NETWORK, "Name": "n-db", "Id": "3" * 64, "Labels": {"nested.kata.instance": "db"}}]
REACH = {"resolvers": ["192.0.2.53"], "allow": [{"network": "10.0.0.7"}], "deny": [], "private_networks": False}

Make = Callable[[], dict]


def file(content: str) -> dict:
    """Return what is found of a file."""
    return {"type": "file", "mode": "0644", "sha256": hashlib.sha256(content.encode()).hexdigest()}


def proxy() -> dict:
    """Return what is wanted of a container without a disk, and what there is: all of it."""
    wanted = {"name": "web", "image": "machine:1", "arguments": ["--memory", "4g", "--label", "a=b"], "stop_timeout": 9}
    plan = container_plan(wanted, containers_found([], ["web"])["web"], IMAGE, "never")
    label, _equals, made = plan["label"].partition("=")
    config = {"Image": "machine:1", "Hostname": "web", "Labels": {"a": "b", label: made}}
    there = {
        "wanted": {
            "container": wanted,
            "running": True,
            "label": "nested.kata.instance",
            "network": "n-web",
            "rules": REACH,
            "rules_path": RULES,
            "files": [],
            "absent": [NOTE],
            "units": {FIREWALL: {"active": "active", "enabled": "enabled"}},
            "answer": [],
            "images": ["debian:x", "debian:y"],
        },
        "host": {
            "containers": [{"Name": "/web", "Image": IMAGE["Id"], "State": {"Running": True}, "Config": config}],
            "networks": NETWORKS,
            "images": {"machine:1": IMAGE, "debian:x": {"Id": "sha256:8"}, "debian:y": {"Id": "sha256:9"}},
            "files": {RULES: file(firewall_rules(NETWORK, networks=NETWORKS, **REACH))},
            "units": {FIREWALL: UP},
            "answers": {"web": {"rc": 0, "stdout": IDS, "stderr": ""}},
        },
        "disks": [],
    }
    return copy.deepcopy(there)


def instance() -> dict:
    """Return the same of one with a disk, whose settings are in a file."""
    there = proxy()
    disk = {"size": 10 << 30, "fstype": "btrfs", "attached": True, "sealed": False}
    devices = {"/srv/db.img": "/dev/loop9", DISK: "/dev/loop3"}
    there["disks"] = [{**disk, "path": path, "device": device} for path, device in devices.items()]
    there["wanted"]["disk"] = {"path": DISK, "size": "10G", "fstype": "btrfs", "link": LINK}
    there["wanted"]["files"] = [{"path": ENV, "mode": "0644", "content": "DISK_UUID=1\n"}]
    there["wanted"]["units"][UNIT] = {"active": "active", "enabled": "enabled"}
    there["wanted"]["answer"] = ["btrfs"]
    there["host"]["files"].update({ENV: file("DISK_UUID=1\n"), LINK: {"type": "link", "target": "/dev/loop3"}})
    there["host"]["units"][UNIT] = dict(UP)
    there["host"]["answers"]["web"]["stdout"] = f"btrfs\n{IDS}"
    return there


def stopped() -> dict:
    """Return the same of one that does not run, nor since the machine was started."""
    there = instance()
    there["wanted"]["running"] = there["host"]["containers"][0]["State"]["Running"] = False
    there["wanted"]["units"][UNIT] = {"active": "inactive", "enabled": "disabled"}
    there["host"]["units"][UNIT].update(active="inactive", enabled="disabled")
    there["wanted"]["disk"]["link"] = ""
    there["disks"][1].update(attached=False, device=None)
    del there["host"]["answers"]["web"], there["host"]["files"][LINK]
    return there


GONE, KEEP = object(), object()


def changed(there: dict, path: str = "wanted", value: object = KEEP) -> dict:
    """Set one thing in it, by the keys and numbers that lead there, and find its containers."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split()]
    place = functools.reduce(operator.getitem, way, there)
    if value is GONE:
        del place[last]
    elif value is not KEEP:
        place[last] = value
    there["wanted"]["found"] = containers_found(there["host"]["containers"], ["web"])["web"]
    return there


def respects(there: dict) -> list[str]:
    """Return the respects in which something is to do, after a look at what the filter says of it."""
    found = unsettled(there["wanted"], there["host"], there["disks"])
    assert settled(there["wanted"], there["host"], there["disks"]) is (found == [])
    return found


# What changes, to what, and the respect that is named then.
CHANGES: list[tuple[str, object, str]] = [
    ("host containers 0", GONE, "container"),
    ("host containers 0 State Running", False, "container"),
    ("host containers 0 Name", "/web.nested-kata-old", "container"),
    ("wanted container arguments", ["--memory", "8g", "--label", "a=b"], "container"),
    ("wanted container stdin", "a profile", "container"),
    ("host images machine:1", {**IMAGE, "Id": "sha256:2", "Config": {"User": "a"}}, "container"),
    ("host images machine:1", GONE, "container"),
    ("host networks 1", GONE, "network"),
    ("host networks 2", {**NETWORK, "Id": "3" * 64}, "network"),
    ("host networks 0 IPAM Config", [{"Subnet": "198.51.100.0/24"}], "network"),
    ("host networks 1 Labels", {}, "network"),
    ("host networks 1 Labels", {"nested.kata.instance": "other"}, "network"),
    ("host networks 1 Id", "4" * 64, "network"),
    ("wanted rules allow", [{"network": "x"}], "network"),
    (f"host files {RULES} sha256", "0" * 64, "network"),
    (f"host files {RULES} mode", "0600", "network"),
    (f"host files {RULES}", GONE, "network"),
    ("wanted rules deny", None, "network"),
    (f"host files {NOTE}", file("{}"), "leftovers"),
    (f"host files {NOTES}", {"type": "directory", "mode": "0700", "listed": False}, "leftovers"),
    (f"host units {FIREWALL} active", "failed", "units"),
    (f"host units {FIREWALL} enabled", "disabled", "units"),
    (f"host units {FIREWALL} reload", "yes", "units"),
    (f"host units {FIREWALL}", GONE, "units"),
    ("host answers web", GONE, "answer"),
    ("host answers web rc", 1, "answer"),
    ("host answers web stdout", "", "answer"),
    ("host images debian:y", GONE, "answer"),
    ("host images debian:y Id", "sha256:7", "answer"),
]
OTHER_IDS = ("sha256:8", "sha256:9 sha256:8", f"{IDS} sha256:7")
OF_A_PROXY = [("host answers web stdout", ids, "answer") for ids in OTHER_IDS]
OF_AN_INSTANCE: list[tuple[str, object, str]] = [
    (f"host files {ENV} sha256", "0" * 64, "files"),
    (f"host files {ENV} mode", "0600", "files"),
    (f"host files {ENV}", GONE, "files"),
    (f"host units {UNIT} active", "inactive", "units"),
    (f"host units {UNIT} reload", "yes", "units"),
    (f"host units {UNIT}", GONE, "units"),
    ("disks 1", GONE, "disk"),
    ("disks 1 size", 11 << 30, "disk"),
    ("wanted disk size", "20 gigs", "disk"),
    ("wanted disk size", 11 << 30, "disk"),
    ("disks 1 fstype", "ext4", "disk"),
    ("disks 1 attached", False, "disk"),
    ("disks 1 device", "/dev/loop4", "disk"),
    ("disks 1 sealed", True, "disk"),
    (f"host files {LINK} target", "/dev/loop9", "disk"),
    (f"host files {LINK}", GONE, "disk"),
    ("host answers web stdout", f"overlay2\n{IDS}", "answer"),
    ("host answers web stdout", IDS, "answer"),
]
# Something else that is there, or is written in other words.
NO_CHANGES: list[tuple[str, object]] = [
    ("host images machine:1 Id", "sha256:2"),
    ("wanted container arguments", ["--label", "a=b", "--memory", "4096m"]),
    ("host networks 0 Name", "docker0"),
    ("wanted rules allow", [{"network": "10.0.0.7/32", "ports": []}]),
    ("host units other.service", {**UP, "reload": "yes"}),
    ("host answers db", {"rc": 1, "stdout": "", "stderr": ""}),
    ("disks 0 attached", False),
    ("wanted disk size", "10240M"),
    ("wanted disk size", 10 << 30),
    (f"host files {NOTES}", {"type": "directory", "mode": "0700"}),
]
OF_A_STOPPED_ONE: list[tuple[str, object, list[str]]] = [
    ("host containers 0 State Running", True, ["container"]),
    (f"host units {UNIT}", UP, ["units"]),
    ("disks 1 size", 11 << 30, ["disk"]),
    (f"host files {LINK}", {"type": "link", "target": "/dev/loop9"}, []),
    ("host images debian:y", GONE, []),
    ("host answers web", {"rc": 1, "stdout": "", "stderr": ""}, []),
]


@pytest.mark.parametrize("make", [proxy, instance, stopped])
def test_where_all_is_as_wanted_there_is_nothing_to_do(make: Make) -> None:
    there = changed(make())
    assert respects(there) == []
    assert settled(there["wanted"], there["host"]) is ("disk" not in there["wanted"])


@pytest.mark.parametrize(
    ("make", "path", "value", "respect"),
    [
        *((make, *change) for make in (proxy, instance) for change in CHANGES),
        *((proxy, *change) for change in OF_A_PROXY),
        *((instance, *change) for change in OF_AN_INSTANCE),
    ],
)
def test_each_thing_that_differs_is_something_to_do_in_its_respect(
    make: Make, path: str, value: object, respect: str
) -> None:
    assert respects(changed(make(), path, value)) == [respect]


@pytest.mark.parametrize(("path", "value"), NO_CHANGES)
def test_what_is_of_others_or_says_the_same_is_nothing_to_do(path: str, value: object) -> None:
    assert respects(changed(instance(), path, value)) == []


@pytest.mark.parametrize(("path", "value", "listed"), OF_A_STOPPED_ONE)
def test_a_stopped_instance_needs_neither_an_answer_nor_a_link(path: str, value: object, listed: list[str]) -> None:
    assert respects(changed(stopped(), path, value)) == listed


@pytest.mark.parametrize("suffix", [".nested-kata-new", ".nested-kata-old"])
def test_a_container_with_a_name_beside_it_is_something_to_do(suffix: str) -> None:
    there = instance()
    there["host"]["containers"].append({**there["host"]["containers"][0], "Name": f"/web{suffix}"})
    assert respects(changed(there)) == ["container"]


def test_a_network_that_the_roles_did_not_make_needs_no_label() -> None:
    there = changed(proxy(), "host networks 1 Labels", {})
    assert respects(changed(there, "wanted label", "")) == []


def test_all_respects_are_named_where_nothing_is_there() -> None:
    there = changed(instance(), "host containers 0", GONE)
    there["host"].update({key: {} for key in ("images", "units", "answers")}, networks=[], files={NOTE: file("{}")})
    there["disks"].clear()
    assert respects(there) == ["container", "network", "files", "leftovers", "units", "disk", "answer"]


# --- files ---


def replace(path: Path) -> None:
    """Move a file or a directory away, and make the other one in its place."""
    make = path.touch if path.is_dir() else path.mkdir
    path.rename(f"{path}.moved")
    make()
    path.chmod(0o777)


# What makes another of a file or a directory.
DEVIATIONS: list[tuple[str, Callable[[Path], object]]] = [
    ("file", lambda path: path.write_text("other\n")),
    ("file", lambda path: path.unlink()),
    ("directory", lambda path: path.rmdir()),
    *((name, lambda path: path.chmod(0o755)) for name in ("file", "directory")),
    *((name, lambda path: path.symlink_to(path.rename(f"{path}.moved"))) for name in ("file", "directory")),
    *((name, replace) for name in ("file", "directory")),
]


def found(place: Path) -> tuple[list[dict], dict]:
    """Return a file and a directory that are wanted, and what there is."""
    directory, text = {"path": f"{place}/directory"}, {"path": f"{place}/file", "content": "\u00e4\n"}
    wanted = [{**directory, "mode": "0777"}, {**text, "mode": "0777"}]
    return wanted, dict(look_at_files([one["path"] for one in wanted]))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("\u00e4\n")
    for name in ("directory", "file"):
        (tmp_path / name).chmod(0o777)  # as links have it
    return tmp_path


def test_files_and_directories_that_are_there_are_as_wanted(place: Path) -> None:
    wanted, files = found(place)
    assert [is_as_wanted(one, files) for one in wanted] == [True, True]
    assert differing(wanted, files) == []
    assert differing(wanted, {}) == wanted


@pytest.mark.parametrize(("name", "deviate"), DEVIATIONS)
def test_what_is_another_or_has_another_mode_or_content_differs(
    name: str, deviate: Callable[[Path], object], place: Path
) -> None:
    deviate(place / name)
    wanted, files = found(place)
    assert differing(wanted, files) == [one for one in wanted if one["path"] == f"{place}/{name}"]


def test_a_file_whose_content_is_not_known_differs() -> None:
    wanted = {"path": ENV, "mode": "0644", "content": ""}
    assert is_as_wanted(wanted, {ENV: file("")})
    assert not is_as_wanted(wanted, {ENV: {"type": "file", "mode": "0644"}})
