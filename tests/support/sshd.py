# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An sshd of a test's own on this machine, which lets root in by a key."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_runner import HEEDING_SIGNALS, wait_until
from qemu_machine import free_port


@contextmanager
def own_sshd(place: Path) -> Iterator[int]:
    """Run it and yield its port on 127.0.0.1. In the directory are the key `user` and the server's, `host.pub`."""
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True)
    port = free_port()
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n"
        # Bash that sshd starts reads .bashrc, which may print something, unless it is a shell below another one.
        "SetEnv SHLVL=2\n",
        encoding="utf-8",
    )
    os.makedirs("/run/sshd", exist_ok=True)
    with subprocess.Popen(
        [*HEEDING_SIGNALS, "/usr/sbin/sshd", "-D", "-f", place / "sshd_config", "-E", place / "log"]
    ) as server:
        try:
            wait_until(
                lambda: answers(port), "sshd to listen", 30, log=lambda: (place / "log").read_text(encoding="utf-8")
            )
            yield port
        finally:
            server.terminate()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
