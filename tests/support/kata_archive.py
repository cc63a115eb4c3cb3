# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a release archive as Kata Containers publishes one, names and links alike, in which all that would run is a
stand-in.

Its shim (tests/standin) takes Kata's options, refuses what Kata would stumble over, and runs containers with runc, on
the kernel of the machine that they are on. For a kernel that such a container shows, the one in the archive says that
it is of the same release. None of Kata's own files is in it: the configuration has Kata's keys and defaults, written
anew.

Needs Docker once, for the shim, which is kept in tests/output, and the command zstd for .tar.zst.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import platform
import struct
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bzimage import release_of
from docker_in_docker import GO_DOCKERFILE, go_program
from kept import kept

TESTS = Path(__file__).resolve().parents[1]
STANDIN = TESTS / "standin"
SOURCES = (".go", ".mod", ".sum", ".sh")

VERSION = "4.1.0"
CONFIG_VERSION = 202  # of the guest kernel's configuration; behind its release in the files' names
RELEASED = 1785542400  # 2026-08-01, of every file
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

SHIM = "runtime-rs/bin/containerd-shim-kata-v2"
SHARE = "share/kata-containers"
DEFAULTS = "share/defaults/kata-containers/runtime-rs"

# What an optional key would be set to is commented out, as in Kata's file.
CONFIGURATION = """\
# Stand-in for Kata's configuration file: its keys and their defaults.

[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel = "/opt/kata/share/kata-containers/vmlinux.container"
image = "/opt/kata/share/kata-containers/kata-containers.img"
# initrd = "/opt/kata/share/kata-containers/kata-containers-initrd.img"
machine_type = "q35"
machine_accelerators = ""
cpu_features = "pmu=off"
kernel_params = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
default_vcpus = 1
default_memory = 2048
overhead_memory = 32
shared_fs = "virtio-fs"
virtio_fs_daemon = "/opt/kata/libexec/virtiofsd"
virtio_fs_extra_args = ["--thread-pool-size=1", "--announce-submounts"]
block_device_driver = "virtio-scsi"
disable_block_device_use = false
enable_annotations = ["enable_iommu", "kernel_params", "kernel_verity_params", "default_vcpus", "default_memory"]
# seccomp_sandbox = ""
# disable_vhost_net = true
# enable_debug = true

[agent.kata]
# enable_debug = true
# dial_timeout_ms = 10
# reconnect_timeout_ms = 3000
# create_container_timeout = 30

[runtime]
# enable_debug = true
name = "virt_container"
hypervisor_name = "qemu"
agent_name = "kata"
internetworking_model = "tcfilter"
sandbox_cgroup_only = true
static_sandbox_resource_mgmt = true
disable_guest_seccomp = true
"""

KERNEL_CONFIG = """\
# Stand-in for the configuration of Kata's guest kernel
CONFIG_64BIT=y
CONFIG_OVERLAY_FS=y
CONFIG_EXT4_FS=y
CONFIG_VIRTIO_FS=y
# CONFIG_BTRFS_FS is not set
"""

PROGRAM = """\
#!/bin/sh
echo "{name}: a stand-in for that of Kata Containers {version}; it does nothing" >&2
exit 1
"""


@dataclass(frozen=True)
class File:
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Link:
    target: str


@dataclass(frozen=True)
class Release:
    """An archive, as one finds it on the release page."""

    archive: Path
    sha256: str
    version: str
    kernel_release: str  # what `uname -r` says where its guest kernel runs


def make_release(
    directory: Path,
    version: str = VERSION,
    *,
    kernel: Path | None = None,
    kernel_release: str | None = None,
    compression: str = "zst",
) -> Release:
    """Write kata-static-VERSION-ARCH.tar.COMPRESSION (zst or xz) into the directory.

    Without a kernel (a bzImage) it has a made-up file, which says that it is Linux of `kernel_release`: by default of
    this machine's, on whose kernel the stand-in runs its containers. The same input makes the same archive.
    """
    image = kernel.read_bytes() if kernel else made_up_bzimage(kernel_release or platform.release())
    tree = layout(version, standin().read_bytes(), image)
    archive = directory / f"kata-static-{version}-{ARCHITECTURES[platform.machine()]}.tar.{compression}"
    archive.write_bytes(compressed(packed(tree), compression))
    return Release(archive, hashlib.sha256(archive.read_bytes()).hexdigest(), version, release_of(image))


