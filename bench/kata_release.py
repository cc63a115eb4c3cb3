# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kata_release against sha256sum and tar: the same made-up archive, turn by turn, with and without a sync after tar.

The module is timed as the process that Ansible starts on the target (Python and AnsibleModule included, Ansible's
controller not). It always has all on the disk before it ends; tar leaves that to the kernel, so that the fair
comparison is the one with sync. Prints a table of seconds and ratios; fails where the two results differ or a second
run writes anything.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from ansible_runner import module_command, module_environment
from turns import needs, show, timed, timed_idle

MEBIBYTE = 1 << 20


def make(directory: Path, files: int, size: int) -> None:
    """Write files that are compressed to about two fifths, as those of a release: noise, and what came before."""
    dice = random.Random(4)
    for number in range(files):
        path = directory / "opt" / "kata" / f"part{number % 20}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = [dice.randbytes(2048) for dummy in range(max(1, size // files * 2 // 5 // 2048))]
        path.write_bytes(b"".join(noise + [dice.choice(noise) for dummy in range(len(noise) * 3 // 2)]))


def content(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != ".nested-kata.json")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--size", type=int, default=300, help="MiB unpacked")
    parser.add_argument("--compression", choices=["zstd", "xz"], default="zstd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    needs("tar", "zstd", "xz")
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch_name:
        scratch = Path(scratch_name)
        make(scratch / "source", options.files, options.size * MEBIBYTE)
        archive, ours, theirs = scratch / "archive", scratch / "ours" / "release", scratch / "theirs"
        ours.parent.mkdir()
        subprocess.run(
            ["tar", f"--{options.compression}", "-cf", archive, "-C", scratch / "source", "./opt"], check=True
        )
        shutil.rmtree(scratch / "source")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        module = module_command("kata_release", {"archive": str(archive), "path": str(ours), "sha256": digest})
        script = 'echo "$1  $2" | sha256sum --quiet --check && tar "$3" -xf "$2" -C "$4"'
        arguments = [digest, str(archive), f"--{options.compression}", str(theirs)]
        ways = {
            "sha256sum, tar, sync": ["sh", "-c", f'{script} && sync --file-system "$4"', "sh", *arguments],
            "sha256sum, tar": ["sh", "-c", script, "sh", *arguments],
        }
        seconds: dict[str, list[float]] = {
            name: [] for name in (*ways, "kata_release, first run", "kata_release, again")
        }
        for _dummy in range(options.rounds):
            for name, way in ways.items():
                if theirs.exists():
                    shutil.rmtree(theirs)
                theirs.mkdir()
                os.sync()
                seconds[name].append(timed(way))
            if ours.exists():
                shutil.rmtree(ours)
            os.sync()
            seconds["kata_release, first run"].append(timed(module, env=module_environment()))
            if content(ours) != content(theirs / "opt" / "kata"):
                sys.exit("the results differ")
            seconds["kata_release, again"].append(timed_idle(module, [ours.parent, ours], env=module_environment()))
        print(
            f"{options.size} MiB in {options.files} files, {archive.stat().st_size // MEBIBYTE} MiB by"
            f" {options.compression}, {options.rounds} rounds"
        )
        show(seconds, "sha256sum, tar, sync", "sha256sum, tar, sync")


if __name__ == "__main__":
    main()
