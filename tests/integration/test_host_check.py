# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import json
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import key_of
from ansible_collections.nested.kata.plugins.module_utils._host.kvm import KvmError, run_guest
from ansible_runner import CHECKOUT, MARK, module_command, module_environment, play, run_module
from docker_in_docker import nested_daemon

DEVICES = {
    "vhost_vsock": "/dev/vhost-vsock",
    "vhost_net": "/dev/vhost-net",
    "tun": "/dev/net/tun",
    "loop": "/dev/loop-control",
}
HOP = f"t-host-check-{MARK}"
NAMES = (f"{HOP}-theirs", f"{HOP}-ours")


def by_id(result: dict) -> dict[str, dict]:
    assert not result["failed"], result
    return {finding["id"]: finding for finding in result["findings"]}


def docker(template: str) -> str:
    return command("docker", "info", "--format", template)


def command(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()


def has_driver(path: str) -> bool:
    """Say whether a device is there and its driver as well; opening it would load the driver."""
    if not os.path.exists(path) or not stat.S_ISCHR(os.stat(path).st_mode):
        return False
    return str(os.minor(os.stat(path).st_rdev)) in [
        line.split()[0] for line in Path("/proc/misc").read_text().splitlines()
    ]


def test_what_it_says_of_this_machine_is_what_this_machine_has() -> None:
    findings = by_id(run_module("host_check", {}))
    assert (findings["architecture"]["found"], findings["kernel"]["found"]) == (platform.machine(), platform.release())
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    assert findings["cpu_virtualization"]["ok"] is bool({"vmx", "svm"} & set(flags))
    for name, path in DEVICES.items():
        assert findings[name]["found"] == path or not has_driver(path), name
        assert findings[name]["ok"] or not has_driver(path), name
    version_2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    assert findings["cgroup"]["found"].startswith("version 2" if version_2 else "version 1")
    size = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    assert findings["shm"]["found"].startswith("tmpfs of ")
    assert findings["shm"]["ok"] is (size > 0)


def test_kvm_counts_only_where_a_guest_really_runs() -> None:
    finding = by_id(run_module("host_check", {}))["kvm"]
    try:
        ran = run_guest().seconds > 0
    except KvmError as error:
        ran = False
        assert error.conclusive
    assert finding["ok"] is ran
    assert bool(re.fullmatch(r"a guest ran in \d+ ms", finding["found"])) is ran


@pytest.mark.root
def test_it_works_where_nothing_can_be_written_and_leaves_every_device_and_module_as_it_was() -> None:
    """Each file system is mounted read-only for the module, so that a write would fail; modules and devices are
    compared.
    """

    def state() -> tuple:
        modules = Path("/proc/modules").read_text() if os.path.exists("/proc/modules") else ""
        devices = {
            path: os.stat(path).st_rdev
            for path in ["/dev/kvm", "/dev/net/tun", *DEVICES.values()]
            if os.path.exists(path)
        }
        # What an access to these devices could load; file systems and the like are of what else runs here.
        loaded = [line.split()[0] for line in modules.splitlines()] + Path("/proc/misc").read_text().split()
        return sorted(name for name in loaded if re.match("kvm|vhost|vsock|vmw_vsock|tun|loop", name)), devices

    before = state()
    options = {
        "now": time.time(),
        "disks": "/var/lib/nested-kata/disks",
        "space": [{"path": "/var/lib/t-none/x", "size": "1M", "purpose": "x"}],
    }
    read_only = (
        "for mount in / /run /dev /dev/shm /sys /proc; do mount -o remount,bind,ro $mount 2>/dev/null || true; done; "
        "if touch /t-host-check 2>/dev/null; then exit 9; fi; "
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", read_only + 'exec "$@"', "sh", *module_command("host_check", options)],
        capture_output=True,
        text=True,
        check=False,
        env=module_environment(),
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert {"kvm", "space", "reflink", "time"} <= {finding["id"] for finding in answer["findings"]}
    assert {finding["id"]: finding["found"] for finding in answer["findings"] if finding["id"] == "space"}[
        "space"
    ].endswith("read-only")
    assert state() == before
    assert not os.path.exists("/var/lib/t-none")


def test_it_takes_less_than_two_seconds_of_a_processor() -> None:
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    subprocess.run(
        module_command("host_check", {"now": time.time()}),
        check=True,
        capture_output=True,
        env=module_environment(),
        cwd=CHECKOUT,
    )
    assert 0 < used() - before < 2


@pytest.mark.docker
def test_dockers_version_is_that_of_the_daemon_and_not_of_the_client() -> None:
    version = docker("{{.ServerVersion}}")
    finding = by_id(run_module("host_check", {}))["docker_version"]
    assert (finding["found"], finding["ok"]) == (version, int(version.split(".")[0]) >= 26)


@pytest.mark.docker
def test_a_runtime_is_found_by_its_name() -> None:
    registered = sorted(json.loads(docker("{{json .Runtimes}}")))
    assert by_id(run_module("host_check", {"runtime": "runc"}))["docker_runtime"]["ok"] is True
    finding = by_id(run_module("host_check", {"runtime": "t-no-such"}))["docker_runtime"]
    assert (finding["ok"], finding["found"], finding["needed"]) == (
        False,
        f"runtimes {', '.join(registered)}",
        "runtime t-no-such",
    )


def test_a_docker_that_does_not_answer_is_named_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    findings = by_id(run_module("host_check", {"containers": ["t-x"]}))
    assert not {"docker_version", "docker_runtime", "names"} & set(findings)
    assert (findings["docker_daemon"]["ok"], findings["docker_daemon"]["found"].startswith("no answer: ")) == (
        False,
        True,
    )
    assert "DOCKER_HOST" in findings["docker_daemon"]["remedy"]
    finding = by_id(run_module("host_check", {"runtime": "kata"}))["docker_runtime"]
    assert finding["ok"] is False
    assert finding["found"].startswith("Docker does not answer: ")
    assert "unix:///nonexistent/docker.sock" in finding["found"]


def without_times(result: dict) -> list[dict]:
    """Return the findings without what differs from run to run: how long the guest took."""
    return [{**finding, "found": re.sub(r"\d+ ms", "… ms", finding["found"])} for finding in result["findings"]]


@pytest.mark.docker
def test_four_runs_say_the_same_and_change_nothing() -> None:
    options = {"runtime": "t-no-such", "ignore": ["tun"]}
    check, real, again, again_in_check = (
        run_module("host_check", options, check=mode) for mode in (True, False, False, True)
    )
    assert check["changed"] is real["changed"] is again["changed"] is again_in_check["changed"] is False
    assert without_times(check) == without_times(real) == without_times(again) == without_times(again_in_check)
    assert real["ok"] is False
    assert [line.split(":")[0] for line in real["problems"]] == [
        finding["id"] for finding in real["findings"] if not finding["ok"] and finding["severity"] == "error"
    ]
    assert len(real["table"].splitlines()) > len(real["findings"])


def errors(result: dict) -> list[str]:
    return [finding["id"] for finding in result["findings"] if not finding["ok"] and finding["severity"] == "error"]


@pytest.mark.docker
def test_ignored_findings_do_not_count() -> None:
    failing = errors(run_module("host_check", {"runtime": "t-no-such"}))
    assert "docker_runtime" in failing
    result = run_module("host_check", {"runtime": "t-no-such", "ignore": failing})
    assert (result["ok"], result["problems"]) == (True, [])
    assert [finding["id"] for finding in result["findings"] if finding["ignored"]] == failing
    assert {finding["severity"] for finding in result["findings"] if not finding["ok"]} == {"warning"}
    assert f"ignored: {', '.join(failing)}" in result["msg"]


def test_an_unknown_id_is_refused_with_a_near_match() -> None:
    result = run_module("host_check", {"ignore": ["vhost-net"]})
    assert result["failed"] is True
    assert result["msg"] == "ignore: there is no finding 'vhost-net': did you mean vhost_net?"


BAD = {
    "no size": ({"memory": ["4g", "much"]}, "memory: 'much' is not a valid size: write it like 10G"),
    "no size of a part": (
        {"space": [{"path": "/x", "size": "0", "purpose": "x"}]},
        "space: size: '0' is not a valid size: write it like 10G",
    ),
    "no version": ({"kata_version": "newest"}, "kata_version: 'newest' is not a valid version: write it like 4.1.0"),
    "no place": (
        {"reachable": [{"urls": [], "purpose": "x"}]},
        "reachable: urls is empty for 'x': name one place at least",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_refused_in_one_line(case: str) -> None:
    options, words = BAD[case]
    result = run_module("host_check", options)
    assert result["failed"] is True
    assert result["msg"].startswith(words)
    assert "\n" not in result["msg"]


@pytest.fixture
def taken() -> Iterator[tuple[str, str]]:
    """Names in this machine's Docker that somebody else has, and names that are ours."""
    image = f"{HOP}-empty"
    subprocess.run(
        f"tar --create --files-from /dev/null | docker import - {image}",
        shell=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        for name, label in zip(NAMES, ("com.example", "nested.kata.instance"), strict=True):
            command("docker", "create", "--name", name, "--label", f"{label}=x", image, "true")
            command("docker", "network", "create", "--label", f"{label}=x", name)
            command("docker", "volume", "create", "--label", f"{label}=x", name)
        yield NAMES
    finally:
        for kind in ("container", "network", "volume"):
            subprocess.run(["docker", kind, "rm", *NAMES], check=False, capture_output=True)
        subprocess.run(["docker", "image", "rm", image], check=False, capture_output=True)


@pytest.mark.docker
def test_names_that_somebody_else_has_are_told(taken: tuple[str, str]) -> None:
    theirs, ours = taken
    finding = by_id(
        run_module("host_check", {kind: [theirs, ours, "t-none"] for kind in ("containers", "networks", "volumes")})
    )["names"]
    assert (finding["ok"], finding["severity"]) == (False, "error")
    assert finding["found"] == f"not managed by nested.kata: container {theirs}, network {theirs}, volume {theirs}"
    finding = by_id(
        run_module("host_check", {kind: [ours, "t-none"] for kind in ("containers", "networks", "volumes")})
    )["names"]
    assert (finding["ok"], finding["found"]) == (True, "3 free, 3 managed by nested.kata")


@pytest.mark.docker
def test_a_name_that_begins_as_an_id_does_is_free(taken: tuple[str, str]) -> None:
    ids = [
        command("docker", kind, "inspect", "--format", "{{.Id}}", taken[0])[:12] for kind in ("container", "network")
    ]
    assert by_id(run_module("host_check", {"containers": ids[:1], "networks": ids[1:]}))["names"]["found"] == "2 free"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, of which 4 MiB are free."""
    command("mount", "-t", "tmpfs", "-o", "size=16M", "t-host-check", str(tmp_path))
    try:
        (tmp_path / "full").write_bytes(bytes(12 << 20))
        yield tmp_path
    finally:
        command("umount", str(tmp_path))


def part(path: Path, size: str, **more: object) -> dict:
    return {"path": str(path), "size": size, "purpose": path.name, **more}


@pytest.mark.root
def test_parts_must_fit_into_the_file_system_where_they_go(small: Path) -> None:
    def space(*parts: dict) -> tuple:
        finding = by_id(run_module("host_check", {"space": list(parts)}))["space"]
        return finding["ok"], finding["severity"], finding["found"].split("; ")[0]

    free = f"{small}: 4 MiB free"
    assert space(part(small / "a" / "b", "3M")) == (True, "error", free)
    assert space(part(small / "a", "3M"), part(small / "b", "3M")) == (False, "error", free)
    assert space(part(small / "a", "3M"), part(Path("/dev/shm/b"), "3M")) == (True, "error", free)
    assert space(part(small / "a", "3M"), part(small / "b", "3M", sparse=True)) == (False, "warning", free)
    assert space(part(small / "full", "15M")) == (True, "error", free)
    assert space(part(small / "a", "1G", creates=str(small / "full"))) == (True, "error", free)


@pytest.mark.loop
@pytest.mark.parametrize(
    ("fstype", "options", "found"),
    [("btrfs", ["-q"], "btrfs with reflink on"), ("ext4", ["-q"], "ext4 without reflink on")],
)
def test_reflink_is_that_of_the_file_system_of_the_disks(
    fstype: str, options: list[str], found: str, tmp_path: Path
) -> None:
    image, point = tmp_path / "image", tmp_path / "point"
    point.mkdir()
    command("truncate", "--size", "128M", str(image))
    command(f"mkfs.{fstype}", *options, str(image))
    command("mount", "-o", "loop", str(image), str(point))
    try:
        finding = by_id(run_module("host_check", {"disks": f"{point}/nested-kata/disks"}))["reflink"]
        assert (finding["ok"], finding["found"]) == (True, f"{found} {point}")
        (point / "a").write_text("x" * 9999)
        clone = subprocess.run(["cp", "--reflink=always", "a", "b"], cwd=point, check=False, capture_output=True)
        assert (clone.returncode == 0) is (" with reflink" in found)
    finally:
        command("umount", str(point))


@pytest.mark.root
def test_two_subvolumes_share_their_space(tmp_path: Path) -> None:
    image, point = tmp_path / "image", tmp_path / "point"
    point.mkdir()
    command("truncate", "--size", "256M", str(image))
    command("mkfs.btrfs", "-q", str(image))
    command("mount", "-o", "loop", str(image), str(point))
    try:
        for name in ("a", "b"):
            command("btrfs", "subvolume", "create", str(point / name))
        free = os.statvfs(point).f_bavail * os.statvfs(point).f_frsize
        size = str(free * 2 // 3)
        assert by_id(run_module("host_check", {"space": [part(point / "a" / "x", size)]}))["space"]["ok"] is True
        assert (
            by_id(run_module("host_check", {"space": [part(point / "a" / "x", size), part(point / "b" / "x", size)]}))[
                "space"
            ]["ok"]
            is False
        )
    finally:
        command("umount", str(point))


def test_memory_and_shm_are_those_of_this_machine() -> None:
    total = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) // 1024
    shm = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize >> 20
    findings = by_id(run_module("host_check", {"memory": [f"{total - 31}M"]}))
    assert (findings["memory"]["ok"], findings["memory"]["severity"]) == (False, "error")
    findings = by_id(run_module("host_check", {"memory": [f"{shm - 31}M"]}))
    assert findings["shm"]["ok"] is False
    assert f"size={shm + 1}M" in findings["shm"]["remedy"]
    findings = by_id(run_module("host_check", {"memory": ["16M", "16M"]}))
    assert (findings["memory"]["ok"], findings["shm"]["ok"], findings["memory"]["needed"]) == (
        True,
        True,
        "96 MiB for the instances",
    )
    assert "shm" not in by_id(run_module("host_check", {"memory": ["16M"], "target": "proxy"}))


@pytest.mark.parametrize(
    ("off", "ok", "words"),
    [(0, True, r"\d+ s ahead"), (-90, False, r"(9|1\d)\d s ahead"), (100, False, r"\d\d s behind")],
)
def test_the_clock_is_compared_with_the_control_nodes(off: int, ok: bool, words: str) -> None:
    finding = by_id(run_module("host_check", {"now": time.time() + off}))["time"]
    assert finding["ok"] is ok
    assert re.fullmatch(words, finding["found"])


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the first part of the path names; GET with that of the second, where there is
    one.
    """

    def do_HEAD(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        statuses = self.path.strip("/").split("/")
        if statuses[0] == "hang":
            self.server.stopped.wait(30)
        self.send_response(
            int(statuses[-1] if self.command == "GET" else statuses[0]) if statuses[0] != "hang" else 200
        )
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *dummy: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    registry = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    registry.asked, registry.stopped = [], threading.Event()
    registry.daemon_threads = True
    registry.url = f"http://127.0.0.1:{registry.server_port}"
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    yield registry
    registry.stopped.set()
    registry.shutdown()
    registry.server_close()


# what the server answers, and why that is not reached
STATUSES = {
    "/200": "",
    "/401": "",
    "/403": "",
    "/405/200": "",
    "/501/206": "",
    "/404/206": "",
    "/429": "",
    "/404": "HTTP 404",
    "/410": "HTTP 410",
    "/500": "HTTP 500",
    "/503/502": "HTTP 502",
}


def test_any_answer_of_a_server_counts_but_that_there_is_nothing_or_that_it_is_broken(
    server: http.server.ThreadingHTTPServer,
) -> None:
    reachable = [{"url": f"{server.url}{path}", "purpose": path} for path in STATUSES]
    finding = by_id(run_module("host_check", {"reachable": reachable}))["reachable"]
    failed = [f"{path}: {server.url}{path}: {why}" for path, why in STATUSES.items() if why]
    assert (finding["ok"], finding["severity"], finding["found"]) == (False, "error", "; ".join(failed))
    assert ("GET", "/404/206", "bytes=0-0") in server.asked
    assert not [path for method, path, dummy in server.asked if method == "GET" and path in ("/200", "/401")]


def test_one_place_of_several_is_enough_and_a_file_is_a_place(
    server: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    def reachable(*urls: object, **more: object) -> tuple:
        finding = by_id(
            run_module("host_check", {"reachable": [{"urls": [str(url) for url in urls], "purpose": "x", **more}]})
        )["reachable"]
        return finding["ok"], finding["severity"], finding["found"]

    (tmp_path / "kata.tar.zst").write_text("x")
    assert reachable(f"{server.url}/404", f"{server.url}/200") == (True, "error", "1 reached")
    assert reachable(f"{server.url}/404", tmp_path / "kata.tar.zst") == (True, "error", "1 reached")
    assert reachable(f"file://{tmp_path}/kata.tar.zst") == (True, "error", "1 reached")
    assert reachable(tmp_path / "none") == (False, "error", f"x: {tmp_path}/none: no such file")
    assert reachable(f"{server.url}/404", required=False) == (False, "warning", f"x: {server.url}/404: HTTP 404")
    server.asked.clear()
    assert reachable(f"{server.url}/404", creates=str(tmp_path)) == (True, "error", "1 there already")
    assert server.asked == []


@pytest.mark.docker
def test_an_image_that_docker_has_need_not_be_reached(
    taken: tuple[str, str], server: http.server.ThreadingHTTPServer
) -> None:
    entry = {"url": f"{server.url}/404", "purpose": "x"}
    assert (
        by_id(run_module("host_check", {"reachable": [{**entry, "image": f"{HOP}-empty"}]}))["reachable"]["found"]
        == "1 there already"
    )
    assert (
        by_id(run_module("host_check", {"reachable": [{**entry, "image": "t-host-check-none"}]}))["reachable"]["ok"]
        is False
    )


def test_a_server_that_does_not_answer_is_given_up_in_time_and_all_are_asked_at_once(
    server: http.server.ThreadingHTTPServer,
) -> None:
    reachable = [{"url": f"{server.url}/hang/{number}", "purpose": str(number)} for number in range(12)] + [
        {"url": "http://127.0.0.1:1/", "purpose": "none"}
    ]
    began = time.monotonic()
    finding = by_id(run_module("host_check", {"reachable": reachable, "timeout": 3.0}))["reachable"]
    assert time.monotonic() - began < 30  # one after the other they take 36, however idle the machine
    assert finding["found"].count("timed out") + finding["found"].count("no answer within 3 s") == 12
    assert "none: http://127.0.0.1:1/: [Errno 111] Connection refused" in finding["found"]


@pytest.fixture(scope="module")
def hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Docker of its own whose daemon.json has a runtime of somebody else, and an inventory that leads to it."""
    inventory = tmp_path_factory.mktemp("hop") / "inventory.yml"
    host = {
        "ansible_connection": "nested.kata.nested",
        "ansible_nested_via": "localhost",
        "ansible_nested_hops": [HOP],
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory.write_text(
        json.dumps({"all": {"hosts": {"localhost": {"ansible_connection": "local"}, "machine": host}}}),
        encoding="utf-8",
    )
    with nested_daemon(HOP, network=False, runtimes={"kata": {"path": "/opt/kata/bin/kata-runtime"}}):
        yield inventory


def test_a_runtime_of_somebody_else_in_a_real_daemons_configuration_is_told(hop: Path) -> None:
    def config(options: dict) -> tuple:
        finding = by_id(run_module("host_check", options, inventory=hop, host="machine"))["docker_config"]
        return finding["ok"], finding["found"]

    assert config({"runtimes": ["kata"]}) == (
        False,
        "/etc/docker/daemon.json has a runtime kata that is not managed by nested.kata",
    )
    assert config({"runtimes": ["kata-netsim"]}) == (
        True,
        "/etc/docker/daemon.json with bridge, ip6tables, iptables, runtimes, storage-driver",
    )
    assert config({"runtimes": ["kata"], "target": "proxy"})[0] is True


def test_a_container_is_told_from_the_machine_that_it_runs_on(hop: Path) -> None:
    findings = by_id(run_module("host_check", {"memory": ["1g"], "runtime": "kata"}, inventory=hop, host="machine"))
    assert findings["kvm"]["found"] in ("no /dev/kvm", "no /dev/kvm, though the kernel has KVM")
    assert "--device /dev/net/tun" in findings["tun"]["remedy"]
    assert (findings["shm"]["found"], findings["shm"]["ok"]) == ("tmpfs of 64 MiB", False)
    assert (findings["docker_daemon"]["ok"], findings["docker_version"]["ok"], findings["docker_runtime"]["ok"]) == (
        True,
        True,
        True,
    )


def test_a_comment_in_a_configuration_is_told_as_dockerd_would_refuse_it(hop: Path) -> None:
    def config(text: str) -> str:
        subprocess.run(
            ["docker", "exec", "-i", HOP, "tee", "/etc/docker/daemon.json"],
            input=text,
            check=True,
            text=True,
            stdout=subprocess.DEVNULL,
        )
        return by_id(run_module("host_check", {}, inventory=hop, host="machine"))["docker_config"]["found"]

    text = command("docker", "exec", HOP, "cat", "/etc/docker/daemon.json")
    try:
        assert config("{\n  // mine\n}") == "/etc/docker/daemon.json has a comment in line 2, and JSON has no comments"
        validated = subprocess.run(
            ["docker", "exec", HOP, "dockerd", "--validate"], capture_output=True, text=True, check=False
        )
        assert validated.returncode != 0
        assert "invalid character" in validated.stderr
    finally:
        config(text)


# a flag of dockerd with a value, and a value for the same in daemon.json
FLAGS = [
    ("-H", "fd://", ["fd://"]),
    ("--host", "fd://", ["fd://"]),
    ("--label", "a=b", ["a=b"]),
    ("--storage-opt", "a=b", ["a=b"]),
    ("--insecure-registry", "a.example.org", ["a.example.org"]),
    ("--exec-opt", "a=b", ["a=b"]),
    ("--registry-mirror", "https://a.example.org", ["https://a.example.org"]),
    ("--default-address-pool", "base=10.9.0.0/16,size=24", []),
    ("--log-opt", "max-size=1m", {"max-size": "1m"}),
    ("--default-ulimit", "nofile=9", {}),
    ("--dns", "192.0.2.1", ["192.0.2.1"]),
    ("--mtu", "1400", 1400),
    ("--authorization-plugin", "x", ["x"]),
    ("--node-generic-resource", "a=1", ["a=1"]),
    ("--cdi-spec-dir", "/x", ["/x"]),
    ("-s", "overlay2", "overlay2"),
    ("-b", "none", "none"),
    ("-l", "warn", "warn"),
    ("-G", "docker", "docker"),
    ("-p", "/x", "/x"),
    ("-D", "", True),
]


@pytest.mark.parametrize(("flag", "value", "setting"), FLAGS, ids=[flag for flag, *dummy in FLAGS])
def test_a_flag_has_the_name_in_daemon_json_under_which_dockerd_says_that_they_clash(
    flag: str, value: str, setting: object, hop: Path
) -> None:
    key = key_of(flag.lstrip("-"))
    validate = f"cat >/tmp/daemon.json && exec dockerd --validate --config-file /tmp/daemon.json {flag} {value}"
    done = subprocess.run(
        ["docker", "exec", "-i", HOP, "sh", "-ec", validate],
        input=json.dumps({key: setting}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"specified both as a flag and in the configuration file: {key}: " in done.stderr


def test_add_runtime_does_not_clash_with_runtimes_in_daemon_json(hop: Path) -> None:
    validate = (
        "cat >/tmp/daemon.json && exec dockerd --validate --config-file /tmp/daemon.json --add-runtime x=/bin/true"
    )
    text = json.dumps({"runtimes": {"y": {"path": "/bin/true"}}})
    done = subprocess.run(
        ["docker", "exec", "-i", HOP, "sh", "-ec", validate], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "configuration OK\n")


@pytest.mark.root
def test_the_flags_are_those_that_dockerd_was_started_with(tmp_path: Path) -> None:
    """In process ids of its own, a shell that is called dockerd stands for a daemon that was told another
    daemon.json.
    """
    configuration = tmp_path / "daemon.json"
    configuration.write_text('{"debug": true}')
    shutil.copy("/bin/sh", tmp_path / "dockerd")
    start = (
        '"$0"/dockerd -c "sleep 60; :" dockerd --config-file="$0"/daemon.json --add-runtime kata=/bin/true --mtu 1300 &'
        ' exec "$@"'
    )

    def config(**options: object) -> tuple:
        done = subprocess.run(
            [
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-ec",
                start,
                str(tmp_path),
                *module_command("host_check", options),
            ],
            capture_output=True,
            text=True,
            check=True,
            env=module_environment(),
            cwd=CHECKOUT,
        )
        finding = by_id({"failed": False, **json.loads(done.stdout)})["docker_config"]
        return finding["ok"], finding["found"]

    assert config() == (True, f"{configuration} with debug")
    assert config(runtimes=["kata"]) == (False, "dockerd has the flag --add-runtime for kata")
    configuration.write_text('{"mtu": 1400}')
    assert config() == (False, f"dockerd has the flag --mtu, which is mtu in {configuration}")


def preflight(tmp_path: Path, variables: dict) -> subprocess.CompletedProcess[str]:
    playbook = tmp_path / "preflight.yml"
    variables = {"ansible_python_interpreter": sys.executable, "kata_preflight_reachable": [], **variables}
    one = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": variables,
        "roles": ["nested.kata.kata_preflight"],
    }
    playbook.write_text(json.dumps([one]))
    return play(playbook, "-i", "localhost,")


@pytest.mark.docker
def test_the_role_stops_with_the_remedies_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"kata_preflight_runtime": "t-no-such"})
    assert done.returncode != 0
    assert "docker_runtime: found runtimes" in done.stdout
    assert "register it as t-no-such" in done.stdout
    assert "kata_preflight_ignore" in done.stdout
    assert "kata_instance_runtime: runc, which isolates nothing" in done.stdout
    assert "finding" in done.stdout
    assert "needed" in done.stdout


@pytest.mark.docker
def test_the_role_goes_on_where_what_fails_is_ignored_and_shows_it_as_a_warning(tmp_path: Path) -> None:
    failing = errors(run_module("host_check", {"runtime": "t-no-such"}))
    done = preflight(tmp_path, {"kata_preflight_runtime": "t-no-such", "kata_preflight_ignore": failing})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"docker_runtime +ignored +runtimes", done.stdout)
    assert "changed=0" in done.stdout


def test_the_role_refuses_a_target_that_there_is_not(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"kata_preflight_target": "moon"})
    assert done.returncode != 0
    assert "kata_preflight_target" in done.stdout
    assert "moon" in done.stdout


# variables of the other roles, and what the table says of them
DERIVED = {
    "nothing, target host": (
        {"kata_preflight_target": "host"},
        ["25 GiB (4 GiB Kata, 1 GiB images, 20 GiB kata)", "4 GiB for the instances", "tmpfs of 4 GiB or more"],
    ),
    # The disks of a proxy that there is need less.
    "a proxy that is not there": (
        {"kata_preflight_target": "proxy", "kata_proxy_name": "t-none"},
        ["5 free", "26 GiB (4 GiB Kata, 2 GiB images, 20 GiB kata)", "4 GiB for the instances", "20.10 or newer"],
    ),
    "instances": (
        {
            "kata_instance_list": [
                {"name": "red", "memory": "1g", "disk": {"size": "3G"}},
                {"name": "blue", "network": "mine"},
                {"name": "old", "state": "absent"},
            ],
            "kata_instance_memory": "2g",
            "kata_instance_disk_size": "5G",
        },
        ["3 free", "13 GiB (4 GiB Kata, 1 GiB images, 3 GiB red, 5 GiB blue)", "3.1 GiB for the instances"],
    ),
    "a mirror": (
        {
            "kata_preflight_reachable": "{{ kata_preflight_release + kata_preflight_base_image }}",
            "kata_runtime_mirror": "http://127.0.0.1:1/kata",
            "machine_image_base": "127.0.0.1:1/x/debian:trixie",
            "machine_image_mirror": "http://127.0.0.1:1/debian",
            "kata_preflight_timeout": 1,
        },
        [
            "http://127.0.0.1:1/kata/4.1.0/kata-static-4.1.0-amd64.tar.zst: [Errno 111]",
            "https://127.0.0.1:1/v2/: [Errno 111]",
            "http://127.0.0.1:1/debian: [Errno 111]",
        ],
    ),
    "an archive on the target": (
        {"kata_preflight_reachable": "{{ kata_preflight_release }}", "kata_runtime_archive": "/srv/t-none.tar.zst"},
        ["/srv/t-none.tar.zst: no such file"],
    ),
    "an archive on the control node": (
        {"kata_preflight_reachable": "{{ kata_preflight_release }}", "kata_runtime_archive": __file__},
        ["4 GiB for the instances"],
    ),
}


@pytest.mark.docker
def test_the_role_takes_the_version_of_kata_from_the_role_that_installs_it(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"kata_runtime_version": "newest"})
    assert done.returncode != 0
    assert "kata_version: 'newest' is not a valid version" in done.stdout


@pytest.mark.docker
@pytest.mark.parametrize("case", DERIVED)
def test_the_role_takes_what_is_needed_from_the_variables_of_the_other_roles(case: str, tmp_path: Path) -> None:
    variables, words = DERIVED[case]
    done = preflight(tmp_path, variables)
    said = " ".join(done.stdout.replace('",', "").replace('"', "").split())
    said += " ".join(cells(done.stdout, 0)) + " ".join(cells(done.stdout, 1))
    assert [word for word in words if word not in said] == [], done.stdout
    assert ('"reachable ' in done.stdout) is ("kata_preflight_reachable" in variables and "control node" not in case)


def cells(stdout: str, column: int) -> list[str]:
    """Return the text in the column found (0) or needed (1) of a table, wrapped lines put together."""
    lines = [line.strip().strip(",").strip('"') for line in stdout.splitlines() if line.strip().startswith('"')]
    head = next(line for line in lines if line.startswith("finding"))
    begin, end = (head.index("found"), head.index("needed")) if column == 0 else (head.index("needed"), None)
    return [line[begin:end].strip() for line in lines if "->" not in line]


CHECK = CHECKOUT / "playbooks" / "check.yml"


def check(
    tmp_path: Path, hosts: dict[str, dict], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Play playbooks/check.yml for hosts that all are this machine."""
    inventory = tmp_path / "inventory.yml"
    usual = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "kata_preflight_reachable": [],
    }
    inventory.write_text(
        json.dumps({"kata_hosts": {"hosts": {name: {**usual, **variables} for name, variables in hosts.items()}}}),
        encoding="utf-8",
    )
    return play(CHECK, "-i", str(inventory), *arguments, **environment)


def tables(done: subprocess.CompletedProcess[str]) -> int:
    return len(re.findall(r'"finding +state +found +needed"', done.stdout))


@pytest.fixture(scope="module")
def fit() -> dict:
    """Variables with which this machine passes: what it lacks is ignored."""
    return {"kata_preflight_ignore": errors(run_module("host_check", {"target": "proxy"}))}


@pytest.mark.docker
@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_check_yml_ends_with_0_where_every_host_is_fine(arguments: tuple, fit: dict, tmp_path: Path) -> None:
    done = check(tmp_path, {"one": fit, "two": fit}, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(done) == 2
    assert re.findall(r"changed=(\d+)", done.stdout) == ["0", "0", "0"]


@pytest.mark.docker
def test_check_yml_shows_every_table_and_ends_with_an_error_where_one_host_is_not_fine(
    fit: dict, tmp_path: Path
) -> None:
    done = check(tmp_path, {"bad": {**fit, "kata_preflight_memory": ["9999G"]}, "good": fit})
    assert done.returncode == 2, done.stdout + done.stderr
    assert tables(done) == 2
    recap = done.stdout.split("PLAY RECAP")[1]
    assert re.search(r"^bad .*failed=1", recap, re.MULTILINE)
    assert re.search(r"^good .*failed=0", recap, re.MULTILINE)
    assert "this machine cannot run Kata: memory" in done.stdout


@pytest.mark.docker
def test_check_yml_asks_about_the_target_that_site_yml_would_take(fit: dict, tmp_path: Path) -> None:
    done = check(
        tmp_path, {"one": {**fit, "nested_kata_target": "host"}, "two": {**fit, "nested_kata_target": "proxy"}}
    )
    assert len(re.findall(r'^ +"shm ', done.stdout, re.MULTILINE)) == 1, done.stdout


@pytest.mark.docker
def test_check_yml_does_not_take_the_control_nodes_time_zone_for_a_wrong_clock(fit: dict, tmp_path: Path) -> None:
    done = check(tmp_path, {"one": fit}, TZ="America/New_York")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'"time +ok +\d+ s ahead', done.stdout), done.stdout


def test_check_yml_does_not_end_with_0_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    done = check(tmp_path, {})
    assert done.returncode == 2
    assert "has no host in the group kata_hosts" in done.stdout


def test_check_yml_does_not_end_with_0_where_a_host_cannot_be_reached(fit: dict, tmp_path: Path) -> None:
    away = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    done = check(tmp_path, {"away": {**fit, **away}, "here": fit})
    assert done.returncode == 4, done.stdout + done.stderr
    assert tables(done) == 1
