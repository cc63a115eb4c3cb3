# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_info on this machine, and on what the tests make in its Docker."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import MARK, run_module
from docker_in_docker import docker, import_image

NAME = f"t-host-info-{MARK}"
NONE = f"{NAME}-none"
KINDS = {"container": "containers", "network": "networks", "volume": "volumes"}


def info(options: dict, *, check: bool = False) -> dict:
    """Return what the module found. Other tests make networks beside this one, and so only this one's are in it."""
    found = run_module("host_info", options, check=check)
    assert not found["failed"] and found["changed"] is False, found
    return {**found, "networks": [one for one in found["networks"] if one["Name"] == NAME]}


def remove() -> None:
    """Remove what the test makes, also where a run was killed."""
    for kind in KINDS:
        docker(kind, "rm", NAME, check=False)
    docker("image", "rm", NAME, f"{NAME}:other", check=False)


@pytest.fixture
def made() -> Iterator[dict[str, list[dict]]]:
    """A container, a network, a volume and an image with two names, as Docker reports them itself."""
    remove()
    try:
        import_image(NAME, size=4096, label=f"{NAME}=1")
        docker("tag", NAME, f"{NAME}:other")
        docker("network", "create", NAME)
        docker("volume", "create", NAME)
        docker("create", "--name", NAME, "--network", NAME, "--volume", f"{NAME}:/data", NAME, "true")
        yield {kind: json.loads(docker(kind, "inspect", NAME)) for kind in (*KINDS, "image")}
    finally:
        remove()


@pytest.mark.docker
def test_each_run_finds_the_same_and_changes_nothing(made: dict[str, list[dict]], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("one\ntwo\n")
    text.chmod(0o640)
    (tmp_path / "link").symlink_to("text")
    options = {
        "containers": [NAME, NONE],
        "images": [NAME, f"{NAME}:other", NONE],
        "volumes": [NAME, NONE],
        "paths": [str(tmp_path), f"{tmp_path}/none"],
        "texts": [str(text), f"{tmp_path}/none"],
        "units": [f"{NONE}.service"],
        "packages": ["dpkg", NONE],
        "libraries": ["json", "no_such_library_at_all"],
        "commands": {"fails": ["sh", "-c", "echo out; echo err >&2; exit 3"], "sees": ["docker", "inspect", NAME]},
    }
    first = info(options)
    assert {kind: first[kinds] for kind, kinds in KINDS.items()} == {kind: made[kind] for kind in KINDS}
    assert first["images"] == {NAME: made["image"][0], f"{NAME}:other": made["image"][0]}
    assert first["docker"]["error"] == ""
    assert first["docker"]["version"] == docker("version", "--format", "{{.Server.Version}}")
    assert first["docker"]["runtimes"] == sorted(json.loads(docker("info", "--format", "{{json .Runtimes}}")))
    assert {Path(path).name: (one["type"], one["mode"]) for path, one in first["files"].items()} == {
        tmp_path.name: ("directory", f"{tmp_path.stat().st_mode & 0o7777:04o}"),
        "link": ("link", "0777"),
        "text": ("file", "0640"),
    }
    assert first["files"][str(text)]["sha256"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert first["texts"] == {str(text): "one\ntwo\n"}
    states = first["units"].get(f"{NONE}.service")
    assert (states and states["load"]) == ("not-found" if os.path.isdir("/run/systemd/system") else None)
    assert (first["packages"], first["libraries"]) == (["dpkg"], ["json"])
    assert first["answers"]["fails"] == {"rc": 3, "stdout": "out\n", "stderr": "err\n"}
    assert json.loads(first["answers"]["sees"]["stdout"]) == made["container"]
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())}
    assert info(options) == info(options, check=True) == first
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())} == before
    assert json.loads(docker("container", "inspect", NAME)) == made["container"]


@pytest.mark.docker
def test_all_networks_are_found_whoever_made_them(made: dict[str, list[dict]]) -> None:
    found = run_module("host_info", {})["networks"]
    assert {"bridge", "host", "none", NAME} <= {one["Name"] for one in found}
    assert [one for one in found if one["Name"] == NAME] == made["network"]


@pytest.mark.docker
def test_where_nothing_is_asked_for_nothing_is_found_but_docker_s_own() -> None:
    found = info({})
    assert found["docker"]["error"] == ""
    assert [found[name] for name in ("containers", "networks", "volumes", "packages", "libraries")] == [[]] * 5
    assert [found[name] for name in ("images", "files", "texts", "units", "answers")] == [{}] * 5


def test_a_docker_that_does_not_answer_is_no_failure_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = info({"containers": [NAME], "images": [NAME], "volumes": [NAME], "paths": [str(tmp_path)]})
    assert list(found["docker"]) == ["error"]
    assert f"unix://{tmp_path}/none.sock" in found["docker"]["error"]
    assert (found["containers"], found["networks"], found["images"], found["volumes"]) == ([], [], {}, [])
    assert list(found["files"]) == [str(tmp_path)]


BAD = {
    "a relative path": ({"paths": ["etc"]}, "paths: 'etc' is not an absolute path"),
    "a relative text": ({"texts": ["/etc", "./a"]}, "texts: './a' is not an absolute path"),
    "an option as a name": ({"packages": ["--all"]}, "packages: '--all' is not a valid name"),
    "an empty name": ({"units": [""]}, "units: '' is not a valid name"),
    "a command in one word": (
        {"commands": {"a": "true"}},
        "commands: that of a is not a list of a program and its arguments",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_refused_in_one_line_that_names_the_option(case: str) -> None:
    options, message = BAD[case]
    refused = run_module("host_info", options)
    assert (refused["failed"], refused["msg"]) == (True, message)
