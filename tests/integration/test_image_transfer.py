# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images between real daemons: this machine's, one in a container of it, and one in a container of that one."""
from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from typing import Callable, Iterator

import pytest
from playing import CHECKOUT, ansible_environment, run_module

pytestmark = [pytest.mark.root, pytest.mark.docker]

DAEMON_IMAGE = "nested-kata-test/transfer:1"
OUTER, INNER, SMALL, PLAIN, STOPPED = (f"t-img-{name}" for name in ("outer", "inner", "small", "plain", "stopped"))
LABEL = "nested.kata.test=image_transfer"
MEBIBYTE = 1 << 20

DOCKERFILE = r"""
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends docker.io docker-cli iptables && rm -rf /var/lib/apt/lists/*
RUN printf '%s\n' '#!/bin/sh' \
    'for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do mountpoint -q "$tree" && mount -o remount,bind,rw "$tree"; done' \
    'if [ -f /sys/fs/cgroup/cgroup.procs ]; then mkdir -p /sys/fs/cgroup/init && echo 1 > /sys/fs/cgroup/init/cgroup.procs; fi' \
    'exec dockerd --storage-driver overlay2 --bridge none --iptables=false --ip6tables=false' > /entry && chmod +x /entry
CMD ["/entry"]
"""
RUN_DAEMON = (
    "run", "--detach", "--network", "none", "--tmpfs", "/run", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cgroupns", "private",
    "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
)


def docker(*arguments: str, hops: tuple[str, ...] = (), data: bytes | None = None, check: bool = True) -> str:
    """Run a docker command on this machine, or behind the hops, and return what it printed."""
    command = ["docker"]
    for hop in hops:
        command += ["exec", "-i", hop, "docker"]
    done = subprocess.run([*command, *arguments], input=data, stdin=None if data else subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join([*command, *arguments])}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.05)


def wait_for_daemon(*hops: str) -> None:
    wait_until(lambda: docker("version", "--format", "{{.Server.Version}}", hops=hops, check=False) != "", f"the daemon of {hops}")


def make_image(name: str, hops: tuple[str, ...] = (), size: int = MEBIBYTE) -> str:
    """Make an image of one layer of random bytes and return its id."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("content")
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return docker("import", "--change", f"LABEL {LABEL}", "-", name, hops=hops, data=archive.getvalue())


def image_id(name: str, hops: tuple[str, ...] = ()) -> str:
    """Return the id of an image, or nothing."""
    return docker("image", "inspect", "--format", "{{.Id}}", name, hops=hops, check=False)


def end(hops: tuple[str, ...]) -> dict:
    return {"hops": list(hops)}


def strays() -> list[str]:
    """Return the processes that are left of streams to our daemons, on this machine and in them."""
    found = subprocess.run(["pgrep", "-af", "exec -i t-img-.* dial-stdio"], capture_output=True, text=True, check=False).stdout.splitlines()
    for name in docker("ps", "--filter", "name=t-img-", "--format", "{{.Names}}").split():
        found += [line for line in docker("top", name, check=False).splitlines() if "dial-stdio" in line]
    return found


@pytest.fixture(scope="module")
def daemons() -> Iterator[None]:
    """Run a daemon in a container and one in a container of that; the inner one's image gets there by our own module."""
    names = [OUTER, SMALL, PLAIN, STOPPED, "t-img-idle", "t-img-containerd"]
    docker("rm", "--force", "--volumes", *names, check=False)
    docker("build", "--quiet", "--tag", DAEMON_IMAGE, "-", data=DOCKERFILE.encode())
    try:
        docker(*RUN_DAEMON, "--name", OUTER, "--volume", "/var/lib/docker", DAEMON_IMAGE)
        docker(*RUN_DAEMON, "--name", SMALL, "--tmpfs", "/var/lib/docker:size=150m", DAEMON_IMAGE)
        docker("run", "--detach", "--network", "none", "--name", PLAIN, "debian:trixie-slim", "sleep", "infinity")
        docker("create", "--network", "none", "--name", STOPPED, DAEMON_IMAGE)
        wait_for_daemon(OUTER)
        result = run_module("image_transfer", {"images": [DAEMON_IMAGE], "destination": end((OUTER,))})
        assert not result["failed"], result["msg"]
        docker(*RUN_DAEMON, "--name", INNER, "--volume", "/var/lib/docker", DAEMON_IMAGE, hops=(OUTER,))
        wait_for_daemon(OUTER, INNER)
        wait_for_daemon(SMALL)
        yield
    finally:
        docker("rm", "--force", "--volumes", *names, check=False)
        for made in docker("images", "--quiet", "--filter", f"label={LABEL}").split():
            docker("rmi", "--force", made)


