# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine, the proxy and the instance of the quickstart hold, to compare before and after."""
from __future__ import annotations

import subprocess

PROXY = ["docker", "exec", "kata-in-docker"]
INSTANCE = [*PROXY, "docker", "exec", "kata"]


def output(*command: str) -> str:
    """Run a command and return what it printed; a failure shows all that it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def docker_holds(*prefix: str) -> dict[str, list[str]]:
    """Return what a docker daemon holds, as sorted lists of names and ids."""
    listings = {
        "containers": ["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Image}}"],
        "images": ["images", "--all", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"],
        "volumes": ["volume", "ls", "--format", "{{.Name}}"],
        "networks": ["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"],
    }
    return {kind: sorted(output(*prefix, "docker", *listing).splitlines()) for kind, listing in listings.items()}


def machine_holds() -> dict[str, list[str]]:
    """Return what this machine's Docker holds, its loop devices, and the files below our directories."""
    files = subprocess.run(["find", "/var/lib/nested-kata", "/etc/nested-kata", "/run/nested-kata"], capture_output=True, text=True, check=False)
    return {**docker_holds(), "loop devices": sorted(output("losetup", "--all").splitlines()), "files": sorted(files.stdout.splitlines())}


def all_levels_hold() -> list[dict[str, list[str]]]:
    """Return the same for this machine, the proxy and the instance, with the disk images in the proxy."""
    disks = output(*PROXY, "sh", "-c", "stat --format '%n %s' /var/lib/nested-kata/disks/*; ls -l /run/nested-kata/disks")
    return [machine_holds(), docker_holds(*PROXY), docker_holds(*INSTANCE), {"disks": disks.splitlines()}]