def layout(version: str, shim: bytes, bzimage: bytes) -> dict[str, File | Link]:
    """Return what lies under opt/kata, by its path there."""
    kernel = f"{release_of(bzimage)}-{CONFIG_VERSION}"
    about = f"stand-in for Kata Containers {version}\n"
    return {
        "VERSION": File(f"{version}\n".encode()),
        "versions.yaml": File(f"# {about}---\n".encode()),
        "bin/qemu-system-x86_64": File(PROGRAM.format(name="qemu-system-x86_64", version=version).encode(), 0o755),
        "libexec/virtiofsd": File(PROGRAM.format(name="virtiofsd", version=version).encode(), 0o755),
        SHIM: File(shim, 0o755),
        f"{SHARE}/vmlinux-{kernel}": File(made_up_vmlinux(release_of(bzimage))),
        f"{SHARE}/vmlinuz-{kernel}": File(bzimage),
        f"{SHARE}/config-{kernel}": File(KERNEL_CONFIG.encode()),
        f"{SHARE}/System.map-{kernel}": File(b"ffffffff81000000 T _text\n"),
        f"{SHARE}/vmlinux.container": Link(f"vmlinux-{kernel}"),
        f"{SHARE}/vmlinuz.container": Link(f"vmlinuz-{kernel}"),
        f"{SHARE}/kata-stand-in.image": File(f"root file system, {about}".encode()),
        f"{SHARE}/kata-containers.img": Link("kata-stand-in.image"),
        f"{SHARE}/kata-containers-initrd.img": File(f"initrd, {about}".encode()),
        f"{DEFAULTS}/configuration-qemu-runtime-rs.toml": File(CONFIGURATION.encode()),
        f"{DEFAULTS}/configuration.toml": Link("configuration-qemu-runtime-rs.toml"),
    }


def packed(tree: Mapping[str, File | Link]) -> bytes:
    """Return a tar archive as `tar -C DIRECTORY -c .` makes one: `./` comes first, and each directory before what is in
    it.
    """
    stream = io.BytesIO()
    paths = [Path("opt/kata", name) for name in tree]
    directories = {parent for path in paths for parent in path.parents}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted({*directories, *paths}):
            member = tarfile.TarInfo("." if path == Path(".") else f"./{path}")
            member.mtime = RELEASED
            what = None if path in directories else tree[str(path.relative_to("opt/kata"))]
            if what is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif isinstance(what, Link):
                member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, what.target
                archive.addfile(member)
            else:
                member.size, member.mode = len(what.data), what.mode
                archive.addfile(member, io.BytesIO(what.data))
    return stream.getvalue()


def compressed(data: bytes, compression: str) -> bytes:
    if compression == "xz":
        return lzma.compress(data, preset=1)
    assert compression == "zst", f"a release is .tar.zst or .tar.xz, not .tar.{compression}"
    return subprocess.run(["zstd", "--quiet", "--stdout", "-3"], input=data, stdout=subprocess.PIPE, check=True).stdout


def banner(kernel_release: str) -> bytes:
    return f"Linux version {kernel_release} (stand-in) #1\0".encode()


def made_up_bzimage(kernel_release: str) -> bytes:
    """Return a boot sector and a header that say which kernel this is (Documentation/arch/x86/boot.rst), and no
    kernel.
    """
    image = bytearray(0x1000)
    image[0x1F1] = 4  # setup_sects
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020F)
    where = 0x400
    struct.pack_into("<H", image, 0x20E, where - 0x200)
    version = f"{kernel_release} (stand-in) #1\0".encode()
    image[where : where + len(version)] = version
    return bytes(image) + banner(kernel_release)


def made_up_vmlinux(kernel_release: str) -> bytes:
    """Return the header of an ELF file for x86-64, without segments, and the banner."""
    identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
    return identity + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0) + banner(kernel_release)


def standin() -> Path:
    """Return the compiled shim; it is built when its recipe has changed."""
    sources = sorted(path for path in STANDIN.iterdir() if path.suffix in SOURCES)
    recipe = hashlib.sha256(
        repr((GO_DOCKERFILE, platform.machine(), [(path.name, path.read_text()) for path in sources])).encode()
    ).hexdigest()[:12]
    return kept("standin", recipe, "", build)


def build(shim: Path) -> None:
    sources = io.BytesIO()
    with tarfile.open(fileobj=sources, mode="w") as archive:
        for path in STANDIN.iterdir():
            if path.suffix in SOURCES:
                archive.add(path, path.name)
    go_program(shim, (STANDIN / "build.sh").read_text(), sources.getvalue())


if __name__ == "__main__":
    # a directory, and the kernel release if it is another machine's: for playbooks, which find the digest beside the
    # archive
    made = make_release(Path(sys.argv[1]), kernel_release=next(iter(sys.argv[2:]), None))
    made.archive.with_name(f"{made.archive.name}.sha256").write_text(f"{made.sha256}\n")
    print(made.archive)
