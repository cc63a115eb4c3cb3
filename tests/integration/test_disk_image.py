# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_image and its program for the boot, on real files, file systems, loop devices and mounts."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from playing import CHECKOUT, ansible_environment, run_module

from ansible_collections.nested.kata.plugins.module_utils import disk, loop

pytestmark = [pytest.mark.root, pytest.mark.loop]

M = 1024 ** 2
G = 1024 ** 3
SMALLEST = {"btrfs": 109 * M, "ext4": 8 * M}
FSTYPES = list(SMALLEST)
# Under 8 MiB are written for a file system of 10 GiB.
WRITTEN = 8 * M
OTHER_UUID = "11111111-2222-3333-4444-555555555555"

# Runs the module as Ansible does on a target, but in one process, which can be killed or watched. The second argument names a
# function, how many of its calls are to pass, and whether the process dies before or after the next one. Of the ioctls only those
# count that change something: LOOP_CTL_GET_FREE and LOOP_CONFIGURE.
DIRECTLY = """
import importlib, json, os, signal, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.nested.kata.plugins.modules import disk_image

options, death = json.loads(sys.argv[1]), json.loads(sys.argv[2])
if death:
    name, passing, moment = death
    owner, attribute = name.rsplit(".", 1)
    owner = importlib.import_module(owner) if owner != "subprocess.Popen" else importlib.import_module("subprocess").Popen
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
    ("tempfile.mkstemp", 0, "after"), ("os.ftruncate", 0, "after"),
    ("subprocess.Popen.communicate", 0, "before"), ("subprocess.Popen.communicate", 0, "after"),
    ("os.fsync", 0, "before"), ("os.link", 0, "before"), ("os.link", 0, "after"), ("os.unlink", 0, "after"),
    ("fcntl.ioctl", 0, "before"), ("fcntl.ioctl", 0, "after"), ("fcntl.ioctl", 1, "before"), ("fcntl.ioctl", 1, "after"),
    ("os.symlink", 0, "after"), ("os.replace", 0, "after"),
]


def directly(options: dict, *, check: bool = False, death: tuple[str, int, str] | None = None) -> dict:
    """Run the module in one process and return its result; an empty one if it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", DIRECTLY, json.dumps({**options, "_ansible_check_mode": check}), json.dumps(death)],
        capture_output=True, text=True, check=False, env=ansible_environment(PYTHONPATH=str(CHECKOUT / ".collections")),
    )
    if death:
        assert done.returncode == -signal.SIGKILL, f"{death} was not reached: {done.stdout}"
        return {}
    assert done.stdout.strip(), done.stderr
    return {"failed": False, **json.loads(done.stdout)}


def through_ansible(options: dict, *, check: bool = False) -> dict:
    return run_module("disk_image", options, check=check)


def four_runs(options: dict, run=directly) -> tuple[dict, dict]:
    """Run check, real, again, again in check mode; return what the first two answered. The last two must find nothing to do."""
    before = snapshot(Path(options["path"]).parent)
    check = run(options, check=True)
    assert not check["failed"], check
    assert snapshot(Path(options["path"]).parent) == before
    real = run(options)
    assert not real["failed"], real
    after = snapshot(Path(options["path"]).parent)
    for again in (run(options), run(options, check=True)):
        assert not again["failed"] and not again["changed"] and again["steps"] == [], again
        assert all(again[key] == real[key] for key in ("size", "fstype", "uuid", "label", "device", "link") if key in real)
        assert again["diff"]["before"] == again["diff"]["after"] == real["diff"]["after"]
    assert snapshot(Path(options["path"]).parent) == after
    assert check["changed"] and real["changed"] and check["steps"] == real["steps"] and check["msg"] == real["msg"]
    return check, real


def snapshot(directory: Path) -> dict:
    """Return what lies in a directory and which loop devices hold its files: equal only if nothing at all was changed."""
    entries = {}
    for entry in sorted(directory.iterdir()):
        status = entry.lstat()
        entries[entry.name] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks, digest(entry))
    return {"entries": entries, "loops": attached(directory)}


def digest(path: Path) -> str:
    """Return the sha256 of a file's data (holes are no data), or of the target of a link."""
    if path.is_symlink():
        return os.readlink(path)
    if not path.is_file():
        return ""
    total, offset = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while True:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                return total.hexdigest()
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total.update(b"%d:" % start + os.pread(file.fileno(), offset - start, start))


