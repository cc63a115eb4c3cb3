# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A docker client that answers by a script, and whose hops are processes of this machine: for tests that need no
Docker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import streams
from tunnel_program import leading_to
from unix_server import UnixServer


class DockerClient:
    """A docker client on PATH. What it does for each kind of call is a line of shell; `called` notes the calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemon = UnixServer(directory / "docker.sock")
        program = leading_to(self.daemon.path, wait=1)
        (directory / "tunnel.py").write_text(program[-1])
        run = f"exec {sys.executable} -IS {directory / 'tunnel.py'}"
        self.does = {
            "*IPAddress*": "echo 127.0.0.1",
            "*tunnel.py*serve": f"{run} serve",
            "*tunnel.py*dial": f"{run} dial",
            "*dial-stdio": "exec cat",
            "*inspect*": "echo running",
            "*": "echo 26.1",
        }

    def write(self) -> None:
        cases = "\n".join(f"  {pattern.replace(' ', chr(92) + ' ')}) {line} ;;" for pattern, line in self.does.items())
        client = self.directory / "bin" / "docker"
        client.parent.mkdir(exist_ok=True)
        client.write_text(f'#!/bin/sh\necho "$*" >>{self.directory}/called\ncase "$*" in\n{cases}\nesac\n')
        client.chmod(0o755)

    def called(self, word: str) -> list[str]:
        return [line for line in (self.directory / "called").read_text().splitlines() if word in line]


@contextmanager
def docker_client(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerClient]:
    """Yield a docker client that is the first one on PATH, and whose daemon is this machine's own."""
    found = DockerClient(directory)
    found.write()
    monkeypatch.setenv("PATH", f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(streams, "SOCKET", found.daemon.path)
    try:
        yield found
    finally:
        found.daemon.close()
