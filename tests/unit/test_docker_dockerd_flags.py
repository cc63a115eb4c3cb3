# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dockerd's command line is read, and what it and daemon.json both name is refused with what mends it."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import (
    added_runtimes,
    arguments_of_unit,
    as_written,
    collisions,
    flags_of,
    key_of,
    refusal,
    unknown,
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
    ("arguments", "names"),
    [
        (["-Hfd://", "-H=unix:///x", "-D", "-l", "warn"], ("H", "H", "D", "l")),
        (["--debug", "--mtu", "1400", "--iptables=false"], ("debug", "mtu", "iptables")),
        (["--", "-"], ()),
    ],
)
def test_each_way_to_write_a_flag_is_read(arguments: list, names: tuple) -> None:
    assert flags_of(arguments) == names


def test_flags_that_daemon_json_names_too_are_found_once() -> None:
    flags = ("H", "host", "label", "debug", "add-runtime", "H")
    assert collisions(flags, {"hosts": [], "labels": [], "runtimes": {}, "mtu": 1}) == [
        ("H", "hosts"),
        ("host", "hosts"),
        ("label", "labels"),
    ]
    assert [as_written(flag) for flag in ("H", "host")] == ["-H", "--host"]


DEBIAN = ["/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"]


def test_what_dockerd_would_not_start_with_is_refused_with_the_drop_in_that_mends_it() -> None:
    assert refusal(DEBIAN, {"live-restore": True}, systemd=True) == ""
    assert refusal([], {"hosts": []}, systemd=True) == ""
    assert refusal(DEBIAN, {"hosts": ["fd://"]}, systemd=True) == (
        "dockerd is started with -H fd://, and does not start with hosts in this file too: write"
        " /etc/systemd/system/docker.service.d/flags.conf with the lines `[Service]`, `ExecStart=` and"
        " `ExecStart=/usr/sbin/dockerd --containerd=/run/containerd/containerd.sock`, run `systemctl daemon-reload &&"
        " systemctl restart docker`"
    )


def test_without_systemd_the_command_that_is_right_is_named() -> None:
    command = ["/usr/bin/dockerd", "--debug", "--mtu", "1400", "--label=a=b", "--label", "c=d"]
    assert refusal(command, {"labels": [], "debug": True}, systemd=False) == (
        "dockerd is started with --debug, --label=a=b, --label c=d, and does not start with debug, labels in this file"
        " too: start it as `/usr/bin/dockerd --mtu 1400`"
    )


def test_the_command_line_of_a_unit_is_read() -> None:
    shown = (
        "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS ; ignore_errors=no ;"
        " start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
    )
    assert arguments_of_unit(shown) == ["/usr/sbin/dockerd", "-H", "fd://", "$DOCKER_OPTS"]
    assert arguments_of_unit("ExecStart=\n") == []
    assert arguments_of_unit("") == []


USAGE = """
Usage:	dockerd [OPTIONS]

Options:
  -D, --debug                                 Enable debug mode
      --label list                            Set key=value labels to the daemon
  -H, --host list                             Daemon socket(s) to connect to
      --http-proxy string                     as Docker 23 has it
      --tlscacert string                      Trust certs signed only by this CA (default "/root/--x/ca.pem")
"""


def test_keys_that_a_dockerd_does_not_know_are_told_by_its_own_flags() -> None:
    known = {
        "debug": True,
        "labels": [],
        "hosts": [],
        "tlscacert": "",
        "runtimes": {"kata": {}},
        "features": {"buildkit": True},
        "builder": {"gc": {}},
        "proxies": {"http-proxy": ""},
    }
    assert unknown(known, USAGE) == []
    assert unknown({"Debug": True, "proxies": {"no-proxy": ""}, "log-opts": {"a": ""}}, USAGE) == [
        "Debug",
        "no-proxy",
        "log-opts",
    ]