def attached(directory: Path) -> dict[str, str]:
    """Return the loop devices that hold files below a directory."""
    found = {}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        # A device that somebody detaches meanwhile is none of these.
        try:
            backing = file.read_text().strip()
        except OSError:
            continue
        if backing.startswith(f"{directory}/"):
            found[f"/dev/{file.parts[3]}"] = backing
    return found


def tool(*command: object) -> str:
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def blkid(path: object, tag: str) -> str:
    return tool("blkid", "--probe", "--output", "value", "--match-tag", tag, path)


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture
def disks(tmp_path):
    """A directory for disk images. What is still mounted or attached at the end is undone."""
    yield tmp_path
    # A device that is still mounted goes with its mount, and a mount that still has files attached goes after them.
    for device in attached(tmp_path):
        tool("losetup", "--detach", device)
    for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
        if line.split()[4].startswith(f"{tmp_path}/"):
            tool("umount", line.split()[4])
    assert attached(tmp_path) == {}


@pytest.mark.parametrize("fstype", FSTYPES)
def test_an_image_is_made_attached_grown_detached_and_removed_each_in_four_runs(fstype, disks):
    image, link = disks / "kata.img", disks / "run" / "kata"
    options = {"path": str(image), "fstype": fstype, "link": str(link)}

    check, made = four_runs({**options, "size": "10G", "label": "a b\\c", "attached": True}, through_ansible)
    assert (check["uuid"], check["device"]) == (None, None)
    assert (made["size"], made["fstype"], made["label"], made["link"]) == (10 * G, fstype, "a b\\c", str(link))
    assert [made["diff"]["before"][key] for key in ("size", "fstype", "uuid", "device", "link")] == [None] * 5
    assert made["uuid"] == blkid(image, "UUID") == blkid(link, "UUID")
    assert attached(disks) == {made["device"]: str(image)} and os.readlink(link) == made["device"]
    status = image.stat()
    assert (status.st_size, status.st_mode & 0o7777) == (10 * G, 0o600) and status.st_blocks * 512 < WRITTEN
    assert sorted(entry.name for entry in disks.iterdir()) == ["kata.img", "run"]

    unused, grown = four_runs({**options, "size": "11G", "attached": True, "mode": "0640", "owner": "daemon"})
    assert grown["uuid"] == made["uuid"] and grown["device"] == made["device"]
    assert tool("blockdev", "--getsize64", link) == str(11 * G) == str(image.stat().st_size)
    assert image.stat().st_mode & 0o7777 == 0o640 and image.owner() == "daemon"

    unused, detached = four_runs({**options, "attached": False})
    assert detached["device"] is None and attached(disks) == {} and not os.path.lexists(link)
    assert blkid(image, "UUID") == made["uuid"]

    unused, removed = four_runs({**options, "state": "absent"}, through_ansible)
    assert removed["steps"] == [f"remove {image}"] and sorted(entry.name for entry in disks.iterdir()) == ["run"]


@pytest.mark.parametrize("fstype", FSTYPES)
def test_the_smallest_image_can_be_mounted_and_used(fstype, disks):
    given = str(uuid.uuid4())
    made = directly({"path": str(disks / "a.img"), "fstype": fstype, "size": str(SMALLEST[fstype]), "uuid": given, "attached": True, "link": str(disks / "a")})
    assert not made["failed"], made
    assert made["uuid"] == given == blkid(disks / "a.img", "UUID")
    mount = disks / "mount"
    mount.mkdir()
    tool("mount", disks / "a", mount)
    (mount / "file").write_bytes(b"x" * 100000)
    assert tool("findmnt", "-n", "-o", "FSTYPE", mount) == fstype


def test_growing_while_mounted_keeps_every_byte_and_the_file_system_can_follow(disks):
    image, mount = disks / "a.img", disks / "mount"
    options = {"path": str(image), "attached": True, "link": str(disks / "a")}
    mount.mkdir()
    directly({**options, "size": "200M"})
    tool("mount", disks / "a", mount)
    (mount / "file").write_bytes(os.urandom(5 * M))
    before = digest(mount / "file")
    grown = directly({**options, "size": "300M"})
    assert not grown["failed"] and grown["steps"] == [f"grow {image} from 200 MiB to 300 MiB", f"tell {grown['device']} the size of its file"]
    tool("btrfs", "filesystem", "resize", "max", mount)
    assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize == 300 * M
    tool("umount", mount)
    tool("mount", disks / "a", mount)
    assert digest(mount / "file") == before
    refused = directly({**options, "size": "200M"})
    assert refused["failed"] and "200 MiB is smaller than" in refused["msg"]


