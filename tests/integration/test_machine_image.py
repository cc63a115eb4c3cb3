# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role machine_image removes what it made and nothing that people made of it. In a nested daemon, to which no other
test comes.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, MARK, play, wait_until
from authorities import make_authority
from docker_in_docker import docker, load, nested_daemon, wait_for_daemon

pytestmark = [pytest.mark.root, pytest.mark.docker]

HOP = f"t-removal-{MARK}"
AGAIN = f"t-again-{MARK}"
BASE = "debian:trixie-slim"
FILES = CHECKOUT / "roles" / "machine_image" / "files"

# Machine images, as the role tags them, and what became of each before the removal.
UNUSED, RUN, BUILT_UPON, RENAMED = (f"nested-kata/machine:{number * 12}" for number in "1234")
IMPORTED = "nested-kata/base:imported"


def inner_docker(*arguments: str, **options) -> str:
    return docker(*arguments, hops=[HOP], **options)


def context(*commands: str, mark: str = "") -> bytes:
    """Return the role's own build, with other commands in its RUN instructions: the last of them in all that are
    left.
    """
    todo = list(commands)
    instruction = re.compile(r"^RUN (?:.*\\\n(?: *#.*\n)*)*.*$", re.MULTILINE)
    dockerfile = instruction.sub(
        lambda _found: f"RUN {todo.pop(0) if len(todo) > 1 else todo[0]}", (FILES / "Dockerfile").read_text()
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("Dockerfile")
        content = dockerfile.replace("ARG SUITE=trixie", f"ARG SUITE=trixie{mark}").encode()
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        for name in ("early", "rootfs"):
            archive.add(FILES / name, name)
        for name in ("daemon_json.py", "daemon_json_types.py"):
            archive.add(CHECKOUT / "plugins/module_utils/_docker" / name, f"rootfs/usr/lib/nested-kata/{name}")
    return packed.getvalue()


def build_upon(image: str, *options: str) -> str:
    """Build as a user does, and return the image's id."""
    return inner_docker("build", "--quiet", *options, "-", data=f"FROM {image}\nRUN echo mine > /mine\n".encode())


def unfinished() -> list[str]:
    """Return the untagged images at the end of a build that ended too early."""
    listed = inner_docker("images", "--quiet", "--no-trunc", "--filter", "dangling=true").split()
    return [
        image
        for image in listed
        if "nested.kata.finished" not in inner_docker("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    ]


def interrupt_a_build() -> str:
    """Let the daemon die in the middle of a build, start it again, and return the name of the container that the build
    left behind.
    """
    way = ["docker", "exec", "-i", HOP, "docker", "build", "-"]
    before = set(inner_docker("ps", "--all", "--format", "{{.Names}}").split())
    with subprocess.Popen(way, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as building:
        building.stdin.write(context("sleep 600", mark="-interrupted"))
        building.stdin.close()
        wait_until(
            lambda: "sleep 600" in inner_docker("ps", "--no-trunc", "--format", "{{.Command}}"),
            "the build to come to its first command",
            pause=0.1,
        )
        docker("exec", HOP, "sh", "-c", "kill -9 $(cat /run/docker.pid)")
    docker("wait", HOP)
    docker("start", HOP)
    wait_for_daemon(HOP)
    (left,) = set(inner_docker("ps", "--all", "--format", "{{.Names}}").split()) - before
    return left


def holds() -> dict[str, set[str]]:
    """Return the names of the containers, and of the images; of an untagged one its id."""
    names = inner_docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    images = {line.split()[1] if line.startswith("<none>") else line.split()[0] for line in names}
    return {"containers": set(inner_docker("ps", "--all", "--format", "{{.Names}}").split()), "images": images}


@pytest.fixture(scope="module")
def daemon() -> Iterator[None]:
    with nested_daemon(HOP, network=False):
        load(BASE, HOP)
        yield


@pytest.fixture(scope="module")
def removal(daemon: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose playbook removes the machine image."""
    directory = tmp_path_factory.mktemp("removal")
    write(directory, HOP, machine_image_state="absent")
    return directory


def write(directory: Path, hop: str, **variables: object) -> None:
    """Write a playbook that runs the role in a nested daemon, and an inventory."""
    of_image = {"name": "The image", "hosts": "machine", "vars": variables, "roles": ["nested.kata.machine_image"]}
    (directory / "play.yml").write_text(json.dumps([of_image]))
    host = {
        "ansible_connection": "nested.kata.nested",
        "ansible_nested_hops": [hop],
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"machine": host}}}))


def run(directory: Path, *arguments: str) -> str:
    done = play(
        directory / "play.yml",
        "-i",
        str(directory / "hosts.yml"),
        *arguments,
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.thorough
def test_what_people_made_of_the_image_stays_and_what_the_builds_made_goes(removal: Path) -> None:
    for number, image in enumerate((UNUSED, RUN, BUILT_UPON, RENAMED)):
        inner_docker("build", "--quiet", "--tag", image, "--build-arg", f"PACKAGES={number}", "-", data=context("true"))
    inner_docker("create", "--name", "user-of-ours", RUN)
    build_upon(BUILT_UPON, "--tag", "theirs:1")
    inner_docker("create", "--name", "user-of-theirs", "theirs:1")
    untagged = build_upon(BUILT_UPON, "--label", "other=1")
    inner_docker("tag", RENAMED, "theirs:2")
    inner_docker("tag", "theirs:1", "nested-kata/machine:theirs")
    inner_docker("tag", BASE, IMPORTED)
    inner_docker("create", "--name", "user-of-base", BASE)
    inner_docker("build", "--force-rm", "-", data=context("true", "false", mark="-debugged"), check=False)
    (debugged,) = unfinished()
    inner_docker("create", "--name", "debugging", debugged)
    interrupted = interrupt_a_build()
    (left,) = set(unfinished()) - {debugged}
    docker(
        "exec",
        HOP,
        "sh",
        "-c",
        f"mkdir -p /var/lib/nested-kata/images && echo {BASE}"
        f" {inner_docker('image', 'inspect', '--format', '{{.Id}}', BASE)} > /var/lib/nested-kata/images/base",
    )

    containers = {"user-of-ours", "user-of-theirs", "user-of-base", "debugging"}
    images = {RUN, "theirs:1", "theirs:2", "nested-kata/machine:theirs", untagged, debugged, BASE}
    everything = {
        "containers": containers | {interrupted},
        "images": images | {UNUSED, BUILT_UPON, RENAMED, IMPORTED, left},
    }
    assert holds() == everything

    run(removal, "--check")
    assert holds() == everything

    said = run(removal)
    assert holds() == {"containers": containers, "images": images}
    for line in (
        f"{RUN} stays, used by user-of-ours",
        f"{debugged} stays, used by debugging",
        f"{BASE} stays, used by user-of-base",
    ):
        assert f'"msg": "{line}"' in said
    assert said.count(" stays, used by ") == 3
    inner_docker("run", "--rm", "--network", "none", "--entrypoint", "cat", "theirs:1", "/mine")

    again = run(removal)
    assert re.search(r"machine +: ok=\d+ +changed=0 ", again)
    assert holds() == {"containers": containers, "images": images}


def made() -> tuple[str, list[str]]:
    """Return the name and the layers of the machine image."""
    (name,) = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "nested-kata/machine", hops=[AGAIN]).split()
    return name, json.loads(docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", name, hops=[AGAIN]))


def base(command: str) -> str:
    """Make the base image again, of the same files but with another command, and return its ID."""
    return docker("build", "--quiet", "--tag", BASE, "-", data=f"FROM {BASE}\nCMD {command}\n".encode(), hops=[AGAIN])


@pytest.mark.thorough
def test_an_image_that_is_built_again_has_the_same_name_and_the_same_layers(tmp_path: Path) -> None:
    """Also upon a base image that was made again, which has another id, and with authorities of one's own."""
    make_authority(tmp_path)
    write(tmp_path, AGAIN, machine_image_pull=False, nested_kata_ca_certificates=[f"{tmp_path}/ca.crt"])
    with nested_daemon(AGAIN):
        load(BASE, AGAIN)
        ids = {base("bash")}
        run(tmp_path)
        first = made()
        ids.add(base("sh"))
        assert re.search(r"machine +: ok=\d+ +changed=0 ", run(tmp_path))
        docker("system", "prune", "--all", "--force", hops=[AGAIN])
        load(BASE, AGAIN)
        ids.add(base("true"))
        assert len(ids) == 3
        run(tmp_path)
        assert made() == first
