# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest kernels of the profiles cost beside the profile stock: the sizes of their files, and the time until
init runs.

Takes the kernels in a directory, as the role guest_kernel leaves them, and boots each under QEMU in turn, several
rounds. The guest's clock counts instructions, so that a time is the same on a busy machine; it has ratios to tell, not
what a real processor takes. Prints a table; fails where a kernel does not boot.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from qemu_kernel import boot
from turns import needs

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        default=Path("/var/lib/nested-kata/kernels"),
        help="one directory in it for each kernel",
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    kernels = {path.parent: json.loads(path.read_text()) for path in sorted(options.directory.glob("*/build.json"))}
    needs("qemu-system-x86_64", beside={f"kernels in {options.directory}, as guest_kernel leaves them": bool(kernels)})
    init: dict[Path, list[float]] = {path: [] for path in kernels}
    started: dict[Path, list[float]] = {path: [] for path in kernels}
    for number in range(options.rounds):
        for path in kernels:
            print(f"round {number + 1} of {options.rounds}: {path.name}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as scratch:
                report = boot(path / "bzImage", "stock", Path(scratch))
                if not report.complete:
                    sys.exit(f"{path} does not boot: {report.last_lines()}")
            init[path].append(report.init)
            started[path].append(report.started)
    stock = next((path for path, build in kernels.items() if build["info"]["profile"] == "stock"), None)
    print(f"{'kernel':34}{'vmlinux':>9}{'bzImage':>9}{'options y':>11}{'init':>8}{'systemd':>9}   init, of stock")
    for path in sorted(kernels, key=lambda each: statistics.median(init[each])):
        vmlinux, bzimage = ((path / name).stat().st_size / MIB for name in ("vmlinux", "bzImage"))
        built_in = len(re.findall(r"^CONFIG_\w+=y$", (path / "config").read_text(), re.MULTILINE))
        median = statistics.median(init[path])
        ratio = f"{median / statistics.median(init[stock]):.2f}" if stock else "-"
        print(
            f"{path.name:34}{vmlinux:6.1f} MiB{bzimage:5.2f} MiB{built_in:11}{median:6.2f}"
            f" s{statistics.median(started[path]):7.2f} s   {ratio}"
        )


if __name__ == "__main__":
    main()
