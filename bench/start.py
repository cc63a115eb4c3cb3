# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first and a later start of an instance cost, against a dockerd that a container runs without systemd.

The machine image runs under runc, the stand-in for a VM, on a disk image of its own, until its Docker answers. Seconds
here say little of a VM's. What carries over is counted beside them: processes and threads that were started, CPU
seconds, and where perf can count them, instructions of the whole machine, on which nothing else should be at work.
Prints a table of medians and ratios, and the units that took longest. Needs root, loop devices, mkfs.btrfs, and a
Docker with a machine image, as the role machine_image builds it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from turns import needs

NAME = "t-bench-start"
LABEL = "nested.kata.image=machine"
OPTIONS = (
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/tmp"),
    *(
        "--security-opt=seccomp=unconfined",
        "--security-opt=systempaths=unconfined",
        "--security-opt=apparmor=unconfined",
    ),
)
CPU = """
cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || awk '/usage_usec/ {print $2 * 1000}' /sys/fs/cgroup/cpu.stat
"""
# A question that comes while dockerd begins may never be answered.
START = """
docker start "$1" >/dev/null
until timeout 2 docker exec "$1" docker version >/dev/null 2>&1; do sleep 0.1; done
"""
ALONE = (
    "mount -o remount,rw /sys/fs/cgroup; for c in /sys/fs/cgroup/*; do mount -o remount,bind,rw $c; done; exec dockerd"
)


class Cost(NamedTuple):
    """What a start took."""

    seconds: float
    cpu: float
    processes: int
    instructions: float


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(["timeout", "60", *command], capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed: {done.stderr.strip()}")
    return done.stdout.strip() if done.returncode == 0 else ""


@contextlib.contextmanager
def disk(scratch: Path) -> Iterator[tuple[str, str]]:
    """Yield a loop device with an empty btrfs, and its UUID."""
    image = scratch / "disk.img"
    image.unlink(missing_ok=True)
    image.touch()
    with image.open("r+b") as file:
        file.truncate(4 << 30)
    run("mkfs.btrfs", "--quiet", str(image))
    device = run("losetup", "--find", "--show", str(image))
    try:
        yield device, run("blkid", "--probe", "--match-tag", "UUID", "--output", "value", device)
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def container(*options: str) -> Iterator[None]:
    run("docker", "rm", "--force", "--volumes", NAME, check=False)
    run("docker", "create", "--name", NAME, *OPTIONS, *options)
    try:
        yield
    finally:
        run("docker", "rm", "--force", "--volumes", NAME)


def start() -> Cost:
    """Start the container, and return when its Docker answers."""
    with tempfile.NamedTemporaryFile("r") as counted:
        perf = ["perf", "stat", "--all-cpus", "--event=instructions", "--field-separator=,", "--output", counted.name]
        began = time.perf_counter()
        run(*(perf if shutil.which("perf") else []), "sh", "-c", START, "sh", NAME)
        seconds = time.perf_counter() - began
        number = counted.read().strip().splitlines()[-1:] or [""]
    found = number[0].partition(",")[0]
    instructions = float(found) / 1e9 if found.isdigit() else float("nan")
    processes = int(run("docker", "exec", NAME, "cat", "/proc/sys/kernel/ns_last_pid"))
    return Cost(seconds, int(float(run("docker", "exec", NAME, "sh", "-c", CPU))) / 1e9, processes, instructions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="the machine image; by default the newest that Docker has")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    needs("mkfs.btrfs", "losetup", "blkid", "docker", root=True, loops=True)
    images = run("docker", "images", "--quiet", "--filter", f"label={LABEL}", "--filter", "label=nested.kata.finished")
    image = options.image or (images.split() or [""])[0]
    needs(beside={"a machine image in Docker, as the role machine_image builds it": bool(image)})
    costs: dict[str, list[Cost]] = {"dockerd alone": [], "first start": [], "later start": []}
    blame = ""
    with tempfile.TemporaryDirectory() as scratch:
        for _dummy in range(options.rounds):
            with container("--volume=/var/lib/docker", "--entrypoint=sh", image, "-c", ALONE):
                costs["dockerd alone"].append(start())
            with disk(Path(scratch)) as (device, uuid):
                known = [f"--device={device}:/dev/docker-disk", f"--env=NESTED_KATA_DISK_UUID={uuid}"]
                with container(*known, image):
                    costs["first start"].append(start())
                    run("docker", "exec", NAME, "systemctl", "is-system-running", "--wait", check=False)
                    blame = run("docker", "exec", NAME, "systemd-analyze", "blame", "--no-pager")
                    run("docker", "stop", "--time", "20", NAME)
                    costs["later start"].append(start())
                    run("docker", "stop", "--time", "20", NAME)
    base = Cost(*map(statistics.median, zip(*costs["dockerd alone"], strict=True)))
    print(f"{'':16}{'seconds':>9}{'CPU':>8}{'processes':>11}{'10^9 instructions':>19}   CPU, of dockerd alone")
    for name, each in costs.items():
        cost = Cost(*map(statistics.median, zip(*each, strict=True)))
        ratio = cost.cpu / base.cpu
        print(
            f"{name:16}{cost.seconds:9.2f}{cost.cpu:8.2f}{cost.processes:11.0f}{cost.instructions:19.2f}   {ratio:.2f}"
        )
    print("\nThe units that took longest at the first start:", *blame.splitlines()[:8], sep="\n")


if __name__ == "__main__":
    main()
