# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections from another network: of a process, which stands for a container."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.network import network_of

ID = "0123456789abcdef" * 4


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A process with a network of its own, in which nothing is up."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def group_of(process: int) -> str:
    """Return what stands in a process's cgroups as an id does in those of a container."""
    return Path(f"/proc/{process}/cgroup").read_text().split(":")[-1].strip()


@pytest.mark.root
def test_a_connection_begins_there_and_nothing_else_of_this_process_does(elsewhere: int) -> None:
    here = os.readlink("/proc/self/ns/net")
    network = network_of(elsewhere, group_of(elsewhere))
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(OSError, match="unreachable"):
            network.connect("127.0.0.1", server.getsockname()[1], 5)
        subprocess.run(["nsenter", f"--net=/proc/{elsewhere}/ns/net", "ip", "link", "set", "lo", "up"], check=True)
        with pytest.raises(ConnectionRefusedError):
            network.connect("127.0.0.1", server.getsockname()[1], 5)
        socket.create_connection(server.getsockname()).close()
    network.close()
    assert os.readlink("/proc/self/ns/net") == here


def test_a_process_that_is_none_of_the_container_has_not_its_network() -> None:
    before = os.listdir("/proc/self/fd")
    assert network_of(os.getpid(), ID) is None
    assert network_of(2**22 + 1, ID) is None
    assert len(os.listdir("/proc/self/fd")) == len(before)
