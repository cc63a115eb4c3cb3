# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine image's program tunnel.py, run where a test wants it and leading to a socket of the test's own."""

from __future__ import annotations

import os
import sys

from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import PROGRAM as IN_MACHINE_IMAGE
from ansible_runner import CHECKOUT
from docker_in_docker import docker

PROGRAM = CHECKOUT / "roles" / "machine_image" / "files" / "rootfs" / "usr" / "lib" / "nested-kata" / "tunnel.py"

_LOADER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("tunnel", {program!r})
tunnel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tunnel)
tunnel.DOCKER, tunnel.WAIT_SECONDS = {socket!r}, {wait!r}
if not {splice!r} and hasattr(tunnel.os, "splice"):
    del tunnel.os.splice
sys.exit(tunnel.main(sys.argv[1:]))
"""


def install(*hops: str) -> None:
    """Put the program where the machine image has it."""
    docker(
        "exec",
        "-i",
        hops[-1],
        "sh",
        "-ec",
        f"mkdir -p {os.path.dirname(IN_MACHINE_IMAGE)}; cat >{IN_MACHINE_IMAGE}",
        hops=hops[:-1],
        data=PROGRAM.read_bytes(),
    )


def leading_to(
    socket: str,
    *,
    program: str = str(PROGRAM),
    wait: float = 10,
    python: str = sys.executable,
    splice: bool = True,
) -> list[str]:
    """Return the command that is the program, but for the socket that it leads to and the seconds that it waits.
    `splice`: whether Python has it, if it is new enough.
    """
    return [python, "-IS", "-c", _LOADER.format(program=program, socket=socket, wait=wait, splice=splice)]
