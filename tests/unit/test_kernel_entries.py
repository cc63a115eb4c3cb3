# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of guest_kernel_list, the numbers of their fragments, and which kernels are removed."""

from __future__ import annotations

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.nested.kata.plugins.filter.kernel_entries import FilterModule as EntryFilters
from ansible_collections.nested.kata.plugins.filter.numbered import FilterModule as NumberFilters
from ansible_collections.nested.kata.plugins.filter.removable_kernels import FilterModule as RemovalFilters
from ansible_runner import CHECKOUT

kernel_entries = EntryFilters().filters()["kernel_entries"]
numbered = NumberFilters().filters()["numbered"]
removable_kernels = RemovalFilters().filters()["removable_kernels"]

DEFAULTS = {
    "profile": "docker",
    "version": "",
    "source": {"kind": "kernel.org"},
    "fragments": [],
    "options": {},
    "allow_missing": {},
    "base": "",
    "patches": [],
    "state": "present",
}
AROUND = {
    "arch": "arm64",
    "profiles": {"docker": ["base", "docker"], "stock": ["base"]},
    "versions": {"kernel.org": "6.12.104", "bookworm": "6.1", "trixie": "6.12"},
    "allow_missing": {"A": "why"},
    "fragment_directory": "/files/kernel",
    "directory": "/play",
}
PLAIN = {
    "name": "docker",
    "state": "present",
    "arch": "arm64",
    "profile": "docker",
    "version": "6.12.104",
    "source": {"kind": "kernel.org"},
    "base": "",
    "fragments": ["/files/kernel/base-arm64.config", "/files/kernel/docker.config"],
    "patches": [],
    "options": {},
    "allow_missing": {"A": "why"},
}
# what an entry sets, what differs from the plain one then
ENTRIES = {
    "nothing": ({}, {}),
    "a name": ({"name": "mine"}, {"name": "mine"}),
    "a profile names it": (
        {"profile": "stock"},
        {"name": "stock", "profile": "stock", "fragments": ["/files/kernel/base-arm64.config"]},
    ),
    "an unknown profile": ({"profile": "other"}, {"name": "other", "profile": "other", "fragments": []}),
    "a version": ({"version": "6.18.45"}, {"version": "6.18.45"}),
    "Debian": ({"source": {"kind": "debian"}}, {"source": {"kind": "debian", "suite": "trixie"}, "version": "6.12"}),
    "a suite": (
        {"source": {"kind": "debian", "suite": "bookworm"}},
        {"source": {"kind": "debian", "suite": "bookworm"}, "version": "6.1"},
    ),
    "an unknown suite": (
        {"source": {"kind": "debian", "suite": "sid"}},
        {"source": {"kind": "debian", "suite": "sid"}, "version": ""},
    ),
    "an unknown source": ({"source": {"kind": "git"}}, {"source": {"kind": "git"}, "version": ""}),
    "mirrors": ({"source": {"mirrors": ["http://m"]}}, {"source": {"kind": "kernel.org", "mirrors": ["http://m"]}}),
    "fragments": (
        {"fragments": ["no-xfs", "lab.config", "sub/lab", "/abs/x.config"]},
        {
            "fragments": [
                *PLAIN["fragments"],
                "/files/kernel/no-xfs.config",
                "/play/lab.config",
                "/play/sub/lab",
                "/abs/x.config",
            ]
        },
    ),
    "a base takes the place of the fragment": (
        {"base": "my/config"},
        {"base": "/play/my/config", "fragments": ["/files/kernel/docker.config"]},
    ),
    "patches": ({"patches": ["a.patch", "/b.patch"]}, {"patches": ["/play/a.patch", "/b.patch"]}),
    "options": ({"options": {"X": True}}, {"options": {"X": True}}),
    "symbols that may be missing": (
        {"allow_missing": {"A": "mine", "B": "too"}},
        {"allow_missing": {"A": "mine", "B": "too"}},
    ),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_an_entry_gets_what_it_leaves_out_and_absolute_paths(case: str) -> None:
    entry, differs = ENTRIES[case]
    (found,) = kernel_entries([entry], DEFAULTS, **AROUND)
    assert {**found, "files": None} == {**PLAIN, **differs, "files": None}
    assert found["files"] == [path for path in [found["base"], *found["fragments"], *found["patches"]] if path]


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ({"kind": "kernel.org", "keyring": "/keys"}, ["/keys"]),
        ({"kind": "archive", "path": "/linux.tar", "keyring": ""}, ["/linux.tar"]),
        ({"kind": "archive", "path": "/linux.tar", "remote_src": True}, []),
        ({"kind": "archive"}, []),
        ({"kind": "debian", "path": "/linux.tar"}, []),
    ],
)
def test_what_a_source_needs_on_the_control_node(source: dict, files: list[str]) -> None:
    (found,) = kernel_entries([{"profile": "none", "source": source}], DEFAULTS, **AROUND)
    assert found["files"] == files


