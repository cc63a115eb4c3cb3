# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loop devices of disk images: found by their backing file, attached, detached, reached by a stable link.

The number of a loop device is never stored: at every run the device is found again by device and
inode of its backing file. The kernel is asked through ioctls (loop(4)) instead of losetup, because
in a container most nodes in /dev are missing, and losetup needs them.

Targets also get this file as a program that a systemd unit runs at boot (`python3 loop.py attach
--image FILE --link LINK --uuid UUID`). It then has only the standard library, and nothing else of the collection.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator

if __name__ == "__main__":
    # The program stands alone on a target. Its errors only have to carry the message that it ends with.
    class Refused(Exception):
        """The request cannot be met."""

    class CommandFailed(Exception):
        """A command ended with an error."""

        def __init__(self, command: tuple[str, ...], status: int, line: str) -> None:
            super().__init__(f"{' '.join(command)} failed with exit status {status}: {line}")

else:
    # For mypy they have other types than the classes above, which are not defined here.
    from ansible_collections.nested.kata.plugins.module_utils._common.errors import (  # type: ignore[assignment]
        CommandFailed,
        Refused,
    )

PACKAGES = {
    "blkid": "util-linux",
    "fstrim": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "mkfs.btrfs": "btrfs-progs",
    "btrfs": "btrfs-progs",
    "btrfstune": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "tune2fs": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "xfs_admin": "xfsprogs",
    "xfs_growfs": "xfsprogs",
}
# An image whose mode has none of these bits is sealed: others are cloned from it, and it is never attached.
WRITABLE = 0o222

LOOP_CONTROL = "/dev/loop-control"
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_CAPACITY = 0x4C07
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type and key size, flags; names, key,
# init.
LOOP_INFO = struct.Struct("=5Q4I64s64s32s2Q")
LOOP_CONFIG = struct.Struct(f"=2I{LOOP_INFO.size}s8Q")

LOCK_SECONDS = 120
LOCKS = "/run/nested-kata-locks"
IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Content:
    """The content of a file as blkid detects it. All None: no signature that blkid knows."""

    fstype: str | None = None
    uuid: str | None = None
    label: str | None = None
    alien: str | None = None
    """Description of anything but a single plain file system: a partition table, LUKS, swap …"""


@dataclass(frozen=True)
class Loop:
    """A loop device that holds the file in question."""

    device: str
    size: int
    read_only: bool = False
    autoclear: bool = False
    partial: bool = False
    """Whether it shows only a part of the file (losetup --offset or --sizelimit)."""
    node: bool = True
    """Whether its node is in /dev, as it is not in a container that was started after the file was attached."""
    direct_io: bool = False


@dataclass(frozen=True)
class Link:
    """The content of the link's path: nothing, a link to a loop device (target), or something that is not managed by
    nested.kata (obstacle).
    """

    target: str | None = None
    obstacle: str | None = None