def test_a_file_of_nothing_but_zeros_gets_a_file_system_and_keeps_owner_and_mode(disks):
    image = sparse(disks / "a.img", 200 * M)
    with image.open("r+b") as file:
        file.write(bytes(2 * M))
    image.chmod(0o640)
    os.chown(image, 3, 4)
    assert directly({"path": str(image)}, check=True)["changed"] and digest(image) != ""
    made = directly({"path": str(image), "size": "300M"})
    assert not made["failed"] and blkid(image, "TYPE") == "btrfs", made
    status = image.stat()
    assert (status.st_size, status.st_mode & 0o7777, status.st_uid, status.st_gid) == (300 * M, 0o640, 3, 4)
    empty = sparse(disks / "b.img", 0)
    assert directly({"path": str(empty), "size": "8M", "fstype": "ext4"})["changed"] and blkid(empty, "TYPE") == "ext4"
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
        for unused in range(8):
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
    "LUKS": (lambda path: with_bytes(path, (0, b"LUKS\xba\xbe\0\1")), "holds crypto_LUKS, which is no file system"),
    "LVM": (lvm, "holds LVM2_member, which is no file system"),
    "swap": (swap, "holds swap, which is no file system"),
    "text": (lambda path: path.write_text("my only copy"), "holds data that is no file system (from byte 0 on)"),
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
    options = {"path": str(disks / "a.img"), "state": state, **({"size": "300M", "attached": True} if state == "present" else {})}
    for check in (True, False):
        refused = directly(options, check=check)
        assert refused["failed"] and message in refused["msg"] and "\n" not in refused["msg"], refused
    assert snapshot(disks) == before


