# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the guest: carries out the proofs of the profiles that the kernel's command line names, and reports each as a
line of JSON.

`nested_kata.profiles=docker,netsim` on the command line names profiles. The lines go to a port of virtio-serial: first
what this kernel is and how long it took, then one for each proof, then the end.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import re
import subprocess
import time
import traceback
from pathlib import Path

from . import docker, nested, netsim, system
from .proof import Disproved, Proof, run

PORT = Path("/dev/virtio-ports/nested-kata")
PROFILES: dict[str, dict[str, Proof]] = {
    "stock": system.BOOTED,
    "docker": {**system.BOOTED, **system.CONFIGURED, **docker.PROOFS},
    "netsim": {**system.BOOTED, **system.CONFIGURED, **netsim.PROOFS},
    "nested": {**system.BOOTED, **system.CONFIGURED, **nested.PROOFS},
}


def prove(proof: Proof) -> dict[str, object]:
    """Carry out one proof; whatever goes wrong in it disproves it, and the next is carried out all the same."""
    began = time.monotonic()
    try:
        ok, detail = True, proof()
    except Disproved as error:
        ok, detail = False, str(error)
    except Exception:
        ok, detail = False, traceback.format_exc()
    return {"ok": ok, "detail": detail, "seconds": round(time.monotonic() - began, 2)}


def booted() -> dict[str, object]:
    """Return what this kernel is, and the seconds from its first instant to init and to the end of systemd's start."""
    subprocess.run(["systemctl", "is-system-running", "--wait"], stdout=subprocess.DEVNULL, timeout=300, check=False)
    shown = run("systemctl show --property UserspaceTimestampMonotonic --property FinishTimestampMonotonic")
    times = {name: int(value) / 1e6 for name, value in re.findall(r"^(\w+)=(\d+)$", shown, re.MULTILINE)}
    config = hashlib.sha256(gzip.decompress(system.CONFIG.read_bytes())).hexdigest() if system.CONFIG.exists() else None
    return {
        "release": platform.release(),
        "config": config,
        "init": times["UserspaceTimestampMonotonic"],
        "started": times["FinishTimestampMonotonic"],
    }


def main() -> None:
    names = re.search(r"\bnested_kata\.profiles=(\S+)", Path("/proc/cmdline").read_text())[1].split(",")
    proofs = {name: proof for profile in names for name, proof in PROFILES[profile].items()}
    with PORT.open("w") as port:

        def tell(**line: object) -> None:
            print(json.dumps(line), file=port, flush=True)

        tell(**booted())
        for name, proof in proofs.items():
            line = prove(proof)
            tell(id=name, **line)
            print(
                f"{'proven' if line['ok'] else 'DISPROVED'} in {line['seconds']} s: {name}: {line['detail']}",
                flush=True,
            )
        tell(end=len(proofs))


if __name__ == "__main__":
    main()
