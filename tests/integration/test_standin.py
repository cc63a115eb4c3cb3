# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for Kata's shim, on a real daemon of Docker 26: it is registered as Kata is, and refuses what Kata would stumble over."""
from __future__ import annotations

import json
import lzma
import secrets
import time

import pytest
from nested_daemon import docker, load, nested_daemon
from release import BASE_IMAGE, DEFAULTS, SHIM, Release, make_release

pytestmark = [pytest.mark.root, pytest.mark.docker]

TARGET = f"nested-kata-test-standin-{secrets.token_hex(3)}"
VERSIONS = ("4.0.0", "4.1.0")
CONFIGURATION = "/etc/nested-kata/kata"
MEMORY = 64 * 1024**2

# The release does not lie where its configuration says.
PATHS = """
[hypervisor.qemu]
path = "{home}/bin/qemu-system-x86_64"
kernel = "{home}/share/kata-containers/vmlinux.container"
image = "{home}/share/kata-containers/kata-containers.img"
virtio_fs_daemon = "{home}/libexec/virtiofsd"
"""

# What is done in the directory of the configuration, and what the daemon then says of it.
REFUSED = {
    "no configuration file": ("rm configuration.toml", "load config: lstat {directory}/configuration.toml: no such file or directory"),
    "a link to no configuration file": ("ln -sf /nowhere/kata.toml configuration.toml", "load config: lstat /nowhere: no such file or directory"),
    "a configuration that is not TOML": ("echo '[hypervisor' > configuration.toml", "load config: {directory}/configuration.toml: toml: line 2"),
    "a drop-in that is not TOML": ("echo 'kernel = vmlinux' > config.d/20-kernel.toml", "load config: {directory}/config.d/20-kernel.toml: toml: line 1"),
    "a link in config.d": ("ln -s 10-paths.toml config.d/20-link.toml", "drop-in {directory}/config.d/20-link.toml is not a regular file"),
    "a directory in config.d": ("mkdir config.d/20-more", "drop-in {directory}/config.d/20-more is not a regular file"),
    "a value of the wrong type": ("key default_vcpus '\"two\"'", "qemu.default_vcpus\"): incompatible types"),
    "another hypervisor": ("printf '[runtime]\\nhypervisor_name = \"clh\"\\n' > config.d/20.toml", "hypervisor \"clh\" (hypervisor_name) has no table"),
    "no QEMU": ("key path '\"/nowhere/qemu\"'", "hypervisor path /nowhere/qemu is invalid: no such file or directory (os error 2)"),
    "a QEMU that cannot be run": ("key path '\"/etc/hostname\"'", "hypervisor path /etc/hostname is invalid: permission denied (os error 13)"),
    "no kernel": ("key kernel '\"/nowhere/vmlinux\"'", "guest kernel /nowhere/vmlinux is invalid: no such file or directory (os error 2)"),
    "no image": ("key image '\"/nowhere/image\"'", "guest image /nowhere/image is invalid: no such file or directory (os error 2)"),
    "no initrd": ("key initrd '\"/nowhere/initrd\"'", "guest initrd /nowhere/initrd is invalid: no such file or directory (os error 2)"),
    "no virtiofsd": ("key virtio_fs_daemon '\"/nowhere/virtiofsd\"'", "virtio-fs daemon /nowhere/virtiofsd is invalid: no such file or directory"),
    "image and initrd": ("key initrd '\"/etc/hostname\"'", "either image or initrd must be configured"),
    "neither image nor initrd": ("key image '\"\"'", "either image or initrd must be configured"),
}


def home(version: str) -> str:
    return f"/var/lib/kata/{version}"


def on_target(script: str) -> str:
    return docker("exec", TARGET, "sh", "-ec", script)


def run(*arguments: str, runtime: str = "kata", check: bool = True) -> str:
    """Run a container on the target, and return what it and docker said."""
    command = ["docker", "run", "--rm", "--runtime", runtime, *arguments]
    return docker("exec", TARGET, "sh", "-c", '"$@" 2>&1', "sh", *command, check=check)


def shims(version: str = "") -> list[str]:
    """Return the executables of the shims that run on the target out of a release's directory."""
    below = home(version) if version else "/var/lib/kata/"
    running = docker("exec", TARGET, "sh", "-c", "for process in /proc/[0-9]*; do readlink $process/exe; done; true")
    return [executable for executable in running.splitlines() if executable.startswith(below)]


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> list[Release]:
    directory = tmp_path_factory.mktemp("releases")
    return [make_release(directory, version, compression="xz") for version in VERSIONS]


@pytest.fixture(scope="module")
def target(releases):
    """A daemon with two releases unpacked beside each other, to which their runtimes were made known by a reload."""
    with nested_daemon(TARGET):
        load(BASE_IMAGE, TARGET)
        runtimes = {"kata-unconfigured": {"runtimeType": f"{home(VERSIONS[-1])}/{SHIM}"}}
        for release, name in zip(releases, ("kata-old", "kata")):
            on_target(f"mkdir -p {home(release.version)}")
            tar = lzma.decompress(release.archive.read_bytes())
            docker("exec", "-i", TARGET, "tar", "-xf", "-", "-C", home(release.version), "--strip-components=3", data=tar)
            runtimes[name] = {"runtimeType": f"{home(release.version)}/{SHIM}", "options": {"ConfigPath": f"/etc/nested-kata/{name}/configuration.toml"}}
            configure(name, release.version)
        daemon_json = {**json.loads(on_target("cat /etc/docker/daemon.json")), "runtimes": runtimes}
        on_target(f"echo '{json.dumps(daemon_json)}' > /etc/docker/daemon.json; kill -HUP $(cat /run/docker.pid)")
        end = time.monotonic() + 30
        while "kata-unconfigured" not in docker("info", "--format", "{{json .Runtimes}}", hops=[TARGET]):
            assert time.monotonic() < end, docker("logs", "--tail", "5", TARGET)
            time.sleep(0.1)
        yield TARGET


