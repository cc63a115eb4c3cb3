# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_image_info on real images, and what a full disk does to the file systems of the images on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_runner import run_module
from loop_mounts import attached, tool, unmount

pytestmark = [pytest.mark.root, pytest.mark.loop]

M = 1024**2
CHECKS = {"btrfs": ("btrfs", "check", "--readonly"), "ext4": ("e2fsck", "-f", "-n")}


def disk_below(disks: Path, size: str, fstype: str) -> Path:
    """Return a directory on a file system of its own."""
    place = disks / "below"
    place.mkdir()
    made = run_module(
        "disk_image",
        {
            "path": str(disks / "below.img"),
            "size": size,
            "fstype": fstype,
            "attached": True,
            "link": str(disks / "device"),
        },
    )
    assert not made["failed"], made
    tool("mount", disks / "device", place)
    return place


def image(path: Path, **options: object) -> dict:
    made = run_module("disk_image", {"path": str(path), **options})
    assert not made["failed"], made
    return made


def info(*paths: Path, **options: object) -> dict:
    found = run_module("disk_image_info", {"paths": [str(path) for path in paths], **options})
    assert not found["failed"] and not found["changed"], found
    return found


def test_it_tells_sizes_content_and_attachment_of_files_and_of_those_in_directories(disks: Path) -> None:
    (disks / "some").mkdir()
    one = image(disks / "some" / "one.img", size="1G", label="one", attached=True, link=str(disks / "link"))
    image(disks / "two.img", size="20M", fstype="ext4", allocation="preallocated")
    (disks / "some" / "notes.txt").write_text("no image")
    (disks / "some" / ".new.img").write_text("not ready")
    (disks / "some" / "other.img").write_bytes(b"no file system")
    before = {path: path.stat().st_mtime_ns for path in disks.rglob("*")}
    found = info(disks / "some", disks / "two.img", disks / "some" / "one.img", disks / "none", disks / "none.img")
    assert [Path(each["path"]).name for each in found["images"]] == ["one.img", "other.img", "two.img"]
    first, other, second = found["images"]
    keys = ("size", "uuid", "label", "fstype", "attached", "device", "sealed", "shared")
    assert {key: first[key] for key in keys} == {
        "size": 1024 * M,
        "uuid": one["uuid"],
        "label": "one",
        "fstype": "btrfs",
        "attached": True,
        "device": one["device"],
        "sealed": False,
        "shared": 0,
    }
    assert 0 < first["allocated"] < 8 * M
    assert first["growth"] == first["size"] - first["allocated"]
    assert (other["fstype"], other["uuid"], other["attached"], other["device"]) == (None, None, False, None)
    assert second["allocated"] >= 20 * M
    assert second["growth"] == 0
    (below,) = found["file_systems"]
    assert below["growth"] == first["growth"] + other["growth"]
    assert below["size"] > below["free"] > 0
    assert below["mount"] == tool("findmnt", "--noheadings", "--output", "TARGET", "--target", disks)
    assert before == {path: path.stat().st_mtime_ns for path in disks.rglob("*")}


@pytest.mark.parametrize("options", [["--read-only"], ["--offset", "4096"], []])
def test_a_file_that_somebody_attached_in_another_way_or_twice_is_not_attached(options: list[str], disks: Path) -> None:
    image(disks / "disk.img", size="20M", fstype="ext4", attached=not options)
    tool("losetup", "--find", *options, disks / "disk.img")
    (found,) = info(disks)["images"]
    assert (found["attached"], found["device"] in attached(disks)) == (False, True)


@pytest.mark.parametrize("fstype", ["xfs", "btrfs"])
def test_what_a_clone_shares_it_may_take_once_more(fstype: str, disks: Path) -> None:
    below = disk_below(disks, "1G", fstype)
    image(below / "golden.img", size="64M", fstype="ext4")
    (disks / "mount").mkdir()
    tool("mount", "-o", "loop", below / "golden.img", disks / "mount")
    (disks / "mount" / "file").write_bytes(os.urandom(20 * M))
    unmount(disks / "mount")
    image(below / "golden.img", fstype="ext4", sealed=True)
    image(below / "clone.img", fstype="ext4", clone_of=str(below / "golden.img"))
    os.sync()
    clone, golden = info(below)["images"]
    assert golden["sealed"]
    assert golden["growth"] == 0
    assert golden["shared"] > 19 * M
    assert 19 * M < clone["shared"] <= clone["allocated"]
    assert clone["growth"] == clone["size"] - (clone["allocated"] - clone["shared"]) > 60 * M
    # What is written into the clone is its own from then on.
    tool("mount", "-o", "loop", below / "clone.img", disks / "mount")
    with (disks / "mount" / "file").open("r+b") as file:
        file.write(os.urandom(10 * M))
    unmount(disks / "mount")
    os.sync()
    after, _dummy = info(below)["images"]
    assert after["shared"] <= clone["shared"] - 10 * M
    assert after["growth"] <= clone["growth"] - 10 * M


def test_more_than_there_is_room_for_is_a_warning_that_says_where(disks: Path) -> None:
    below = disk_below(disks, "128M", "ext4")
    for name in ("a.img", "b.img"):
        image(below / name, size="100M", fstype="ext4")
    found = info(below)
    (file_system,) = found["file_systems"]
    assert file_system["overcommitted"]
    assert file_system["growth"] > file_system["free"]
    (warning,) = found["warnings"]
    assert f"the 2 disk images on {below} may grow by 1" in warning
    assert "MiB are free there" in warning
    assert "kata_instance_overcommit" in warning
    enough = info(below, overcommit=2.5)
    assert not enough["file_systems"][0]["overcommitted"]
    assert "warnings" not in enough


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paths": ["disks"]}, "paths: 'disks' is not an absolute path"),
        ({"paths": ["/nowhere"], "overcommit": -1}, "overcommit: -1.0 is not a valid factor: "),
    ],
)
def test_bad_options_are_one_clear_error(options: dict, words: str) -> None:
    refused = run_module("disk_image_info", options)
    assert refused["failed"] and words in refused["msg"] and "\n" not in refused["msg"], refused


@pytest.mark.parametrize("fstype", ["btrfs", "ext4"])
def test_a_full_disk_is_an_error_in_the_image_on_it_and_loses_nothing_that_was_written(
    fstype: str, disks: Path
) -> None:
    below = disk_below(disks, "400M", "ext4")
    (below / "ballast").write_bytes(bytes(100 * M))
    image(below / "a.img", size="1G", fstype=fstype, attached=True, link=str(disks / "link"))
    (disks / "mount").mkdir()
    tool("mount", disks / "link", disks / "mount")
    kept = os.urandom(30 * M)
    write(disks / "mount" / "kept", kept)
    with pytest.raises(OSError):
        for number in range(40):
            write(disks / "mount" / f"more{number}", os.urandom(10 * M))
    assert (disks / "mount" / "kept").read_bytes() == kept
    unmount(disks / "mount")
    (below / "ballast").unlink()
    # The journal of ext4 is replayed by a mount.
    tool("mount", disks / "link", disks / "mount")
    assert (disks / "mount" / "kept").read_bytes() == kept
    write(disks / "mount" / "again", kept)
    unmount(disks / "mount")
    checked = subprocess.run([*CHECKS[fstype], str(disks / "link")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def write(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk, as a program does that has to know."""
    with path.open("wb", buffering=0) as file:
        assert file.write(content) == len(content)
        os.fsync(file.fileno())
