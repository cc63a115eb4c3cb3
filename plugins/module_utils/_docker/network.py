# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP from the network of a container of this machine, without a program there that would pass the bytes on."""

from __future__ import annotations

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

CLONE_NEWNET = 0x40000000  # linux/sched.h
Found = TypeVar("Found")


class Network:
    """The network of a container, which this process may enter."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace

    def connect(self, address: str, port: int, seconds: float) -> socket.socket:
        """Return a connection from there, or raise OSError."""
        return within(self._namespace, lambda: socket.create_connection((address, port), seconds))

    def close(self) -> None:
        os.close(self._namespace)


def network_of(process: int, container: str) -> Network | None:
    """Return the network of a container by the number of its first process and its id. None where this process may not
    enter it, or where another process has the number here: the daemon may count in another PID namespace.
    """
    try:
        namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Only afterwards, since the process may have ended and its number have been given to another one.
        with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="replace") as groups:
            there = container in groups.read()
        if there:
            within(namespace, lambda: None)
            return Network(namespace)
    except OSError:
        pass
    os.close(namespace)
    return None


def within(namespace: int, do: Callable[[], Found]) -> Found:
    """Do something in another network namespace."""

    def enter() -> Found:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return do()

    # setns(2) moves the thread that calls it and no other, and this one ends with what it did.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()
