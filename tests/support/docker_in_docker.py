# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A docker daemon in a container of this machine's own daemon, for tests that need nested ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from kept import CACHE, kept, locked

USER, PASSWORD = "worker", "open sesame"

# A container as Ansible wants one: Python, sudo, and a user who may become root with a password.
CONTAINER_DOCKERFILE = f"""
FROM debian:trixie-slim
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-apt sudo \\
 && apt-get clean && rm -rf /var/lib/apt/lists/* \\
 && useradd -m -s /bin/bash -G sudo {USER} && echo '{USER}:{PASSWORD}' | chpasswd
CMD ["sleep", "infinity"]
"""


def _named(name: str, dockerfile: str) -> str:
    """Return the image's name, with a tag that changes when its Dockerfile does."""
    return f"nested-kata-test/{name}:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"


CONTAINER_IMAGE = _named("container", CONTAINER_DOCKERFILE)

# A machine with a docker daemon, where the user may log in by ssh and call docker by sudo only.
DAEMON_DOCKERFILE = f"""
FROM {CONTAINER_IMAGE}
RUN apt-get update \\
 && apt-get install -y --no-install-recommends docker.io docker-cli iptables ca-certificates \\
      openssh-server python3-docker zstd \\
 && apt-get clean && rm -rf /var/lib/apt/lists/* \\
 && echo '{USER} ALL=(root) NOPASSWD: /usr/bin/docker' > /etc/sudoers.d/docker
"""

DAEMON_IMAGE = _named("daemon", DAEMON_DOCKERFILE)

# The newest Docker that Debian has. Its lists may be older than they say to be good for, on a mirror that stands still.
NEWEST_DOCKERFILE = f"""
FROM {CONTAINER_IMAGE}
RUN echo 'deb http://deb.debian.org/debian sid main' > /etc/apt/sources.list.d/sid.list \\
 && apt-get -o Acquire::Check-Valid-Until=false update \\
 && apt-get install -y --no-install-recommends docker.io docker-cli iptables ca-certificates \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
"""

NEWEST_IMAGE = _named("newest", NEWEST_DOCKERFILE)

# What Go programs are built in: Docker 29, and the stand-in for Kata's shim.
GO_DOCKERFILE = f"""
FROM {CONTAINER_IMAGE}
RUN apt-get update \\
 && apt-get install -y --no-install-recommends golang-go ca-certificates \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
"""

GO_IMAGE = _named("go", GO_DOCKERFILE)

# Docker 29, which Debian does not have yet: built from the Go module that it is. Without the drivers that send logs to
# somebody's cloud, whose libraries are a tenth of all that is compiled, without optimization, which takes longer than
# it saves here, and by compilers that never collect garbage.
MOBY = "v2.0.0-beta.24"
BUILD_MOBY = f"""
exec 3>&1 >&2
told=$(go mod download -json github.com/moby/moby/v2@{MOBY}) || {{ echo "$told"; exit 1; }}
cp -r "$(echo "$told" | sed -n 's/.*"Dir": "\\(.*\\)".*/\\1/p')" /build
cd /build
chmod -R u+w .
sed -i -E '/logger\\/(awslogs|fluentd|gcplogs|gelf|journald|splunk|syslog)"/d' daemon/logdrivers_linux.go
export CGO_ENABLED=0 GOFLAGS=-mod=mod GOGC=off
go build -gcflags 'all=-N -l' -tags 'netgo osusergo static_build' \\
  -ldflags '-s -w -X github.com/moby/moby/v2/dockerversion.Version=29.0.0-moby-{MOBY}' -o dockerd ./cmd/dockerd
cat dockerd >&3
"""
MOBY_IMAGE = _named("moby", BUILD_MOBY + NEWEST_DOCKERFILE)
CERTIFICATES = Path(
    "/etc/ssl/certs/ca-certificates.crt"
)  # this machine may trust a proxy that a container does not know

DOCKERFILES = {
    CONTAINER_IMAGE: CONTAINER_DOCKERFILE,
    DAEMON_IMAGE: DAEMON_DOCKERFILE,
    NEWEST_IMAGE: NEWEST_DOCKERFILE,
    GO_IMAGE: GO_DOCKERFILE,
}

