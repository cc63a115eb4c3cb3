# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a marked test needs is asserted before it runs: it fails, and is never skipped, where that is missing."""
from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    if marks & {"root", "loop", "docker", "ssh"} and os.geteuid() != 0:
        pytest.fail("this test needs root: run it as root, or leave it out with -m 'not root and not loop and not docker and not ssh'")
    if "loop" in marks and not os.path.exists("/dev/loop-control"):
        pytest.fail("this test needs loop devices: there is no /dev/loop-control")
    if "docker" in marks and subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        pytest.fail("this test needs a docker daemon on this machine: `docker version` fails")
    if "ssh" in marks and not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.fail("this test needs sshd: install openssh-server")
