# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_image and its program for the boot, on real files, file systems, loop devices and mounts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._disk import loop, machine
from ansible_collections.nested.kata.plugins.module_utils._disk.options import Wanted, parse
from ansible_collections.nested.kata.plugins.module_utils._disk.plan import decide
from ansible_runner import CHECKOUT, MARK, ansible_environment, run_module
from loop_mounts import attached, tool, undo, unmount

pytestmark = [pytest.mark.root, pytest.mark.loop]

M = 1024**2
G = 1024**3
SMALLEST = {"btrfs": 109 * M, "ext4": 8 * M, "xfs": 300 * M}
FSTYPES = list(SMALLEST)
# Under 8 MiB are written for a file system of 10 GiB.
WRITTEN = 8 * M
OTHER_UUID = "11111111-2222-3333-4444-555555555555"

# Runs the module as Ansible does on a target, but in one process, which can be killed or watched. The second argument
# names a function, how many of its calls are to pass, and whether the process dies before or after the next one. Of the
# ioctls only those count that change something: LOOP_CTL_GET_FREE and LOOP_CONFIGURE.
DIRECTLY = """
import importlib, json, os, signal, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.nested.kata.plugins.modules import disk_image

options, death = json.loads(sys.argv[1]), json.loads(sys.argv[2])
if death:
    name, passing, moment = death
    owner, attribute = name.rsplit(".", 1)
    if owner == "subprocess.Popen":
        owner = importlib.import_module("subprocess").Popen
    else:
        owner = importlib.import_module(owner)
    original, calls = getattr(owner, attribute), []

    def deadly(*arguments, **named):
        if attribute != "ioctl" or arguments[1] in (0x4C82, 0x4C0A):
            calls.append(arguments)
        if len(calls) > passing and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if len(calls) > passing:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, deadly)
with patch_module_args(options):
    disk_image.main()
"""

# Where a run dies: while mkfs runs, around each call that changes something, and in the middle of attaching.
DEATHS = [
    ("tempfile.mkstemp", 0, "after"),
    ("os.ftruncate", 0, "after"),
    ("subprocess.Popen.communicate", 0, "before"),
    ("subprocess.Popen.communicate", 0, "after"),
    ("os.fsync", 0, "before"),
    ("os.link", 0, "before"),
    ("os.link", 0, "after"),
    ("os.unlink", 0, "after"),
    ("fcntl.ioctl", 0, "before"),
    ("fcntl.ioctl", 0, "after"),
    ("fcntl.ioctl", 1, "before"),
    ("fcntl.ioctl", 1, "after"),
    ("os.symlink", 0, "after"),
    ("os.replace", 0, "after"),
]