CONTAINERD = {
    "features": {"containerd-snapshotter": True},
    "storage-driver": "overlayfs",
}  # configuration of a daemon with containerd's store

# On cgroup v1 Docker mounts the controllers read-only; on v2 processes must leave the root of the tree before it can
# have controllers.
PREPARE = """
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -o remount,rw /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/init
  xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs
else
  for controller in /sys/fs/cgroup/*; do mount -o remount,bind,rw "$controller"; done
fi
mkdir -p /etc/docker
echo "$DAEMON_JSON" > /etc/docker/daemon.json
"""
ENTRY = f"{PREPARE}exec dockerd"

FLAGS = (
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "systempaths=unconfined",
    "--cgroupns",
    "private",
    "--tmpfs",
    "/run",
    "--init",
)


# What docker exec says where runc's own process died before it had begun, as was seen on a machine at its limits:
# nothing of the command has run.
NOT_BEGUN = b"waiting for init preliminary setup: read init-p: connection reset by peer"


def docker(*arguments: str, hops: Sequence[str] = (), data: bytes | None = None, check: bool = True) -> str:
    """Run a docker command on this machine, or behind the hops, and return what it printed."""
    command = ["docker"]
    for hop in hops:
        command += ["exec", "-i", hop, "docker"]
    stdin = subprocess.DEVNULL if data is None else None
    for _dummy in range(3):
        done = subprocess.run([*command, *arguments], input=data, stdin=stdin, capture_output=True, check=False)
        if done.returncode == 0 or NOT_BEGUN not in done.stdout + done.stderr:
            break
    assert done.returncode == 0 or not check, (
        f"{' '.join([*command, *arguments])}: {(done.stdout + done.stderr).decode()}"
    )
    return done.stdout.decode().strip()


