# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fio in the file system of a disk image: with and without direct I/O of its loop device, and compression on and off,
in turns.

Random reads and writes are 4 KiB with O_DIRECT, 16 at once, as a database has them; sequential ones are 1 MiB through
the page cache, as layers are unpacked, and a write ends with fsync. The data compresses to about half. Caches are
dropped before each job. Prints MiB/s, the ratio to no image at all (the directory's own file system), and what each way
takes beside: MiB of the image that the page cache of the machine holds after the sequential read, and MiB on the disk.
Needs root, fio, loop devices and three times the size as free space.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from ansible_runner import module_command, module_environment
from turns import needs

MEBIBYTE = 1 << 20
JOBS = {
    "sequential write": ("--rw=write", "--bs=1M", "--end_fsync=1"),
    "sequential read": ("--rw=read", "--bs=1M"),
    "random read": ("--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16", "--time_based"),
    "random write": (
        "--rw=randwrite",
        "--bs=4k",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=16",
        "--time_based",
        "--end_fsync=1",
    ),
}
MOUNT_OPTIONS = {
    "ext4": "discard",
    "btrfs": "discard=async",
    "btrfs, zstd:1": "discard=async,compress=zstd:1",
    "btrfs, zstd:3": "discard=async,compress=zstd:3",
}


def run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def image_mounted(scratch: Path, size: int, kind: str, direct_io: str) -> Iterator[tuple[Path, Path]]:
    """Make an image as the module does, and yield where it is mounted, and the image."""
    image, place = scratch / "a.img", scratch / "mount"
    place.mkdir(exist_ok=True)
    options = {"path": str(image), "size": f"{size * 2}M", "fstype": kind.split(",", maxsplit=1)[0]}
    run(
        "env",
        *(f"{key}={value}" for key, value in module_environment().items()),
        *module_command("disk_image", options),
    )
    device = run("losetup", "--find", "--show", f"--direct-io={direct_io}", image)
    try:
        run("mount", "-o", MOUNT_OPTIONS[kind], device, place)
        try:
            yield place, image
        finally:
            run("umount", place)
    finally:
        run("losetup", "--detach", device)
        image.unlink()


def fio(place: Path, size: int, seconds: int, job: str) -> float:
    """Return the MiB/s of a job."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    command = [
        "fio",
        "--name=bench",
        f"--filename={place / 'data'}",
        f"--size={size}M",
        f"--runtime={seconds}",
        "--buffer_compress_percentage=50",
        "--refill_buffers",
        "--fallocate=none",
        "--output-format=json",
        *JOBS[job],
    ]
    # The runtime has the fsync at the end in it.
    return json.loads(run(*command))["jobs"][0]["write" if "write" in job else "read"]["bw_bytes"] / MEBIBYTE


def measure(place: Path, size: int, seconds: int, found: dict[str, list[float]], image: Path | None) -> None:
    for job in JOBS:
        found.setdefault(job, []).append(fio(place, size, seconds, job))
        if image and job == "sequential read":
            cached = int(run("fincore", "--bytes", "--noheadings", "--output", "RES", image))
            found.setdefault("cached twice", []).append(cached / MEBIBYTE)
            found.setdefault("on disk", []).append(image.stat().st_blocks * 512 / MEBIBYTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file that is read and written")
    parser.add_argument("--seconds", type=int, default=5, help="for each of the random jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    needs("fio", "mkfs.btrfs", "mkfs.ext4", root=True, loops=True)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    ways = ["no image", *((kind, direct_io) for kind in MOUNT_OPTIONS for direct_io in ("off", "on"))]
    found: dict[object, dict[str, list[float]]] = {way: {} for way in ways}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        scratch = Path(name)
        for _dummy in range(options.rounds):
            for way in ways:
                if way == "no image":
                    measure(scratch, options.size, options.seconds, found[way], None)
                    (scratch / "data").unlink()
                    continue
                with image_mounted(scratch, options.size, *way) as (place, image):
                    measure(place, options.size, options.seconds, found[way], image)
    columns = [*JOBS, "cached twice", "on disk"]
    print(f"{options.size} MiB, medians of {options.rounds} rounds, MiB/s (of no image)")
    print(f"{'image, direct I/O':22}" + "".join(f"{column:>20}" for column in columns))
    for way in ways:
        cells = []
        for column in columns:
            if column not in found[way]:
                cells.append("-")
                continue
            median = statistics.median(found[way][column])
            cells.append(
                f"{median:.1f} ({median / statistics.median(found['no image'][column]):.2f})"
                if column in JOBS
                else f"{median:.0f} MiB"
            )
        print(f"{way if isinstance(way, str) else ', '.join(way):22}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