def directly(options: dict, *, check: bool = False, death: tuple[str, int, str] | None = None) -> dict:
    """Run the module in one process and return its result; an empty one if it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", DIRECTLY, json.dumps({**options, "_ansible_check_mode": check}), json.dumps(death)],
        capture_output=True,
        text=True,
        check=False,
        env=ansible_environment(PYTHONPATH=str(CHECKOUT / ".collections")),
    )
    if death:
        assert done.returncode == -signal.SIGKILL, f"{death} was not reached: {done.stdout}"
        return {}
    assert done.stdout.strip(), done.stderr
    return {"failed": False, **json.loads(done.stdout)}


def through_ansible(options: dict, *, check: bool = False) -> dict:
    return run_module("disk_image", options, check=check)


def four_runs(options: dict, run=directly, mounted: Path | None = None) -> tuple[dict, dict]:
    """Run check, real, again, again in check mode; return what the first two answered. The last two must find nothing
    to do.

    Nothing may be written in the first and the last two, so that a file system in it that is mounted stands still
    meanwhile.
    """
    with frozen(mounted):
        before = snapshot(Path(options["path"]).parent)
        check = run(options, check=True)
        assert not check["failed"], check
        assert snapshot(Path(options["path"]).parent) == before
    real = run(options)
    assert not real["failed"], real
    with frozen(mounted):
        after = snapshot(Path(options["path"]).parent)
        for again in (run(options), run(options, check=True)):
            assert not again["failed"] and not again["changed"] and again["steps"] == [], again
            assert all(
                again[key] == real[key] for key in ("size", "fstype", "uuid", "label", "device", "link") if key in real
            )
            assert again["diff"]["before"] == again["diff"]["after"] == real["diff"]["after"]
        assert snapshot(Path(options["path"]).parent) == after
    assert check["changed"]
    assert real["changed"]
    assert check["steps"] == real["steps"]
    assert check["msg"] == real["msg"]
    return check, real


@contextlib.contextmanager
def frozen(mount: Path | None) -> Iterator[None]:
    """Keep the kernel from writing to a mounted file system by itself, as it does for a while (journal, inode tables of
    ext4).
    """
    if mount is None:
        yield
        return
    tool("fsfreeze", "--freeze", mount)
    try:
        yield
    finally:
        tool("fsfreeze", "--unfreeze", mount)


def snapshot(directory: Path) -> dict:
    """Return what lies in a directory and which loop devices hold its files: equal only if nothing at all was
    changed.
    """
    entries = {}
    for entry in sorted(directory.iterdir()):
        if entry.is_file() and not entry.is_symlink():
            # What is still to be written back may take more blocks than it counts now.
            with entry.open("rb") as file:
                os.fsync(file.fileno())
        status = entry.lstat()
        entries[entry.name] = (
            status.st_mode,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_blocks,
            digest(entry),
        )
    return {"entries": entries, "loops": attached(directory)}


def digest(path: Path) -> str:
    """Return the sha256 of all blocks of a file that are not zero, or the target of a link."""
    if path.is_symlink():
        return os.readlink(path)
    if not path.is_file():
        return ""
    total, offset = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while True:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                return total.hexdigest()
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            # What is reserved and has only been read counts as data for a while, so the bytes are asked and not the
            # extents, and none is read ahead.
            for at in range(start // 4096 * 4096, offset, M):
                piece = os.pread(file.fileno(), min(M, offset - at), at)
                for part in range(0, len(piece), 4096):
                    if any(piece[part : part + 4096]):
                        total.update(b"%d:" % (at + part) + piece[part : part + 4096])


def written(path: Path) -> int:
    """Return the bytes of a file that are data, neither a hole nor reserved (as the log of a new xfs is)."""
    total = offset = 0
    with path.open("rb", buffering=0) as file:
        while True:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                return total
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += offset - start


def blkid(path: object, tag: str) -> str:
    return tool("blkid", "--probe", "--output", "value", "--match-tag", tag, path)


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("fstype", FSTYPES)
def test_an_image_is_made_attached_grown_detached_and_removed_each_in_four_runs(fstype, disks):
    image, link = disks / "kata.img", disks / "run" / "kata"
    options = {"path": str(image), "fstype": fstype, "link": str(link)}

    check, made = four_runs({**options, "size": "10G", "label": "a b\\c", "attached": True}, through_ansible)
    assert (check["uuid"], check["device"]) == (None, None)
    assert (made["size"], made["fstype"], made["label"], made["link"]) == (10 * G, fstype, "a b\\c", str(link))
    assert [made["diff"]["before"][key] for key in ("size", "fstype", "uuid", "device", "link")] == [None] * 5
    assert made["uuid"] == blkid(image, "UUID") == blkid(link, "UUID")
    assert attached(disks) == {made["device"]: str(image)}
    assert os.readlink(link) == made["device"]
    status = image.stat()
    assert (status.st_size, status.st_mode & 0o7777) == (10 * G, 0o600)
    assert written(image) < WRITTEN
    assert sorted(entry.name for entry in disks.iterdir()) == ["kata.img", "run"]

    _unused, grown = four_runs({**options, "size": "11G", "attached": True, "mode": "0640", "owner": "daemon"})
    assert grown["uuid"] == made["uuid"]
    assert grown["device"] == made["device"]
    assert tool("blockdev", "--getsize64", link) == str(11 * G) == str(image.stat().st_size)
    assert image.stat().st_mode & 0o7777 == 0o640
    assert image.owner() == "daemon"

    _unused, detached = four_runs({**options, "attached": False})
    assert detached["device"] is None
    assert attached(disks) == {}
    assert not os.path.lexists(link)
    assert blkid(image, "UUID") == made["uuid"]

    _unused, removed = four_runs({**options, "state": "absent"}, through_ansible)
    assert removed["steps"] == [f"remove {image}"]
    assert sorted(entry.name for entry in disks.iterdir()) == ["run"]


@pytest.mark.parametrize("fstype", FSTYPES)
def test_the_smallest_image_can_be_mounted_and_used(fstype, disks):
    given = str(uuid.uuid4())
    made = directly(
        {
            "path": str(disks / "a.img"),
            "fstype": fstype,
            "size": str(SMALLEST[fstype]),
            "uuid": given,
            "attached": True,
            "link": str(disks / "a"),
        }
    )
    assert not made["failed"], made
    assert made["uuid"] == given == blkid(disks / "a.img", "UUID")
    mount = disks / "mount"
    mount.mkdir()
    tool("mount", disks / "a", mount)
    (mount / "file").write_bytes(b"x" * 100000)
    assert tool("findmnt", "-n", "-o", "FSTYPE", mount) == fstype


@pytest.fixture
def mounts(disks):
    """Two directories to mount at."""
    for name in ("mount", "second"):
        (disks / name).mkdir()
    return disks / "mount", disks / "second"


def fill(image: Path, mount: Path, size: int = 3 * M) -> str:
    """Write a file into the file system in an image, and return its digest."""
    tool("mount", "-o", "loop", image, mount)
    (mount / "file").write_bytes(os.urandom(size))
    found = digest(mount / "file")
    unmount(mount)
    return found


def held(image: Path, mount: Path) -> tuple[str, int]:
    """Return the digest of that file and the bytes that the file system has."""
    tool("mount", "-o", "loop,ro", image, mount)
    try:
        return digest(mount / "file"), os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize
    finally:
        unmount(mount)


@pytest.mark.parametrize("fstype", FSTYPES)
@pytest.mark.parametrize("attached_before", [False, True], ids=["detached", "idle"])
def test_a_file_system_that_nobody_uses_grows_with_its_file_and_keeps_what_it_holds(
    attached_before, fstype, disks, mounts
):
    image = disks / "a.img"
    directly({"path": str(image), "fstype": fstype, "size": "320M"})
    before = fill(image, mounts[0])
    if attached_before:
        directly({"path": str(image), "fstype": fstype, "attached": True})
    _unused, grown = four_runs({"path": str(image), "fstype": fstype, "size": "2G"})
    assert grown["filesystem_size"] == grown["size"] == 2 * G
    assert grown["steps"][-1] == f"grow the {fstype} in {image} to 2 GiB"
    assert len(attached(disks)) == attached_before
    if attached_before:
        directly({"path": str(image), "fstype": fstype, "attached": False})
    found, size = held(image, mounts[0])
    assert found == before
    assert size > 1.8 * G


def test_a_file_system_that_is_not_to_grow_or_is_in_use_elsewhere_is_left_alone(disks, mounts):
    image, options = disks / "a.img", {"path": str(disks / "a.img"), "attached": True, "link": str(disks / "a")}
    device = directly({**options, "size": "200M"})["device"]
    kept = directly({**options, "size": "250M", "resizefs": False})
    assert kept["changed"]
    assert (kept["size"], kept["filesystem_size"]) == (250 * M, 200 * M)
    elsewhere = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount {device} {mounts[0]} && echo mounted && read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with elsewhere:
        assert elsewhere.stdout.readline() == "mounted\n"
        _unused, grown = four_runs({**options, "size": "300M"}, mounted=Path(f"/proc/{elsewhere.pid}/root{mounts[0]}"))
        assert (grown["size"], grown["filesystem_size"]) == (300 * M, 200 * M)
        assert tool("blockdev", "--getsize64", device) == str(300 * M)
        elsewhere.communicate("\n")
    _unused, followed = four_runs({**options, "size": "300M"})
    assert followed["steps"] == [f"grow the btrfs in {image} to 300 MiB"]
    assert followed["filesystem_size"] == 300 * M


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_mounted_file_system_grows_where_the_kernel_lets_this_process(fstype, disks, mounts):
    image = disks / "a.img"
    options = {"path": str(image), "fstype": fstype, "attached": True, "link": str(disks / "a")}
    directly({**options, "size": "320M"})
    tool("mount", disks / "a", mounts[0])
    (mounts[0] / "file").write_bytes(os.urandom(M))
    before = digest(mounts[0] / "file")
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    if fstype == "ext4" and not int(effective.split()[1], 16) >> 24 & 1:
        with frozen(mounts[0]):
            unchanged = snapshot(disks)
            refused = directly({**options, "size": "1G"})
            assert refused["failed"]
            assert f"growing an ext4 that is mounted ({mounts[0]}) needs CAP_SYS_RESOURCE" in refused["msg"]
            assert snapshot(disks) == unchanged
    else:
        _unused, grown = four_runs({**options, "size": "1G"}, mounted=mounts[0])
        assert grown["steps"][-1] == f"grow the {fstype} in {image} to 1 GiB, mounted at {mounts[0]}"
        assert os.statvfs(mounts[0]).f_blocks * os.statvfs(mounts[0]).f_frsize > 0.85 * G
        assert digest(mounts[0] / "file") == before


def test_options_of_mkfs_are_passed_on(disks):
    _unused, _made_now = four_runs(
        {"path": str(disks / "a.img"), "fstype": "ext4", "size": "64M", "mkfs_options": ["-N", "1024", "-m", "0"]}
    )
    assert "Inode count:              1024" in tool("dumpe2fs", "-h", disks / "a.img")


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_preallocated_image_takes_all_its_space_at_once_also_when_it_was_sparse_before(fstype, disks, mounts):
    image, options = (
        disks / "a.img",
        {"path": str(disks / "a.img"), "fstype": fstype, "size": "320M", "allocation": "preallocated"},
    )
    _unused, made_now = four_runs(options)
    assert made_now["allocated"] >= 320 * M
    assert written(image) < WRITTEN
    image.unlink()
    directly({**options, "allocation": "sparse"})
    before = fill(image, mounts[0])
    _unused, filled = four_runs({**options, "size": "400M"})
    assert filled["allocated"] >= 400 * M
    assert held(image, mounts[0])[0] == before
    assert not directly({**options, "size": "400M", "allocation": "sparse"})["changed"]


def test_an_allocation_without_room_is_refused_and_nothing_is_allocated(disks):
    (disks / "small").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=100M", "tmpfs", disks / "small")
    image = disks / "small" / "a.img"
    for there in (False, True):
        if there:
            directly({"path": str(image), "fstype": "ext4", "size": "200M"})
        before = snapshot(disks / "small")
        for check in (True, False):
            refused = directly(
                {"path": str(image), "fstype": "ext4", "size": "200M", "allocation": "preallocated"}, check=check
            )
            assert (
                refused["failed"]
                and refused["msg"].startswith("allocation: needs ")
                and f"in {disks}/small, and " in refused["msg"]
            ), refused
        assert snapshot(disks / "small") == before


@pytest.mark.parametrize("fstype", FSTYPES)
def test_trimming_gives_back_what_was_removed_and_is_not_done_twice(fstype, disks, mounts):
    image, options = disks / "a.img", {"path": str(disks / "a.img"), "fstype": fstype, "trim": True}
    directly({"path": str(image), "fstype": fstype, "size": "400M", "attached": True, "link": str(disks / "a")})
    tool("mount", disks / "a", mounts[0])
    (mounts[0] / "file").write_bytes(os.urandom(M))
    kept = digest(mounts[0] / "file")
    (mounts[0] / "large").write_bytes(os.urandom(100 * M))
    os.sync()
    (mounts[0] / "large").unlink()
    for what in ("mounted", "idle"):
        with frozen(mounts[0] if what == "mounted" else None):
            before = snapshot(disks)
            refused = directly(options)
            assert refused["failed"] and f"trim: {image} is attached to /dev/loop" in refused["msg"], refused
            assert snapshot(disks) == before
        if what == "mounted":
            unmount(mounts[0])
    full = image.stat().st_blocks * 512
    _unused, trimmed = four_runs({**options, "attached": False, "link": str(disks / "a")})
    assert trimmed["steps"][-1] == f"give back the unused space of the {fstype} in {image}"
    assert trimmed["allocated"] == image.stat().st_blocks * 512 < full - 90 * M
    assert attached(disks) == {}
    assert held(image, mounts[0])[0] == kept
    with image.open("rb"):
        fill(image, mounts[0])
        refused = directly(options)
        assert refused["failed"]
        assert f"is open in process {os.getpid()} (" in refused["msg"]
    assert directly(options)["changed"]
    assert not directly(options)["changed"]


def test_a_mount_for_trimming_is_seen_by_nobody_else(disks, mounts, tmp_path_factory):
    made("btrfs")(disks / "a.img")
    fill(disks / "a.img", mounts[0])
    tool("mount", "--make-shared", "--bind", disks, mounts[1])

    def seen(mountinfo: Path) -> list[str]:
        return [line for line in mountinfo.read_text().splitlines() if str(disks) in line]

    before = seen(Path("/proc/self/mountinfo"))
    told = tmp_path_factory.mktemp("told")
    machine.run_mounted(
        f"{disks}/a.img",
        "btrfs",
        ("sh", "-c", f"cp /proc/self/mountinfo {told}/inside && cp /proc/{os.getpid()}/mountinfo {told}/outside"),
    )
    assert f" {disks} rw,nosuid,nodev,noexec" in (told / "inside").read_text()
    assert before
    assert seen(told / "outside") == before
    assert seen(Path("/proc/self/mountinfo")) == before
    assert attached(disks) == {}


def test_growing_while_mounted_keeps_every_byte_and_the_file_system_follows(disks):
    image, mount = disks / "a.img", disks / "mount"
    options = {"path": str(image), "attached": True, "link": str(disks / "a")}
    mount.mkdir()
    directly({**options, "size": "200M"})
    tool("mount", disks / "a", mount)
    (mount / "file").write_bytes(os.urandom(5 * M))
    before = digest(mount / "file")
    grown = directly({**options, "size": "300M"})
    assert not grown["failed"]
    assert grown["steps"] == [
        f"grow {image} from 200 MiB to 300 MiB",
        f"tell {grown['device']} the size of its file",
        f"grow the btrfs in {image} to 300 MiB, mounted at {mount}",
    ]
    assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize == 300 * M
    unmount(mount)
    tool("mount", disks / "a", mount)
    assert digest(mount / "file") == before
    refused = directly({**options, "size": "200M"})
    assert refused["failed"]
    assert "200 MiB is smaller than" in refused["msg"]


def test_a_file_of_nothing_but_zeros_gets_a_file_system_and_keeps_owner_and_mode(disks):
    image = sparse(disks / "a.img", 200 * M)
    with image.open("r+b") as file:
        file.write(bytes(2 * M))
    image.chmod(0o640)
    os.chown(image, 3, 4)
    assert directly({"path": str(image)}, check=True)["changed"]
    assert digest(image) != ""
    made = directly({"path": str(image), "size": "300M"})
    assert not made["failed"] and blkid(image, "TYPE") == "btrfs", made
    status = image.stat()
    assert (status.st_size, status.st_mode & 0o7777, status.st_uid, status.st_gid) == (300 * M, 0o640, 3, 4)
    empty = sparse(disks / "b.img", 0)
    assert directly({"path": str(empty), "size": "8M", "fstype": "ext4"})["changed"]
    assert blkid(empty, "TYPE") == "ext4"
    assert sorted(entry.name for entry in disks.iterdir()) == ["a.img", "b.img"]


# What may lie at the path, each made for real.


def with_bytes(path: Path, *parts: tuple[int, bytes]) -> None:
    sparse(path, 200 * M)
    with path.open("r+b") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)


def lvm(path: Path) -> None:
    body = struct.pack("<I", 32) + b"LVM2 001" + b"a" * 32 + struct.pack("<QQ", 200 * M, 0)
    label = body.ljust(512 - 20, b"\0")
    crc = 0xF597A6CF
    for byte in label:
        crc ^= byte
        for _unused in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    with_bytes(path, (512, b"LABELONE" + struct.pack("<QI", 1, crc) + label))


def partition_table(path: Path) -> None:
    with_bytes(path, (446, struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\0\0", 2048, 20480)), (510, b"\x55\xaa"))


def swap(path: Path) -> None:
    sparse(path, 200 * M).chmod(0o600)
    tool("mkswap", path)


def made(fstype: str):
    return lambda path: directly({"path": str(path), "size": "200M", "fstype": fstype, "label": "mine"})


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(path.parent)
        sock.bind(path.name)


HELD = {
    "ext4": (made("ext4"), "holds ext4, not btrfs: nothing was changed"),
    "a partition table": (partition_table, "holds a partition table (dos)"),
    "LUKS": (lambda path: with_bytes(path, (0, b"LUKS\xba\xbe\0\1")), "holds crypto_LUKS, which is not a file system"),
    "LVM": (lvm, "holds LVM2_member, which is not a file system"),
    "swap": (swap, "holds swap, which is not a file system"),
    "text": (lambda path: path.write_text("my only copy"), "holds data that is not a file system (from byte 0 on)"),
    "one byte at the very end": (lambda path: with_bytes(path, (200 * M - 1, b"\1")), f"(from byte {200 * M - 1} on)"),
    "a directory": (lambda path: path.mkdir(), "is a directory, not a regular file"),
    "a symlink": (lambda path: path.symlink_to("other.img"), "is a symlink, not a regular file"),
    "a device": (lambda path: os.mknod(path, 0o60600, os.makedev(7, 0)), "is a block device, not a regular file"),
    "a named pipe": (os.mkfifo, "is a named pipe, not a regular file"),
    "a socket": (listening, "is a socket, not a regular file"),
}


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize("state", ["present", "absent"])
def test_whatever_else_lies_there_is_refused_and_not_touched(what, state, disks):
    make, message = HELD[what]
    make(disks / "a.img")
    before = snapshot(disks)
    options = {
        "path": str(disks / "a.img"),
        "state": state,
        **({"size": "300M", "attached": True} if state == "present" else {}),
    }
    for check in (True, False):
        refused = directly(options, check=check)
        assert refused["failed"] and message in refused["msg"] and "\n" not in refused["msg"], refused
    assert snapshot(disks) == before


TENANTS = ["ext4", "a partition table", "LUKS", "LVM", "swap", "text", "one byte at the very end"]


@pytest.mark.parametrize("what", [*TENANTS, "zeros", "nothing", "its own file system"])
def test_whatever_a_tenant_wrote_its_disk_is_detached_and_removed_when_that_is_asked_for(what, disks):
    image, link = disks / "a.img", disks / "link"
    if what in HELD:
        HELD[what][0](image)
    else:
        made("btrfs")(image)
    attached_to = tool("losetup", "--find", "--show", image).strip()
    link.symlink_to(attached_to)
    if what in ("zeros", "nothing"):
        os.truncate(image, 0)
        os.truncate(image, 200 * M if what == "zeros" else 0)
    options = {"path": str(image), "link": str(link), "any_content": True}
    before = snapshot(disks)
    for check in (True, False):
        detached = directly({**options, "attached": False}, check=check)
        assert not detached["failed"], detached
        assert detached["steps"][0] == f"detach {image} from {attached_to}"
        assert link.is_symlink() == check
        assert check is False or snapshot(disks) == before
    assert image.exists()
    assert not directly({**options, "attached": False})["changed"]
    removed = directly({**options, "state": "absent"})
    assert removed["changed"], removed
    assert not image.exists()
    assert not directly({**options, "state": "absent"})["changed"]


def test_a_uuid_that_another_disk_bears_is_refused(disks):
    given = str(uuid.uuid4())
    first = {"path": str(disks / "a.img"), "fstype": "ext4", "size": "8M", "uuid": given}
    directly(first)
    for where in ("beside it", "on a loop device"):
        (disks / "other").mkdir(exist_ok=True)
        path = disks / "b.img" if where == "beside it" else disks / "other" / "b.img"
        bearer = disks / "a.img" if where == "beside it" else Path(directly({**first, "attached": True})["device"])
        before = snapshot(disks)
        for check in (True, False):
            refused = directly({**first, "path": str(path)}, check=check)
            assert refused["failed"] and refused["msg"].startswith(f"uuid: {given} is already the UUID of {bearer}"), (
                refused
            )
        assert snapshot(disks) == before
        assert not path.exists()
    assert not directly(first)["changed"]


def test_a_read_only_file_system_below_is_refused_and_what_is_as_asked_there_is_not(disks):
    (disks / "below").mkdir()
    tool("mount", "-t", "tmpfs", "tmpfs", disks / "below")
    directly({"path": str(disks / "below" / "a.img"), "fstype": "ext4", "size": "8M"})
    tool("mount", "-o", "remount,ro", disks / "below")
    for check in (True, False):
        assert not directly({"path": str(disks / "below" / "a.img"), "fstype": "ext4", "size": "8M"}, check=check)[
            "failed"
        ]
        for options in (
            {"path": str(disks / "below" / "b.img")},
            {"path": str(disks / "below" / "a.img"), "size": "9M"},
        ):
            refused = directly({"fstype": "ext4", "size": "8M", **options}, check=check)
            assert refused["failed"] and f"path: {disks}/below is on a read-only file system" in refused["msg"], refused


def test_without_loop_devices_all_else_works_and_attaching_is_refused_also_in_check_mode(disks):
    options = {"path": str(disks / "a.img"), "fstype": "ext4", "size": "8M"}
    runs = [options, {**options, "attached": True}, {**options, "attached": True, "_ansible_check_mode": True}]
    program = """
        mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 || exit
        for options; do "$PYTHON" -c "$MODULE" "$options" null; done
        true
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program, "sh", *map(json.dumps, runs)],
        capture_output=True,
        text=True,
        check=True,
        env=ansible_environment(PYTHONPATH=str(CHECKOUT / ".collections"), PYTHON=sys.executable, MODULE=DIRECTLY),
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert [answer.get("failed", False) for answer in answers] == [False, True, True], answers
    assert all("attached: there is no /dev/loop-control: modprobe loop" in answer["msg"] for answer in answers[1:])