def configure(name: str, version: str) -> None:
    """Write the configuration of a runtime anew: the file of its release, and a drop-in with the release's paths."""
    directory = f"/etc/nested-kata/{name}"
    on_target(
        f"rm -rf {directory} && mkdir -p {directory}/config.d && cp {home(version)}/{DEFAULTS}/configuration.toml {directory}/"
        f" && echo '{PATHS.format(home=home(version))}' > {directory}/config.d/10-paths.toml",
    )


@pytest.fixture
def configured(target):
    configure("kata", VERSIONS[-1])
    return target


def change(script: str) -> None:
    """Run a script in the directory of the configuration; `key KEY VALUE` adds a drop-in."""
    on_target(f"cd {CONFIGURATION}; key() {{ printf '[hypervisor.qemu]\\n%s = %s\\n' \"$1\" \"$2\" > config.d/20-$1.toml; }}; {script}")


def test_it_says_what_it_is_and_of_which_release(target) -> None:
    for version in VERSIONS:
        said = on_target(f"{home(version)}/{SHIM} --version")
        assert said.startswith("stand-in for Kata") and said.endswith(f"version: {version}")


def test_a_container_shows_the_kernel_of_the_release(configured, releases) -> None:
    assert run(BASE_IMAGE, "uname", "-r") == releases[-1].kernel_release


def test_a_container_can_be_entered_stopped_and_started_again(configured) -> None:
    start = ("run", "-d", "--name", "long", "--runtime", "kata", "--memory", str(MEMORY), "--cpus", "1", "--stop-timeout", "1")
    docker(*start, BASE_IMAGE, "sleep", "infinity", hops=[TARGET])
    try:
        assert docker("exec", "-i", "long", "cat", hops=[TARGET], data=b"through exec") == "through exec"
        docker("exec", "long", "touch", "/kept", hops=[TARGET])
        docker("stop", "long", hops=[TARGET])
        assert docker("inspect", "--format", "{{.State.Status}}", "long", hops=[TARGET]) == "exited"
        assert shims() == []
        for again in ("start", "restart"):
            docker(again, "long", hops=[TARGET])
            assert docker("exec", "long", "ls", "/kept", hops=[TARGET]) == "/kept"
    finally:
        docker("rm", "-f", "long", hops=[TARGET])


def test_sizes_take_effect(configured) -> None:
    limits = "cat memory.max cpu.max 2>/dev/null || cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us"
    memory, cpu = run("--memory", str(MEMORY), "--cpus", "0.5", "--workdir", "/sys/fs/cgroup", BASE_IMAGE, "sh", "-c", limits).splitlines()
    assert (int(memory), cpu.split()[0]) == (MEMORY, "50000")


def test_a_container_s_exit_status_is_docker_s(configured) -> None:
    done = docker("exec", TARGET, "sh", "-c", f"docker run --rm --runtime kata {BASE_IMAGE} sh -c 'exit 42'; echo $?")
    assert done == "42"


def test_the_shim_of_a_container_runs_out_of_its_release_s_directory(configured) -> None:
    for runtime, version in zip(("kata-old", "kata"), VERSIONS):
        docker("run", "-d", "--name", runtime, "--runtime", runtime, "--stop-timeout", "1", BASE_IMAGE, "sleep", "infinity", hops=[TARGET])
    try:
        for version in VERSIONS:
            assert shims(version) == [f"{home(version)}/{SHIM}"]
    finally:
        docker("rm", "-f", "kata-old", "kata", hops=[TARGET])


def test_of_two_drop_ins_the_one_with_the_later_name_counts(configured, releases) -> None:
    change("key kernel '\"/nowhere/vmlinux\"'; mv config.d/20-kernel.toml config.d/05-kernel.toml")
    assert run(BASE_IMAGE, "uname", "-r") == releases[-1].kernel_release


def test_an_initrd_can_take_the_image_s_place(configured, releases) -> None:
    change("key image '\"\"'; key initrd '\"/etc/hostname\"'")
    assert run(BASE_IMAGE, "uname", "-r") == releases[-1].kernel_release


@pytest.mark.parametrize("case", REFUSED)
def test_what_kata_would_stumble_over_is_refused_in_one_line(configured, case: str) -> None:
    script, expected = REFUSED[case]
    change(script)
    said = run(BASE_IMAGE, "true", check=False).splitlines()
    assert len(said) == 1, said
    assert "failed to create shim task: stand-in for Kata: " in said[0] and expected.format(directory=CONFIGURATION) in said[0]
    assert shims() == []


def test_without_a_path_it_looks_where_kata_does(target) -> None:
    said = run(BASE_IMAGE, "true", runtime="kata-unconfigured", check=False)
    assert "there is no ConfigPath" in said and "/opt/kata/share/defaults/kata-containers/runtime-rs/configuration.toml" in said
