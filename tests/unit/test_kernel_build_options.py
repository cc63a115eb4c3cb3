# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kernel_build are parsed, or refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import Wanted, log_of, parse, targets_of

OPTIONS: dict[str, Any] = {
    "tree": "/tree",
    "path": "/out",
    "key": "key 1",
    "arch": "x86_64",
    "targets": [],
    "jobs": None,
    "make_vars": {},
    "ccache": False,
    "log": None,
    "info": {},
    "timestamp": "then",
    "expected_objects": None,
}
TARGETS = {
    ((), "x86_64"): ("vmlinux", "bzImage"),
    ((), "i386"): ("vmlinux", "bzImage"),
    ((), "arm64"): ("vmlinux", "Image"),
    ((), "sh"): ("vmlinux",),
    (("bzImage",), "x86_64"): ("vmlinux", "bzImage"),
    (("Image.gz", "vmlinux"), "arm64"): ("vmlinux", "Image.gz"),
    (("init/main.o",), "x86_64"): ("vmlinux", "init/main.o"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_vmlinux_and_the_image_that_boots_are_built_by_default(case: tuple) -> None:
    assert targets_of(*case) == TARGETS[case]


@pytest.mark.parametrize(
    "target", ["olddefconfig", "config", "clean", "distclean", "mrproper", "-k", "CC=gcc", "a b", ""]
)
def test_what_is_no_target_for_a_build_is_refused(target: str) -> None:
    with pytest.raises(Refused, match=r"targets: .* is not a target that builds something"):
        targets_of([target], "x86_64")


def test_options_become_what_is_wanted() -> None:
    assert parse(OPTIONS) == Wanted(
        "/tree", "x86_64", ("vmlinux", "bzImage"), "/out", "key 1", log="/out.log", timestamp="then"
    )
    there = parse({**OPTIONS, "tree": "linux", "path": "out", "log": "make.log", "jobs": 2, "expected_objects": 9})
    here = os.getcwd()
    assert (there.tree, there.path, there.log, there.jobs, there.expected_objects) == (
        f"{here}/linux",
        f"{here}/out",
        f"{here}/make.log",
        2,
        9,
    )
    assert log_of({"path": "out", "log": None}) == f"{here}/out.log"


@pytest.mark.parametrize("option", ["jobs", "expected_objects"])
def test_less_than_one_is_refused(option: str) -> None:
    with pytest.raises(Refused, match=f"^{option}: 0 is less than 1$"):
        parse({**OPTIONS, option: 0})
