# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about a machine, read without changing it: no module is loaded, no file written, no container started.

The guest that kvm.py runs is part of this process and ends with it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import re
import stat
import threading
import time
from http.client import HTTPException
from typing import Any, Mapping, Sequence
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from ansible.module_utils.urls import SSLValidationError, open_url
from ansible_collections.nested.kata.plugins.module_utils._common.file_usage import usage_of
from ansible_collections.nested.kata.plugins.module_utils._common.mounts import mount_of
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.command import NoAnswer, ask, inspect, run
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import NoSettings, content_of
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import added_runtimes, flags_of
from ansible_collections.nested.kata.plugins.module_utils._host.check_docker import (
    DAEMON_JSON,
    Configuration,
    Docker,
    Holder,
)
from ansible_collections.nested.kata.plugins.module_utils._host.check_machine import (
    Device,
    Kvm,
    Machine,
    cpu_flags,
    misc_names,
    module_names,
    read_cgroup,
)
from ansible_collections.nested.kata.plugins.module_utils._host.check_resources import Answer, Part, Resources, meminfo
from ansible_collections.nested.kata.plugins.module_utils._host.checks import Facts
from ansible_collections.nested.kata.plugins.module_utils._host.kvm import KvmError, run_guest
from ansible_collections.nested.kata.plugins.module_utils._host.options import Wanted, WantedAnswer, WantedPart

GUEST_SECONDS = 5.0
DATA_ROOT = "/var/lib/docker"  # where dockerd keeps its data by default

# The node, the driver's name in /proc/misc, and its kernel module.
DEVICES = {
    "kvm": ("/dev/kvm", "kvm", "kvm"),
    "vhost_vsock": ("/dev/vhost-vsock", "vhost-vsock", "vhost_vsock"),
    "vhost_net": ("/dev/vhost-net", "vhost-net", "vhost_net"),
    "tun": ("/dev/net/tun", "tun", "tun"),
    "loop": ("/dev/loop-control", "loop-control", "loop"),
}


def look(wanted: Wanted, client: str | None) -> Facts:
    """Return the facts that matter about the machine. `client` is the path of the docker command."""
    docker = look_at_docker(client, wanted.names, wanted.images)
    resources = look_at_resources(
        wanted.parts, wanted.disks, wanted.now, wanted.answers, docker.root, docker.images, wanted.timeout
    )
    return Facts(look_at_machine(), docker, resources)


def text_of(path: str) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# --- the machine ---


def look_at_machine() -> Machine:
    kernel = platform.release()
    # Opening a node whose driver is not loaded makes the kernel load the module: such nodes are not opened.
    registered = misc_names(text_of("/proc/misc"))
    locked = text_of("/proc/sys/kernel/modules_disabled").strip() == "1"
    loadable = set() if locked else module_names(text_of(f"/lib/modules/{kernel}/modules.dep"))
    devices = {name: _device(*DEVICES[name], registered=registered, loadable=loadable) for name in DEVICES}
    kvm = devices["kvm"]
    return Machine(
        arch=platform.machine(),
        kernel=kernel,
        cpu_flags=cpu_flags(text_of("/proc/cpuinfo")),
        nested=", ".join(
            f"{path.split('/')[3]} nested={text_of(path).strip()}"
            for path in sorted(glob.glob("/sys/module/kvm_*/parameters/nested"))
        ),
        kvm=try_kvm(kvm.path) if kvm.character and kvm.registered else None,
        devices=devices,
        cgroup=read_cgroup(text_of("/proc/self/mountinfo"), text_of("/sys/fs/cgroup/cgroup.controllers")),
    )


def _device(path: str, driver: str, module: str, registered: set[str], loadable: set[str]) -> Device:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = 0
    return Device(
        path,
        module,
        present=mode != 0,
        character=stat.S_ISCHR(mode),
        registered=driver in registered,
        loadable=module in loadable,
    )


def try_kvm(path: str) -> Kvm:
    """Run a guest on the device, and return the outcome."""
    try:
        return Kvm(seconds=run_guest(path, seconds=GUEST_SECONDS).seconds)
    except KvmError as error:
        return Kvm(step=error.step, reason=error.reason, errno=error.errno, conclusive=error.conclusive)


# --- Docker ---


