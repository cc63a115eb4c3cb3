# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_image against dd and mkfs, cp, and docker load: an image ready to mount, a clone of a golden one, and a run that
has nothing to do.

The module is timed as the process that Ansible starts on the target (Python and AnsibleModule included, Ansible's
controller not); beside it stands a module that does nothing. dd ends with what it wrote on the disk, as the module
does. The golden image holds noise. docker load is timed where Docker answers, with an image of as much noise. Clones
with reflink are made on an xfs in a loop device below the directory. Needs root, loop devices and twice the sizes as
free space.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from ansible_runner import module_command, module_environment, wait_until
from turns import needs, show, timed, timed_idle

MEBIBYTE = 1 << 20
NOTHING = """
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
with patch_module_args({}):
    AnsibleModule(argument_spec={}).exit_json()
"""


def run(*command: object, data: bytes | None = None) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, input=data).stdout.decode()


def module(**options: object) -> list[str]:
    return module_command(
        "disk_image", {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    )


def taken(path: Path) -> int:
    """Return the MiB of a file system that are in use."""
    os.sync()
    room = os.statvfs(path)
    return (room.f_blocks - room.f_bfree) * room.f_frsize // MEBIBYTE


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        run("umount", place)
        # The loop device may go a little after its mount.
        wait_until(lambda: not run("losetup", "--associated", image), f"{image} to be detached")


def noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _dummy in range(size):
            file.write(os.urandom(MEBIBYTE))


def making(scratch: Path, size: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {
        "dd, mkfs.btrfs": [],
        "disk_image, first run": [],
        "disk_image, again": [],
        "a module without work": [],
    }
    ours, theirs = scratch / "ours.img", scratch / "theirs.img"
    script = f'dd if=/dev/zero of="$1" bs=1M count={size} conv=fsync && mkfs.btrfs -q "$1"'
    ours_command = module(path=ours, size=f"{size}M")
    written = 0
    for _dummy in range(rounds):
        seconds["dd, mkfs.btrfs"].append(timed(["sh", "-c", script, "sh", str(theirs)]))
        theirs.unlink()
        ours.unlink(missing_ok=True)
        os.sync()
        seconds["disk_image, first run"].append(timed(ours_command, env=module_environment()))
        written = ours.stat().st_blocks * 512
        seconds["disk_image, again"].append(timed_idle(ours_command, [scratch], env=module_environment()))
        seconds["a module without work"].append(timed([sys.executable, "-c", NOTHING], env=module_environment()))
    trace = scratch / "trace"
    run(
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=execve",
        "-o",
        trace,
        "env",
        *(f"{key}={value}" for key, value in module_environment().items()),
        *ours_command,
    )
    programs = [
        line.split('"')[1]
        for line in trace.read_text().splitlines()
        if "execve(" in line and line.rstrip().endswith("= 0")
    ]
    print(
        f"{size} MiB ready to mount, {rounds} rounds; {written / MEBIBYTE:.1f} MiB written; a run with nothing to do"
        f" starts {len(programs) - 2} programs"
    )
    show(seconds, "dd, mkfs.btrfs", "dd, mkfs.btrfs")
    ours.unlink()


def cloning(scratch: Path, size: int, rounds: int, docker: bool) -> None:
    below = scratch / "below.img"
    run("truncate", "--size", f"{size * 4 + 1024}M", below)
    run("mkfs.xfs", "-q", below)
    with mounted(below, scratch / "below") as shared:
        seconds: dict[str, list[float]] = {
            "cp --sparse=always": [],
            "disk_image, reflink": [],
            "disk_image, copy": [],
            "disk_image, again": [],
        }
        for place in (shared, scratch):
            golden = place / "golden.img"
            timed(module(path=golden, size=f"{size * 2}M"), env=module_environment())
            with mounted(golden, scratch / "golden") as content:
                noise(content / "noise", size)
            timed(module(path=golden, sealed=True), env=module_environment())
        extra = 0
        for _dummy in range(rounds):
            for name, place in (("reflink", shared), ("copy", scratch)):
                clone = place / "clone.img"
                clone.unlink(missing_ok=True)
                before = taken(place)
                command = module(path=clone, clone_of=place / "golden.img")
                seconds[f"disk_image, {name}"].append(timed(command, env=module_environment()))
                if name == "reflink":
                    extra = taken(place) - before
                    seconds["disk_image, again"].append(timed_idle(command, [place], env=module_environment()))
            os.sync()
            copy = [
                "sh",
                "-c",
                'cp --sparse=always "$1" "$2" && sync "$2"',
                "sh",
                str(scratch / "golden.img"),
                str(scratch / "cp.img"),
            ]
            seconds["cp --sparse=always"].append(timed(copy))
            (scratch / "cp.img").unlink()
        if docker:
            seconds = {"docker load": [loading(scratch, size) for dummy in range(rounds)], **seconds}
        print(
            f"\na clone of a golden btrfs with {size} MiB of noise, {rounds} rounds; with reflink {extra} MiB more are"
            " in use"
        )
        reference = next(iter(seconds))
        show(seconds, reference, reference)


def loading(scratch: Path, size: int) -> float:
    """Return the seconds that it takes to load an image of as much noise."""
    name, archive = "t-bench-disk-image:1", scratch / "image.tar"
    if not archive.exists():
        noise(scratch / "noise", size)
        with subprocess.Popen(["tar", "-C", str(scratch), "-cf", "-", "noise"], stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", "-", name], stdin=tar.stdout, check=True, capture_output=True)
        (scratch / "noise").unlink()
        run("docker", "save", "--output", archive, name)
    run("docker", "image", "rm", name)
    return timed(["docker", "load", "--quiet", "--input", str(archive)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10240, help="MiB of the image that is made")
    parser.add_argument("--golden", type=int, default=2048, help="MiB that the golden image holds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-docker", action="store_true", help="do without docker load")
    parser.add_argument("--directory", help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    needs("mkfs.btrfs", "mkfs.ext4", "mkfs.xfs", root=True, loops=True)
    docker = (
        not options.no_docker
        and subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
    )
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch_name:
        try:
            making(Path(scratch_name), options.size, options.rounds)
            cloning(Path(scratch_name), options.golden, options.rounds, docker)
        finally:
            if docker:
                subprocess.run(
                    ["docker", "image", "rm", "--force", "t-bench-disk-image:1"], capture_output=True, check=False
                )


if __name__ == "__main__":
    main()