def test_a_run_that_finds_all_as_asked_starts_no_program(disks, monkeypatch):
    for fstype in FSTYPES:
        options = {"path": str(disks / f"{fstype}.img"), "fstype": fstype, "size": "320M", "label": "a"}
        made_now = directly({**options, "attached": True, "link": str(disks / fstype)})
        wanted = parse(
            {
                **dict.fromkeys(
                    (
                        "filesystem_size",
                        "link",
                        "uuid",
                        "owner",
                        "group",
                        "mode",
                        "mkfs_options",
                        "allocation",
                        "clone_of",
                        "sealed",
                    ),
                    None,
                ),
                **options,
                "link": str(disks / fstype),
                "attached": True,
                "resizefs": True,
                "trim": False,
                "any_content": False,
                "state": "present",
            }
        )
        with monkeypatch.context() as patched:
            patched.setattr(loop.subprocess, "run", lambda *arguments, **named: pytest.fail(f"{arguments[0]} was run"))
            plan, before, _after = machine.apply(wanted, False)
        assert plan.steps == ()
        assert before.content == loop.Content(fstype, made_now["uuid"], "a")


# Options that do not fit an image of 200 MiB with btrfs, the label "mine", and nothing else.
BAD = {
    "no size": ({"size": "ten"}, "size: 'ten' is not a valid size: write it like 10G"),
    "a smaller size": ({"size": "150M"}, "size: 150 MiB is smaller than"),
    "another UUID": ({"uuid": OTHER_UUID}, "uuid: "),
    "no UUID": ({"uuid": "mine"}, "uuid: 'mine' is not a UUID"),
    "another label": ({"label": "yours"}, "holds the label 'mine', not 'yours'"),
    "a link that is a file": (
        {"attached": True, "link": "{dir}/a.img"},
        "link: {dir}/a.img is not a symlink: it is left as it is",
    ),
    "a link that leads elsewhere": (
        {"attached": True, "link": "{dir}/foreign"},
        "is a symlink to /etc/passwd, not to a loop device",
    ),
    "a link for nothing": ({"link": "{dir}/b"}, "link: names the loop device, so it needs attached: true"),
    "another file system to be removed": ({"state": "absent", "fstype": "ext4"}, "holds btrfs, not ext4"),
    "another UUID to be removed": ({"state": "absent", "uuid": OTHER_UUID}, "uuid: "),
    "an owner that nobody is": ({"owner": "nobody-of-that-name"}, "owner: there is no 'nobody-of-that-name'"),
    "no mode": ({"mode": "rw"}, "mode: 'rw' is not a valid mode"),
    "a directory that is missing": (
        {"path": "{dir}/none/a.img", "size": "1G"},
        "path: there is no directory {dir}/none",
    ),
    "no size for a new file": ({"path": "{dir}/b.img"}, "size: is needed, because {dir}/b.img does not exist yet"),
    "too small for btrfs": (
        {"path": "{dir}/b.img", "size": "100M"},
        "100 MiB is too small for btrfs: at least 109 MiB",
    ),
    "too small for ext4": (
        {"path": "{dir}/b.img", "size": "7M", "fstype": "ext4"},
        "7 MiB is too small for ext4: at least 8 MiB",
    ),
    "too small for xfs": (
        {"path": "{dir}/b.img", "size": "299M", "fstype": "xfs"},
        "299 MiB is too small for xfs: at least 300 MiB",
    ),
    "an unknown file system": ({"fstype": "zfs"}, "value of fstype must be one of: btrfs, ext4, xfs, got: zfs"),
    "a second device for mkfs": (
        {"path": "{dir}/b.img", "size": "1G", "mkfs_options": ["-f", "{dir}/a.img"]},
        "may name another file or device",
    ),
    "a clone of itself": ({"clone_of": "{dir}/a.img"}, "clone_of: is the path itself"),
    "a mode that nobody can write with": ({"mode": "0444"}, "mode: 0444 allows no writing, which seals an image"),
    "too large for the file system below": ({"path": "{dir}/b.img", "size": "4000P"}, "File too large"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_are_refused_and_nothing_is_changed(what, disks):
    options, message = BAD[what]
    made("btrfs")(disks / "a.img")
    (disks / "foreign").symlink_to("/etc/passwd")
    before = snapshot(disks)
    asked = {"path": str(disks / "a.img"), **json.loads(json.dumps(options).replace("{dir}", str(disks)))}
    for check in (True, False):
        refused = directly(asked, check=check)
        if what == "too large for the file system below" and check:
            continue
        assert refused["failed"] and message.format(dir=disks) in refused["msg"] and "\n" not in refused["msg"], refused
    assert snapshot(disks) == before


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_disk_without_space_for_the_file_system_is_an_error_that_leaves_nothing(fstype, disks):
    (disks / "small").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", disks / "small")
    refused = directly({"path": str(disks / "small" / "a.img"), "size": "10G", "fstype": fstype})
    assert refused["failed"]
    assert f"too little space in {disks}/small to make a file system (2 MiB free)" in refused["msg"]
    assert list((disks / "small").iterdir()) == []


def test_an_image_may_be_larger_than_the_free_space(disks):
    (disks / "small").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", disks / "small")
    assert directly({"path": str(disks / "small" / "a.img"), "size": "10G", "attached": True})["size"] == 10 * G


def test_a_missing_mkfs_is_told_with_its_package_also_in_check_mode(disks, monkeypatch):
    monkeypatch.setattr(loop.shutil, "which", lambda name, path: None if name == "mkfs.btrfs" else f"/usr/sbin/{name}")
    plan = decide(machine.look(Wanted(str(disks / "a.img"), size=G)), Wanted(str(disks / "a.img"), size=G))
    with pytest.raises(Refused, match=r"the command mkfs.btrfs is missing: install the package btrfs-progs"):
        machine.prepare(plan)


# Golden images


@pytest.fixture
def below(request, disks):
    """A directory on a file system of its own, of the kind that the test's parameter says."""
    place = disks / "below"
    place.mkdir()
    directly(
        {
            "path": str(disks / "below.img"),
            "fstype": request.param,
            "size": "2G",
            "attached": True,
            "link": str(disks / "device"),
        }
    )
    tool("mount", disks / "device", place)
    yield place
    for mount in ("mount", "second", "below"):
        undo(disks / mount)


def golden(path: Path, fstype: str, mount: Path, size: str = "320M") -> str:
    directly({"path": str(path), "fstype": fstype, "size": size, "label": "golden"})
    found = fill(path, mount, 20 * M)
    _unused, sealed = four_runs({"path": str(path), "fstype": fstype, "sealed": True})
    assert sealed["sealed"]
    assert path.stat().st_mode & 0o7777 == 0o400
    assert sealed["steps"] == [
        f"give back the unused space of the {fstype} in {path}",
        f"set the mode of {path} to 0400",
    ]
    return found


@pytest.mark.parametrize(
    ("below", "fstype"), [("btrfs", "btrfs"), ("xfs", "ext4"), ("xfs", "xfs"), ("ext4", "btrfs")], indirect=["below"]
)
def test_clones_share_their_data_and_can_be_mounted_side_by_side(below, fstype, disks, mounts):
    before = golden(below / "golden.img", fstype, mounts[0])
    unchanged = digest(below / "golden.img")
    os.sync()
    free = os.statvfs(below).f_bavail * os.statvfs(below).f_frsize
    uuids = {blkid(below / "golden.img", "UUID")}
    given = str(uuid.uuid4())
    for name, more in (("a", {}), ("b", {"size": "2G", "label": "mine", "uuid": given, "mode": "0640"})):
        options = {"path": str(below / f"{name}.img"), "fstype": fstype, "clone_of": str(below / "golden.img")}
        check, cloned = four_runs({**options, **more, "attached": True, "link": str(below / name)})
        assert check["uuid"] == more.get("uuid")
        assert cloned["uuid"] == more.get("uuid", cloned["uuid"])
        assert cloned["label"] == more.get("label", "golden") == blkid(below / f"{name}.img", "LABEL")
        assert cloned["size"] == cloned["filesystem_size"] == (2 * G if more else 320 * M)
        uuids.add(cloned["uuid"])
    assert len(uuids) == 3
    assert given in uuids
    os.sync()
    taken = free - os.statvfs(below).f_bavail * os.statvfs(below).f_frsize
    shares = tool("findmnt", "--noheadings", "--output", "FSTYPE", below) in ("btrfs", "xfs")
    # An xfs writes its log anew, 64 MiB for each. Without reflink it is two copies of 20 MiB of data and of the
    # metadata.
    assert taken < (140 * M if fstype == "xfs" else 12 * M if shares else 80 * M)
    for name, mount in zip("ab", mounts, strict=True):
        tool("mount", below / name, mount)
        assert digest(mount / "file") == before
        assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize > (1.8 * G if name == "b" else 200 * M)
        (mount / "own").write_text(name)
    for name, mount in zip("ab", mounts, strict=True):
        assert (mount / "own").read_text() == name
        unmount(mount)
    assert digest(below / "golden.img") == unchanged


def test_a_clone_that_is_there_is_not_made_again_though_the_golden_image_changed_or_went(disks, mounts):
    options = {"path": str(disks / "a.img"), "fstype": "ext4", "clone_of": str(disks / "golden.img")}
    golden(disks / "golden.img", "ext4", mounts[0], "64M")
    directly(options)
    fill(disks / "a.img", mounts[0])
    before = digest(disks / "a.img")
    opened = directly({"path": str(disks / "golden.img"), "fstype": "ext4", "sealed": False})
    assert opened["steps"] == [f"set the mode of {disks}/golden.img to 0600"]
    fill(disks / "golden.img", mounts[0])
    assert not directly(options)["changed"]
    (disks / "golden.img").unlink()
    assert not directly(options)["changed"]
    assert digest(disks / "a.img") == before


def dirty(fstype: str):
    """Return what makes an image that was copied while it was mounted, with something in its log."""

    def make(path: Path) -> None:
        image, mount = path.with_name("mounted.img"), path.with_name("dirty")
        mount.mkdir()
        directly({"path": str(image), "fstype": fstype, "size": "320M"})
        tool("mount", "-o", "loop", image, mount)
        os.sync()
        with (mount / "file").open("wb") as file:
            file.write(b"in the log")
            os.fsync(file.fileno())
        tool("cp", "--sparse=always", image, path)
        unmount(mount)
        path.chmod(0o400)

    return make


def sealed(fstype: str):
    return lambda path: directly({"path": str(path), "fstype": fstype, "size": "320M", "sealed": True})


def attached_read_only(path: Path) -> None:
    sealed("btrfs")(path)
    tool("losetup", "--find", "--show", "--read-only", path)


BAD_GOLDEN = {
    "missing": (lambda path: None, {}, "does not exist: make it first"),
    "a directory": (lambda path: path.mkdir(), {}, "is a directory, not a regular file"),
    "a symlink": (lambda path: path.symlink_to("other.img"), {}, "is a symlink, not a regular file"),
    "writable": (made("btrfs"), {}, "is not sealed (mode 0600)"),
    "attached": (attached_read_only, {}, "is attached to /dev/loop"),
    "another file system": (sealed("ext4"), {}, "holds ext4, not btrfs (fstype)"),
    "swap": (swap, {}, "holds swap, which is not a file system, not btrfs"),
    "a partition table": (partition_table, {}, "holds a partition table (dos), not btrfs"),
    "zeros": (lambda path: sparse(path, 200 * M).chmod(0o400), {}, "holds no file system, not btrfs"),
    "larger": (sealed("btrfs"), {"size": "200M"}, "size: 200 MiB is smaller than {dir}/golden.img (320 MiB)"),
    "a btrfs with a log": (dirty("btrfs"), {}, "was not unmounted cleanly"),
    "an ext4 with a log": (dirty("ext4"), {"fstype": "ext4"}, "was not unmounted cleanly"),
}


@pytest.mark.parametrize("what", BAD_GOLDEN)
def test_a_golden_image_that_must_not_be_cloned_is_refused(what, disks):
    make, options, message = BAD_GOLDEN[what]
    make(disks / "golden.img")
    before = snapshot(disks)
    for check in (True, False):
        refused = directly(
            {"path": str(disks / "a.img"), "clone_of": str(disks / "golden.img"), **options}, check=check
        )
        assert refused["failed"] and message.format(dir=disks) in refused["msg"] and "\n" not in refused["msg"], refused
    assert snapshot(disks) == before


def test_an_xfs_with_a_log_is_not_cloned_and_leaves_nothing(disks):
    dirty("xfs")(disks / "golden.img")
    before = snapshot(disks)
    refused = directly({"path": str(disks / "a.img"), "fstype": "xfs", "clone_of": str(disks / "golden.img")})
    assert (
        refused["failed"]
        and f"clone_of: {disks}/golden.img does not accept a new UUID (xfs_admin): seal it again" in refused["msg"]
    ), refused
    assert snapshot(disks) == before
    for sealing in (False, True):
        assert directly({"path": str(disks / "golden.img"), "fstype": "xfs", "sealed": sealing})["changed"]
    assert directly({"path": str(disks / "a.img"), "fstype": "xfs", "clone_of": str(disks / "golden.img")})["changed"]


def test_a_sealed_image_is_neither_attached_nor_grown_nor_trimmed_by_any_way(disks, mounts):
    golden(disks / "golden.img", "ext4", mounts[0], "64M")
    before = snapshot(disks)
    options = {"path": str(disks / "golden.img"), "fstype": "ext4"}
    os.removexattr(disks / "golden.img", machine.TRIMMED)
    for more, done in (
        ({"attached": True}, "attached"),
        ({"size": "1G"}, "grown"),
        ({"trim": True}, "trimmed"),
        ({"allocation": "preallocated"}, "allocated"),
    ):
        refused = directly({**options, **more})
        assert refused["failed"]
        assert f"is sealed (mode 0400) and cannot be {done}: clone it" in refused["msg"]
    program = boot("attach", "--image", str(disks / "golden.img"), "--link", str(disks / "link"))
    assert (program.returncode, program.stdout) == (
        1,
        "",
    )
    assert (
        program.stderr
        == f"loop.py: {disks}/golden.img is sealed: clones are made from it, and nothing is attached to it\n"
    )
    after = snapshot(disks)
    assert after["loops"] == {}
    assert list(after["entries"]) == list(before["entries"])
    assert after["entries"]["golden.img"][-1] == before["entries"]["golden.img"][-1]


@pytest.fixture
def prepare(disks, mounts, monkeypatch):
    """The program of the disk unit of an instance, with a disk and a directory of this test."""
    program = (
        CHECKOUT / "roles" / "machine_image" / "files" / "rootfs" / "usr" / "lib" / "nested-kata" / "docker_prepare.py"
    )
    spec = importlib.util.spec_from_file_location("docker_prepare", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, path in {"DISK": disks / "a", "DATA": mounts[0], "DISK_SIZE": disks / "size"}.items():
        monkeypatch.setattr(module, name, path)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    return module


def room(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize


OF_INSTANCES = ["btrfs", "ext4"]


@pytest.mark.parametrize("fstype", OF_INSTANCES)
def test_the_disk_unit_of_an_instance_lets_the_file_system_fill_a_disk_that_grew(fstype, disks, mounts, prepare):
    options = {"path": str(disks / "a.img"), "fstype": fstype, "attached": True, "link": str(disks / "a")}
    identity = directly({**options, "size": "320M"})["uuid"]
    for size, least in (("320M", 200 * M), ("2G", 1.8 * G)):
        assert directly({**options, "size": size, "resizefs": False})["filesystem_size"] == 320 * M
        for _unused in range(2):
            prepare.mount(identity)
            assert room(mounts[0]) > least
        (mounts[0] / "file").touch()
        unmount(mounts[0])
    tool("mount", disks / "a", mounts[0])
    assert (mounts[0] / "file").exists()


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_file_system_takes_the_part_of_its_file_that_was_asked_for_and_stays_so(fstype, disks, mounts):
    options = {"path": str(disks / "a.img"), "fstype": fstype, "attached": True, "link": str(disks / "a")}
    part = {**options, "size": "4G", "filesystem_size": "1G", "resizefs": False}
    made, _again = four_runs(part)
    assert (made["size"], made["filesystem_size"]) == (4 * G, 1 * G)
    assert f"4 GiB, with {fstype} in 1 GiB of it" in made["steps"][0]
    tool("mount", disks / "a", mounts[0])
    assert 0.8 * G < room(mounts[0]) <= 1 * G


@pytest.mark.parametrize("fstype", OF_INSTANCES)
def test_the_file_system_of_an_instance_grows_as_far_as_was_asked_and_never_shrinks(
    fstype, disks, mounts, prepare, capsys
):
    options = {"path": str(disks / "a.img"), "fstype": fstype, "attached": True, "link": str(disks / "a")}
    identity = directly({**options, "size": "2G", "filesystem_size": "320M", "resizefs": False})["uuid"]
    prepare.DISK_SIZE.write_text(f"{320 * M}\n")
    prepare.mount(identity)
    (mounts[0] / "file").write_text("kept")
    assert room(mounts[0]) <= 320 * M
    # btrfs while it is mounted, ext4 at the next start, since this takes a capability that instances lack
    assert prepare.main(["grow", str(1 * G)]) == 0
    assert capsys.readouterr().out.split() == (["grown"] if fstype == "btrfs" else ["restart"])
    assert (room(mounts[0]) > 0.8 * G) == (fstype == "btrfs")
    prepare.DISK_SIZE.write_text(f"{1 * G}\n")
    for wanted in (1 * G, 320 * M):
        unmount(mounts[0])
        prepare.DISK_SIZE.write_text(f"{wanted}\n")
        prepare.mount(identity)
        assert 0.8 * G < room(mounts[0]) <= 1 * G
        assert prepare.main(["grow", str(wanted)]) == 0
        assert capsys.readouterr().out.split() == []
    # beyond the disk only what is there, and the rest when a larger one comes with a restart
    assert prepare.main(["grow", str(3 * G)]) == 0
    assert capsys.readouterr().out.split() == (["grown", "restart"] if fstype == "btrfs" else ["restart"])
    assert (mounts[0] / "file").read_text() == "kept"


# Attachments


def attachment(*arguments: str):
    return lambda image: tool("losetup", "--find", "--show", *arguments, image)


ATTACHMENTS = {
    "two writers": ([attachment(), attachment()], "is attached more than once"),
    "read-only": ([attachment("--read-only")], "is attached read-only to"),
    "in part": ([attachment("--offset", "4096")], "is attached in part"),
}


@pytest.mark.parametrize("what", ATTACHMENTS)
def test_an_attachment_that_must_not_be_used_is_refused_and_left(what, disks):
    attach, message = ATTACHMENTS[what]
    made("btrfs")(disks / "a.img")
    devices = [once(disks / "a.img") for once in attach]
    before = snapshot(disks)
    for options in (
        {"attached": True, "link": str(disks / "a")},
        {"attached": False},
        {"state": "absent", "attached": False},
    ):
        refused = directly({"path": str(disks / "a.img"), **options})
        assert (
            refused["failed"] and message in refused["msg"] and all(device in refused["msg"] for device in devices)
        ), refused
    assert snapshot(disks) == before


def test_a_file_is_found_attached_under_any_of_its_names(disks):
    made("btrfs")(disks / "a.img")
    os.link(disks / "a.img", disks / "b.img")
    device = tool("losetup", "--find", "--show", disks / "b.img")
    again = directly({"path": str(disks / "a.img"), "attached": True})
    assert (again["changed"], again["device"]) == (False, device)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_the_error_of_a_loop_device_is_passed_over_only_where_it_holds_another_file(number, disks, monkeypatch):
    """The file of another device may be on a file system that is gone."""
    made("ext4")(disks / "a.img")
    made("ext4")(disks / "b.img")
    device = loop.attach(str(disks / "a.img"))
    status_of = loop.status_of

    def failing(descriptor: int) -> tuple:
        if os.fstat(descriptor).st_rdev == os.stat(device).st_rdev:
            raise OSError(number, os.strerror(number))
        return status_of(descriptor)

    monkeypatch.setattr(loop, "status_of", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        loop.loops_of(str(disks / "a.img"))
    assert loop.loops_of(str(disks / "b.img")) == ()
    monkeypatch.chdir(disks)
    with pytest.raises(OSError, match=os.strerror(number)):
        loop.loops_of("a.img")


def test_what_is_mounted_or_open_anywhere_is_neither_detached_nor_removed(disks):
    image, mount = str(disks / "a.img"), disks / "mount"
    mount.mkdir()
    link = str(disks / "a")
    device = directly({"path": image, "size": "200M", "attached": True, "link": link})["device"]
    tries = ({"path": image, "attached": False, "link": link}, {"path": image, "state": "absent", "link": link})

    def refused(message: str) -> None:
        before = snapshot(disks)
        for options, check in ((tries[0], True), (tries[0], False), (tries[1], False)):
            answer = directly(options, check=check)
            assert answer["failed"] and message in answer["msg"], answer
        program = boot("detach", "--image", image, "--link", link)
        assert program.returncode == 1
        assert device in program.stderr
        assert snapshot(disks) == before
        assert Path(f"/sys/block/{device[5:]}/loop/autoclear").read_text() == "0\n"

    tool("mount", device, mount)
    with frozen(mount):
        refused(f"{device} is mounted at {mount}")
    unmount(mount)
    with open(device, "rb"):
        refused(f"{device} is open in process {os.getpid()} (")
    elsewhere = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount {device} {mount} && echo mounted && read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with elsewhere:
        assert elsewhere.stdout.readline() == "mounted\n"
        refused(f"{device} is mounted in another mount namespace")
        elsewhere.communicate("\n")
    gone = directly({"path": image, "state": "absent", "link": link})
    assert gone["steps"] == [f"detach {image} from {device}", f"remove the link {link}", f"remove {image}"], gone
    assert attached(disks) == {}
    assert [entry.name for entry in disks.iterdir()] == ["mount"]


def test_an_attached_image_is_not_removed_unless_its_link_is_named_or_it_may_be_detached(disks):
    options = {"path": str(disks / "a.img"), "size": "200M"}
    directly({**options, "attached": True, "link": str(disks / "a")})
    before = snapshot(disks)
    for also in ({}, {"link": str(disks / "other")}):
        refused = directly({**options, "state": "absent", **also})
        assert refused["failed"]
        assert "name the link that leads there, or set attached: false" in refused["msg"]
    assert snapshot(disks) == before
    assert directly({**options, "state": "absent", "attached": False})["changed"]
    assert attached(disks) == {}


def boot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", loop.__file__, *arguments], capture_output=True, text=True, check=False
    )


def test_after_a_boot_every_link_leads_to_its_own_image_in_whatever_order(disks):
    names = ["a", "b", "c"]
    uuids = {}
    for name in names:
        made_now = directly(
            {
                "path": str(disks / f"{name}.img"),
                "size": "8M",
                "fstype": "ext4",
                "attached": True,
                "link": str(disks / name),
            }
        )
        uuids[name] = made_now["uuid"]
    # Like a boot that kept /run: everything is detached, the links are still there and lead to other disks soon.
    for order in (["c", "a", "b"], ["b", "c", "a"]):
        for device in attached(disks):
            tool("losetup", "--detach", device)
        for name in order:
            done = boot(
                "attach", "--image", f"{disks}/{name}.img", "--link", f"{disks}/{name}", "--uuid", uuids[name].upper()
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"{os.readlink(disks / name)}\n"
        assert {name: blkid(disks / name, "UUID") for name in names} == uuids
        assert len(attached(disks)) == 3
    for name in names:
        assert not directly(
            {"path": str(disks / f"{name}.img"), "fstype": "ext4", "attached": True, "link": str(disks / name)}
        )["changed"]
        for _unused in range(2):
            done = boot("detach", "--image", f"{disks}/{name}.img", "--link", f"{disks}/{name}")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert attached(disks) == {}
    assert not any(os.path.lexists(disks / name) for name in names)


def test_at_boot_an_image_with_another_uuid_is_not_attached(disks):
    made("btrfs")(disks / "a.img")
    before = snapshot(disks)
    done = boot("attach", "--image", f"{disks}/a.img", "--link", f"{disks}/a", "--uuid", OTHER_UUID)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"loop.py: {disks}/a.img holds the file system {blkid(disks / 'a.img', 'UUID')}, expected {OTHER_UUID}:"
        " nothing was attached\n"
    )
    assert snapshot(disks) == before


def test_at_boot_a_loop_device_whose_file_grew_is_told(disks):
    made("btrfs")(disks / "a.img")
    boot("attach", "--image", f"{disks}/a.img", "--link", f"{disks}/a")
    os.truncate(disks / "a.img", 300 * M)
    assert boot("attach", "--image", f"{disks}/a.img", "--link", f"{disks}/a").returncode == 0
    assert tool("blockdev", "--getsize64", disks / "a") == str(300 * M)


def test_missing_nodes_of_loop_devices_are_made(disks):
    image = disks / "a.img"
    made("btrfs")(image)
    # A /dev as in a container: nothing in it but what was asked for.
    script = f"""
        set -e
        mount -t tmpfs tmpfs /dev && mknod /dev/loop-control c 10 237
        mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        rm "$(readlink {disks}/a)"
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        test -b "$(readlink {disks}/a)"
        {sys.executable} -I {loop.__file__} detach --image {image} --link {disks}/a
        ls -A /dev
    """
    told = tool("unshare", "--mount", "sh", "-c", script).splitlines()
    assert told[0] == told[1] == told[2]
    assert told[0].startswith("/dev/loop")
    # A node that is only needed to look does not stay; the device that is used has one.
    assert set(told[3:]) == {"loop-control", "null", "urandom", told[0][5:]}
    assert attached(disks) == {}


@pytest.mark.docker
def test_a_container_with_two_capabilities_and_one_device_rule_can_attach(disks):
    (disks / "Dockerfile").write_text(
        "FROM debian:trixie-slim\nRUN apt-get update && apt-get install -y --no-install-recommends python3 btrfs-progs"
        " && rm -rf /var/lib/apt/lists/*\n"
    )
    tool("docker", "build", "--quiet", "--tag", f"t-disk-{MARK}:1", disks)
    made("btrfs")(disks / "a.img")
    identity = blkid(disks / "a.img", "UUID")
    # A loop device's file goes by its path in the container, where other containers on this machine have a /disks too.
    program, inside = "python3 /loop.py", Path(f"/disks-{secrets.token_hex(3)}")
    told = tool(
        "docker",
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "MKNOD",
        "--device",
        "/dev/loop-control",
        "--device-cgroup-rule",
        "b 7:* rmw",
        "--volume",
        f"{loop.__file__}:/loop.py:ro",
        "--volume",
        f"{disks}:{inside}",
        f"t-disk-{MARK}:1",
        "sh",
        "-ec",
        f"{program} attach --image {inside}/a.img --link /run/x/a --uuid {identity}; {program} attach --image"
        f" {inside}/a.img --link /run/x/a;test -b /run/x/a; blkid -p -o value -s UUID /run/x/a; {program} detach"
        f" --image {inside}/a.img --link /run/x/a; ls -A /run/x",
    ).splitlines()
    assert told[0] == told[1]
    assert told[2:] == [identity]
    assert attached(inside) == attached(disks) == {}


# Interruptions


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: f"{death[2]}-{death[0]}-{death[1]}")
def test_a_run_that_is_killed_leaves_no_half_image_and_the_next_one_converges(death, disks):
    image, link = disks / "a.img", disks / "run" / "a"
    options = {"path": str(image), "size": "200M", "attached": True, "link": str(link)}
    directly(options, death=death)
    if image.exists():
        assert blkid(image, "TYPE") == "btrfs"
    found = blkid(image, "UUID") if image.exists() else None
    then = directly(options)
    assert not then["failed"] and found in (None, then["uuid"]), then
    assert sorted(entry.name for entry in disks.iterdir()) == ["a.img", "run"]
    assert [entry.name for entry in link.parent.iterdir()] == ["a"]
    assert attached(disks) == {then["device"]: str(image)}
    assert os.readlink(link) == then["device"]
    assert not directly(options)["changed"]


def test_what_an_interrupted_run_left_is_removed_and_nothing_else(disks):
    made("btrfs")(disks / "a.img")
    (disks / ".nested-kata-new-x1").write_bytes(b"half a file system")
    os.link(disks / "a.img", disks / ".nested-kata-new-x2")
    (disks / ".nested-kata-new-dir").mkdir()
    (disks / "new").write_text("mine")
    before = digest(disks / "a.img")
    cleaned = directly({"path": str(disks / "a.img")})
    assert cleaned["steps"] == [
        f"remove {disks}/.nested-kata-new-{name}, which an interrupted run left behind" for name in ("x1", "x2")
    ]
    assert sorted(entry.name for entry in disks.iterdir()) == [".nested-kata-new-dir", "a.img", "new"]
    assert digest(disks / "a.img") == before


def test_runs_at_the_same_time_make_one_file_system_and_one_loop_device(disks):
    options = {"path": str(disks / "a.img"), "size": "200M", "attached": True, "link": str(disks / "a")}
    answers = []
    runs = [threading.Thread(target=lambda: answers.append(directly(options))) for unused in range(5)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(answer["changed"] for answer in answers) == [False] * 4 + [True], answers
    assert len({(answer["uuid"], answer["device"], answer["link"]) for answer in answers}) == 1
    assert len(attached(disks)) == 1


def test_who_locks_the_directory_holds_up_nobody_and_locks_are_gone_afterwards(disks):
    held = os.open(disks, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert not directly({"path": str(disks / "a.img"), "size": "8M", "fstype": "ext4"})["failed"]
    finally:
        os.close(held)
    there = disks.stat()
    lock = Path(loop.LOCKS, f"{there.st_dev}-{there.st_ino}")
    assert not lock.exists()
    assert stat.S_IMODE(lock.parent.stat().st_mode) == 0o700


def test_who_waits_for_too_long_for_another_run_is_told_for_what(disks, monkeypatch):
    monkeypatch.setattr(loop, "LOCK_SECONDS", 0.3)
    with loop.locked(str(disks)), pytest.raises(Refused) as refusal, loop.locked(str(disks)):
        pytest.fail("two are there at once")
    assert f"{disks} is still locked by another run after 0.3 s: see `fuser " in str(refusal.value)
