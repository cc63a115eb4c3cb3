# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of a machine's Docker: its kind, version and configuration, and names in it. Facts go in, judgements come
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.versions import version_of, written
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import NoSettings, is_below, read
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_types import listing, problems
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import as_written, collisions
from ansible_collections.nested.kata.plugins.module_utils._host.findings import ERROR, WARNING, Judgement

SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
DAEMON_JSON = "/etc/docker/daemon.json"
LABELS = "nested.kata."  # prefix of the labels of everything that is managed by nested.kata
MANAGED_RUNTIMES = "/var/lib/nested-kata"  # directory of the runtimes that nested.kata.daemon_config manages

OLDEST_ON_MACHINE = (20, 10)  # the first with `--cgroupns`, which a proxy needs
# A version of Docker, and the oldest Kata that it and newer ones need, with the runtime in Rust.
KATA_FOR_DOCKER = (((29, 5), (3, 32)), ((26,), (3, 30)))
OLDEST_ON_TARGET = KATA_FOR_DOCKER[-1][0]


@dataclass(frozen=True)
class Configuration:
    """The configuration at the path of daemon.json. Its text is None where there is no file."""

    path: str = DAEMON_JSON
    text: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Holder:
    """A container, network or volume that has one of the wanted names."""

    kind: str  # container, network, volume
    name: str
    labels: frozenset[str]
    running: bool = False

    @property
    def managed(self) -> bool:
        """Whether it is managed by nested.kata."""
        return any(label.startswith(LABELS) for label in self.labels)


@dataclass(frozen=True)
class Docker:
    """A machine's Docker: its answers, or the reason why it gave none."""

    client: str = ""  # the client's file, links followed; empty: there is none
    podman: bool = False  # it is podman, which only looks like Docker
    endpoint: str = SOCKETS[0]
    error: str = ""
    version: str = ""
    system: str = ""
    kernel: str = ""
    root: str = ""
    rootless: bool = False
    runtimes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # dockerd's own, without their values
    added: tuple[str, ...] = ()  # names of runtimes that its flag --add-runtime brings
    configuration: Configuration = Configuration()
    holders: tuple[Holder, ...] = ()
    images: frozenset[str] = frozenset()  # those of the requested images that it has

    @property
    def managed_runs(self) -> bool:
        """Whether a container that is managed by nested.kata runs."""
        return any(holder.managed and holder.running for holder in self.holders)


class NotUsable(ValueError):
    """A daemon.json that dockerd would not start with."""


def settings_of(text: str) -> dict[str, Any]:
    """Return the settings of a daemon.json, or raise NotUsable. An empty file has none, as for dockerd."""
    try:
        settings = read(text)
    except NoSettings as error:
        if error.comment:
            raise NotUsable(f"has a comment in line {error.line}, and JSON has no comments") from None
        raise NotUsable(
            f"is not valid JSON in line {error.line}: {error.what}" if error.line else "holds no object"
        ) from None
    wrong = problems(settings)
    if wrong:
        raise NotUsable(f"is nothing that dockerd starts with: {listing(wrong)}")
    return settings


def check_docker_daemon(docker: Docker, target: str, kernel: str) -> Judgement:
    """Judge the kind of Docker: it must be a daemon on this machine, run by root, not confined."""
    needed = "none yet, or this machine's own"
    if docker.podman:
        return Judgement(
            False,
            f"podman behind {docker.client}",
            needed,
            "remove the package podman-docker, so that Docker itself can be installed",
        )
    if not docker.client:
        return Judgement(True, "no Docker yet", needed, "the role docker_engine installs it")
    if not docker.endpoint.startswith("unix://"):
        found = f"a client that talks to {docker.endpoint}"
        return Judgement(
            False, found, needed, "unset DOCKER_HOST and DOCKER_CONTEXT, or run `docker context use default`"
        )
    if not docker.version:
        return _without_answer(docker, needed)
    if docker.system == "Docker Desktop" or docker.kernel != kernel:
        found = f"{docker.system or 'a daemon'} on kernel {docker.kernel}, in a VM"
        return Judgement(
            False, found, needed, "install Docker Engine on this machine itself, and `docker context use default`"
        )
    if docker.rootless:
        return Judgement(
            False,
            "a daemon without root (rootless)",
            needed,
            "use the daemon of the system: it has to open devices and mount disks",
        )
    if docker.root.startswith("/var/snap/"):
        remedy = (
            "snap remove docker, and install the distribution's or Docker's own package: a snap reads neither"
            " /etc/docker nor the files of nested.kata"
        )
        return Judgement(False, "Docker from a snap", needed, remedy, ERROR if target == "host" else WARNING)
    return Judgement(True, docker.endpoint[len("unix://") :], needed)


def _without_answer(docker: Docker, needed: str) -> Judgement:
    found = f"no answer: {docker.error}"
    if "permission denied" in docker.error.lower():
        return Judgement(False, found, needed, "run this as root (become: true)")
    if docker.endpoint not in SOCKETS:
        return Judgement(False, found, needed, "unset DOCKER_HOST and DOCKER_CONTEXT, or start what listens there")
    return Judgement(True, found, needed, "the role docker_engine starts it")


