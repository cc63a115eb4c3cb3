# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A docker daemon in a container of this machine's own daemon, for tests that need nested ones."""
from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
 && apt-get install -y --no-install-recommends docker.io docker-cli iptables ca-certificates openssh-server \\
 && apt-get clean && rm -rf /var/lib/apt/lists/* \\
 && echo '{USER} ALL=(root) NOPASSWD: /usr/bin/docker' > /etc/sudoers.d/docker
"""

DAEMON_IMAGE = _named("daemon", DAEMON_DOCKERFILE)

# On cgroup v1 Docker mounts the controllers read-only; on v2 processes must leave the root of the tree before it can have controllers.
ENTRY = """
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -o remount,rw /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/init && xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs
else
  for controller in /sys/fs/cgroup/*; do mount -o remount,bind,rw "$controller"; done
fi
exec dockerd --storage-driver overlay2 --bip 172.30.255.1/24
"""

FLAGS = (
    "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
    "--cgroupns", "private", "--tmpfs", "/run", "--volume", "/var/lib/docker", "--init",
)


def docker(*arguments: str, within: str | None = None, check: bool = True, **options) -> str:
    """Run a docker command on this machine, or in a container that holds a daemon, and return what it prints."""
    way = ["docker", "exec", "-i", within] if within else []
    done = subprocess.run([*way, "docker", *arguments], capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: exit status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def build_images() -> None:
    """Build the two images, unless this machine has them."""
    for image, dockerfile in ((CONTAINER_IMAGE, CONTAINER_DOCKERFILE), (DAEMON_IMAGE, DAEMON_DOCKERFILE)):
        if not docker("images", "-q", image):
            docker("build", "-q", "-t", image, "-", input=dockerfile)


def load(image: str, within: str) -> None:
    """Stream an image from this machine's daemon into a nested one."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        subprocess.run(["docker", "exec", "-i", within, "docker", "load", "-q"], stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True)
    assert saving.returncode == 0


@contextmanager
def nested_daemon(name: str) -> Iterator[str]:
    """Start a container with a docker daemon that answers, and take it and its volume away afterwards."""
    build_images()
    docker("run", "-d", "--name", name, *FLAGS, DAEMON_IMAGE, "sh", "-ec", ENTRY)
    try:
        end = time.monotonic() + 30
        while not docker("info", "--format", "{{.ServerVersion}}", within=name, check=False):
            assert time.monotonic() < end, docker("logs", "--tail", "20", name)
            time.sleep(0.2)
        yield name
    finally:
        docker("rm", "-fv", name, check=False)
