# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kernel_build, parsed and checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import host_arch, source_directory

# The image that a hypervisor boots, by the name of the architecture's directory below arch/.
IMAGE = {"x86": "bzImage", "arm64": "Image", "riscv": "Image", "s390": "bzImage"}


@dataclass(frozen=True)
class Wanted:
    """The options of the task."""

    tree: str
    arch: str
    targets: tuple[str, ...]
    path: str
    key: str
    make_vars: Mapping[str, Any] = field(default_factory=dict)
    jobs: int | None = None
    ccache: bool = False
    log: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    timestamp: str = ""
    expected_objects: int = 0
    """0 where the number is unknown."""


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the module's options, or raise Refused."""
    for name in ("jobs", "expected_objects"):
        if options[name] is not None and options[name] < 1:
            raise Refused(f"{name}: {options[name]} is less than 1")
    arch = options["arch"] or host_arch()
    return Wanted(
        tree=os.path.abspath(options["tree"]),
        arch=arch,
        targets=targets_of(options["targets"], arch),
        path=os.path.abspath(options["path"]),
        key=options["key"],
        make_vars=options["make_vars"],
        jobs=options["jobs"],
        ccache=options["ccache"],
        log=log_of(options),
        info=options["info"],
        timestamp=options["timestamp"],
        expected_objects=options["expected_objects"] or 0,
    )


def log_of(options: Mapping[str, Any]) -> str:
    """Return the file for make's output, which refusals name too."""
    return os.path.abspath(options["log"] or f"{os.path.abspath(options['path'])}.log")


def targets_of(asked: Iterable[str], arch: str) -> tuple[str, ...]:
    """Return the targets of make: vmlinux always, and the image that boots where none were asked for."""
    image = IMAGE.get(source_directory(arch))
    targets = tuple(dict.fromkeys(["vmlinux", *(asked or filter(None, [image]))]))
    for target in targets:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", target) or re.fullmatch(
            r".*config|.*clean|mrproper|help", target
        ):
            raise Refused(f"targets: {target!r} is not a target that builds something, such as vmlinux or bzImage")
    return targets