def test_files_are_numbered_in_their_order_whatever_their_names() -> None:
    assert numbered([], "/d") == []
    assert numbered(["/x/b.config", "/y/a.config", "/z/a.config"], "/d") == [
        "/d/10-b.config",
        "/d/11-a.config",
        "/d/12-a.config",
    ]
    many = numbered([f"/{number}" for number in range(90)], "/d")
    assert sorted(many) == many


def test_a_mirror_may_end_with_a_slash() -> None:
    variables = yaml.safe_load((CHECKOUT / "roles/guest_kernel/vars/main.yml").read_text())
    names = ("guest_kernel_asked_mirrors", "guest_kernel_tarball", "guest_kernel_urls")
    wanted = {
        "guest_kernel_each": {"version": "6.12.104", "source": {"mirrors": ["https://a/linux", "https://b/linux/"]}}
    }
    templar = Templar(
        loader=DataLoader(), variables={**{name: trust_as_template(variables[name]) for name in names}, **wanted}
    )
    assert templar.template(trust_as_template("{{ guest_kernel_urls }}")) == [
        f"https://{host}/linux/v6.x/linux-6.12.104.tar.xz" for host in "ab"
    ]


HOME = "/var/lib/nested-kata/kernels"
NEW, OLD, OLDER, OTHER = (f"6.12.10{number}-docker-{'0123456789ab'}" for number in "4321")
HALF = f".{NEW}.nested-kata-new"


def there(*names: str) -> list[dict]:
    """Return directories, the newest first in this list and handed over the other way round."""
    return [{"path": f"{HOME}/{name}", "mtime": float(-number)} for number, name in enumerate(names)][::-1]


# what is there from the newest to the oldest, what is wanted, refused names, how many others stay, what goes
REMOVALS = {
    "nothing there": ((), (), (), 0, []),
    "what is wanted stays": ((NEW, OLD), (NEW, OLD), (), 0, []),
    "the newest others stay": ((NEW, OLD, OLDER, OTHER), (NEW,), (), 2, [OTHER]),
    "none stays": ((NEW, OLD, OLDER), (NEW,), (), 0, [OLD, OLDER]),
    "what an interrupted run left goes first": ((OLD, HALF), (), (), 1, [HALF]),
    "a refused name goes": ((OLD, "6.18.45-lab-0123456789ab"), (), ("lab",), 5, ["6.18.45-lab-0123456789ab"]),
    "a refused name is the whole name": (
        ("6.18.45-my-lab-0123456789ab", "6.18.45-labs-0123456789ab"),
        (),
        ("lab",),
        5,
        [],
    ),
    "a refused name is no pattern": (
        ("6.18.45-axb-0123456789ab", "6.18.45-a.b-0123456789ab"),
        (),
        ("a.b",),
        5,
        ["6.18.45-a.b-0123456789ab"],
    ),
    "a refused release candidate goes": (
        ("6.19-rc1-lab-0123456789ab",),
        (),
        ("lab",),
        5,
        ["6.19-rc1-lab-0123456789ab"],
    ),
    "a refused one that is wanted all the same stays": ((NEW,), (NEW,), ("docker",), 0, []),
}


@pytest.mark.parametrize("case", REMOVALS)
def test_kernels_that_go(case: str) -> None:
    names, wanted, refused, keep, goes = REMOVALS[case]
    assert removable_kernels(there(*names), wanted=wanted, refused=refused, keep=keep) == [
        {**one} for name in goes for one in there(*names) if one["path"] == f"{HOME}/{name}"
    ]


def test_only_the_directory_s_own_name_tells_that_a_run_was_interrupted() -> None:
    assert removable_kernels([{"path": f"/srv/.nested-kata-x/{NEW}", "mtime": 1.0}], wanted=[], keep=1) == []
