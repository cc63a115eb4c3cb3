# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents of a release: where its parts are, and which versions they have."""

from __future__ import annotations

import mmap
import os
import re
from typing import Any, Callable, Mapping

from ansible_collections.nested.kata.plugins.module_utils._kata.release_plan import Record

RUST, GO = "runtime-rs/bin/containerd-shim-kata-v2", "bin/containerd-shim-kata-v2"
CONTENTS: Mapping[str, tuple[str, ...]] = {
    "shim": (RUST, GO),
    "qemu": tuple(f"bin/qemu-system-{arch}" for arch in ("x86_64", "aarch64", "s390x", "ppc64", "riscv64")),
    "virtiofsd": ("libexec/virtiofsd",),
    "cloud_hypervisor": ("bin/cloud-hypervisor",),
    "kernel": ("share/kata-containers/vmlinux.container",),
    "image": ("share/kata-containers/kata-containers.img",),
    "initrd": ("share/kata-containers/kata-containers-initrd.img",),
    "configuration": (
        "share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml",
        "share/defaults/kata-containers/configuration-qemu.toml",
    ),
}


def contents_of(find: Callable[[str], str | None], kernel_release: str | None) -> dict[str, str | None]:
    """Return the paths of the parts of a release. `find` returns the path of a name below the release, or None."""
    contents = {what: next(filter(None, map(find, names)), None) for what, names in CONTENTS.items()}
    contents["shim_kind"] = None if not contents["shim"] else "rust" if contents["shim"].endswith(f"/{RUST}") else "go"
    contents["kernel_release"] = kernel_release
    return contents


def kernel_release(image: Any) -> str | None:
    """Return the release of a kernel, whose file's bytes are given: a vmlinux, or a bzImage
    (Documentation/arch/x86/boot.rst, kernel_version).
    """
    if image[0x202:0x206] == b"HdrS":
        start = 0x200 + int.from_bytes(image[0x20E:0x210], "little")
        match = re.match(rb"([\x21-\x7e]+)[ \0]", image[start : start + 256])
    else:
        match = re.search(rb"Linux version ([0-9][\x21-\x7e]*) \(", image)
    return match[1].decode() if match else None


def contents_in(path: str, record: Record | None) -> dict[str, str | None]:
    """Return the paths of the parts of the release."""

    def find(name: str) -> str | None:
        there = record and os.path.exists(os.path.join(path, name))
        return os.path.join(path, name) if there else None

    contents = contents_of(find, record.kernel_release if record else None)
    if contents["kernel"]:
        contents["kernel"] = os.path.join(
            path, os.path.relpath(os.path.realpath(contents["kernel"]), os.path.realpath(path))
        )
    return contents


def version_in(directory: str) -> str | None:
    """Return the version in the release's file VERSION. No symlink in it leads out of it."""
    try:
        with open(os.path.join(directory, "VERSION"), encoding="utf-8", errors="replace") as file:
            return "".join(filter(str.isprintable, file.read(100).strip())) or None
    except (FileNotFoundError, IsADirectoryError):
        return None


def kernel_release_in(directory: str) -> str | None:
    image = os.path.join(directory, CONTENTS["kernel"][0])
    if not os.path.isfile(image) or not os.path.getsize(image):
        return None
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return kernel_release(data)
