# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds of a real kernel, the smallest that there is. One is shared by all tests, which go through them in order."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.files import lock_of
from ansible_collections.nested.kata.plugins.module_utils._kernel import build_machine
from ansible_runner import answer, run_module, started, wait_until
from kernel_trees import copy_of

VERSION = "6.12"
FILES = ["System.map", "build.json", "bzImage", "config", "vmlinux"]


def alone(options: dict, **environment: str) -> dict:
    with started("kernel_build", options, **environment) as running:
        return answer(running, 900)


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@dataclass
class Kernel:
    """A tree with the smallest configuration, and where its build goes."""

    tree: Path
    path: Path

    @property
    def log(self) -> Path:
        return Path(f"{self.path}.log")

    @property
    def mark(self) -> Path:
        return self.tree / ".nested-kata-build"

    @property
    def lock(self) -> Path:
        return Path(lock_of(str(self.tree)))

    def options(self, **more: object) -> dict:
        return {"tree": str(self.tree), "path": str(self.path), "arch": "x86_64", "key": "tiny", **more}

    def compiled(self) -> int:
        return self.log.read_text(encoding="utf-8", errors="replace").count("  CC ") if self.log.exists() else 0

    def interrupted(self, objects: int, by: int) -> dict | None:
        """Start a build and send it a signal when so many objects are compiled."""
        self.log.unlink(missing_ok=True)
        with started("kernel_build", self.options()) as running:
            wait_until(lambda: self.compiled() >= objects or running.poll() is not None, f"{objects} objects", 600)
            running.send_signal(by)
            output = running.communicate(timeout=60)[0]
        # Make and the compilers that a killed module leaves hold the lock until they find nobody listening.
        wait_until(
            lambda: (
                not self.lock.exists()
                or subprocess.run(["flock", "-n", self.lock, "true"], check=False).returncode == 0
            ),
            "the end of make",
            60,
        )
        return json.loads(output) if output else None


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    directory = tmp_path_factory.mktemp("kernel")
    (directory / "kernels").mkdir()
    tree = copy_of(VERSION, directory / "tree")
    done = subprocess.run(
        ["make", "-s", "-C", tree, "ARCH=x86_64", "tinyconfig"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={key: os.environ[key] for key in ("PATH", "HOME")},
    )
    assert done.returncode == 0, done.stderr
    yield Kernel(tree, directory / "kernels" / "tiny")
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def built(kernel: Kernel) -> Kernel:
    """The kernel, built, if the tests before have not done so."""
    result = alone(kernel.options())
    assert not result["failed"], result["msg"]
    return kernel


def test_check_mode_builds_nothing(kernel: Kernel) -> None:
    result = run_module("kernel_build", kernel.options(), check=True)
    assert (result["failed"], result["changed"], result["build"]) == (False, True, None)
    assert result["steps"] == [f"build vmlinux, bzImage in {kernel.tree}", f"put the artifacts into {kernel.path}"]
    assert (result["diff"]["before"], result["diff"]["after"]) == ({}, {"key": "tiny"})
    assert os.listdir(kernel.path.parent) == []
    assert not (kernel.tree / "init" / "main.o").exists()


def test_a_build_that_is_asked_to_end_leaves_nothing_half_made(kernel: Kernel) -> None:
    result = kernel.interrupted(5, signal.SIGTERM)
    assert result["failed"]
    assert "was interrupted; the next run continues it" in result["msg"]
    assert not kernel.mark.exists()
    assert not kernel.path.exists()


def test_a_build_that_is_killed_leaves_no_artifact_and_a_mark(kernel: Kernel) -> None:
    assert kernel.interrupted(5, signal.SIGKILL) is None
    assert kernel.mark.exists()
    assert not kernel.path.exists()


@pytest.mark.kernel
def test_it_builds_once_also_when_two_want_it(kernel: Kernel, tmp_path: Path) -> None:
    line = tmp_path / "line"
    kernel.log.unlink(missing_ok=True)
    with started("kernel_build", kernel.options(info={"profile": "tiny"}), NESTED_KATA_PROGRESS=str(line)) as first:
        wait_until(
            lambda: (kernel.compiled() > 0 and line.exists()) or first.poll() is not None, "the first object", 600
        )
        told = line.read_text(encoding="utf-8")
        second = run_module("kernel_build", kernel.options())
        result = answer(first, 900)
    assert not result["failed"], result["msg"]
    assert told.startswith(f"linux {VERSION}.")
    assert not line.exists()
    assert result["changed"]
    # The build before was killed: everything is made anew.
    assert result["objects"] > 300
    assert (second["failed"], second["changed"], second["objects"], second["steps"]) == (False, False, 0, [])
    assert second["build"] == result["build"] == json.loads((kernel.path / "build.json").read_text(encoding="utf-8"))

    assert sorted(os.listdir(kernel.path)) == FILES
    assert sorted(os.listdir(kernel.path.parent)) == ["tiny", "tiny.log"]
    build = result["build"]
    assert build["release"].startswith(f"{VERSION}.")
    assert (build["arch"], build["targets"], build["key"], build["info"]) == (
        "x86_64",
        ["vmlinux", "bzImage"],
        "tiny",
        {"profile": "tiny"},
    )
    assert build["compiler"].startswith("gcc ")
    assert build["seconds"] > 1
    found = digests(kernel.path)
    assert {name: file["sha256"] for name, file in build["files"].items()} == {
        name: found[name] for name in FILES if name != "build.json"
    }
    assert (kernel.path / "vmlinux").read_bytes()[:4] == b"\x7fELF"
    assert (kernel.path / "bzImage").read_bytes()[0x202:0x206] == b"HdrS"
    assert (kernel.path / "config").read_bytes() == (kernel.tree / ".config").read_bytes()
    version = subprocess.run(["strings", kernel.path / "vmlinux"], capture_output=True, text=True, check=True).stdout
    assert f"Linux version {build['release']} (nested-kata@nested-kata) ({build['compiler']}" in version
    assert not kernel.mark.exists()


@pytest.mark.kernel
def test_again_nothing_is_run(built: Kernel) -> None:
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in [built.log, *built.path.iterdir()]]
    for check in (False, True):
        result = run_module("kernel_build", built.options(), check=check)
        assert (result["failed"], result["changed"], result["steps"]) == (False, False, [])
        assert result["msg"] == f"{built.path} holds this build"
    # without make, compiler and source
    result = alone(built.options(tree="/nowhere"), PATH="/nowhere")
    assert (result["failed"], result["changed"]) == (False, False)
    assert [
        (path, path.stat().st_mtime_ns, path.stat().st_ino) for path in [built.log, *built.path.iterdir()]
    ] == before


