# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_config against the tree's own scripts/kconfig/merge_config.sh: the same input, the same tree, turn by turn.

Both merge the fragments of a profile and verify the result. The module is timed as the process that Ansible starts on
the target (Python and AnsibleModule included, Ansible's controller not). Prints a table of seconds and ratios; fails
where the two results differ in any byte or a second run writes anything.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from ansible_runner import module_command, module_environment
from kernel_profiles import ALLOW_MISSING, fragments_of
from kernel_trees import copy_of
from turns import needs, show, timed, timed_idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="6.12", help="tree: Debian's linux-source-VERSION, fetched once")
    parser.add_argument("--profile", default="docker", help="whose fragments are merged")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    needs("apt-get", "dpkg-deb", "make", "gcc", "flex", "bison", "bc")
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        tree, fragments = copy_of(options.version, scratch / "tree"), fragments_of(options.profile, "x86_64")
        ours, theirs = scratch / "ours", scratch / "theirs"
        module = module_command(
            "kernel_config",
            {
                "tree": str(tree),
                "path": str(ours),
                "arch": "x86_64",
                "fragments": fragments,
                "on_redefine": "ignore",
                "allow_missing": ALLOW_MISSING,
            },
        )
        script = ["scripts/kconfig/merge_config.sh", "-n", *fragments]
        script_environment = {**os.environ, "ARCH": "x86_64", "KCONFIG_CONFIG": str(theirs)}
        timed(
            ["make", "-s", "ARCH=x86_64", f"KCONFIG_CONFIG={scratch}/warm", "allnoconfig"], cwd=tree
        )  # conf itself is compiled, and the cache is warm
        seconds: dict[str, list[float]] = {
            "merge_config.sh -n": [],
            "kernel_config, first run": [],
            "kernel_config, again": [],
        }
        for _dummy in range(options.rounds):
            for path in (ours, Path(f"{ours}.nested-kata"), theirs):
                path.unlink(missing_ok=True)
            seconds["merge_config.sh -n"].append(timed(script, cwd=tree, env=script_environment))
            seconds["kernel_config, first run"].append(timed(module, env=module_environment()))
            if ours.read_bytes() != theirs.read_bytes():
                sys.exit("the results differ")
            seconds["kernel_config, again"].append(timed_idle(module, [scratch], env=module_environment()))
        print(
            f"Linux {options.version}, profile {options.profile}: {len(fragments)} fragments, {options.rounds} rounds,"
            " the same .config each time"
        )
        show(seconds, "merge_config.sh -n", "merge_config.sh")


if __name__ == "__main__":
    main()