@pytest.fixture(autouse=True)
def nothing_stays(daemons: None) -> Iterator[None]:
    yield
    # What is left in a hop ends when it finds its stream closed. A daemon that was writing an archive writes it to the end first.
    wait_until(lambda: not strays(), f"no stray processes, found {strays()}", 20)


ROUTES = {
    "one hop": ((), (OUTER,)),
    "two hops": ((), (OUTER, INNER)),
    "from hop to hop": ((OUTER,), (OUTER, INNER)),
    "back to the machine": ((OUTER, INNER), ()),
}


@pytest.mark.parametrize("route", ROUTES)
def test_an_image_arrives_in_four_runs(route: str) -> None:
    source, destination = ROUTES[route]
    name = f"t-img/{route.replace(' ', '-')}:1"
    made = make_image(name, source)
    options = {"images": [name], "source": end(source), "destination": end(destination)}
    shown = {"before": {name: None}, "after": {name: made}}

    checked = run_module("image_transfer", options, check=True)
    assert (checked["failed"], checked["changed"], checked["bytes_sent"], checked["diff"]) == (False, True, 0, shown)
    assert "would send 1 image" in checked["msg"]
    assert image_id(name, destination) == ""

    real = run_module("image_transfer", options)
    assert (real["failed"], real["changed"], real["diff"]) == (False, True, shown)
    assert MEBIBYTE < real["bytes_sent"] < 1.2 * MEBIBYTE
    assert real["images"] == [{
        "name": name, "id": made, "changed": True, "bytes_sent": real["bytes_sent"],
        "seconds": real["images"][0]["seconds"], "reason": "the destination has no image of this name",
    }]
    assert image_id(name, destination) == made

    for check in (False, True):
        again = run_module("image_transfer", options, check=check)
        assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)
        assert again["images"][0]["reason"] == "the destination has the same image"
        assert again["diff"] == {"before": {name: made}, "after": {name: made}}


def test_only_the_image_that_changed_under_its_name_is_sent() -> None:
    kept, changed = make_image("t-img/kept:1"), make_image("t-img/changing:1")
    options = {"images": ["t-img/kept:1", "docker.io/t-img/changing:1"], "destination": end((OUTER,))}
    assert run_module("image_transfer", options)["bytes_sent"] > 2 * MEBIBYTE
    renewed = make_image("t-img/changing:1")

    result = run_module("image_transfer", options)
    assert [one["changed"] for one in result["images"]] == [False, True]
    assert MEBIBYTE < result["bytes_sent"] < 1.2 * MEBIBYTE
    assert result["diff"]["before"] == {"t-img/kept:1": kept, "t-img/changing:1": changed}
    assert result["diff"]["after"] == {"t-img/kept:1": kept, "t-img/changing:1": renewed}
    assert result["msg"].endswith(", 1 was there")
    assert image_id("t-img/changing:1", (OUTER,)) == renewed


def test_an_unknown_image_is_told_with_near_names_and_none_is_sent() -> None:
    make_image("t-img/there:1.2")
    result = run_module("image_transfer", {"images": ["t-img/there:1.2", "t-img/there:1.3", "t-img/their"], "destination": end((OUTER,))})
    assert result["failed"]
    assert not result["changed"]
    assert result["msg"].startswith("images: source /var/run/docker.sock has no image t-img/there:1.3 (near: t-img/there:1.2")
    assert "no image t-img/their:latest (near: t-img/there:1.2" in result["msg"]
    assert image_id("t-img/there:1.2", (OUTER,)) == ""


