# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the machine image that prepares Docker's disk and configuration."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from ansible_runner import CHECKOUT

ROLE = CHECKOUT / "roles" / "machine_image"
PROGRAM = "rootfs/usr/lib/nested-kata/docker_prepare.py"
MTU = "com.docker.network.driver.mtu"
MACHINE = {"fstype": "btrfs", "mtu": 1400, "pool": "10.213.64.0/18"}


def shared() -> dict[str, Path]:
    """Return the files of the collection that the machine image has too, by where they are there."""
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text(encoding="utf-8"))
    variables = next(task["vars"] for task in tasks if "machine_image_shared" in task.get("vars", {}))
    return {
        name: Path(source.replace("{{ role_path }}", str(ROLE))).resolve()
        for name, source in variables["machine_image_shared"].items()
    }


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program beside what it shares with the collection, as in the machine image."""
    root = tmp_path_factory.mktemp("image")
    for name, source in {PROGRAM: ROLE / "files" / PROGRAM, **shared()}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / name)
    return root / PROGRAM


@pytest.fixture
def prepare(image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("docker_prepare", image)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield module
    for name in shared():
        sys.modules.pop(Path(name).stem, None)


@pytest.fixture
def daemon_json(prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docker" / "daemon.json"
    path.parent.mkdir()
    monkeypatch.setattr(prepare, "DAEMON_JSON", path)
    return path


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


def test_what_a_tenant_may_choose_is_kept(prepare: ModuleType) -> None:
    present = {
        "mtu": 1200,
        "default-network-opts": {"bridge": {"x": "y", MTU: "1300"}, "ipvlan": {"parent": "eth0"}, "macvlan": None},
        "default-address-pools": [{"base": "192.168.64.0/18", "size": 26}, {"base": "fd00:1::/48", "size": 64}],
        "labels": ["a=b"],
    }
    changes: list[str] = []
    config = prepare.daemon_config(present, **MACHINE, changes=changes)
    assert config == {
        **present,
        "storage-driver": "btrfs",
        "default-network-opts": {**present["default-network-opts"], "macvlan": {}},
        "default-address-pools": [*present["default-address-pools"], {"base": "10.213.64.0/18", "size": 24}],
    }
    assert changes == []
    assert prepare.daemon_config(config, **MACHINE) == config


def test_what_this_machine_cannot_have_is_changed_and_said(prepare: ModuleType) -> None:
    present = {
        "storage-driver": "vfs",
        "mtu": 9000,
        "default-network-opts": {"bridge": {MTU: "1500"}, "ipvlan": {MTU: "9000", "a": "b"}, "x": {MTU: "auto"}},
        "default-address-pools": [
            {"base": "10.213.0.0/16", "size": 24},
            {"Base": "10.213.65.0/24", "size": 28},
            {"base": "10.214.0.0/16", "size": 24},
            {"base": "nonsense", "size": 24},
        ],
    }
    changes: list[str] = []
    config = prepare.daemon_config(present, **MACHINE, changes=changes)
    assert config == {
        "storage-driver": "btrfs",
        "mtu": 1400,
        "default-network-opts": {"bridge": {MTU: "1400"}, "ipvlan": {MTU: "1400", "a": "b"}, "x": {MTU: "auto"}},
        "default-address-pools": [*present["default-address-pools"][2:], {"base": "10.213.64.0/18", "size": 24}],
    }
    assert changes == [
        "storage-driver vfs does not fit the file system btrfs of the disk",
        "mtu 9000 does not fit eth0, which has 1400",
        f"default-network-opts.bridge.{MTU} 1500 does not fit eth0, which has 1400",
        f"default-network-opts.ipvlan.{MTU} 9000 does not fit eth0, which has 1400",
        "default-address-pools 10.213.0.0/16 overlaps 10.213.64.0/18, this level's",
        "default-address-pools 10.213.65.0/24 overlaps 10.213.64.0/18, this level's",
    ]
    again: list[str] = []
    assert (prepare.daemon_config(config, **MACHINE, changes=again), again) == (config, [])


@pytest.mark.parametrize("mtu", [0, None])
def test_an_mtu_that_means_dockers_default_is_that_of_eth0(prepare: ModuleType, mtu: object) -> None:
    assert prepare.daemon_config({"mtu": mtu}, **MACHINE)["mtu"] == 1400


def own(prepare: ModuleType, **machine: object) -> str:
    return prepare.written(prepare.daemon_config({}, **{**MACHINE, **machine}))


def test_a_first_start_and_each_one_after_it_need_nothing_of_the_collection(
    prepare: ModuleType, daemon_json: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "daemon_json", None)  # an import is an error
    prepare.configure(**MACHINE)
    assert daemon_json.read_text() == own(prepare)
    os.utime(daemon_json, ns=(1, 1))
    prepare.configure(**MACHINE)
    assert daemon_json.stat().st_mtime_ns == 1


def test_a_file_that_this_program_wrote_follows_eth0_up_and_down(prepare: ModuleType, daemon_json: Path) -> None:
    for machine in ({"mtu": 1400}, {"mtu": 9000}, {"mtu": 1300}, {"pool": "10.9.0.0/18"}, {"pool": None}):
        prepare.configure(**{**MACHINE, **machine})
        assert daemon_json.read_text() == own(prepare, **machine)


PLAIN = {"storage-driver": "btrfs", "mtu": 1400, "default-network-opts": {"bridge": {MTU: "1400"}}}


def test_what_a_tenant_wrote_keeps_its_layout_and_is_written_once(
    prepare: ModuleType, daemon_json: Path, capsys: pytest.CaptureFixture
) -> None:
    daemon_json.write_text('{\n\t"mtu": 9000,\n\t"labels": ["a=b",  "c=d"]\n}\n')
    prepare.configure(**{**MACHINE, "pool": None})
    text = daemon_json.read_text()
    assert text.startswith('{\n\t"mtu": 1400,\n\t"labels": ["a=b",  "c=d"],\n\t"')
    assert json.loads(text) == {**PLAIN, "labels": ["a=b", "c=d"]}
    assert capsys.readouterr().out == f"{daemon_json}: mtu 9000 does not fit eth0, which has 1400: changed\n"
    os.utime(daemon_json, ns=(1, 1))
    prepare.configure(**{**MACHINE, "pool": None})
    assert (daemon_json.stat().st_mtime_ns, capsys.readouterr().out) == (1, "")


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"\xef\xbb\xbf{}", "\ufeff{}".encode("utf-16-le"), b'{"mtu": null, "default-network-opts": null}'],
)
def test_what_dockerd_takes_is_taken(prepare: ModuleType, daemon_json: Path, data: bytes) -> None:
    daemon_json.write_bytes(data)
    prepare.configure(**{**MACHINE, "pool": None})
    assert json.loads(daemon_json.read_text()) == PLAIN


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{\n"mtu": 1400,\n}', "line 2 is not valid JSON (there is a comma behind the last value)"),
        (
            b'{\n// mine\n"mtu": 1400}',
            "line 2 has a comment ('// mine'), which JSON and dockerd do not know: remove it",
        ),
        (b'{"a": "\xe9"}', "byte 7 is not valid UTF-8: correct it"),
        (b"[]", "it holds list, not a JSON object"),
        (
            b'{"log-opts": {"max-size": 10}}',
            'log-opts.max-size is the number 10, and dockerd takes only a text: write "10"',
        ),
        (b'{"mtu": "1400"}', 'mtu is the text "1400", and dockerd takes only a whole number'),
        (
            b'{"default-address-pools": [1]}',
            "default-address-pools[0] is the number 1, and dockerd takes only an object",
        ),
        (b'{"default-network-opts": {"bridge": []}}', "default-network-opts.bridge is a list, and dockerd takes only"),
        (b'{"labels": ["a=\\ud83d"]}', "labels[0] has half a character"),
    ],
)
def test_what_dockerd_refuses_is_refused_with_the_file(
    prepare: ModuleType, daemon_json: Path, data: bytes, reason: str
) -> None:
    daemon_json.write_bytes(data)
    with pytest.raises(prepare.NotReady) as refused:
        prepare.configure(**MACHINE)
    assert str(refused.value).startswith(f"{daemon_json}: {reason}")
    assert str(refused.value).endswith(", then run `systemctl start docker`")
    assert "\n" not in str(refused.value)
    assert (daemon_json.read_bytes(), os.listdir(daemon_json.parent)) == (data, ["daemon.json"])


def test_a_link_stays_one(prepare: ModuleType, daemon_json: Path, tmp_path: Path) -> None:
    for target in ("there.json", "not-there.json"):
        (tmp_path / "there.json").write_text('{"debug": true}')
        daemon_json.unlink(missing_ok=True)
        daemon_json.symlink_to(tmp_path / target)
        prepare.configure(**MACHINE)
        assert daemon_json.is_symlink()
        assert json.loads((tmp_path / target).read_text())["storage-driver"] == "btrfs"


def test_a_directory_in_its_place_is_an_error_that_names_it(prepare: ModuleType, daemon_json: Path) -> None:
    daemon_json.mkdir()
    with pytest.raises(prepare.NotReady, match=f"^{daemon_json}: Is a directory$"):
        prepare.configure(**MACHINE)


def test_the_program_runs_as_its_unit_starts_it_and_says_in_one_line_why_docker_is_not_started(
    image: Path, tmp_path: Path
) -> None:
    """In a mount namespace with a disk of its own, as python3 -I -S."""
    (tmp_path / "daemon.json").write_text('{"debug": "true"}')
    replaced = image.with_name("docker_prepare_here.py")
    replaced.write_text(
        image.read_text()
        .replace("/etc/docker/daemon.json", str(tmp_path / "daemon.json"))
        .replace("/sys/class/net/eth0/mtu", str(tmp_path / "mtu"))
        .replace('"/var/lib/docker"', '"/proc"')
    )
    (tmp_path / "mtu").write_text("1400\n")
    command = [sys.executable, "-I", "-S", replaced]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'Docker is not started: {tmp_path}/daemon.json: debug is the text "true", and dockerd takes only true or'
        " false: write true without quotes: correct it, then run `systemctl start docker`\n"
    )
    (tmp_path / "daemon.json").write_text('{"debug": true, "mtu": 9000}')
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/daemon.json: mtu 9000 does not fit eth0, which has 1400: changed\n"
    assert json.loads((tmp_path / "daemon.json").read_text())["debug"] is True


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


PROXIES = {"http_proxy": "http://192.0.2.10:3128", "HTTPS_PROXY": "not read", "no_proxy": "localhost"}
CLIENT = {"default": {"httpProxy": "http://192.0.2.10:3128", "noProxy": "localhost"}}


@pytest.fixture
def client_json(prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "root" / ".docker" / "config.json"
    monkeypatch.setattr(prepare, "CLIENT_JSON", path)
    return path


def test_the_client_gives_the_proxy_servers_to_containers(prepare: ModuleType, client_json: Path) -> None:
    prepare.configure_client({"PATH": "/bin"})
    assert not client_json.exists()
    prepare.configure_client(PROXIES)
    assert json.loads(client_json.read_text()) == {"proxies": CLIENT}
    assert client_json.stat().st_mode & 0o777 == 0o600
    inode = client_json.stat().st_ino
    prepare.configure_client(PROXIES)
    assert client_json.stat().st_ino == inode


@pytest.mark.parametrize("chosen", [{}, {"default": {"httpProxy": "http://other"}}])
def test_what_root_chose_for_containers_stays(prepare: ModuleType, client_json: Path, chosen: dict) -> None:
    client_json.parent.mkdir(parents=True)
    client_json.write_text(json.dumps({"auths": {}, "proxies": chosen}))
    prepare.configure_client(PROXIES)
    assert json.loads(client_json.read_text()) == {"auths": {}, "proxies": chosen}
    client_json.write_text(json.dumps({"auths": {"r": {}}}))
    prepare.configure_client(PROXIES)
    assert json.loads(client_json.read_text()) == {"auths": {"r": {}}, "proxies": CLIENT}


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "\udcff", "dangling"])
def test_a_file_of_the_client_that_is_none_keeps_nothing_from_starting(
    prepare: ModuleType, client_json: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    client_json.parent.mkdir(parents=True)
    if text == "dangling":
        client_json.symlink_to("nowhere")
    else:
        client_json.write_bytes(text.encode(errors="surrogateescape"))
    prepare.configure_client(PROXIES)
    assert "containers and builds do not get the proxy servers" in capsys.readouterr().out
    assert client_json.is_symlink() or client_json.read_bytes() == text.encode(errors="surrogateescape")


def test_mirrors_are_those_of_the_level_unless_there_are_other_ones(prepare: ModuleType, daemon_json: Path) -> None:
    prepare.configure(**MACHINE, mirrors=["https://mirror"])
    assert json.loads(daemon_json.read_text())["registry-mirrors"] == ["https://mirror"]
    prepare.configure(**MACHINE, mirrors=["https://other"])
    assert json.loads(daemon_json.read_text())["registry-mirrors"] == ["https://other"]
    prepare.configure(**MACHINE, mirrors=[])
    assert "registry-mirrors" not in json.loads(daemon_json.read_text())
    daemon_json.write_text('{"registry-mirrors": ["https://mine"]}')
    prepare.configure(**MACHINE, mirrors=["https://other"])
    assert json.loads(daemon_json.read_text())["registry-mirrors"] == ["https://mine"]
