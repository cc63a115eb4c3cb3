# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots a guest kernel under QEMU with a Debian root file system, and returns what the guest proved.

The processor is emulated (TCG), so that it works on any machine and in CI. While the guest works, its clock counts
instructions, a nanosecond each: on a busy machine it does no less within a time limit than on an idle one. Such a guest
runs on one core.

Needs qemu-system-x86, mmdebstrap and e2fsprogs, and root once, for the root file system: it is kept in tests/output,
and no guest writes to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bzimage import release_of
from kept import kept

TESTS = Path(__file__).resolve().parents[1]
GUEST = TESTS / "guest"
KVM = "plugins/module_utils/_host/kvm.py"

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "docker.io",
    "docker-cli",
    "iptables",
    "apparmor",
    "btrfs-progs",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "wireguard-tools",
    "kmod",
    "python3",
    "busybox-static",
)
# Docker is started by the proofs, with settings of theirs; the others would only take time.
OFF = (
    "docker.service",
    "docker.socket",
    "containerd.service",
    "apparmor.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
)
HOOKS = (
    f'--customize-hook=tar -C {GUEST / "root"} --owner=0 --group=0 -cf - . | tar -C "$1" --no-overwrite-dir -xf -',
    f'--customize-hook=chroot "$1" systemctl --quiet disable {" ".join(OFF)}',
    '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd.service prove.service',
    # Says that nothing is to be brought up to date after an upgrade of /usr.
    '--customize-hook=touch "$1"/etc/.updated "$1"/var/.updated',
)
ROOT_SIZE = "4G"
DISK_SIZE = 4 * 1024**3

CPUS = 2
# Older kernels bring processors up in another way, which never ends under a clock that counts instructions, and does
# otherwise.
OLDEST_WITH_CPUS = (6, 5)
MEMORY = "2G"
# Nested virtualization is AMD's. Without cmpxchg16b, since QEMU 7.2 leaves garbage in the flags behind it: an interrupt
# that comes right there, as a clock that counts instructions allows, saves them, and the guest dies when it returns.
CPU = "max,+svm,-cx16"
# What waits for a device gives up late, since an emulated machine on a busy one is slow.
COMMAND_LINE = (
    "root=/dev/vda",
    "rw",
    "console=ttyS0",
    "panic=-1",
    "TERM=dumb",
    "systemd.default_device_timeout_sec=600",
    "systemd.default_timeout_start_sec=600",
)
SECONDS = 1800
# seconds of this machine's clock without a word from the guest, whose longest proof takes some tens on an idle one
SILENCE = 300
LAST_LINES = 40