# Options, and what the error must name.
BAD = {
    "a malformed name": ({"images": ["Debian"]}, "images: 'Debian' is not an image name"),
    "an unknown hop": ({"destination": end((OUTER, "t-img-no"))}, f"destination {OUTER} > t-img-no: hop 2 of 2 (t-img-no in {OUTER}): no such container"),
    "a stopped hop": ({"destination": end((STOPPED,))}, f"destination {STOPPED}: hop 1 of 1 ({STOPPED} on this machine): is not running"),
    "a hop without a docker client": (
        {"source": end((PLAIN,)), "destination": {}}, f"source {PLAIN}: hop 1 of 1 ({PLAIN} on this machine): it has no docker client"
    ),
    "a hop behind one without a client": ({"destination": end((PLAIN, "x1"))}, f"there is no docker client in {PLAIN}"),
    "a socket that is not there": ({"destination": {"socket": "/nowhere/docker.sock"}}, "destination /nowhere/docker.sock: there is no socket"),
    "socket and hops": ({"destination": {"socket": "/x", "hops": ["x1"]}}, "mutually exclusive"),
    "the same daemon twice": ({"destination": {}}, "source and destination are the same daemon"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case: str) -> None:
    options, words = BAD[case]
    result = run_module("image_transfer", {"images": ["debian:trixie-slim"], "destination": end((OUTER,)), **options})
    assert result["failed"]
    assert not result.get("changed")
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert image_id("debian:trixie-slim", (OUTER,)) == ""


def test_a_hop_whose_daemon_does_not_run_is_told() -> None:
    name = "t-img-idle"
    docker("run", "--detach", "--network", "none", "--name", name, DAEMON_IMAGE, "sleep", "infinity")
    try:
        result = run_module("image_transfer", {"images": ["debian:trixie-slim"], "destination": end((name,))})
    finally:
        docker("rm", "--force", name)
    assert result["msg"] == f"destination {name}: hop 1 of 1 ({name} on this machine): the docker daemon in it does not answer: start dockerd there"


@pytest.mark.parametrize("source", [(), (OUTER,)], ids=["from the machine", "from a hop"])
def test_a_destination_without_space_fails_and_keeps_nothing_of_the_image(source: tuple[str, ...]) -> None:
    result = run_module("image_transfer", {"images": [DAEMON_IMAGE], "source": end(source), "destination": end((SMALL,))})
    assert result["failed"]
    assert f"destination {SMALL}: loading {DAEMON_IMAGE}: " in result["msg"]
    assert "no space left on device" in result["msg"]
    assert "\n" not in result["msg"]
    assert image_id(DAEMON_IMAGE, (SMALL,)) == ""
    assert docker("images", "--quiet", "--all", hops=(SMALL,)) == ""


def test_a_daemon_with_containerds_store_agrees_about_an_image_by_its_content() -> None:
    base, name, hop = "t-img/base:1", "t-img/rich:1", "t-img-containerd"
    make_image(base)
    lines = (f"FROM {base}", f"LABEL {LABEL} empty=", "ENV A=b", "EXPOSE 80", "VOLUME /data", "USER 1", "WORKDIR /", 'ENTRYPOINT ["/content"]')
    docker("build", "--quiet", "--tag", name, "-", data="\n".join(lines).encode())
    made = image_id(name)
    configuration = '{"features": {"containerd-snapshotter": true}}'
    serve = f"echo '{configuration}' > /run/daemon.json; sed -i 's,overlay2,overlayfs --config-file /run/daemon.json,' /entry; exec /entry"
    docker(*RUN_DAEMON, "--name", hop, "--volume", "/var/lib/docker", DAEMON_IMAGE, "sh", "-c", serve)
    try:
        wait_for_daemon(hop)
        options = {"images": [name], "destination": end((hop,))}
        there = run_module("image_transfer", options)
        again = run_module("image_transfer", options)
        docker("rmi", name)
        back = run_module("image_transfer", {"images": [name], "source": end((hop,))})
    finally:
        docker("rm", "--force", "--volumes", hop)
    assert (there["failed"], there["changed"]) == (False, True)
    assert there["images"][0]["id"] != made
    assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)
    assert (back["failed"], back["changed"], back["images"][0]["id"]) == (False, True, made)


