# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of Debian under QEMU, as somebody gets one: systemd, cgroup v2, AppArmor, Debian's kernel, and root by ssh.

    python tests/support/qemu_machine.py start DIRECTORY  boots it, and leaves in the directory: the port of its sshd, a
                                                          key, the console
    python tests/support/qemu_machine.py stop DIRECTORY   takes it away, and what was in the directory

The processor is emulated (TCG), so that it works on any machine and in CI. Its disk begins anew each time; a reboot
keeps it. Needs what tests/support/qemu_kernel.py needs, and ssh.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from kept import kept
from qemu_kernel import disk_arguments, image_of_debian, recipe_of_debian

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "sudo",
    "apparmor",
    "linux-image-amd64",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "ca-certificates",
    "procps",
)
DISK_SIZE = "16G"
CPUS = 2
MEMORY = "4G"
SECONDS = 300

# QEMU's own network: an address by DHCP, and its resolver.
NETWORK = "[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n"
HOOKS = (
    f"--customize-hook=printf '{NETWORK}' >\"$1\"/etc/systemd/network/en.network",
    '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd.service',
    '--customize-hook=chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer',
    "--customize-hook=printf 'nameserver 10.0.2.3\\n' >\"$1\"/etc/resolv.conf",
    "--customize-hook=printf 'machine\\n' >\"$1\"/etc/hostname",
    "--customize-hook=printf '127.0.0.1 localhost machine\\n' >\"$1\"/etc/hosts",
    "--customize-hook=printf '/dev/vda / ext4 defaults 0 1\\n' >\"$1\"/etc/fstab",
)


def root_file_system() -> Path:
    recipe = recipe_of_debian(PACKAGES, HOOKS, DISK_SIZE)
    return kept("machine-root", recipe, ".img", lambda image: image_of_debian(image, PACKAGES, HOOKS, DISK_SIZE))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(directory: Path) -> None:
    """Return when the machine's sshd lets root in."""
    directory.mkdir(parents=True, exist_ok=True)
    root, key, port = root_file_system(), directory / "key", free_port()
    # Without the links /vmlinuz and /initrd.img, which /boot has too.
    subprocess.run(
        ["/sbin/debugfs", "-R", f"rdump /boot {directory}", str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    (kernel,), (initrd,) = ((directory / "boot").glob(f"{name}-*") for name in ("vmlinuz", "initrd.img"))
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    (directory / "port").write_text(f"{port}\n")
    subprocess.run(
        [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-daemonize",
            "-pidfile",
            str(directory / "pid"),
            # All that the emulation offers, and AMD's nested virtualization, so that the machine has a /dev/kvm.
            "-machine",
            "q35",
            # One thread for all processors: with one each, QEMU before 8.1 may run an instruction of Linux that another
            # processor has just changed back, and Linux stops there (Oops: int3).
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max,+svm",
            "-smp",
            str(CPUS),
            "-m",
            MEMORY,
            "-kernel",
            str(kernel),
            "-initrd",
            str(initrd),
            "-append",
            "root=/dev/vda rw console=ttyS0",
            # systemd.system-credentials(7): root's keys, once it runs.
            "-smbios",
            f"type=11,value=io.systemd.credential:ssh.authorized_keys.root={public}",
            "-serial",
            f"file:{directory / 'console.log'}",
            "-netdev",
            f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-device",
            "virtio-rng-pci",
            *disk_arguments("root", root, "discard=unmap,snapshot=on"),
        ],
        env={**os.environ, "TMPDIR": str(directory)},
        check=True,
    )
    end = time.monotonic() + SECONDS
    while subprocess.run(ssh(directory, "true"), capture_output=True, check=False).returncode:
        assert time.monotonic() < end, f"no ssh within {SECONDS} s; the console's last lines:\n" + "\n".join(
            (directory / "console.log").read_text(errors="replace").splitlines()[-40:]
        )
        time.sleep(1)


def ssh(directory: Path, *command: str) -> list[str]:
    options = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ConnectTimeout=5",
        "BatchMode=yes",
        "LogLevel=ERROR",
    )
    return [
        "ssh",
        "-i",
        str(directory / "key"),
        "-p",
        (directory / "port").read_text().strip(),
        *(f"-o{option}" for option in options),
        "root@127.0.0.1",
        *command,
    ]


def stop(directory: Path) -> None:
    pid = directory / "pid"
    if pid.exists():
        process = int(pid.read_text())
        try:
            os.kill(process, signal.SIGTERM)
            while Path(f"/proc/{process}").exists():
                time.sleep(0.1)
        except ProcessLookupError:
            pass
    if directory.exists():
        shutil.rmtree(directory)


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).resolve())