@pytest.mark.kernel
def test_a_broken_source_is_told_by_file_and_line_and_the_old_build_stays(built: Kernel) -> None:
    before = digests(built.path)
    source = built.tree / "init" / "main.c"
    text = source.read_text(encoding="utf-8")
    source.unlink()  # it is a link to the pristine tree's
    source.write_text(f"{text}\nint broken = nothing;\n", encoding="utf-8")
    try:
        result = run_module("kernel_build", built.options(key="broken"))
    finally:
        source.unlink()
        source.write_text(text, encoding="utf-8")
    line = len(text.splitlines()) + 2
    assert result["failed"]
    assert result["msg"].startswith(
        f"tree: the build in {built.tree} failed: init/main.c:{line}:14: error: 'nothing' undeclared"
    )
    assert result["msg"].endswith(f"; the whole output is in {built.log}")
    assert "\n" not in result["msg"]
    assert result["errors"][0].startswith(f"init/main.c:{line}:14: error: ")
    assert "*** [" in built.log.read_text(encoding="utf-8")
    assert digests(built.path) == before
    assert not built.mark.exists()


@pytest.mark.kernel
def test_the_same_source_gives_the_same_bytes_and_a_new_key_is_recorded(built: Kernel) -> None:
    before = digests(built.path)
    (built.tree / "init" / "main.c").touch()
    result = alone(built.options(key="another"))
    assert (result["failed"], result["changed"]) == (False, True)
    assert 0 < result["objects"] < 20
    after = digests(built.path)
    assert after.pop("build.json") != before.pop("build.json")
    assert after == before
    assert result["build"]["objects"] > 300


@pytest.mark.kernel
def test_an_artifact_that_was_changed_is_put_right(built: Kernel) -> None:
    before = digests(built.path)
    (built.path / "bzImage").write_bytes(b"not a kernel")
    result = alone(built.options(key=json.loads((built.path / "build.json").read_text(encoding="utf-8"))["key"]))
    assert (result["changed"], result["objects"]) == (True, 0)
    assert result["msg"] == f"{built.path}/bzImage is not the file that was built"
    assert {**digests(built.path), "build.json": ""} == {**before, "build.json": ""}


@pytest.mark.kernel
def test_a_configuration_that_is_not_complete_is_never_changed(built: Kernel) -> None:
    config = built.tree / ".config"
    text = config.read_text(encoding="utf-8")
    short = text.replace("# CONFIG_BLOCK is not set\n", "")
    assert short != text
    config.write_text(short, encoding="utf-8")
    try:
        result = alone(built.options(key="asks"))
        after = config.read_text(encoding="utf-8")
    finally:
        config.write_text(text, encoding="utf-8")
    assert result["failed"]
    assert "run nested.kata.kernel_config with the same arch and make_vars" in result["msg"]
    assert after == short