@dataclass(frozen=True)
class Proof:
    """What the guest said of one proof."""

    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a boot showed. Seconds are the guest's, see above, but for `seconds`; init and started count from the
    kernel's first instant.
    """

    release: str | None = None
    init: float | None = None
    started: float | None = None
    config: str | None = None  # SHA-256 of its configuration, as it tells it
    proofs: dict[str, Proof] = field(default_factory=dict)
    complete: bool = False  # the guest came to the end of its proofs
    ended: str = ""  # why it did not end by itself: it fell silent, took too long, or QEMU failed
    seconds: float = 0.0  # of this machine's clock, for all of it
    console: Path | None = None

    def last_lines(self) -> str:
        lines = self.console.read_text(errors="replace").splitlines() if self.console and self.console.exists() else []
        return "\n".join(
            [*filter(None, [self.ended]), f"the console's last lines ({self.console}):", *lines[-LAST_LINES:]]
        )

    def failed(self) -> dict[str, str]:
        return {name: proof.detail for name, proof in self.proofs.items() if not proof.ok}


def parse(lines: Sequence[str], seconds: float = 0.0, console: Path | None = None, ended: str = "") -> Report:
    """Read the lines of JSON that the guest wrote. A line that was cut off, as by a power failure, is none."""
    about: dict[str, object] = {}
    proofs: dict[str, Proof] = {}
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if "id" in said:
            proofs[said["id"]] = Proof(ok=said["ok"] is True, detail=said["detail"], seconds=said["seconds"])
        else:
            about.update(said)
    return Report(
        release=about.get("release"),
        init=about.get("init"),
        started=about.get("started"),
        config=about.get("config"),
        proofs=proofs,
        complete=about.get("end") == len(proofs),
        ended=ended,
        seconds=seconds,
        console=console,
    )


def boot(kernel: Path, profile: str, directory: Path) -> Report:
    """Boot a bzImage, and return what the guest proved of a profile, or of several (`docker,netsim`).

    In the directory remain console.log and proofs.jsonl. What the guest left out, since it crashed, fell silent or took
    longer than it may, is missing in the report, and `complete` is false.
    """
    root, release = root_file_system(), release_of(kernel.read_bytes())
    cpus = CPUS if tuple(map(int, release.split(".")[:2])) >= OLDEST_WITH_CPUS else 1
    console, port = directory / "console.log", directory / "proofs.jsonl"
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        proofs, disk, said = Path(scratch, "proofs.img"), Path(scratch, "docker.img"), Path(scratch, "qemu.log")
        make_proofs_disk(proofs)
        with disk.open("wb") as file:
            file.truncate(DISK_SIZE)
        command = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-icount",
            "shift=0",
            "-cpu",
            CPU,
            "-smp",
            str(cpus),
            "-m",
            MEMORY,
            "-kernel",
            str(kernel),
            "-append",
            " ".join((*COMMAND_LINE, f"nested_kata.profiles={profile}")),
            "-serial",
            f"file:{console}",
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"file,id=port,path={quoted(port)}",
            "-device",
            "virtserialport,chardev=port,name=nested-kata",
            "-netdev",
            "user,id=net",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-device",
            "virtio-rng-pci",
            *disk_arguments("root", root, "snapshot=on"),
            *disk_arguments("proofs", proofs, "readonly=on"),
            *disk_arguments("docker", disk, "discard=unmap"),
        ]
        began = time.monotonic()
        with (
            said.open("w") as output,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": scratch},
            ) as process,
        ):
            ended = follow(process, (console, port))
        lines = port.read_text().splitlines() if port.exists() else []
        if not ended and process.returncode:
            ended = f"{' '.join(command)}\nexit status {process.returncode}\n{said.read_text()}"
    return parse(lines, seconds=time.monotonic() - began, console=console, ended=ended)


def follow(process: subprocess.Popen, files: Sequence[Path], silence: float = SILENCE, seconds: float = SECONDS) -> str:
    """Wait for a program. Where its files grow no more, or where it takes too long, it is killed, and why is
    returned.
    """
    sizes, began = [], time.monotonic()
    spoke = began
    try:
        while process.poll() is None:
            time.sleep(0.5)
            now, before, sizes = (
                time.monotonic(),
                sizes,
                [file.stat().st_size if file.exists() else 0 for file in files],
            )
            if sizes != before:
                spoke = now
            if now - spoke > silence:
                return f"killed: it said nothing for {silence:.0f} s"
            if now - began > seconds:
                return f"killed: it took longer than {seconds:.0f} s"
        return ""
    finally:
        process.kill()


def quoted(path: Path) -> str:
    """Return a path as QEMU takes it within an option, where a comma ends a value."""
    return str(path).replace(",", ",,")


def disk_arguments(name: str, file: Path, options: str) -> Iterator[str]:
    yield from ("-drive", f"if=none,id={name},file={quoted(file)},format=raw,cache=unsafe,{options}")
    yield from ("-device", f"virtio-blk-pci,drive={name},serial={name}")


def make_proofs_disk(image: Path) -> None:
    """Make a disk that holds the guest's programs, so that the root file system need not be made again when they
    change.
    """
    with tempfile.TemporaryDirectory(dir=image.parent) as tree:
        shutil.copytree(GUEST, Path(tree, "guest"), ignore=shutil.ignore_patterns("root", "__pycache__"))
        kvm = Path(tree, "ansible_collections/nested/kata", KVM)
        kvm.parent.mkdir(parents=True)
        shutil.copy(TESTS.parent / KVM, kvm)
        make_ext4(image, Path(tree), "proofs", "8M")


def make_ext4(image: Path, tree: Path, label: str, size: str) -> None:
    subprocess.run(
        ["/sbin/mkfs.ext4", "-q", "-L", label, "-d", str(tree), str(image), size], stdout=subprocess.DEVNULL, check=True
    )


def root_file_system() -> Path:
    """Return the image of a Debian with Docker, systemd and the tools of the proofs; it is made when its recipe has
    changed.
    """
    return kept("guest-root", recipe(), ".img", lambda image: image_of_debian(image, PACKAGES, HOOKS, ROOT_SIZE))


def recipe() -> str:
    """Return a short hash over all that the root file system is made from, but for the state of the mirror."""
    return recipe_of_debian(
        PACKAGES,
        HOOKS,
        ROOT_SIZE,
        [
            (
                str(path.relative_to(GUEST)),
                os.readlink(path) if path.is_symlink() else path.is_file() and path.read_text(),
            )
            for path in sorted((GUEST / "root").rglob("*"))
        ],
    )


def recipe_of_debian(packages: Sequence[str], hooks: Sequence[str], size: str, more: object = None) -> str:
    return hashlib.sha256(repr((size, debootstrap(Path("root"), packages, hooks), more)).encode()).hexdigest()[:12]


def debootstrap(tree: Path, packages: Sequence[str], hooks: Sequence[str]) -> list[str]:
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")),
        *hooks,
        SUITE,
        str(tree),
        MIRROR,
    ]


def image_of_debian(image: Path, packages: Sequence[str], hooks: Sequence[str], size: str) -> None:
    """Make a file that is an ext4 of the size, with a Debian that has the packages and that mmdebstrap's hooks were run
    on.
    """
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        command = debootstrap(Path(scratch, "root"), packages, hooks)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}"
        make_ext4(image, Path(scratch, "root"), "root", size)
