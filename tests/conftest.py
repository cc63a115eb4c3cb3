# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a marked test needs is asserted before it runs: it fails, and is never skipped, where that is missing."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import settings
from samples import sampled

T = TypeVar("T")

# How long an example takes says how busy the machine is.
settings.register_profile("the same examples each time", deadline=None, derandomize=True)
settings.register_profile("other examples each time", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nested.kata")
    group.addoption(
        "--all",
        action="store_true",
        help="run the tests marked `thorough` too, and every point of those that take a sample",
    )
    group.addoption(
        "--kernel",
        action="store_true",
        help="run the tests marked `kernel` too, which build one",
    )
    group.addoption(
        "--seed",
        type=int,
        help="the seed of the samples, as an earlier run printed it (default: another one each time)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # What random examples find is rarely about the change at hand, and a run that anybody waits for is about that.
    settings.load_profile("other examples each time" if config.option.all else "the same examples each time")
    # The workers of pytest-xdist are given the seed of the process that starts them.
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1_000_000)


def pytest_report_header(config: pytest.Config) -> str:
    return (
        "all points, no samples"
        if config.option.all
        else f"samples: --seed {config.option.seed} takes the same ones again"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it was asked for or a test is named on the command line."""
    if config.option.all or any("::" in argument for argument in config.args):
        return
    left_out = [
        item
        for item in items
        if item.get_closest_marker("thorough") or (item.get_closest_marker("kernel") and not config.option.kernel)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def sample(request: pytest.FixtureRequest) -> Callable[[Sequence[T], int], list[T]]:
    """Return a function that takes so many of the points of a test, in their order: all of them with --all."""
    return functools.partial(sampled, request.config, request.node.nodeid)


@functools.cache
def docker_answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    if marks & {"root", "loop", "docker", "ssh"} and os.geteuid() != 0:
        pytest.fail(
            "this test needs root: run it as root, or leave it out with -m 'not root and not loop and not docker and"
            " not ssh'"
        )
    if "loop" in marks and not os.path.exists("/dev/loop-control"):
        pytest.fail("this test needs loop devices: there is no /dev/loop-control")
    if "docker" in marks and not docker_answers():
        pytest.fail("this test needs a docker daemon on this machine: `docker version` fails")
    if "ssh" in marks and not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.fail("this test needs sshd: install openssh-server")