@pytest.mark.kernel
def test_all_missing_tools_are_named_before_anything_starts(built: Kernel, tmp_path: Path) -> None:
    for tool in ("make", "gcc", "ld", "bison"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    before = built.log.stat().st_mtime_ns
    result = alone(built.options(key="tools", ccache=True), PATH=str(tmp_path))
    assert result["failed"]
    assert result["msg"].startswith("tree: the build needs flex, bc, ccache")
    assert "install flex bc ccache" in result["msg"]
    assert built.log.stat().st_mtime_ns == before


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.parametrize("full", ["the directory for temporary files", "path"])
def test_a_full_disk_is_told_by_where_it_is_mounted(built: Kernel, tmp_path: Path, full: str) -> None:
    before = digests(built.path)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        if full == "path":
            result = alone(built.options(path=str(small / "tiny"), log=str(tmp_path / "log")))
        else:
            (built.tree / "init" / "main.c").touch()
            result = alone(built.options(key="full"), TMPDIR=str(small))
        left = os.listdir(small)
    finally:
        subprocess.run(["umount", small], check=True)
    assert result["failed"]
    assert f"no space left on {small}, which holds {full} ({small}; " in result["msg"]
    assert "\n" not in result["msg"]
    assert left == []
    assert digests(built.path) == before


# --- bad input ---


def test_a_directory_with_something_else_in_it_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    result = alone(kernel.options(path=str(tmp_path)))
    assert result["msg"].startswith(
        f"path: {tmp_path} holds files that are not from a build of this module (photo.jpg)"
    )
    (tmp_path / "build.json").write_text("{}", encoding="utf-8")
    assert "cannot be read as the record of a build" in alone(kernel.options(path=str(tmp_path)))["msg"]
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"


BAD = {
    "no tree": ({"tree": "/nowhere"}, "tree: /nowhere is not a Linux source tree"),
    "something else as tree": ({"tree": "/usr"}, "tree: /usr is not a Linux source tree"),
    "an unknown architecture": ({"arch": "vax"}, "arch: this tree has no architecture vax"),
    "no directory for the artifacts": ({"path": "/nowhere/kernel"}, "path: there is no directory /nowhere"),
    "a file as path": ({"path": "/etc/hostname"}, "path: /etc/hostname is not a directory"),
    "no directory for the log": ({"log": "/nowhere/log"}, "log: /nowhere/log is not a file in an existing directory"),
    "another directory for the objects": (
        {"make_vars": {"KBUILD_OUTPUT": "/tmp"}},
        "make_vars: KBUILD_OUTPUT cannot be set here",
    ),
    "a target that makes a configuration": (
        {"targets": ["oldconfig"]},
        "targets: 'oldconfig' is not a target that builds something",
    ),
    "no jobs": ({"jobs": 0}, "jobs: 0 is less than 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(kernel: Kernel, tmp_path: Path, case: str) -> None:
    options, words = BAD[case]
    result = alone(kernel.options(**{"path": str(tmp_path / "kernel"), **options}))
    assert result["failed"]
    assert result["msg"].startswith(words)
    assert "\n" not in result["msg"]
    assert os.listdir(tmp_path) == []


def test_a_tree_without_a_configuration_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    config = kernel.tree / ".config"
    config.rename(tmp_path / "config")
    try:
        result = alone(kernel.options(key="none"))
    finally:
        (tmp_path / "config").rename(config)
    assert result["msg"] == f"tree: {kernel.tree} has no .config: make one with nested.kata.kernel_config"


# --- the artifacts, as a whole ---


def sources(directory: Path, generation: int) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    content = bytes([generation % 256]) * 200_000
    for name in ("vmlinux", "bzImage"):
        (directory / name).write_bytes(content)
    return {name: str(directory / name) for name in ("vmlinux", "bzImage")}


def is_whole(path: Path) -> bool:
    files = json.loads((path / "build.json").read_text(encoding="utf-8"))["files"]
    found = digests(path)
    return set(found) == {*files, "build.json"} and all(found[name] == file["sha256"] for name, file in files.items())


def test_a_kill_at_any_moment_leaves_the_old_artifacts_or_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    path, dice, span = tmp_path / "kernels" / "k", random.Random(7), 0.02
    build_machine.put(sources(tmp_path / "source", 0), {"key": "0"}, str(path))
    seen = set()
    for generation in range(1, 31):
        files = sources(tmp_path / "source", generation)
        child = os.fork()
        if child == 0:
            build_machine.put(files, {"key": str(generation)}, str(path))
            os._exit(0)
        time.sleep(dice.uniform(0, span))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert is_whole(path)
        there = json.loads((path / "build.json").read_text(encoding="utf-8"))["key"]
        # About as many kills come before the exchange as after it, however fast the machine is just now.
        span *= 0.8 if there == str(generation) else 1.25
        seen.add(there)
    assert len(seen) > 1
    build_machine.put(sources(tmp_path / "source", 99), {"key": "99"}, str(path))
    assert os.listdir(tmp_path / "kernels") == ["k"]
    assert is_whole(path)


def test_a_file_system_that_cannot_exchange_gets_the_new_artifacts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()
    path = tmp_path / "kernels" / "k"
    build_machine.put(sources(tmp_path / "source", 0), {"key": "0"}, str(path))
    monkeypatch.setattr(build_machine, "RENAME_EXCHANGE", 1 << 20)  # a flag that no kernel knows: EINVAL
    build_machine.put(sources(tmp_path / "source", 1), {"key": "1"}, str(path))
    assert json.loads((path / "build.json").read_text(encoding="utf-8"))["key"] == "1"
    assert os.listdir(tmp_path / "kernels") == ["k"]
