# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's command line and daemon.json are read."""

from __future__ import annotations

import re

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import (
    NotUsable,
    added_runtimes,
    flags_of,
    key_of,
    settings_of,
)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["-H", "fd://", "--containerd=/run/containerd/containerd.sock"], ("H", "containerd")),
        (["--debug", "--add-runtime", "kata=/x", "-"], ("debug", "add-runtime")),
        ([], ()),
    ],
)
def test_flags_of_dockerd_are_taken_without_their_values(arguments: list, names: tuple) -> None:
    assert flags_of(arguments) == names


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--add-runtime", "kata=/x", "--add-runtime=crun=/usr/bin/crun", "-D"], ("kata", "crun")),
        (["--add-runtime"], ("",)),
        (["-H", "fd://"], ()),
    ],
)
def test_runtimes_of_dockerds_flags_are_taken_by_name(arguments: list, names: tuple) -> None:
    assert added_runtimes(arguments) == names


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("H", "hosts"),
        ("host", "hosts"),
        ("add-runtime", "add-runtime"),
        ("insecure-registry", "insecure-registries"),
        ("storage-opt", "storage-opts"),
        ("default-address-pool", "default-address-pools"),
        ("mtu", "mtu"),
        ("dns", "dns"),
    ],
)
def test_a_flag_has_its_name_in_daemon_json(flag: str, key: str) -> None:
    assert key_of(flag) == key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# mine\n{}", "has a comment in line 1"),
        ('{\n  /* x */ "a": 1}', "has a comment in line 2"),
        ('{"a": 1} // x', "has a comment in line 1"),
        ('{"a": "// no comment"', "is not valid JSON in line 1"),
        ("{'a': 1}", "is not valid JSON in line 1"),
        ("[]", "holds no object"),
        ('"x"', "holds no object"),
        (
            '{"debug": 1}',
            "is nothing that dockerd starts with: debug is the number 1, and dockerd takes only true or false",
        ),
    ],
)
def test_a_daemon_json_that_dockerd_refuses_is_told_by_its_line(text: str, words: str) -> None:
    with pytest.raises(NotUsable, match=re.escape(words)):
        settings_of(text)


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_a_daemon_json_may_say_nothing(text: str) -> None:
    assert settings_of(text) == {}
