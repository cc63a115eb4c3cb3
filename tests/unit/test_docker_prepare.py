# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the machine image that prepares Docker's disk and configuration."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ansible_runner import CHECKOUT

PROGRAM = (
    CHECKOUT / "roles" / "machine_image" / "files" / "rootfs" / "usr" / "lib" / "nested-kata" / "docker_prepare.py"
)


@pytest.fixture
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_prepare", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("fstype", "driver"),
    [("btrfs", "btrfs"), ("ext2/ext3", "overlay2"), ("xfs", "overlay2"), ("overlayfs", "overlay2")],
)
def test_the_storage_driver_is_named_after_the_file_system(prepare: ModuleType, fstype: str, driver: str) -> None:
    assert prepare.daemon_config({}, fstype=fstype, mtu=1400, pool=None)["storage-driver"] == driver


def test_every_network_has_the_mtu_of_eth0_and_the_pool_of_its_level(prepare: ModuleType) -> None:
    config = prepare.daemon_config({}, fstype="btrfs", mtu=1400, pool="10.213.64.0/18")
    assert config["mtu"] == 1400
    assert config["default-network-opts"] == {"bridge": {"com.docker.network.driver.mtu": "1400"}}
    assert config["default-address-pools"] == [{"base": "10.213.64.0/18", "size": 24}]


def test_what_else_is_configured_stays(prepare: ModuleType) -> None:
    present = {"runtimes": {"kata": {"runtimeType": "/x"}}, "mtu": 1500}
    config = prepare.daemon_config(present, fstype="btrfs", mtu=1400, pool=None)
    assert config["runtimes"] == {"kata": {"runtimeType": "/x"}}
    assert config["mtu"] == 1400
    assert "default-address-pools" not in config
    assert present == {"runtimes": {"kata": {"runtimeType": "/x"}}, "mtu": 1500}


def test_another_disk_is_not_mounted(prepare: ModuleType) -> None:
    prepare.check_uuid("a", "a")
    with pytest.raises(prepare.NotReady, match="another disk and was not mounted"):
        prepare.check_uuid("b", "a")
    with pytest.raises(prepare.NotReady, match="UUID none"):
        prepare.check_uuid("", "a")


def test_the_configuration_is_replaced_whole_and_only_when_it_differs(prepare: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "docker" / "daemon.json"
    prepare.write_if_changed(path, "{}\n")
    os.utime(path, ns=(1, 1))
    prepare.write_if_changed(path, "{}\n")
    assert path.stat().st_mtime_ns == 1
    prepare.write_if_changed(path, '{"mtu": 1400}\n')
    assert path.read_text(encoding="utf-8") == '{"mtu": 1400}\n'
    assert [file.name for file in path.parent.iterdir()] == ["daemon.json"]


def test_without_a_disk_docker_is_not_started_on_the_root_file_system(
    prepare: ModuleType, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(prepare, "DATA", tmp_path)
    monkeypatch.setattr(prepare, "DAEMON_JSON", tmp_path / "daemon.json")
    monkeypatch.delenv("NESTED_KATA_DISK_UUID", raising=False)
    assert prepare.main([]) == 1
    assert "Docker would fill the root file system" in capsys.readouterr().err
    assert not (tmp_path / "daemon.json").exists()


def test_a_disk_that_was_promised_and_is_missing_keeps_docker_from_starting(
    prepare: ModuleType, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(prepare, "DISK", tmp_path / "docker-disk")
    monkeypatch.setenv("NESTED_KATA_DISK_UUID", "11111111-2222-3333-4444-555555555555")
    assert prepare.main([]) == 1
    assert "started without its disk 11111111" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["-O", "^64bit"], ["-b", "1024"], ["-b", "4096"]])
@pytest.mark.parametrize("grown", [0, 16 << 20, 100 << 20])
def test_the_room_for_an_ext4_is_what_the_disk_grew_by(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], grown: int
) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", *options, disk], check=True)
    os.truncate(disk, (64 << 20) + grown)
    monkeypatch.setattr(prepare, "DISK", disk)
    room = prepare.room_for_ext4(prepare.disk_size())
    assert room == grown
    assert (room >= prepare.LEAST_ROOM) == bool(grown)


@pytest.mark.parametrize(
    ("note", "size"), [(None, sys.maxsize), ("all\n", sys.maxsize), ("", sys.maxsize), ("4096\n", 4096)]
)
def test_without_a_size_the_file_system_takes_all_of_the_disk(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str | None, size: int
) -> None:
    monkeypatch.setattr(prepare, "DISK_SIZE", tmp_path / "size")
    if note is not None:
        (tmp_path / "size").write_text(note)
    assert prepare.wanted_size() == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grow", "much"], "invalid literal"),
        (["grow"], "not enough values"),
        (["shrink", "1"], "there is no command shrink"),
        (["grow", "1"], "is not mounted at"),
    ],
)
def test_what_cannot_grow_is_an_error(
    prepare: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(prepare, "DATA", tmp_path)
    assert prepare.main(arguments) == 1
    assert message in capsys.readouterr().err
