# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine, the proxy and the instance of the quickstart hold, to compare before and after, while other work
goes on beside it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_runner import MARK

PROXY = ["docker", "exec", "kata-in-docker"]
INSTANCE = [*PROXY, "docker", "exec", "kata"]

# Other work goes on beside the tests. What the quickstart can have made shows one of these in its name, image or
# labels, or is below a directory of ours; FOREIGN is somebody else's, made to see that it stays. All else that tests
# make is called t-... or nested-kata-test-....
FOREIGN = f"t-foreign-{MARK}"
OURS = re.compile(rf"\bkata-in-docker\b|\bnested\.kata\.|\bnested-kata/|\bnested-kata-test/base\b|\b{FOREIGN}\b")
OTHERS = re.compile(rf"t-(?!{FOREIGN.removeprefix('t-')}\b)|nested-kata-test-")
DIRECTORIES = ("/var/lib/nested-kata", "/etc/nested-kata", "/run/nested-kata")
DISKS = "kata-in-docker-data"  # the volume in which the proxy has its disk images

# The commands, and for each thing its name, what is compared, and by what else it may be known as ours; a dot, so that
# none is an empty end of a line.
LISTINGS = {
    "containers": (["ps", "--all", "--no-trunc"], "{{.Names}}\t{{.ID}} {{.Names}} {{.Image}}\t{{.Labels}}."),
    "images": (["images", "--all", "--no-trunc"], "{{.Repository}}:{{.Tag}}\t{{.ID}} {{.Repository}}:{{.Tag}}\t."),
    "volumes": (["volume", "ls"], "{{.Name}}\t{{.Name}}\t{{.Labels}}."),
    "networks": (["network", "ls", "--no-trunc"], "{{.Name}}\t{{.ID}} {{.Name}}\t{{.Labels}}."),
}
IMAGE_LABELS = ("nested.kata.image", "nested.kata.kernel-build", FOREIGN)


def output(*command: str) -> str:
    """Run a command and return what it printed; a failure shows all that it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def listed(kind: str, *prefix: str) -> list[list[str]]:
    """Return each thing of a kind that a docker daemon holds, as its name, what is compared, and what else is known of
    it.
    """
    command, template = LISTINGS[kind]
    return [line.split("\t") for line in output(*prefix, "docker", *command, "--format", template).splitlines()]


def docker_holds(*prefix: str) -> dict[str, list[str]]:
    """Return all that a docker daemon holds, as sorted lists of names and ids."""
    return {kind: sorted(compared for dummy, compared, dummy in listed(kind, *prefix)) for kind in LISTINGS}


def machine_holds() -> dict[str, list[str]]:
    """Return what may be ours, and what is FOREIGN, of this machine's Docker, of its loop devices, of the files below
    our directories, and of its firewall.
    """
    labelled = {
        image: f"{label}="
        for label in IMAGE_LABELS
        for image in output("docker", "images", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
    }
    holds = {
        kind: sorted(
            {
                compared
                for name, compared, marks in listed(kind)
                if OURS.search(f"{compared} {marks} {labelled.get(compared.split()[0], '')}") and not OTHERS.match(name)
            }
        )
        for kind in LISTINGS
    }
    files = subprocess.run(["find", *DIRECTORIES], capture_output=True, text=True, check=False)
    tables = re.findall(r"nested-kata\.(?!t-).*", output("nft", "list", "tables", "inet"))
    return {**holds, "loop devices": loop_devices(), "files": sorted(files.stdout.splitlines()), "firewall": tables}


def loop_devices() -> list[str]:
    """Return the loop devices on files that may be ours. Of a file in a container they show the path there: it is known
    by its inode, until it is deleted.
    """
    place = subprocess.run(
        ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", DISKS],
        capture_output=True,
        text=True,
        check=False,
    )
    inodes = (
        {file.stat().st_ino for file in Path(place.stdout.strip(), "disks").glob("*.img")}
        if place.returncode == 0
        else set()
    )
    found = json.loads(
        output("losetup", "--list", "--json", "--output", "NAME,BACK-INO,BACK-FILE") or '{"loopdevices": []}'
    )["loopdevices"]
    return sorted(
        f"{device['name']} {device['back-file']}"
        for device in found
        if (int(device["back-ino"]) in inodes and "/disks/" in device["back-file"])
        or re.match(r"/(disks|golden)/.*\(deleted\)$", device["back-file"])
        or any(f"{where}/" in device["back-file"] for where in (*DIRECTORIES, DISKS, FOREIGN))
    )


def all_levels_hold() -> list[dict[str, list[str]]]:
    """Return the same for this machine, and all of the proxy and the instance, with the disk images in the proxy."""
    disks = output(
        *PROXY, "sh", "-c", "stat --format '%n %s' /var/lib/nested-kata/disks/*; ls -l /run/nested-kata/disks"
    )
    return [machine_holds(), docker_holds(*PROXY), docker_holds(*INSTANCE), {"disks": disks.splitlines()}]


@contextmanager
def foreign(directory: Path) -> Iterator[None]:
    """Make somebody else's things, which nothing may touch: a container, a network, a volume, images with and without a
    name, a loop device.
    """
    _remove_foreign()
    disk = directory / FOREIGN / "disk.img"
    disk.parent.mkdir()
    disk.write_bytes(bytes(1 << 20))
    try:
        output("docker", "create", "--name", FOREIGN, "debian:trixie-slim", "true")
        output("docker", "network", "create", FOREIGN)
        output("docker", "volume", "create", FOREIGN)
        for name in ([f"{FOREIGN}:1"], []):
            output(
                "sh",
                "-c",
                f'tar --create --directory "$0" disk.img | docker import --change "LABEL {FOREIGN}=1" - "$@"',
                str(disk.parent),
                *name,
            )
        device = output("losetup", "--find", "--show", str(disk))
        try:
            yield
        finally:
            output("losetup", "--detach", device)
    finally:
        _remove_foreign()


def _remove_foreign() -> None:
    """Remove them, also those of a run that was killed."""
    for kind in ("container", "network", "volume"):
        subprocess.run(["docker", kind, "rm", FOREIGN], capture_output=True, check=False)
    images = output("docker", "images", "--quiet", "--no-trunc", "--filter", f"label={FOREIGN}").split()
    if images:
        output("docker", "rmi", "--force", *images)
