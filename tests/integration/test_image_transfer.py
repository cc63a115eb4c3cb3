# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images between real daemons: this machine's, one in a container of it, and one in a container of that one."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hostile_tars
import pytest
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Store, Unreadable
from ansible_runner import (
    BIN,
    CHECKOUT,
    MARK,
    ansible_environment,
    answer,
    module_environment,
    play,
    run_module,
    started,
    wait_until,
)
from docker_in_docker import DAEMON_IMAGE, docker, image_id, import_image, nested_daemon, wait_for_daemon
from image_builder import legacy, made

pytestmark = [pytest.mark.root, pytest.mark.docker]

OUTER, INNER, SMALL, PLAIN, STOPPED, IDLE = (
    f"t-img-{MARK}-{name}" for name in ("outer", "inner", "small", "plain", "stopped", "idle")
)
LABEL = f"nested.kata.test=image_transfer-{MARK}"
MEBIBYTE = 1 << 20


def make_image(name: str, hops: tuple[str, ...] = (), size: int = MEBIBYTE) -> str:
    return import_image(name, hops, size=size, label=LABEL)


def location(hops: tuple[str, ...]) -> dict:
    return {"hops": list(hops)}


def transfer(options: dict, *, check: bool = False) -> dict:
    """Run the module as Ansible does on a target, but without Ansible around it, which takes longer than most
    transfers.
    """
    return answer(started("image_transfer", {**options, "_ansible_check_mode": check, "_ansible_diff": True}), 180)