def command_path(name: str) -> str:
    """Return the path of a command, or raise Refused with the Debian package that provides it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise Refused(f"the command {name} is missing: install the package {PACKAGES[name]}")
    return path


def run(*command: str, accept: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Run a command and return its exit status and output. It inherits the lock of `locked`, and no other
    descriptor.
    """
    done = subprocess.run(
        [command_path(command[0]), *command[1:]],
        close_fds=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode not in accept:
        # tune2fs reports on stdout why it does nothing.
        raise CommandFailed(
            command, done.returncode, reason((done.stderr.strip() or done.stdout).decode(errors="replace"))
        )
    return done.returncode, done.stdout.decode(errors="replace")


def reason(errors: str) -> str:
    """Return the lines of a command's output with the reason why it failed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return "; ".join([line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["no message"])


def probe(path: str) -> Content:
    """Return the content that blkid finds in a file, read from the file itself and not from a cache."""
    status, output = run("blkid", "--probe", "--output", "export", path, accept=(0, 2, 8))
    if status == 8:
        return Content(alien="signatures of several things at once (blkid: ambivalent)")
    tags = {}
    for line in output.splitlines():
        key, _separator, value = line.partition("=")
        tags[key] = re.sub(r"\\(.)", r"\1", value)
    if "PTTYPE" in tags:
        return Content(alien=f"a partition table ({tags['PTTYPE']})")
    if "TYPE" in tags and tags.get("USAGE") != "filesystem":
        return Content(alien=f"{tags['TYPE']}, which is not a file system")
    return Content(fstype=tags.get("TYPE"), uuid=tags.get("UUID"), label=tags.get("LABEL"))


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Lock a directory of disk images, so that one run at a time creates, attaches, detaches or removes there.

    The lock is a file that nobody else may open. Whoever may read the directory can lock that, and hold up root.
    Commands inherit the lock: where a run is killed, the next one waits for the commands that the killed one started.
    """
    there = os.stat(directory)
    path = os.path.join(LOCKS, f"{there.st_dev}-{there.st_ino}")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        os.makedirs(LOCKS, 0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue  # somebody removed the empty directory of locks
        try:
            os.set_inheritable(descriptor, True)
            wait_for(descriptor, deadline, directory, path)
            # The run that had the lock removes the file.
            if is_at(descriptor, path):
                try:
                    yield
                finally:
                    if is_at(descriptor, path):
                        os.unlink(path)
                return
        finally:
            os.close(descriptor)


def is_at(descriptor: int, path: str) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def wait_for(descriptor: int, deadline: float, directory: str, path: str) -> None:
    """Wait for a lock."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refused(
                    f"{directory} is still locked by another run after {LOCK_SECONDS} s: see `fuser {path}`"
                ) from None
            time.sleep(0.02)


@contextlib.contextmanager
def opened(name: str, flags: int, keep: bool = False) -> Iterator[int]:
    """Open a loop device by its kernel name (loop3). A node that is missing is made, and stays only with `keep`."""
    with open(f"/sys/block/{name}/dev", encoding="ascii") as numbers:
        number = os.makedev(*(int(part) for part in numbers.read().split(":")))
    path, made = f"/dev/{name}", None
    try:
        if not os.path.lexists(path):
            made = path if keep else f"/dev/.nested-kata-{os.getpid()}-{name}"
            # Another process may make the same node now: then there is nothing left to do.
            with contextlib.suppress(FileExistsError):
                os.mknod(made, stat.S_IFBLK | 0o660, number)
        descriptor = os.open(made or path, flags | os.O_CLOEXEC)
    except PermissionError as error:
        raise Refused(
            f"{path} cannot be opened ({error.strerror}): needs root and, in a container, CAP_SYS_ADMIN, CAP_MKNOD and"
            " --device-cgroup-rule 'b 7:* rmw'"
        ) from None
    finally:
        if made and not keep:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISBLK(found.st_mode) or found.st_rdev != number:
            raise Refused(f"{path} is not block device {os.major(number)}:{os.minor(number)}, as /sys shows: remove it")
        yield descriptor
    finally:
        os.close(descriptor)


def status_of(descriptor: int) -> tuple[Any, ...]:
    """Return the fields of struct loop_info64 of an open loop device; OSError ENXIO: it holds no file."""
    buffer = bytearray(LOOP_INFO.size)
    fcntl.ioctl(descriptor, LOOP_GET_STATUS64, buffer)
    return LOOP_INFO.unpack(buffer)


def loops_of(path: str) -> tuple[Loop, ...]:
    """Return every loop device of this machine that holds the file, whatever name or container it was attached by."""
    file = os.stat(path)
    loops = []
    for name in sorted(os.listdir("/sys/block")) if os.path.isdir("/sys/block") else []:
        # The backing file's name proves nothing: it is relative to a mount namespace, and a file has several names.
        if not re.fullmatch(r"loop\d+", name) or not os.path.exists(f"/sys/block/{name}/loop/backing_file"):
            continue
        try:
            with opened(name, os.O_RDONLY) as descriptor:
                info = status_of(descriptor)
        except OSError as error:
            # It lost its file, or went away, since the directory was read.
            if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT):
                continue
            # Its file is on a file system that is gone, unlike the file wanted here.
            if error.errno in (errno.ESTALE, errno.EIO) and _backing_file(name) != os.path.realpath(path):
                continue
            raise
        if info[:2] != (file.st_dev, file.st_ino):
            continue
        with open(f"/sys/block/{name}/size", encoding="ascii") as sectors:
            size = int(sectors.read()) * 512
        flags = info[8]
        loops.append(
            Loop(
                f"/dev/{name}",
                size,
                bool(flags & LO_FLAGS_READ_ONLY),
                bool(flags & LO_FLAGS_AUTOCLEAR),
                bool(info[3] or info[4]),
                os.path.exists(f"/dev/{name}"),
                bool(flags & LO_FLAGS_DIRECT_IO),
            )
        )
    return tuple(loops)


def _backing_file(name: str) -> str:
    """Return the path that the kernel gives for the file of a loop device; empty where it holds none."""
    try:
        with open(f"/sys/block/{name}/loop/backing_file", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return ""


def check_loops(path: str, loops: tuple[Loop, ...]) -> Loop | None:
    """Return the loop device that a disk image is used through, None if there is none; refuse devices that must not be
    used.
    """
    if len(loops) > 1:
        names = " and ".join(loop.device for loop in loops)
        raise Refused(
            f"{path} is attached more than once, to {names}: two writers destroy a file system, detach all of them"
            " (losetup -d)"
        )
    for loop in loops:
        if loop.read_only:
            raise Refused(f"{path} is attached read-only to {loop.device}: detach it first (losetup -d {loop.device})")
        if loop.partial:
            raise Refused(
                f"{path} is attached in part, with an offset or a size limit, to {loop.device}: detach it first"
                f" (losetup -d {loop.device})"
            )
        if loop.autoclear:
            raise Refused(
                f"{path} is attached to {loop.device}, which vanishes when its last user ends (mount -o loop?): unmount"
                " it first"
            )
    return loops[0] if loops else None


def attach(path: str) -> str:
    """Attach a file to a free loop device, with direct I/O where its file system supports it, and return the device."""
    with _attached(path, LO_FLAGS_DIRECT_IO) as device:
        return device


@contextlib.contextmanager
def attached_briefly(path: str) -> Iterator[str]:
    """Attach a file for as long as the block and its mounts last. The kernel detaches it then, also from a process that
    was killed.
    """
    with _attached(path, LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR) as device:
        yield device
    deadline = time.monotonic() + IDLE_SECONDS
    while any(loop.device == device for loop in loops_of(path)) and time.monotonic() < deadline:
        time.sleep(0.01)


@contextlib.contextmanager
def _attached(path: str, flags: int) -> Iterator[str]:
    """Attach a file to a free loop device, and keep the device open for the block."""
    with contextlib.ExitStack() as stack:
        try:
            control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(
                f"no loop devices: {LOOP_CONTROL}: {error.strerror} (modprobe loop; in a container --device"
                f" {LOOP_CONTROL})"
            ) from None
        stack.callback(os.close, control)
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, file)
        if not os.fstat(file).st_mode & WRITABLE:
            raise Refused(f"{path} is sealed: clones are made from it, and nothing is attached to it")
        device = _configured(path, file, control, flags, stack)
        if len(loops_of(path)) > 1:
            stack.close()
            if not flags & LO_FLAGS_AUTOCLEAR:
                detach(path, device)
            raise Refused(f"{path} was attached by another process at the same moment: run again")
        yield device


def _configured(path: str, file: int, control: int, flags: int, stack: contextlib.ExitStack) -> str:
    # losetup sets the file name there too. The kernel ignores direct I/O where the backing file system has none.
    info = LOOP_INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(path)[:63], b"", b"", 0, 0)
    for _dummy in range(100):
        name = f"loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        attempt = contextlib.ExitStack()
        try:
            descriptor = attempt.enter_context(opened(name, os.O_RDWR, keep=True))
            fcntl.ioctl(descriptor, LOOP_CONFIGURE, LOOP_CONFIG.pack(file, 0, info, *[0] * 8))
        except OSError as error:
            attempt.close()
            # Between the two calls another process may take the device (EBUSY) or remove it.
            if error.errno in (errno.EBUSY, errno.ENXIO, errno.ENOENT, errno.ENODEV):
                time.sleep(0.01)
                continue
            hint = " (needs Linux 5.8 or newer)" if error.errno in (errno.EINVAL, errno.ENOTTY) else ""
            raise Refused(f"{path} cannot be attached to /dev/{name}: {error.strerror}{hint}") from None
        stack.push(attempt)
        return f"/dev/{name}"
    raise Refused(f"no loop device for {path}: all were taken by others, 100 times in a row")


def make_node(device: str) -> None:
    """Make the node of a loop device in /dev, where it is missing."""
    with opened(os.path.basename(device), os.O_RDONLY, keep=True):
        pass


def update_capacity(device: str) -> None:
    """Make a loop device take over the new size of its file (losetup -c)."""
    with opened(os.path.basename(device), os.O_RDONLY) as descriptor:
        fcntl.ioctl(descriptor, LOOP_SET_CAPACITY, 0)


def use_of(device: str) -> str | None:
    """Describe the user of a block device, or return None. A process that closes it within a second (udev) does not
    count.
    """
    number = _number_of(device)

    def use() -> str | None:
        place = mount_of(device)
        return (
            f"mounted at {place}"
            if place
            else _claimed(device) or _open_in(lambda found: stat.S_ISBLK(found.st_mode) and found.st_rdev == number)
        )

    return _lasting(use)


def use_of_file(path: str) -> str | None:
    """Describe the process that has a file open, or return None."""
    file = os.stat(path)
    return _lasting(lambda: _open_in(lambda found: (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino)))


def _lasting(use: Callable[[], str | None]) -> str | None:
    deadline = time.monotonic() + IDLE_SECONDS
    while True:
        found = use()
        if found is None or not found.startswith("open") or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _number_of(device: str) -> int:
    with open(f"/sys/block/{os.path.basename(device)}/dev", encoding="ascii") as file:
        return os.makedev(*(int(part) for part in file.read().split(":")))


def mount_of(device: str) -> str | None:
    """Return where a block device is mounted, as far as this mount namespace shows."""
    number = _number_of(device)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _separator, right = line.partition(" - ")
            fields, source = left.split(), right.split()[1]
            # btrfs gives every mount a number of its own: only the source shows the device.
            if fields[2] == f"{os.major(number)}:{os.minor(number)}" or (
                source.startswith("/") and _is_device(source, number)
            ):
                # The kernel writes a blank as \\040 (proc_pid_mountinfo(5)).
                return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
    return None


def _is_device(path: str, number: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == number


def _claimed(device: str) -> str | None:
    try:
        with opened(os.path.basename(device), os.O_RDONLY | os.O_EXCL):
            return None
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return "mounted in another mount namespace (a container?), or claimed by another driver"


def _open_in(wanted: Callable[[os.stat_result], bool]) -> str | None:
    # A VM opens its disk without claiming it, so that only the table of open files shows it.
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if wanted(os.stat(f"/proc/{process}/fd/{descriptor}")):
                        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as name:
                            return f"open in process {process} ({name.read().strip()})"
    return None


def detach(path: str, device: str) -> None:
    """Detach a file from its loop device, unless it is in use."""
    file = os.stat(path)
    deadline = time.monotonic() + IDLE_SECONDS
    while True:
        try:
            with opened(os.path.basename(device), os.O_RDWR | os.O_EXCL) as descriptor:
                before = status_of(descriptor)
                if before[:2] != (file.st_dev, file.st_ino):
                    raise Refused(f"{device} does not hold {path} any more: run again")
                fcntl.ioctl(descriptor, LOOP_CLR_FD)
                try:
                    status_of(descriptor)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    return
                # Another process has it open: the kernel would detach it when that process ends. Undo this.
                fcntl.ioctl(descriptor, LOOP_SET_STATUS64, LOOP_INFO.pack(*before))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        if time.monotonic() > deadline:
            raise Refused(f"{device} with {path} is {use_of(device) or 'in use'}: end that first")
        time.sleep(0.05)


def link_at(path: str) -> Link:
    """Return the content of a link's path. Only links to loop devices may be changed."""
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return Link()
    except OSError as error:
        if error.errno == errno.EINVAL:
            return Link(obstacle="is not a symlink")
        return Link(obstacle=f"cannot be read ({error.strerror})")
    return (
        Link(target=target)
        if re.fullmatch(r"/dev/loop\d+", target)
        else Link(obstacle=f"is a symlink to {target}, not to a loop device")
    )


def set_link(link: str, device: str) -> None:
    """Point a link to a device; an existing link is replaced atomically."""
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    # Always the same name: the leftover of an interrupted run is overwritten by the next.
    new = os.path.join(os.path.dirname(link), f".nested-kata-new-{os.path.basename(link)}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(device, new)
    os.replace(new, link)


def attach_image(image: str, link: str, uuid: str | None, unused: bool = False) -> str:
    """Attach an image whose file system is the expected one, make its link, and return the device. With `unused`,
    refuse one that anybody uses.
    """
    _check_paths(image, link)
    try:
        found = os.lstat(image)
    except FileNotFoundError:
        raise Refused(f"{image} does not exist") from None
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{image} is not a regular file")
    with locked(os.path.dirname(image)):
        content = probe(image)
        if content.alien or not content.fstype:
            raise Refused(f"{image} holds {content.alien or 'no file system'}: nothing was attached")
        if uuid and (content.uuid or "").lower() != uuid.lower():
            raise Refused(f"{image} holds the file system {content.uuid}, expected {uuid}: nothing was attached")
        loop = check_loops(image, loops_of(image))
        use = use_of(loop.device) if loop and unused else None
        if loop and use:
            raise Refused(f"{image} is in use: {loop.device} is {use}: end that first")
        device = loop.device if loop else attach(image)
        if loop and not loop.node:
            make_node(device)
        if loop and loop.size < found.st_size // 512 * 512:
            update_capacity(device)
        if link_at(link).target != device:
            set_link(link, device)
    return device


def detach_image(image: str, link: str) -> None:
    """Detach an image unless it is in use, and remove its link."""
    _check_paths(image, link)
    with locked(os.path.dirname(image)):
        loop = check_loops(image, loops_of(image)) if os.path.isfile(image) else None
        if loop:
            detach(image, loop.device)
        if link_at(link).target:
            os.unlink(link)


def _check_paths(image: str, link: str) -> None:
    for option, path in (("--image", image), ("--link", link)):
        if not os.path.isabs(path):
            raise Refused(f"{option} {path} is not an absolute path")
    if link_at(link).obstacle:
        raise Refused(f"{link} {link_at(link).obstacle}: it is left as it is")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Attach a disk image to a loop device behind a stable link, or detach it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    attaching = commands.add_parser(
        "attach", help="attach the image, make the link, print the loop device; does nothing where that is done"
    )
    attaching.add_argument("--uuid", help="the UUID that the file system in the image must have")
    attaching.add_argument("--unused", action="store_true", help="refuse an image that anybody uses")
    detaching = commands.add_parser("detach", help="detach the image and remove the link; refused while it is in use")
    for command in (attaching, detaching):
        command.add_argument("--image", required=True, help="the disk image, an absolute path")
        command.add_argument("--link", required=True, help="the symlink that names the loop device, an absolute path")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "attach":
            sys.stdout.write(attach_image(asked.image, asked.link, asked.uuid, asked.unused) + "\n")
        else:
            detach_image(asked.image, asked.link)
    except (Refused, CommandFailed) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{parser.prog}: {error.filename or asked.image}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
