# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that has a machine, or an image in the making, trust the authorities that it is given."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, MARK
from authorities import make_authority
from docker_in_docker import CONTAINER_IMAGE, DAEMON_IMAGE, build_images, docker, within

pytestmark = [pytest.mark.root, pytest.mark.docker]

PROGRAM = CHECKOUT / "roles/machine_image/files/early/usr/lib/nested-kata/trust"
MACHINE = f"t-trust-{MARK}"
TRUST = ("sh", "/trust")
DIRECTORY = "/usr/local/share/ca-certificates"
# Where programs of the machine look, and where apt does before there is the package ca-certificates.
BUNDLES = {DAEMON_IMAGE: "/etc/ssl/certs/ca-certificates.crt", CONTAINER_IMAGE: "/etc/ssl/nested-kata.pem"}


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Iterator[str]:
    build_images(request.param)
    docker("rm", "-fv", MACHINE, check=False)
    docker("run", "-d", "--init", "--network", "none", "--name", MACHINE, request.param, "sleep", "infinity")
    try:
        docker("cp", str(PROGRAM), f"{MACHINE}:/trust")
        yield BUNDLES[request.param]
    finally:
        docker("rm", "-fv", MACHINE)


@pytest.fixture
def authorities(tmp_path: Path) -> list[str]:
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        make_authority(tmp_path / name)
        found.append((tmp_path / name / "ca.crt").read_text())
    return found


def trust(text: str) -> str:
    given = base64.b64encode(text.encode()).decode()
    return docker("exec", "--env", f"NESTED_KATA_CA_CERTIFICATES={given}", MACHINE, *TRUST)


def trusted(bundle: str) -> str:
    return within(MACHINE, "cat", bundle)


def test_authorities_replace_those_of_an_earlier_call(bundle: str, authorities: list[str]) -> None:
    first, second = authorities
    trust(first + second)
    assert first in trusted(bundle)
    assert second in trusted(bundle)
    trust(second)
    assert first not in trusted(bundle)
    assert second in trusted(bundle)
    assert within(MACHINE, "ls", DIRECTORY).split() == ["nested-kata-1.crt"]
    within(MACHINE, *TRUST)
    assert second in trusted(bundle)
    trust("")
    assert second not in trusted(bundle)
    assert within(MACHINE, "ls", DIRECTORY) == ""


def test_what_cannot_be_read_replaces_nothing(bundle: str, authorities: list[str]) -> None:
    trust(authorities[0])
    before = trusted(bundle)
    docker("exec", "--env", "NESTED_KATA_CA_CERTIFICATES=LS0t!", MACHINE, "sh", "-c", "if sh /trust; then exit 1; fi")
    assert trusted(bundle) == before
    assert within(MACHINE, "ls", DIRECTORY).split() == ["nested-kata-1.crt"]


def test_where_there_was_none_nothing_is_written(bundle: str) -> None:
    before = {*docker("diff", MACHINE).splitlines()}
    trust("")
    within(MACHINE, *TRUST)
    assert {*docker("diff", MACHINE).splitlines()} == before