def strays() -> list[str]:
    """Return the processes that are left of streams to our daemons, on this machine and in them."""
    found = subprocess.run(
        ["pgrep", "-af", f"exec -i t-img-{MARK}-.* dial-stdio"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    for name in docker("ps", "--filter", f"name=t-img-{MARK}-", "--format", "{{.Names}}").split():
        found += [line for line in docker("top", name, check=False).splitlines() if "dial-stdio" in line]
    return found


@pytest.fixture(scope="module")
def daemons() -> Iterator[None]:
    """Run a daemon in a container and one in a container of that; the inner one's image gets there by our own
    module.
    """
    docker("rm", "--force", "--volumes", PLAIN, STOPPED, IDLE, check=False)
    small = ("--tmpfs", "/var/lib/docker:size=150m")
    try:
        with nested_daemon(OUTER, network=False), nested_daemon(SMALL, network=False, storage=small):
            docker("run", "--detach", "--network", "none", "--name", PLAIN, "debian:trixie-slim", "sleep", "infinity")
            docker("create", "--network", "none", "--name", STOPPED, DAEMON_IMAGE)
            result = transfer({"images": [DAEMON_IMAGE], "destination": location((OUTER,))})
            assert not result["failed"], result["msg"]
            with nested_daemon(INNER, hops=[OUTER], network=False):
                yield
    finally:
        docker("rm", "--force", "--volumes", PLAIN, STOPPED, IDLE, check=False)
        for made in docker("images", "--quiet", "--filter", f"label={LABEL}").split():
            docker("rmi", "--force", made)


@pytest.fixture(autouse=True)
def nothing_stays(daemons: None) -> Iterator[None]:
    yield
    # What is left in a hop ends when it finds its stream closed. A daemon that was writing an archive writes it to the
    # end first.
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
    name = f"t-img-{MARK}/{route.replace(' ', '-')}:1"
    made = make_image(name, source)
    options = {"images": [name], "source": location(source), "destination": location(destination)}
    shown = {"before": {name: None}, "after": {name: made}}
    run = functools.partial(run_module, "image_transfer") if route == "one hop" else transfer

    checked = run(options, check=True)
    assert (checked["failed"], checked["changed"], checked["bytes_sent"], checked["diff"]) == (False, True, 0, shown)
    assert "would send 1 image" in checked["msg"]
    assert image_id(name, destination) == ""

    real = run(options)
    assert (real["failed"], real["changed"], real["diff"]) == (False, True, shown)
    assert MEBIBYTE < real["bytes_sent"] < 1.2 * MEBIBYTE
    assert real["images"] == [
        {
            "name": name,
            "destination": " > ".join(destination) or "/var/run/docker.sock",
            "names": [name],
            "id": made,
            "changed": True,
            "bytes_sent": real["bytes_sent"],
            "layers_sent": 1,
            "layers_skipped": 0,
            "seconds": real["images"][0]["seconds"],
            "reason": (
                "the destination has no image of this name: all layers, since the destination has none of them; read"
                " from its store"
            ),
        }
    ]
    assert image_id(name, destination) == made

    for check in (False, True):
        again = run(options, check=check)
        assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)
        assert again["images"][0]["reason"] == "the destination has the same image"
        assert again["diff"] == {"before": {name: made}, "after": {name: made}}


def test_only_the_image_that_changed_under_its_name_is_sent() -> None:
    kept, changed = make_image(f"t-img-{MARK}/kept:1"), make_image(f"t-img-{MARK}/changing:1")
    options = {
        "images": [f"t-img-{MARK}/kept:1", f"docker.io/t-img-{MARK}/changing:1"],
        "destination": location((OUTER,)),
    }
    assert transfer(options)["bytes_sent"] > 2 * MEBIBYTE
    renewed = make_image(f"t-img-{MARK}/changing:1")

    result = transfer(options)
    assert [one["changed"] for one in result["images"]] == [False, True]
    assert MEBIBYTE < result["bytes_sent"] < 1.2 * MEBIBYTE
    assert result["diff"]["before"] == {f"t-img-{MARK}/kept:1": kept, f"t-img-{MARK}/changing:1": changed}
    assert result["diff"]["after"] == {f"t-img-{MARK}/kept:1": kept, f"t-img-{MARK}/changing:1": renewed}
    assert result["msg"].endswith(", 1 was there")
    assert image_id(f"t-img-{MARK}/changing:1", (OUTER,)) == renewed


def test_an_unknown_image_is_told_with_near_names_and_none_is_sent() -> None:
    make_image(f"t-img-{MARK}/there:1.2")
    result = transfer(
        {
            "images": [f"t-img-{MARK}/there:1.2", f"t-img-{MARK}/there:1.3", f"t-img-{MARK}/their"],
            "destination": location((OUTER,)),
        }
    )
    assert result["failed"]
    assert not result["changed"]
    assert result["msg"].startswith(
        f"images: source /var/run/docker.sock has no image t-img-{MARK}/there:1.3 (near: t-img-{MARK}/there:1.2"
    )
    assert f"no image t-img-{MARK}/their:latest (near: t-img-{MARK}/there:1.2" in result["msg"]
    assert image_id(f"t-img-{MARK}/there:1.2", (OUTER,)) == ""


# Options, and what the error must name.
BAD = {
    "a malformed name": ({"images": ["Debian"]}, "images: 'Debian' is not an image name"),
    "an unknown hop": (
        {"destination": location((OUTER, "t-img-no"))},
        f"destination {OUTER} > t-img-no: hop 2 of 2 (t-img-no in {OUTER}): no such container",
    ),
    "a stopped hop": (
        {"destination": location((STOPPED,))},
        f"destination {STOPPED}: hop 1 of 1 ({STOPPED} on this machine): is not running",
    ),
    "a hop without a docker client": (
        {"source": location((PLAIN,)), "destination": {}},
        f"source {PLAIN}: hop 1 of 1 ({PLAIN} on this machine): it has no docker client",
    ),
    "a hop behind one without a client": (
        {"destination": location((PLAIN, "x1"))},
        f"there is no docker client in {PLAIN}",
    ),
    "a socket that is not there": (
        {"destination": {"socket": "/nowhere/docker.sock"}},
        "destination /nowhere/docker.sock: there is no socket",
    ),
    "socket and hops": ({"destination": {"socket": "/x", "hops": ["x1"]}}, "mutually exclusive"),
    "the same daemon twice": ({"destination": {}}, "source and destination are the same daemon"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case: str) -> None:
    options, words = BAD[case]
    result = transfer({"images": ["debian:trixie-slim"], "destination": location((OUTER,)), **options})
    assert result["failed"]
    assert not result.get("changed")
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert image_id("debian:trixie-slim", (OUTER,)) == ""


def test_a_hop_whose_daemon_does_not_run_is_told() -> None:
    docker("run", "--detach", "--network", "none", "--name", IDLE, DAEMON_IMAGE, "sleep", "infinity")
    try:
        result = transfer({"images": ["debian:trixie-slim"], "destination": location((IDLE,))})
    finally:
        docker("rm", "--force", IDLE)
    assert (
        result["msg"]
        == f"destination {IDLE}: hop 1 of 1 ({IDLE} on this machine): the docker daemon in it does not answer: start"
        " dockerd there"
    )


@pytest.mark.parametrize("source", [(), (OUTER,)], ids=["from the machine", "from a hop"])
def test_a_destination_without_space_fails_and_keeps_nothing_of_the_image(source: tuple[str, ...]) -> None:
    result = transfer({"images": [DAEMON_IMAGE], "source": location(source), "destination": location((SMALL,))})
    assert result["failed"]
    assert f"destination {SMALL}: loading {DAEMON_IMAGE}: " in result["msg"]
    assert "no space left on device" in result["msg"]
    assert "\n" not in result["msg"]
    assert image_id(DAEMON_IMAGE, (SMALL,)) == ""
    assert docker("images", "--quiet", "--all", hops=(SMALL,)) == ""


def test_a_daemon_with_containerds_store_agrees_about_an_image_by_its_content() -> None:
    base, name, hop = f"t-img-{MARK}/base:1", f"t-img-{MARK}/rich:1", f"t-img-{MARK}-containerd"
    make_image(base)
    lines = (
        f"FROM {base}",
        f"LABEL {LABEL} empty=",
        "ENV A=b",
        "EXPOSE 80",
        "VOLUME /data",
        "USER 1",
        "WORKDIR /",
        'ENTRYPOINT ["/content"]',
    )
    docker("build", "--quiet", "--tag", name, "-", data="\n".join(lines).encode())
    made = image_id(name)
    features = {"containerd-snapshotter": True}
    with nested_daemon(hop, network=False, features=features, **{"storage-driver": "overlayfs"}):
        options = {"images": [name], "destination": location((hop,))}
        there = transfer(options)
        again = transfer(options)
        docker("rmi", name)
        back = transfer({"images": [name], "source": location((hop,))})
    assert (there["failed"], there["changed"]) == (False, True)
    assert there["images"][0]["id"] != made
    assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0)
    assert (back["failed"], back["changed"], back["images"][0]["id"]) == (False, True, made)


def half_loaded(*hops: str) -> bool:
    size = docker("exec", hops[-1], "du", "-sm", "/var/lib/docker/tmp", hops=hops[:-1], check=False).split()
    return bool(size) and int(size[0]) >= 20


def test_a_destination_that_is_killed_in_the_middle_is_told_by_its_hop() -> None:
    result: dict = {}
    options = {"images": [DAEMON_IMAGE], "destination": location((OUTER, INNER))}
    sending = threading.Thread(target=lambda: result.update(transfer(options)))
    sending.start()
    wait_until(lambda: half_loaded(OUTER, INNER), "20 MB at the destination")
    docker("kill", INNER, hops=(OUTER,))
    start = time.monotonic()
    sending.join(60)
    assert time.monotonic() - start < 30  # seconds; what is waited for a silent one is 60
    assert result["failed"]
    assert (
        result["msg"]
        == f"destination {OUTER} > {INNER}: loading {DAEMON_IMAGE}: hop 2 of 2 ({INNER} in {OUTER}): is not running"
        " (exited)"
    )
    docker("start", INNER, hops=(OUTER,))
    wait_for_daemon(OUTER, INNER)
    assert image_id(DAEMON_IMAGE, (OUTER, INNER)) == ""


def test_who_watches_sees_how_far_it_is() -> None:
    docker("rmi", DAEMON_IMAGE, hops=(OUTER, INNER), check=False)
    arguments = {"images": [DAEMON_IMAGE], "destination": location((OUTER, INNER))}
    done = subprocess.run(
        [
            str(BIN / "ansible"),
            "localhost",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-m",
            "nested.kata.image_transfer",
            "-a",
            json.dumps(arguments),
            "-e",
            json.dumps({"nested_kata_progress_seconds": 0.5, "ansible_python_interpreter": sys.executable}),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        env=ansible_environment(),
    )
    said = re.findall(rf"\.\.\. localhost: {DAEMON_IMAGE} to {OUTER} > {INNER}: (.*)", done.stderr)
    amounts = [int(line.split()[0]) for line in said if re.fullmatch(r"\d+ MiB, layer [1-9]", line)]
    assert len(amounts) >= 2, done.stderr
    assert amounts == sorted(amounts)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_module_that_is_killed_in_the_middle_leaves_nothing_and_the_next_run_converges(name: str) -> None:
    image = f"t-img-{MARK}/interrupted:1"
    made = make_image(image, size=150 * MEBIBYTE)
    docker("rmi", image, hops=(OUTER,), check=False)
    with started("image_transfer", {"images": [image], "destination": location((OUTER,))}) as sending:
        wait_until(lambda: half_loaded(OUTER), "20 MB at the destination", pause=0.01)
        sending.send_signal(getattr(signal, name))
        sending.communicate(timeout=20)
    assert sending.returncode != 0
    wait_until(lambda: not strays(), "the end of every stream", 20)
    assert image_id(image, (OUTER,)) == ""
    wait_until(lambda: docker("exec", OUTER, "ls", "/var/lib/docker/tmp") == "", "the daemon's own clearing up", 20)
    result = transfer({"images": [image], "destination": location((OUTER,))})
    assert (result["failed"], result["changed"]) == (False, True)
    assert image_id(image, (OUTER,)) == made


# Does what the module does, in a process whose memory is measured.
MEASURED = textwrap.dedent("""
    import json, resource, sys
    from ansible_collections.nested.kata.plugins.module_utils._docker import client
    from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
    from ansible_collections.nested.kata.plugins.module_utils._image.copy import carry_out
    from ansible_collections.nested.kata.plugins.module_utils._image.options import parse

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    imported = peak()
    try:
        result = {"failed": False, **carry_out(parse(json.loads(sys.argv[1])), False, print)}
    except Refused as error:
        result = {"failed": True, "msg": str(error)}
    print(json.dumps({"result": result, "peak": peak() - imported}))
""")


def measured(image: str, source: dict, destinations: list[dict]) -> tuple[dict, int]:
    """Return the result of a transfer, and how much memory it took."""
    options = {
        "images": [image],
        "source": source,
        "destinations": destinations,
        "tags": {},
        "platform": None,
        "prune_other_tags": False,
        "timeout": 60,
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
        env=module_environment(),
        cwd="/",
        timeout=300,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return told["result"], told["peak"]


@pytest.mark.parametrize("read", ["from its store", "by docker save"])
def test_memory_stays_the_same_whatever_the_size_of_the_image(tmp_path: Path, read: str) -> None:
    hops = () if read == "from its store" else (OUTER,)
    image, size = f"t-img-{MARK}/large:{len(hops)}", 160 * MEBIBYTE
    make_image(image, hops, size)
    if read == "by docker save":
        # A daemon whose store cannot be read: the Python in the hop lacks a part.
        docker("exec", OUTER, "sh", "-c", "mv /usr/lib/python3.*/gzip.py /")
    try:
        result, peak = measured(image, location(hops), [location((OUTER, INNER)), {"archive": str(tmp_path / "a.tar")}])
    finally:
        docker("exec", OUTER, "sh", "-c", "! test -e /gzip.py || mv /gzip.py /usr/lib/python3.*/")
    assert not result["failed"], result["msg"]
    assert all(read in one["reason"] for one in result["images"])
    assert result["bytes_sent"] > 2 * size
    assert peak < 64 * MEBIBYTE


@pytest.mark.parametrize("hops", [(), (OUTER,)], ids=["machine", "hops"])
def test_no_file_of_the_machine_leaves_by_a_layer_that_leads_to_it(tmp_path: Path, hops: tuple[str, ...]) -> None:
    """A daemon writes what is below a link of a layer into that layer: so the image loads."""
    name, secret = f"t-img-{MARK}/leads-out:1", b"nobody's business"
    member = hostile_tars.file(f"a/{MARK}-secret", bytes(len(secret)))
    image = made([hostile_tars.tar(hostile_tars.directory("etc"), hostile_tars.symlink("a", "/etc"), member)])
    docker("load", "--quiet", hops=hops, data=legacy(image, [name]))
    info = json.loads(docker("info", "--format", "{{json .}}", hops=hops))
    beside = ["docker", "exec", "-i", *hops] if hops else []
    put = ["sh", "-c", f"umask 077 && cat > /etc/{MARK}-secret"]
    subprocess.run([*beside, *put], input=secret, check=True)
    try:
        got = []
        with pytest.raises(Unreadable, match="Not a directory"):
            got += Store(info, hops, 60).parts(Image(image.id, image.diff_ids, ""), image.diff_ids)
        assert got == []
        result = transfer(
            {"images": [name], "source": location(hops), "destination": {"archive": str(tmp_path / "a.tar")}}
        )
        assert result["failed"]
        assert f'file integrity checksum failed for "a/{MARK}-secret"' in result["msg"]
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run([*beside, "rm", f"/etc/{MARK}-secret"], check=True)
        docker("rmi", "--force", name, hops=hops)


def test_the_playbook_brings_images_to_all_instances_of_a_host(tmp_path: Path) -> None:
    name = f"t-img-{MARK}/for-all:1"
    made = make_image(name)
    nested = {"ansible_connection": "nested.kata.nested"}
    hosts = {
        "kata_hosts": {"machine": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
        "kata_proxies": {"proxy": {**nested, "ansible_nested_via": "machine", "ansible_nested_hops": [OUTER]}},
        "kata_instances": {
            "first": {**nested, "ansible_nested_via": "proxy", "ansible_nested_hops": [INNER]},
            "second": {**nested, "ansible_nested_via": "machine", "ansible_nested_hops": [SMALL]},
        },
    }
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({group: {"hosts": found} for group, found in hosts.items()}))
    arguments = ("-i", str(inventory), "-e", json.dumps({"nested_kata_images": [name]}))
    done = play(CHECKOUT / "playbooks" / "images.yml", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [image_id(name, hops) for hops in ((OUTER, INNER), (SMALL,))] == [made, made]
    again = play(CHECKOUT / "playbooks" / "images.yml", *arguments)
    assert "changed=0" in again.stdout, again.stdout
    assert "nested_kata_images is not set" in play(CHECKOUT / "playbooks" / "images.yml", *arguments[:2]).stdout
