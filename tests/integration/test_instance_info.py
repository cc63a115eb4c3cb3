# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances of a host in each state, with a real Docker. In each a program stands in for its docker command."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host.instances import Places, look
from ansible_runner import MARK, run_module
from docker_in_docker import CONTAINER_IMAGE, build_images, docker

pytestmark = [pytest.mark.root, pytest.mark.docker]

GOOD = """echo '{"ServerVersion": "26.1.5", "Driver": "btrfs", "ContainersRunning": 2}'"""
PROGRAMS = {
    "good": GOOD,
    "silent": "exec sleep 1000",
    "broken": "printf 'dockerd \033[31mis dead\n' >&2; exit 1",
    "endless": "exec cat /dev/zero",
    "stopped": GOOD,
    "foreign": GOOD,
}


def name_of(kind: str) -> str:
    return f"t-info-{kind}-{MARK}"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    build_images(CONTAINER_IMAGE)
    here = tmp_path_factory.mktemp("target")
    (here / "instances").mkdir()
    program = here / "docker"
    names = [name_of(kind) for kind in PROGRAMS]
    docker("rm", "-f", *names, check=False)
    try:
        for kind, script in PROGRAMS.items():
            name = name_of(kind)
            if kind != "foreign":
                (here / "instances" / f"{name}.env").touch()
            docker(
                "create",
                "--init",
                "--memory=64m",
                "--name",
                name,
                f"--label=nested.kata.instance={name}",
                CONTAINER_IMAGE,
            )
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
            docker("cp", str(program), f"{name}:/usr/local/bin/docker")
            if kind != "stopped":
                docker("start", name)
        yield Places(str(here / "instances"), str(here / "ends"))
    finally:
        docker("rm", "-f", *names, check=False)


def test_each_instance_is_an_entry_whatever_it_answers(places: Places) -> None:
    began = time.monotonic()
    found = look(shutil.which("docker"), 5, places)
    assert time.monotonic() - began < 60
    assert found["error"] == ""
    levels = {one["name"]: one for one in found["levels"]}
    states = {kind: levels[name_of(kind)]["state"] for kind in PROGRAMS}
    assert states == {
        "good": "running",
        "silent": "silent",
        "broken": "broken",
        "endless": "broken",
        "stopped": "stopped",
        "foreign": "foreign",
    }
    good = levels[name_of("good")]
    assert (good["version"], good["driver"], good["running"], good["runtime"]) == ("26.1.5", "btrfs", 2, "runc")
    assert good["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert good["memory"]["size"] == 64 << 20
    assert good["memory"]["used"] > 0
    assert good["memory"]["held"] is None
    assert good["disk"] is None  # it has no /var/lib/docker
    assert levels[name_of("broken")]["reason"] == "dockerd \\x1b[31mis dead"
    assert json.dumps(found).isprintable()


def test_the_module_changes_nothing_and_lists_them(places: Places) -> None:
    result = run_module("instance_info", {"timeout": 2})
    assert result["changed"] is False
    states = {one["name"]: one["state"] for one in result["levels"]}
    # This machine has no settings of theirs.
    assert {states[name_of(kind)] for kind in PROGRAMS} == {"foreign"}
