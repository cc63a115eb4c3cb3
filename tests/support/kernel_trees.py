# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real kernel trees: Debian's source packages, which apt verifies, unpacked once and kept for the next run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kept import CACHE, locked

KEPT = CACHE / "kernel-trees"
SUITE = {"6.1": "bookworm", "6.12": "trixie"}
MIRROR = "http://deb.debian.org/debian"


def kernel_tree(version: str) -> Path:
    """Return the pristine tree of Debian's linux-source-VERSION. Nobody may run make in it: use copy_of."""
    tree = KEPT / version
    with locked(KEPT / f"{version}.lock"):
        if not tree.is_dir():
            scratch = KEPT / f"{version}.part"
            shutil.rmtree(scratch, ignore_errors=True)
            (scratch / "tree").mkdir(parents=True)
            package = _download(f"linux-source-{version}", SUITE[version], scratch)
            subprocess.run(["dpkg-deb", "--extract", package, scratch / "package"], check=True)
            archive = scratch / "package" / "usr" / "src" / f"linux-source-{version}.tar.xz"
            subprocess.run(
                ["tar", "--extract", "--file", archive, "--directory", scratch / "tree", "--strip-components=1"],
                check=True,
            )
            os.replace(scratch / "tree", tree)
            shutil.rmtree(scratch)
    return tree


def copy_of(version: str, where: Path) -> Path:
    """Make a copy of the tree that make may be run in. Its files are links: replace them, never write into them."""
    subprocess.run(["cp", "--archive", "--link", kernel_tree(version), where], check=True)
    return where


def _download(package: str, suite: str, scratch: Path) -> Path:
    """Fetch a package of any Debian suite with apt, which gets lists, sources and preferences of its own, and finds
    nothing installed.

    A newer version that is installed, or a pin, would be apt's candidate, for which these sources have no file.
    """
    state = scratch / "apt"
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "archives" / "partial").mkdir(parents=True)
    sources, installed = state / "sources.list", state / "status"
    sources.write_text(
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MIRROR} {suite} main\n", encoding="utf-8"
    )
    installed.touch()
    apt = [
        "apt-get",
        "--quiet",
        "--option",
        f"Dir::Etc::SourceList={sources}",
        "--option",
        "Dir::Etc::SourceParts=-",
        "--option",
        "Dir::Etc::Preferences=/dev/null",
        "--option",
        "Dir::Etc::PreferencesParts=/dev/null",
        "--option",
        "APT::Default-Release=",
        "--option",
        f"Dir::State::Status={installed}",
        "--option",
        f"Dir::State::Lists={state}/lists",
        "--option",
        f"Dir::Cache={state}",
        "--option",
        "APT::Sandbox::User=root",
        "--option",
        "Acquire::Languages=none",
    ]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*apt, "download", package], check=True, stdout=subprocess.DEVNULL, cwd=scratch)
    return next(scratch.glob(f"{package}_*.deb"))
