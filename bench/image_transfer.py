# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_transfer against `docker save | docker exec -i OUTER docker exec -i INNER docker load`: the same images, turn
by turn.

The image is a Debian with a compiler, about 500 MB, on this machine; it goes to a daemon in a container, or in a
container in that, by a tunnel, as into an instance. The module is timed as the process that Ansible starts on the
target (Python and AnsibleModule included, Ansible's controller not). Prints a table of seconds and ratios for each
case, with the bytes sent, the peak of the module's memory, and how busy the processors were. What bounds it is seen
beside it: daemons that load, all at once, an archive that each of them has in a file already.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("tests/support", ".collections")]
from ansible_runner import module_command, module_environment
from docker_in_docker import DAEMON_IMAGE, build_images, docker, load, nested_daemon, wait_for_daemon
from tunnel_program import install
from turns import needs, show

OUTER = "t-bench-outer"
INNER = "t-bench-inner"
IMAGE = "t-bench/compiler:1"
CHANGED = "t-bench/compiler:2"
ARCHIVE = "/var/lib/docker/t-bench.tar"
DOCKERFILE = (
    "FROM debian:trixie-slim\nRUN apt-get update && apt-get install -y --no-install-recommends g++ gfortran && rm -rf"
    " /var/lib/apt/lists/*\n"
)

# Runs the module as `module_command` does, and tells its peak of memory afterwards, and how much of that was there
# before it began.
MEASURED = """
import atexit, resource, sys
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
import ansible_collections.nested.kata.plugins.modules.image_transfer
before = peak()
atexit.register(lambda: print(before, peak(), file=sys.stderr))
"""


class Ours:
    """The module, with what it told about the last time."""

    def __init__(self, destinations: list[tuple[str, ...]]) -> None:
        self._destinations = [{"hops": list(hops)} for hops in destinations]
        self.sent = 0
        self.memory: list[int] = []

    def __call__(self, image: str) -> None:
        python, flag, code, *arguments = module_command(
            "image_transfer", {"images": [image], "destinations": self._destinations}
        )
        done = subprocess.run(
            [python, flag, MEASURED + code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=module_environment(),
            cwd="/",
        )
        result = json.loads(done.stdout)
        if result.get("failed"):
            sys.exit(result["msg"])
        self.sent = result["bytes_sent"]
        before, peak = map(int, done.stderr.split()[-2:])
        self.memory.append(peak - before)


def piped(hops: tuple[str, ...]) -> Callable[[str], None]:
    def pipe(image: str) -> None:
        way = " ".join(f"docker exec -i {hop}" for hop in hops)
        subprocess.run(["sh", "-c", f"docker save {image} | {way} docker load -q"], check=True, capture_output=True)

    return pipe


def clear(image: str, destinations: list[tuple[str, ...]]) -> None:
    for hops in destinations:
        docker("rmi", "--force", image, hops=hops, check=False)


def timed(work: Callable[[str], None], image: str) -> float:
    start = time.perf_counter()
    work(image)
    return time.perf_counter() - start


def loads(names: list[str]) -> Callable[[str], None]:
    """Return what has daemons load at once an archive that lies beside each of them."""

    def load_all(image: str) -> None:
        running = [
            subprocess.Popen(
                ["docker", "exec", name, "docker", "load", "--quiet", "--input", ARCHIVE], stdout=subprocess.DEVNULL
            )
            for name in names
        ]
        if sum(each.wait() for each in running):
            sys.exit("docker load failed")

    return load_all


def busy_seconds() -> float:
    """Return the seconds that the processors of this machine have worked since it began, all together."""
    user, nice, system, _idle, _iowait, *interrupts = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def measure(
    title: str, ways: dict[str, tuple[Callable[[str], None], Callable[[], None], str]], rounds: int
) -> dict[str, list[float]]:
    """Time each way in turn, after what has to be done before it, and print a table against the first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy = dict.fromkeys(ways, 0.0)
    for _dummy in range(rounds):
        for name, (work, before, image) in ways.items():
            before()
            began = busy_seconds()
            seconds[name].append(timed(work, image))
            busy[name] += busy_seconds() - began
    print(f"\n{title}")
    show(seconds, next(iter(ways)), next(iter(ways)))
    print(
        "processors at work: "
        + ", ".join(f"{name} {busy[name] / sum(seconds[name]):.1f} of {os.cpu_count()}" for name in ways)
    )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    needs(root=True, docker=True)
    build_images()
    docker("build", "--quiet", "--tag", IMAGE, "-", data=DOCKERFILE.encode())
    docker(
        "build",
        "--quiet",
        "--tag",
        CHANGED,
        "-",
        data=f"FROM {IMAGE}\nRUN head -c 1000000 /dev/urandom > /changed\n".encode(),
    )
    names = [f"t-bench-{number}" for number in range(4)]
    inner = (OUTER, INNER)
    try:
        with ExitStack() as stack:
            for name in (OUTER, *names):
                stack.enter_context(nested_daemon(name))
                install(name)
            load(DAEMON_IMAGE, OUTER)
            stack.enter_context(nested_daemon(INNER, hops=[OUTER], bip="172.30.254.1/24"))
            wait_for_daemon(*inner)
            install(*inner)
            ours, theirs, four = Ours([inner]), piped(inner), Ours([(name,) for name in names])
            one = Ours([(names[0],)])
            size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
            print(f"{size / 1e6:.0f} MB, {options.rounds} rounds, machine to {OUTER} > {INNER}")

            def cold() -> None:
                clear(CHANGED, [inner])
                clear(IMAGE, [inner])

            def base_only() -> None:
                ours(IMAGE)
                clear(CHANGED, [inner])

            measure(
                "cold", {"save | load": (theirs, cold, IMAGE), "image_transfer": (ours, cold, IMAGE)}, options.rounds
            )
            print(f"sent {ours.sent / 1e6:.1f} MB, memory {max(ours.memory)} MiB at most")
            measure(
                "1 MB on top changed",
                {"save | load": (theirs, base_only, CHANGED), "image_transfer": (ours, base_only, CHANGED)},
                options.rounds,
            )
            print(f"sent {ours.sent} bytes, memory {max(ours.memory)} MiB at most")
            again = measure(
                "unchanged",
                {"save | load": (theirs, lambda: None, CHANGED), "image_transfer": (ours, lambda: None, CHANGED)},
                options.rounds,
            )
            print(f"sent {ours.sent} bytes in {statistics.median(again['image_transfer']):.2f} s")

            def none_of_four() -> None:
                for image in (CHANGED, IMAGE):
                    clear(image, [(name,) for name in names])

            def base_at_four() -> None:
                none_of_four()
                four(IMAGE)

            for name in names:
                subprocess.run(
                    ["sh", "-c", f"docker save {IMAGE} | docker exec -i {name} sh -c 'cat > {ARCHIVE}'"], check=True
                )
            measure(
                "to four daemons at once, cold",
                {
                    "one": (one, none_of_four, IMAGE),
                    "four": (four, none_of_four, IMAGE),
                    "load of one's own file": (loads(names[:1]), none_of_four, IMAGE),
                    "load of four files": (loads(names), none_of_four, IMAGE),
                },
                options.rounds,
            )
            print(f"memory {max(four.memory)} MiB at most")
            measure(
                "to four daemons at once, 1 MB on top",
                {"one": (one, base_at_four, CHANGED), "four": (four, base_at_four, CHANGED)},
                options.rounds,
            )
    finally:
        docker("rmi", "--force", CHANGED, IMAGE, check=False)


if __name__ == "__main__":
    main()