def look_at_docker(client: str | None, names: Mapping[str, Sequence[str]], images: Sequence[str]) -> Docker:
    """Return the facts about Docker from its client, and from the files that dockerd was started with. names: by kind
    (container, network, volume).
    """
    arguments = dockerd_arguments()
    facts: dict[str, Any] = {
        "client": client or "",
        "flags": flags_of(arguments),
        "added": added_runtimes(arguments),
        "configuration": read_configuration(config_file(arguments)),
    }
    if not client:
        return Docker(error="there is no command docker", **facts)
    if is_podman(client):
        return Docker(podman=True, error="it is podman", **facts)
    try:
        facts["endpoint"] = ask(client, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
        # A daemon elsewhere is not this machine's, whatever it answers, and may take long to do so.
        if not facts["endpoint"].startswith("unix://"):
            return Docker(error=f"its client talks to {facts['endpoint']}", **facts)
        # `docker info` of 20.10 hides why it cannot connect when it is given a template; `docker version` reports it
        # in all versions.
        server = json.loads(ask(client, "version", "--format", "{{json .Server}}"))
        info = json.loads(ask(client, "info", "--format", "{{json .}}"))
        holders = [holder for kind in names if names[kind] for holder in look_for(client, kind, names[kind])]
    except NoAnswer as error:
        return Docker(error=str(error), **facts)
    return Docker(
        podman=any(part["Name"] == "Podman Engine" for part in server.get("Components") or ()),
        version=server["Version"],
        system=info["OperatingSystem"],
        kernel=info["KernelVersion"],
        root=info["DockerRootDir"],
        rootless=any(option.startswith("name=rootless") for option in info.get("SecurityOptions") or ()),
        runtimes=tuple(info.get("Runtimes") or ()),
        holders=tuple(holders),
        images=frozenset(
            image for image in images if run(client, "image", "inspect", "--format", "{{.Id}}", image).returncode == 0
        ),
        **facts,
    )


def is_podman(client: str) -> bool:
    """Return whether the docker client is podman, or the script of podman-docker that calls it."""
    if os.path.basename(os.path.realpath(client)) == "podman":
        return True
    try:
        with open(client, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and b"podman" in head


def look_for(client: str, kind: str, names: Sequence[str]) -> list[Holder]:
    """Return the things that have these names. Docker finds containers and networks by the beginning of their ids too:
    those are left out.
    """
    holders = []
    for found in inspect(client, kind, names):
        name = found["Name"].lstrip("/")
        labels = (found["Config"] if kind == "container" else found).get("Labels") or {}
        if name in names:
            holders.append(
                Holder(kind, name, frozenset(labels), running=kind == "container" and found["State"]["Running"])
            )
    return holders


def dockerd_arguments() -> list[str]:
    """Return the command line of this machine's dockerd; daemons in containers, which have process ids of their own,
    are left out.
    """
    for path in glob.glob("/proc/[0-9]*/comm"):
        process = os.path.dirname(path)
        if text_of(path).strip() == "dockerd":
            ids = re.search(r"^NSpid:(.*)$", text_of(f"{process}/status"), re.MULTILINE)
            if ids and len(ids.group(1).split()) == 1:
                return text_of(f"{process}/cmdline").split("\0")[1:-1]
    return []


def config_file(arguments: Sequence[str]) -> str:
    """Return the path of the configuration of dockerd with these arguments."""
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--config-file":
            return value if equals else arguments[position + 1]
    return DAEMON_JSON


def read_configuration(path: str) -> Configuration:
    try:
        return Configuration(path, text=content_of(path))
    except OSError as error:
        return Configuration(path, error=os.strerror(error.errno or 0))
    except NoSettings as error:
        return Configuration(path, error=error.what)


# --- room, memory, time, the network ---


def look_at_resources(
    parts: Sequence[WantedPart],
    disks: str | None,
    now: float | None,
    answers: Sequence[WantedAnswer],
    docker_root: str,
    images: frozenset[str],
    timeout: float,
) -> Resources:
    skew = None if now is None else time.time() - now
    memory = meminfo(text_of("/proc/meminfo"))
    root = docker_root or DATA_ROOT
    return Resources(
        parts=tuple(_part(part, root) for part in parts),
        disks=mount_of(os.path.join(root, disks)) if disks else None,
        memory_total=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        shm=mount_of("/dev/shm") if os.path.isdir("/dev/shm") else None,
        skew=skew,
        answers=tuple(reach(answers, root, images, timeout)),
    )


def _part(part: WantedPart, root: str) -> Part:
    path = os.path.join(root, part.path)
    there = 0
    with contextlib.suppress(OSError):
        there = usage_of(path).alone if os.path.isfile(path) else 0
    if part.creates and os.path.exists(os.path.join(root, part.creates)):
        there = part.size
    return Part(part.purpose, part.size, there, part.sparse, mount_of(path))


def reach(answers: Sequence[WantedAnswer], root: str, images: frozenset[str], timeout: float) -> list[Answer]:
    """Try all places at once. The wait for a name server that does not answer has no time limit, so that its thread is
    left behind.
    """
    there = [
        bool(wanted.creates and os.path.exists(os.path.join(root, wanted.creates))) or wanted.image in images
        for wanted in answers
    ]
    failures: dict[str, str] = {}
    urls = dict.fromkeys(url for wanted, done in zip(answers, there) if not done for url in wanted.urls)
    threads = [
        threading.Thread(target=lambda url: failures.__setitem__(url, try_url(url, timeout)), args=(url,), daemon=True)
        for url in urls
    ]
    deadline = time.monotonic() + timeout + 1
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    reasons = {url: failures.get(url, f"no answer within {timeout:g} s") for url in urls}
    return [
        (
            Answer(wanted.purpose, wanted.required, tried=False)
            if done
            else Answer(
                wanted.purpose,
                wanted.required,
                failures=tuple(f"{shown(url)}: {reasons[url]}" for url in wanted.urls if reasons[url]),
                reached=not all(reasons[url] for url in wanted.urls),
            )
        )
        for wanted, done in zip(answers, there)
    ]


def try_url(url: str, timeout: float) -> str:
    """Return why a URL or a path cannot be reached, or an empty string."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        path = unquote(parts.path) if parts.scheme == "file" else url
        return "" if os.path.isfile(path) else "no such file"
    # Some servers do not support HEAD, or answer it differently from GET.
    return request(url, "HEAD", timeout) and request(url, "GET", timeout)


def request(url: str, method: str, timeout: float) -> str:
    """Return why a server does not serve a URL, or an empty string. A registry's request to log in is an answer."""
    headers = {"Range": "bytes=0-0"} if method == "GET" else {}
    try:
        with contextlib.closing(
            open_url(url, method=method, headers=headers, timeout=timeout, http_agent="nested.kata", decompress=False)
        ):
            return ""
    except HTTPError as error:
        return f"HTTP {error.code}" if error.code >= 500 or error.code in (404, 410) else ""
    except URLError as error:
        return str(error.reason)
    except (OSError, ValueError, HTTPException, SSLValidationError) as error:
        return str(error) or type(error).__name__