def check_docker_version(docker: Docker, target: str, kata: str) -> Judgement | None:
    """Judge the version: a target's must be one that Kata runs with, and Kata one that runs with it."""
    if not docker.version:
        return None
    version = version_of(docker.version)
    if target != "host":
        needed = f"{written(OLDEST_ON_MACHINE)} or newer: the proxy has its own"
        right = version >= OLDEST_ON_MACHINE
        return Judgement(
            right, docker.version, needed, "" if right else f"install Docker {written(OLDEST_ON_MACHINE)} or newer"
        )
    needed = f"{written(OLDEST_ON_TARGET)} or newer"
    if version < OLDEST_ON_TARGET:
        fits = ", ".join(
            f"Docker {written(docker_version)} or newer needs Kata {written(least)}"
            for docker_version, least in reversed(KATA_FOR_DOCKER)
        )
        remedy = (
            f"install a newer Docker ({fits}), or let a proxy run Kata with a Docker of its own (nested_kata_target:"
            " proxy)"
        )
        return Judgement(False, docker.version, needed, remedy)
    since, least = next(fit for fit in KATA_FOR_DOCKER if version >= fit[0])
    if kata and version_of(kata) < least:
        needed = f"Kata {written(least)} or newer for it"
        remedy = (
            f"raise kata_runtime_version, or take a Docker older than {written(since)}"
            if since > OLDEST_ON_TARGET
            else "raise kata_runtime_version"
        )
        return Judgement(False, f"{docker.version} for Kata {kata}", needed, remedy)
    return Judgement(True, docker.version, needed)


def check_docker_config(docker: Docker, target: str, runtimes: Sequence[str]) -> Judgement:
    """Judge daemon.json: dockerd must be able to start with it, and runtimes of the wanted names must be managed by
    nested.kata. A proxy leaves it alone.
    """
    severity = ERROR if target == "host" else WARNING
    path = docker.configuration.path
    needed = "a daemon.json that can be added to" if target == "host" else "one that dockerd starts with"
    try:
        if docker.configuration.error:
            raise NotUsable(f"cannot be read: {docker.configuration.error}")
        settings = settings_of(docker.configuration.text or "")
    except NotUsable as error:
        return Judgement(
            False,
            f"{path} {error}",
            needed,
            "correct it: dockerd does not start with it either (dockerd --validate)",
            severity,
        )
    clashing = collisions(docker.flags, settings)
    if clashing:
        found = "; ".join(
            f"dockerd has the flag {as_written(flag)}, which is {key} in {path}" for flag, key in clashing
        )
        return Judgement(
            False,
            found,
            needed,
            "drop the flag where dockerd is started, and set it in daemon.json: dockerd does not start with both",
            severity,
        )
    registered = settings.get("runtimes")
    registered = registered if isinstance(registered, dict) else {}
    if target == "host":
        taken = [name for name in runtimes if name in registered and not is_below(registered[name], MANAGED_RUNTIMES)]
        if taken:
            found = f"{path} has a runtime {', '.join(taken)} that is not managed by nested.kata"
            return Judgement(False, found, needed, "choose another name, or remove that entry yourself")
        added = [name for name in runtimes if name in docker.added]
        if added:
            found = f"dockerd has the flag --add-runtime for {', '.join(added)}"
            return Judgement(False, found, needed, "choose another name, or drop the flag where dockerd is started")
    if docker.configuration.text is None:
        return Judgement(True, f"no {path}", needed)
    return Judgement(True, f"{path} with {', '.join(sorted(settings)) or 'nothing in it'}", needed)


def check_docker_runtime(docker: Docker, runtime: str | None) -> Judgement | None:
    """Judge whether a runtime is registered already."""
    if runtime is None:
        return None
    needed = f"runtime {runtime}"
    if not docker.version:
        return Judgement(
            False, f"Docker does not answer: {docker.error}", needed, "install and start Docker, or correct DOCKER_HOST"
        )
    right = runtime in docker.runtimes
    remedy = (
        ""
        if right
        else f"install Kata and register it as {runtime} under `runtimes` in {DAEMON_JSON}, then reload Docker"
    )
    return Judgement(right, f"runtimes {', '.join(sorted(docker.runtimes))}", needed, remedy)


def check_names(docker: Docker, names: Sequence[str]) -> Judgement | None:
    """Judge whether the names of containers, networks and volumes are free, or managed by nested.kata already."""
    if not names or not docker.version:
        return None
    needed = "free, or managed by nested.kata"
    taken = [f"{holder.kind} {holder.name}" for holder in docker.holders if not holder.managed]
    if taken:
        remedy = "choose other names (kata_proxy_name, names in kata_instance_list), or remove what has them yourself"
        return Judgement(False, f"not managed by nested.kata: {', '.join(taken)}", needed, remedy)
    managed = len(docker.holders)
    return Judgement(
        True, f"{len(names) - managed} free" + (f", {managed} managed by nested.kata" if managed else ""), needed
    )
