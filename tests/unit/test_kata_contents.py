# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a release are found, and its kernel's version is read."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kata.contents import contents_of, kernel_release

RUST = {
    "runtime-rs/bin/containerd-shim-kata-v2",
    "bin/containerd-shim-kata-v2",
    "bin/qemu-system-x86_64",
    "libexec/virtiofsd",
    "bin/cloud-hypervisor",
    "share/kata-containers/vmlinux.container",
    "share/kata-containers/kata-containers.img",
    "share/kata-containers/kata-containers-initrd.img",
    "share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml",
    "share/defaults/kata-containers/configuration-qemu.toml",
}
GO = {name for name in RUST if "runtime-rs" not in name} - {"bin/qemu-system-x86_64", "bin/cloud-hypervisor"} | {
    "bin/qemu-system-aarch64"
}


def contents(names: set[str]) -> dict:
    return contents_of(lambda name: f"/r/{name}" if name in names else None, "6.18.35")


def test_the_rust_shim_comes_before_the_go_shim() -> None:
    assert contents(RUST) == {
        "shim": "/r/runtime-rs/bin/containerd-shim-kata-v2",
        "shim_kind": "rust",
        "qemu": "/r/bin/qemu-system-x86_64",
        "virtiofsd": "/r/libexec/virtiofsd",
        "cloud_hypervisor": "/r/bin/cloud-hypervisor",
        "kernel": "/r/share/kata-containers/vmlinux.container",
        "kernel_release": "6.18.35",
        "image": "/r/share/kata-containers/kata-containers.img",
        "initrd": "/r/share/kata-containers/kata-containers-initrd.img",
        "configuration": "/r/share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml",
    }
    go = contents(GO)
    assert (go["shim"], go["shim_kind"], go["qemu"]) == (
        "/r/bin/containerd-shim-kata-v2",
        "go",
        "/r/bin/qemu-system-aarch64",
    )
    assert (go["configuration"], go["cloud_hypervisor"]) == (
        "/r/share/defaults/kata-containers/configuration-qemu.toml",
        None,
    )


def test_what_is_not_there_is_null() -> None:
    nothing = contents_of(lambda dummy: None, None)
    assert set(nothing) == set(contents(RUST))
    assert set(nothing.values()) == {None}


def bz_image(text: bytes) -> bytes:
    image = bytearray(4096)
    image[0x202:0x206], image[0x20E:0x210] = b"HdrS", (0x300).to_bytes(2, "little")
    image[0x500 : 0x500 + len(text)] = text
    return bytes(image)


KERNELS = {
    "a vmlinux": (
        b"\x7fELF"
        + bytes(900)
        + b"%s version %s (x)\0Linux version %s (\0Linux version 6.18.35 (root@x) (gcc) #1 SMP\0",
        "6.18.35",
    ),
    "a vmlinux of ours": (b"\x7fELF" + bytes(900) + b"Linux version 6.12.107-nested+ (a@b) ", "6.12.107-nested+"),
    "a bzImage": (bz_image(b"6.18.35-dragonball (root@x) #1 SMP\0"), "6.18.35-dragonball"),
    "a bzImage that is cut off": (bz_image(b"")[:0x300], None),
    "something else": (b"no kernel at all", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("case", KERNELS)
def test_the_release_of_a_kernel_is_read_from_its_file(case: str) -> None:
    image, said = KERNELS[case]
    assert kernel_release(image) == said
