# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts and loop devices that tests make below a directory, and undo."""

from __future__ import annotations

import errno
import os
import subprocess
from functools import partial
from pathlib import Path

from ansible_runner import wait_until

# For which a device may be held open by who looks at all of them, as mkfs.btrfs does, and its file with it.
LOOKING_SECONDS = 10


def tool(*command: object) -> str:
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


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


def undo(directory: Path) -> None:
    """Unmount what is mounted at a directory or below it, and detach the files there."""
    # A device that is still mounted goes with its mount, and a mount that still has files attached goes after them.
    for device in attached(directory):
        tool("losetup", "--detach", device)
    for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
        if f"{line.split()[4]}/".startswith(f"{directory}/"):
            unmount(line.split()[4])
    wait_until(lambda: not attached(directory), f"the loop devices of {directory} to be let go", LOOKING_SECONDS)


def unmount(where: object) -> None:
    """Unmount, and return when nobody holds the device for that mount any more, and one that mount attached is gone."""
    source = (
        tool("findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", where).splitlines()[-1].partition("[")[0]
    )
    own = Path("/sys/block", Path(source).name, "loop")
    before = by_mount(own)
    wait_until(partial(unmounted, where), f"{where}, busy, to be let go", LOOKING_SECONDS)
    wait_until(
        lambda: by_mount(own) != before if before else idle(source),
        f"{source}, which was mounted at {where}, to be let go",
        LOOKING_SECONDS,
    )


def idle(source: str) -> bool:
    """Say whether a block device is mounted here still, or used by nobody. A container that is made meanwhile holds a
    copy of all mounts for a moment.
    """
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if not Path(source).is_block_device() or source in {line.partition(" - ")[2].split()[1] for line in mounts}:
        return True
    try:
        os.close(os.open(source, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def by_mount(device: Path) -> str:
    """Return the file of a loop device that goes with its last user, as one that mount attached does; or nothing."""
    try:
        return (device / "backing_file").read_text() if (device / "autoclear").read_text().strip() == "1" else ""
    except OSError:
        return ""


def unmounted(where: object) -> bool:
    """Unmount, or return False where somebody still uses it."""
    try:
        tool("umount", where)
    except AssertionError as error:
        if "target is busy" not in str(error):
            raise
        return False
    return True
