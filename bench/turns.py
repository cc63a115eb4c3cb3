# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the measurements share: what they need, commands that are timed turn by turn, and tables."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LACKING = 3  # exit status of a measurement that cannot be made here
BASE_IMAGE = "debian:trixie-slim"


def needs(
    *programs: str,
    root: bool = False,
    docker: bool = False,
    loops: bool = False,
    beside: Mapping[str, bool] | None = None,
) -> None:
    """End with one line that names what this machine lacks of programs, root, a Docker with the base image, loop
    devices, and what else is needed, with whether it is there.
    """
    lacking = [f"the program {name}" for name in programs if not shutil.which(name)]
    if root and os.geteuid() != 0:
        lacking.append("root")
    if docker and not _answers("docker", "version"):
        lacking.append("a Docker that answers")
    elif docker and not _answers("docker", "image", "inspect", BASE_IMAGE):
        lacking.append(f"the image {BASE_IMAGE} in Docker (docker pull, or ./test.sh integration)")
    if loops and not os.path.exists("/dev/loop-control"):
        lacking.append("loop devices (/dev/loop-control)")
    lacking += [what for what, there in (beside or {}).items() if not there]
    if lacking:
        print(f"{Path(sys.argv[0]).name} needs {', '.join(lacking)}", file=sys.stderr)
        sys.exit(LACKING)


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def timed(command: list[str], **more: object) -> float:
    """Return the seconds that a command takes, and end where it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


def timed_idle(command: list[str], directories: Sequence[Path], **more: object) -> float:
    """Return the seconds that a command takes which has nothing to do, and end where it writes anything in the
    directories.
    """
    before = entries(directories)
    seconds = timed(command, **more)
    if before != entries(directories):
        sys.exit("the second run wrote something")
    return seconds


def entries(directories: Sequence[Path]) -> dict[str, tuple[int, int]]:
    return {
        entry.path: (entry.stat().st_mtime_ns, entry.stat().st_ino)
        for directory in directories
        for entry in os.scandir(directory)
    }


def show(seconds: Mapping[str, Sequence[float]], reference: str, called: str) -> None:
    """Print a line for each way, with the ratio of its median to that of the reference."""
    base = statistics.median(seconds[reference])
    print(f"{'':26}{'min':>8}{'median':>8}{'max':>8}   of {called}")
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:26}{min(each):8.2f}{median:8.2f}{max(each):8.2f}   {median / base:.2f}")