def within(name: str, *command: str, data: str | None = None) -> str:
    """Run a command in a container of this machine's daemon, and return what it printed."""
    done = subprocess.run(
        ["docker", "exec", "-i", name, *command], input=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def has_runtime(name: str, runtime: str) -> bool:
    """Say whether the daemon in a container knows a runtime."""
    return runtime in json.loads(docker("info", "--format", "{{json .Runtimes}}", hops=[name]))


def configure_without(name: str, runtime: str, text: str) -> None:
    """Have the daemon in a container forget a runtime, for which it takes an empty table of them; then daemon.json is
    the text, which names none.
    """
    within(
        name,
        "sh",
        "-ec",
        "cat >/etc/docker/daemon.json; kill -HUP $(cat /run/docker.pid)",
        data=json.dumps({**json.loads(text), "runtimes": {}}),
    )
    while has_runtime(name, runtime):
        time.sleep(0.05)
    within(name, "sh", "-ec", "cat >/etc/docker/daemon.json", data=text)


def build_images(image: str = DAEMON_IMAGE) -> None:
    """Build an image and the one below it, unless this machine has them."""
    if image == MOBY_IMAGE:
        with locked(CACHE / "moby.lock"):
            build_moby()
        return
    # Other workers, and other checkouts, build the same ones with the same daemon.
    with locked(Path(docker("info", "--format", "{{.DockerRootDir}}"))):
        for name in (CONTAINER_IMAGE, image):
            if not docker("images", "-q", name):
                docker("build", "-q", "-t", name, "-", data=DOCKERFILES[name].encode())


def build_moby() -> None:
    """Build an image with Docker 29, unless this machine has it."""
    if not docker("images", "-q", MOBY_IMAGE):
        build_images(NEWEST_IMAGE)
        context = io.BytesIO()
        # docker takes what begins with a header in another format, as fractions of a second need, for a Dockerfile.
        with tarfile.open(fileobj=context, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(dockerd_29(), "dockerd")
            dockerfile = f"FROM {NEWEST_IMAGE}\nCOPY dockerd /usr/sbin/dockerd\n".encode()
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(dockerfile)
            tar.addfile(member, io.BytesIO(dockerfile))
        docker("build", "-q", "-t", MOBY_IMAGE, "-", data=context.getvalue())


def dockerd_29() -> Path:
    """Return the program, which takes some minutes to build where it is missing."""
    return kept(
        "dockerd-29",
        hashlib.sha256((GO_DOCKERFILE + BUILD_MOBY).encode()).hexdigest()[:12],
        "",
        lambda program: go_program(program, BUILD_MOBY),
    )


def go_program(program: Path, script: str, data: bytes = b"") -> None:
    """Write what a script prints in a container with Go, which trusts whom this machine trusts, and gets the data."""
    build_images(GO_IMAGE)
    trusted = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
    # Ctrl-C ends the compilers too, not only the client that started them.
    command = [
        "docker",
        "run",
        "--rm",
        "-i",
        "--init",
        "--env",
        "TINI_KILL_PROCESS_GROUP=1",
        *trusted,
        GO_IMAGE,
        "sh",
        "-ec",
        script,
    ]
    with program.open("wb") as output:
        done = subprocess.run(command, input=data, stdout=output, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0 and program.stat().st_size, (
        f"building {program.name}: exit status {done.returncode}\n{done.stderr.decode()}"
    )
    program.chmod(0o755)


def import_image(name: str, hops: Sequence[str] = (), *, size: int, label: str) -> str:
    """Make an image of one layer of random bytes and return its id."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("content")
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return docker("import", "--change", f"LABEL {label}", "-", name, hops=hops, data=archive.getvalue())


def image_id(name: str, hops: Sequence[str] = ()) -> str:
    """Return the ID of an image, or an empty string if there is no such image."""
    return docker("images", "--no-trunc", "--quiet", name, hops=hops)


def load(image: str, hop: str) -> None:
    """Stream an image from this machine's daemon into a nested one."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        subprocess.run(
            ["docker", "exec", "-i", hop, "docker", "load", "-q"],
            stdin=saving.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    assert saving.returncode == 0


def wait_for_daemon(*hops: str, seconds: float = 60) -> None:
    """Return when the daemon behind the hops answers."""
    end = time.monotonic() + seconds
    while not docker("version", "--format", "{{.Server.Version}}", hops=hops, check=False):
        assert time.monotonic() < end, docker("logs", "--tail", "20", hops[-1], hops=hops[:-1])
        time.sleep(0.1)


@contextmanager
def nested_daemon(
    name: str,
    *,
    hops: Sequence[str] = (),
    network: bool = True,
    storage: Sequence[str] = ("--volume", "/var/lib/docker"),
    image: str = DAEMON_IMAGE,
    environment: Mapping[str, str] = MappingProxyType({}),
    **configuration: object,
) -> Iterator[str]:
    """Start a container with a docker daemon that answers, and take it and its volume away afterwards.

    It is made in this machine's daemon, or in the one behind the hops, which must have the image. `storage` is what
    mounts its /var/lib/docker, `environment` what its dockerd finds there, `configuration` what its daemon.json says
    beside the usual. Daemons inside each other must do without network: they would take the same addresses.
    """
    if not hops:
        build_images(image)
    bridge = {"bip": "172.30.255.1/24"} if network else {"bridge": "none", "iptables": False, "ip6tables": False}
    daemon_json = json.dumps({"storage-driver": "overlay2", **bridge, **configuration})
    docker("rm", "-fv", name, hops=hops, check=False)
    try:
        docker(
            "run",
            "-d",
            "--name",
            name,
            *FLAGS,
            *storage,
            *([] if network else ["--network", "none"]),
            *(f"--env={key}={value}" for key, value in {**environment, "DAEMON_JSON": daemon_json}.items()),
            image,
            "sh",
            "-ec",
            ENTRY,
            hops=hops,
        )
        wait_for_daemon(*hops, name)
        yield name
    finally:
        docker("rm", "-fv", name, hops=hops, check=False)


@contextmanager
def btrfs_disk(directory: Path, size: str = "2G") -> Iterator[tuple[str, str]]:
    """Yield what mounts a btrfs file system of its own at a nested daemon's /var/lib/docker."""
    disk, mount = directory / "disk.img", directory / "mount"
    mount.mkdir()
    for command in (["truncate", "-s", size, disk], ["mkfs.btrfs", "-q", disk], ["mount", "-o", "loop", disk, mount]):
        subprocess.run(command, check=True, capture_output=True)
    try:
        yield "--volume", f"{mount}:/var/lib/docker"
    finally:
        subprocess.run(["umount", mount], check=True)
        disk.unlink()
