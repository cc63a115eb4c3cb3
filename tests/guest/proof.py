# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every proof is written with: commands, waiting, network namespaces, and a failure that says what was seen."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator

Proof = Callable[[], str]  # returns what was seen


class Disproved(Exception):
    """The kernel does not do what was to be proven. The message says what it did."""


def run(command: str, seconds: float = 120) -> str:
    """Run a shell command and return what it printed, or raise Disproved with all that it said."""
    status, output = attempt(command, seconds)
    if status != 0:
        raise Disproved(f"{command}: exit status {status}: {output}")
    return output


def attempt(command: str, seconds: float = 120) -> tuple[int, str]:
    """Run a shell command that may fail, and return its exit status and what it printed."""
    try:
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Disproved(
            f"{command}: still ran after {seconds:g} s: {(error.output or b'').decode(errors='replace')}"
        ) from None
    return done.returncode, done.stdout.strip()


def expect(holds: bool, seen: str) -> None:
    if not holds:
        raise Disproved(seen)


def refused(command: str) -> str:
    """Run a command that must fail: what shows that the proof beside it could fail too."""
    status, output = attempt(command)
    expect(status != 0, f"{command}: was to fail, and said: {output}")
    return output


def wait_for(command: str, seconds: float) -> str:
    """Repeat a command until it succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        status, output = attempt(command, seconds)
        if status == 0:
            return output
        if time.monotonic() > deadline:
            raise Disproved(f"{command}: not within {seconds:g} s: {output}")
        time.sleep(0.2)


def round_trips(output: str) -> list[float]:
    """Return the times that ping printed, in milliseconds."""
    return [float(value) for value in re.findall(r"time=([\d.]+) ms", output)]


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[Callable[[str], str]]:
    """Make network namespaces; what is handed over runs lines of `NAME COMMAND` in them. All are gone afterwards."""
    try:
        for name in names:
            run(f"ip netns add {name} && ip -n {name} link set lo up")
        yield inside
    finally:
        for name in names:
            attempt(f"ip netns pids {name} | xargs -r kill -9; ip netns delete {name}")


def inside(lines: str) -> str:
    """Run each line in the network namespace that its first word names, and return what all of them printed."""
    output = []
    for line in lines.strip().splitlines():
        name, command = line.split(maxsplit=1)
        output.append(run(f"ip netns exec {name} {command}"))
    return "\n".join(output).strip()


def cable(left: str, right: str, link: str = "v") -> None:
    """Join two namespaces by a veth pair that bears the same name on both ends."""
    run(f"ip link add {link} netns {left} type veth peer name {link} netns {right}")
    inside(f"{left} ip link set {link} up\n{right} ip link set {link} up")


def named(*proofs: Proof) -> dict[str, Proof]:
    """Name each proof by what it says."""
    return {proof.__name__.replace("_", " "): proof for proof in proofs}