# Options that do not fit an image of 200 MiB with btrfs, the label "mine", and nothing else.
BAD = {
    "no size": ({"size": "ten"}, "size: 'ten' is no size: write it like 10G"),
    "a smaller size": ({"size": "150M"}, "size: 150 MiB is smaller than"),
    "another UUID": ({"uuid": OTHER_UUID}, "uuid: "),
    "no UUID": ({"uuid": "mine"}, "uuid: 'mine' is no UUID"),
    "another label": ({"label": "yours"}, "holds the label 'mine', not 'yours'"),
    "a link that is a file": ({"attached": True, "link": "{dir}/a.img"}, "link: {dir}/a.img is no symlink: it is left as it is"),
    "a link that leads elsewhere": ({"attached": True, "link": "{dir}/foreign"}, "is a symlink to /etc/passwd, not to a loop device"),
    "a link for nothing": ({"link": "{dir}/b"}, "link: names the loop device, so it needs attached: true"),
    "another file system to be removed": ({"state": "absent", "fstype": "ext4"}, "holds btrfs, not ext4"),
    "another UUID to be removed": ({"state": "absent", "uuid": OTHER_UUID}, "uuid: "),
    "an owner that nobody is": ({"owner": "nobody-of-that-name"}, "owner: there is no 'nobody-of-that-name'"),
    "no mode": ({"mode": "rw"}, "mode: 'rw' is no mode"),
    "a directory that is missing": ({"path": "{dir}/none/a.img", "size": "1G"}, "path: there is no directory {dir}/none"),
    "no size for a new file": ({"path": "{dir}/b.img"}, "size: is needed, because {dir}/b.img does not exist yet"),
    "too small for btrfs": ({"path": "{dir}/b.img", "size": "100M"}, "100 MiB is too small for btrfs: at least 109 MiB"),
    "too small for ext4": ({"path": "{dir}/b.img", "size": "7M", "fstype": "ext4"}, "7 MiB is too small for ext4: at least 8 MiB"),
    "too large for the file system below": ({"path": "{dir}/b.img", "size": "4000P"}, "File too large"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_are_refused_and_nothing_is_changed(what, disks):
    options, message = BAD[what]
    made("btrfs")(disks / "a.img")
    (disks / "foreign").symlink_to("/etc/passwd")
    before = snapshot(disks)
    asked = {"path": str(disks / "a.img"), **{key: value.format(dir=disks) if isinstance(value, str) else value for key, value in options.items()}}
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
    assert refused["failed"] and f"too little space in {disks}/small to make a file system (2 MiB free)" in refused["msg"]
    assert list((disks / "small").iterdir()) == []


def test_an_image_may_be_larger_than_the_free_space(disks):
    (disks / "small").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", disks / "small")
    assert directly({"path": str(disks / "small" / "a.img"), "size": "10G", "attached": True})["size"] == 10 * G


def test_a_missing_mkfs_is_told_with_its_package_also_in_check_mode(disks, monkeypatch):
    monkeypatch.setattr(loop.shutil, "which", lambda name, path: None if name == "mkfs.btrfs" else f"/usr/sbin/{name}")
    plan = disk.decide(disk.look(disk.Wanted(str(disks / "a.img"), size=G)), disk.Wanted(str(disks / "a.img"), size=G))
    with pytest.raises(loop.Refused, match="the command mkfs.btrfs is missing: install the package btrfs-progs"):
        disk.prepare(plan)


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
    for options in ({"attached": True, "link": str(disks / "a")}, {"attached": False}, {"state": "absent", "attached": False}):
        refused = directly({"path": str(disks / "a.img"), **options})
        assert refused["failed"] and message in refused["msg"] and all(device in refused["msg"] for device in devices), refused
    assert snapshot(disks) == before


def test_a_file_is_found_attached_under_any_of_its_names(disks):
    made("btrfs")(disks / "a.img")
    os.link(disks / "a.img", disks / "b.img")
    device = tool("losetup", "--find", "--show", disks / "b.img")
    again = directly({"path": str(disks / "a.img"), "attached": True})
    assert (again["changed"], again["device"]) == (False, device)


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
        assert program.returncode == 1 and device in program.stderr
        assert snapshot(disks) == before and Path(f"/sys/block/{device[5:]}/loop/autoclear").read_text() == "0\n"

    tool("mount", device, mount)
    refused(f"{device} is mounted at {mount}")
    tool("umount", mount)
    with open(device, "rb"):
        refused(f"{device} is open in process {os.getpid()} (")
    elsewhere = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount {device} {mount} && echo mounted && read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with elsewhere:
        assert elsewhere.stdout.readline() == "mounted\n"
        refused(f"{device} is mounted in another mount namespace")
        elsewhere.communicate("\n")
    gone = directly({"path": image, "state": "absent", "link": link})
    assert gone["steps"] == [f"detach {image} from {device}", f"remove the link {link}", f"remove {image}"], gone
    assert attached(disks) == {} and [entry.name for entry in disks.iterdir()] == ["mount"]


def test_an_attached_image_is_not_removed_unless_its_link_is_named_or_it_may_be_detached(disks):
    options = {"path": str(disks / "a.img"), "size": "200M"}
    directly({**options, "attached": True, "link": str(disks / "a")})
    before = snapshot(disks)
    for also in ({}, {"link": str(disks / "other")}):
        refused = directly({**options, "state": "absent", **also})
        assert refused["failed"] and "name the link that leads there, or say attached: false" in refused["msg"]
    assert snapshot(disks) == before
    assert directly({**options, "state": "absent", "attached": False})["changed"] and attached(disks) == {}


def boot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", loop.__file__, *arguments], capture_output=True, text=True, check=False)


def test_after_a_boot_every_link_leads_to_its_own_image_in_whatever_order(disks):
    names = ["a", "b", "c"]
    uuids = {}
    for name in names:
        made_now = directly({"path": str(disks / f"{name}.img"), "size": "8M", "fstype": "ext4", "attached": True, "link": str(disks / name)})
        uuids[name] = made_now["uuid"]
    # Like a boot that kept /run: everything is detached, the links are still there and lead to other disks soon.
    for order in (["c", "a", "b"], ["b", "c", "a"]):
        for device in attached(disks):
            tool("losetup", "--detach", device)
        for name in order:
            done = boot("attach", "--image", f"{disks}/{name}.img", "--link", f"{disks}/{name}", "--uuid", uuids[name].upper())
            assert (done.returncode, done.stderr) == (0, "") and done.stdout == f"{os.readlink(disks / name)}\n"
        assert {name: blkid(disks / name, "UUID") for name in names} == uuids
        assert len(attached(disks)) == 3
    for name in names:
        assert not directly({"path": str(disks / f"{name}.img"), "fstype": "ext4", "attached": True, "link": str(disks / name)})["changed"]
        for unused in range(2):
            done = boot("detach", "--image", f"{disks}/{name}.img", "--link", f"{disks}/{name}")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert attached(disks) == {} and not any(os.path.lexists(disks / name) for name in names)


def test_at_boot_an_image_with_another_uuid_is_not_attached(disks):
    made("btrfs")(disks / "a.img")
    before = snapshot(disks)
    done = boot("attach", "--image", f"{disks}/a.img", "--link", f"{disks}/a", "--uuid", OTHER_UUID)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"loop.py: {disks}/a.img holds the file system {blkid(disks / 'a.img', 'UUID')}, expected was {OTHER_UUID}: nothing was attached\n"
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
        mount -t tmpfs tmpfs /dev && mknod /dev/loop-control c 10 237 && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        rm "$(readlink {disks}/a)"
        {sys.executable} -I {loop.__file__} attach --image {image} --link {disks}/a
        test -b "$(readlink {disks}/a)"
        {sys.executable} -I {loop.__file__} detach --image {image} --link {disks}/a
        ls -A /dev
    """
    told = tool("unshare", "--mount", "sh", "-c", script).splitlines()
    assert told[0] == told[1] == told[2] and told[0].startswith("/dev/loop")
    # A node that is only needed to look does not stay; the device that is used has one.
    assert set(told[3:]) == {"loop-control", "null", "urandom", told[0][5:]}
    assert attached(disks) == {}


@pytest.mark.docker
def test_a_container_with_two_capabilities_and_one_device_rule_can_attach(disks):
    (disks / "Dockerfile").write_text(
        "FROM debian:trixie-slim\nRUN apt-get update && apt-get install -y --no-install-recommends python3 btrfs-progs && rm -rf /var/lib/apt/lists/*\n"
    )
    tool("docker", "build", "--quiet", "--tag", "nested-kata-test/disk:1", disks)
    made("btrfs")(disks / "a.img")
    identity = blkid(disks / "a.img", "UUID")
    program = "python3 /loop.py"
    told = tool(
        "docker", "run", "--rm", "--cap-drop", "ALL", "--cap-add", "SYS_ADMIN", "--cap-add", "MKNOD", "--device", "/dev/loop-control",
        "--device-cgroup-rule", "b 7:* rmw", "--volume", f"{loop.__file__}:/loop.py:ro", "--volume", f"{disks}:/disks", "nested-kata-test/disk:1", "sh", "-ec",
        f"{program} attach --image /disks/a.img --link /run/x/a --uuid {identity}; {program} attach --image /disks/a.img --link /run/x/a;"
        f"test -b /run/x/a; blkid -p -o value -s UUID /run/x/a; {program} detach --image /disks/a.img --link /run/x/a; ls -A /run/x",
    ).splitlines()
    assert told[0] == told[1] and told[2:] == [identity]
    assert attached(Path("/disks")) == attached(disks) == {}


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
    assert sorted(entry.name for entry in disks.iterdir()) == ["a.img", "run"] and [entry.name for entry in link.parent.iterdir()] == ["a"]
    assert attached(disks) == {then["device"]: str(image)} and os.readlink(link) == then["device"]
    assert not directly(options)["changed"]


def test_what_an_interrupted_run_left_is_removed_and_nothing_else(disks):
    made("btrfs")(disks / "a.img")
    (disks / ".nested-kata-new-x1").write_bytes(b"half a file system")
    os.link(disks / "a.img", disks / ".nested-kata-new-x2")
    (disks / ".nested-kata-new-dir").mkdir()
    (disks / "new").write_text("mine")
    before = digest(disks / "a.img")
    cleaned = directly({"path": str(disks / "a.img")})
    assert cleaned["steps"] == [f"remove {disks}/.nested-kata-new-{name}, which an interrupted run left behind" for name in ("x1", "x2")]
    assert sorted(entry.name for entry in disks.iterdir()) == [".nested-kata-new-dir", "a.img", "new"] and digest(disks / "a.img") == before


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