def half_loaded(*hops: str) -> bool:
    size = docker("exec", hops[-1], "du", "-sm", "/var/lib/docker/tmp", hops=hops[:-1], check=False).split()
    return bool(size) and int(size[0]) >= 20


def test_a_destination_that_is_killed_in_the_middle_is_told_by_its_hop() -> None:
    result: dict = {}
    options = {"images": [DAEMON_IMAGE], "destination": end((OUTER, INNER))}
    sending = threading.Thread(target=lambda: result.update(run_module("image_transfer", options)))
    sending.start()
    wait_until(lambda: half_loaded(OUTER, INNER), "20 MB at the destination")
    docker("kill", INNER, hops=(OUTER,))
    start = time.monotonic()
    sending.join(60)
    assert time.monotonic() - start < 10
    assert result["failed"]
    assert result["msg"] == f"destination {OUTER} > {INNER}: loading {DAEMON_IMAGE}: hop 2 of 2 ({INNER} in {OUTER}): is not running (exited)"
    docker("start", INNER, hops=(OUTER,))
    wait_for_daemon(OUTER, INNER)
    assert image_id(DAEMON_IMAGE, (OUTER, INNER)) == ""


# Sends one image with the module's own parts, in a process that can be watched.
SENDER = textwrap.dedent("""
    import json, resource, sys
    from ansible_collections.nested.kata.plugins.module_utils.daemon import Daemon, Endpoint
    from ansible_collections.nested.kata.plugins.modules.image_transfer import act, look

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    imported = peak()
    with Daemon(Endpoint(), title="source") as source, Daemon(Endpoint(hops=tuple(sys.argv[2:])), title="destination") as destination:
        save, sent = source.save, 0
        def watched(reference):
            global sent
            for piece in save(reference):
                yield piece
                sent += len(piece)
                print(sent, flush=True)
        source.save = watched
        (step,) = look((sys.argv[1],), source, destination)
        print(json.dumps({"sent": act(step, source, destination)["bytes_sent"], "peak": peak() - imported}))
""")


def sender(name: str, *hops: str) -> subprocess.Popen[str]:
    environment = ansible_environment(PYTHONPATH=str(CHECKOUT / ".collections"))
    command = [sys.executable, "-c", SENDER, name, *hops]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_module_that_is_killed_in_the_middle_leaves_nothing_and_the_next_run_converges(name: str) -> None:
    image = "t-img/interrupted:1"
    made = make_image(image, size=60 * MEBIBYTE)
    docker("rmi", image, hops=(OUTER,), check=False)
    with sender(image, OUTER) as sending:
        while int(sending.stdout.readline()) < 10 * MEBIBYTE:
            pass
        sending.send_signal(getattr(signal, name))
        sending.wait(20)
    assert sending.returncode != 0
    wait_until(lambda: not strays(), "the end of every stream", 20)
    assert image_id(image, (OUTER,)) == ""
    result = run_module("image_transfer", {"images": [image], "destination": end((OUTER,))})
    assert (result["failed"], result["changed"]) == (False, True)
    assert image_id(image, (OUTER,)) == made


def test_memory_stays_the_same_whatever_the_size_of_the_image() -> None:
    docker("rmi", DAEMON_IMAGE, hops=(OUTER, INNER), check=False)
    with sender(DAEMON_IMAGE, OUTER, INNER) as sending:
        output, errors = sending.communicate(timeout=120)
    assert sending.returncode == 0, errors
    told = json.loads(output.splitlines()[-1])
    assert told["sent"] > 400 * 1_000_000
    assert told["peak"] < 64 * MEBIBYTE
