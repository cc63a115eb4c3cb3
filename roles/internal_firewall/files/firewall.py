# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds tables of nftables, one for each file NAME.nft of a directory, with the chains that are in it.

    firewall.py hold DIRECTORY     load them and stay: the service
    firewall.py reload DIRECTORY   have the service read them again, and wait until it has
    firewall.py once DIRECTORY     load them and end, where no service can stay
    firewall.py check NAME         whether the table is there: exit status 0 or 1

The tables belong to the process that holds them, so that nobody else's `nft flush ruleset` takes them away (Linux
5.12), and outlive it until it is started again (Linux 6.9 with nftables 1.1). What older ones lack is left out.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PREFIX = "nested-kata."
TRIAL = f"{PREFIX}trial."
OWNERSHIP = ("flags owner,persist;", "flags owner;", "")
STATE = Path(os.environ.get("RUNTIME_DIRECTORY", "/run")) / "nested-kata-firewall.json"
RELOADING_SECONDS = 30


class Refused(Exception):
    """What nftables does not take. The message is its own, in a line."""


class Nftables:
    """A session of libnftables: what it owns goes with it."""

    def __init__(self) -> None:
        """Open it."""
        try:
            self.library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise Refused(f"nftables is not installed ({error})") from error
        self.library.nft_ctx_new.restype = ctypes.c_void_p
        self.library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self.library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self.context = ctypes.c_void_p(self.library.nft_ctx_new(0))
        self.library.nft_ctx_buffer_output(self.context)
        self.library.nft_ctx_buffer_error(self.context)

    def run(self, commands: str) -> str:
        """Run commands as one transaction, and return what they print."""
        status = self.library.nft_run_cmd_from_buffer(self.context, commands.encode())
        output: bytes = self.library.nft_ctx_get_output_buffer(self.context) or b""
        errors: bytes = self.library.nft_ctx_get_error_buffer(self.context) or b""
        if status:
            raise Refused(" ".join(errors.decode(errors="replace").split()) or "nftables gives no reason")
        return output.decode(errors="replace")

    def tables(self) -> set[str]:
        """Return the tables that are ours by their names."""
        listed = (line.split() for line in self.run("list tables inet").splitlines())
        return {words[2] for words in listed if len(words) == 3 and words[2].startswith(PREFIX)}

    def ownership(self) -> str:
        """Return how a table can be owned here."""
        for flags in OWNERSHIP[:-1]:
            trial = f"{TRIAL}{os.getpid()}"
            try:
                self.run(f"table inet {trial} {{ {flags} }}\ndelete table inet {trial}")
            except Refused:
                continue
            return flags
        return ""

    def load(self, table: str, chains: str, flags: str, there: bool) -> None:
        """Make a table, or replace the one that is there, with nothing in between."""
        earlier = f"delete table inet {table}\n" if there else ""
        self.run(f"{earlier}table inet {table} {{ {flags}\n{chains}}}\n")


def read(directory: Path) -> dict[str, str]:
    """Return the chains of each table."""
    return {f"{PREFIX}{path.stem}": path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.nft"))}


def digest(wanted: dict[str, str]) -> str:
    """Return what tells one state of the directory from another."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def apply(session: Nftables, wanted: dict[str, str], loaded: dict[str, str], flags: str) -> list[str]:
    """Load what has changed, remove the other tables, and return the problems. What cannot be replaced stays."""
    problems, there = [], session.tables()
    for table, chains in wanted.items():
        if loaded.get(table) != chains:
            try:
                session.load(table, chains, flags, table in there)
                loaded[table] = chains
            except Refused as error:
                problems.append(f"{table}: {error}")
    for table in there - set(wanted):
        try:
            session.run(f"delete table inet {table}")
            loaded.pop(table, None)
        except Refused as error:
            problems.append(f"{table} is not removed: {error}")
    return problems


def hold(directory: Path) -> int:
    """Load the tables, and again whenever that is asked for, until the end."""
    signals = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    session = Nftables()
    flags, loaded = session.ownership(), {}
    if "owner" not in flags:
        report(["before Linux 5.12 `nft flush ruleset` takes these rules away, until this service is restarted"])
    while True:
        wanted = read(directory)
        problems = apply(session, wanted, loaded, flags)
        report(problems)
        write_state(digest(wanted), problems)
        notify("READY=1")
        if signal.sigwait(signals) != signal.SIGHUP:
            STATE.unlink(missing_ok=True)
            return 0


def write_state(stamp: str, problems: list[str]) -> None:
    """Note who holds what, for a reload."""
    unfinished = STATE.with_name(f"{STATE.name}.part")
    unfinished.write_text(json.dumps({"pid": os.getpid(), "stamp": stamp, "problems": problems}), encoding="utf-8")
    unfinished.replace(STATE)


def notify(what: str) -> None:
    """Tell systemd, where it waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.sendto(what.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def reload(directory: Path) -> int:
    """Have the process that holds them read the files, and return when it has."""
    wanted = digest(read(directory))
    os.kill(json.loads(STATE.read_text(encoding="utf-8"))["pid"], signal.SIGHUP)
    end = time.monotonic() + RELOADING_SECONDS
    while time.monotonic() < end:
        state = json.loads(STATE.read_text(encoding="utf-8"))
        if state["stamp"] == wanted:
            return report(state["problems"])
        time.sleep(0.05)
    return report([f"the service has not read {directory} within {RELOADING_SECONDS} s"])


def once(directory: Path) -> int:
    """Load the tables for nobody."""
    return report(apply(Nftables(), read(directory), {}, ""))


def check(name: str) -> int:
    """Say whether a table is there."""
    there = f"{PREFIX}{name}" in Nftables().tables()
    return 0 if there else report([f"the firewall of {name} is not loaded: see the service nested-kata-firewall"])


def report(problems: Iterable[str]) -> int:
    """Print problems, and return the exit status."""
    listed = list(problems)
    for problem in listed:
        print(f"nested-kata-firewall: {problem}", file=sys.stderr, flush=True)
    return 1 if listed else 0


def main(arguments: list[str]) -> int:
    """Do what the first argument says."""
    commands: dict[str, Callable[[str], int]] = {
        "hold": lambda directory: hold(Path(directory)),
        "reload": lambda directory: reload(Path(directory)),
        "once": lambda directory: once(Path(directory)),
        "check": check,
    }
    if len(arguments) != 2 or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](arguments[1])
    except (Refused, OSError, ValueError) as error:
        return report([str(error)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
