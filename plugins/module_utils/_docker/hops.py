# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way into a nested container, hop by hop, and the faults of hops, found in the answers of docker clients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain

from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown

# Docker's own rule for the names of containers; it also prevents a name from being read as an option.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

# Messages of docker clients, and of the way to them, when these fail and not the command that they run.
COMPLAINTS = re.compile(
    "|".join(
        (
            "Error response from daemon",
            "No such container",
            "Cannot connect to the Docker daemon",
            "error during connect",
            "permission denied while trying to connect to the [Dd]ocker",
            r"docker\.sock",
            "OCI runtime exec failed",
            "^sudo: ",
        )
    ),
    re.MULTILINE,
)

# 126 and 127: docker or the shell found nothing to run. 137: killed, perhaps together with its container.
DOUBTFUL_STATUS = frozenset((126, 127, 137))


@dataclass(frozen=True)
class Answer:
    """The outcome of a command."""

    rc: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The last line: docker's own messages come last, and some come on stdout."""
        lines = [line.strip() for line in f"{self.out}\n{self.err}".splitlines() if line.strip()]
        return shown(lines[-1]) if lines else f"exit status {self.rc}"


@dataclass(frozen=True)
class Way:
    """The way from a machine into a container in a container: the docker client on the machine, and the hops."""

    machine: str
    docker: tuple[str, ...]
    hops: tuple[str, ...]
    user: str = ""

    def into(self, depth: int, argv: list[str]) -> list[str]:
        """Return the command that, typed on the machine, runs argv as its own first user in the container of that depth
        (0: the machine itself).
        """
        ways = [[*self.client(number), "exec", "-i", hop] for number, hop in enumerate(self.hops[:depth], 1)]
        return [*chain.from_iterable(ways), *argv]

    def command(self, argv: list[str]) -> list[str]:
        """Return the command that, typed on the machine, runs argv in the innermost container as the wanted user."""
        user = ["--user", self.user] if self.user else []
        return self.into(len(self.hops) - 1, [*self.client(len(self.hops)), "exec", "-i", *user, self.hops[-1], *argv])

    def client(self, number: int) -> list[str]:
        """Return the command of the docker client that knows this hop (hops count from 1)."""
        return [*self.docker] if number == 1 else ["docker"]

    def there(self, number: int) -> str:
        """Return the location of this hop's docker daemon, for messages."""
        return f"on {self.machine}" if number == 1 else f"in {self.hops[number - 2]}"

    def state(self, number: int) -> list[str]:
        """Return the command that asks for the state of a hop."""
        return self._inspect(number, "{{.State.Status}}")

    def addresses(self, number: int) -> list[str]:
        """Return the command that asks for the addresses at which a hop can be reached from where its docker daemon is,
        one a line.
        """
        return self._inspect(number, "{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{end}}")

    def process(self, number: int) -> list[str]:
        """Return the command that asks for the number of a hop's first process, and its id."""
        return self._inspect(number, "{{.State.Pid}} {{.Id}}")

    def _inspect(self, number: int, template: str) -> list[str]:
        return self.into(
            number - 1,
            [*self.client(number), "inspect", "--type", "container", "--format", template, self.hops[number - 1]],
        )

    def neighbours(self, number: int) -> list[str]:
        """Return the command that lists the containers that run beside a hop."""
        return self.into(number - 1, [*self.client(number), "ps", "--format", "{{.Names}}"])

    def blame(self, number: int, what: str) -> str:
        """Return the message that names the hop at fault."""
        return shown(f"hop {number} of {len(self.hops)} ({self.hops[number - 1]} {self.there(number)}): {what}")


def refused(names: list[str]) -> str | None:
    """Return why these names cannot be hops, or None."""
    if not names:
        return "names no container: give it a list of container names, outermost first"
    wrong = [name for name in names if not isinstance(name, str) or not NAME.fullmatch(name)]
    return f"holds {wrong[0]!r}, which docker would not accept as the name of a container" if wrong else None


def doubtful(answer: Answer) -> bool:
    """Return whether a failure may come from a hop. A command may print the same text: only an inspection of the hops
    decides.
    """
    return answer.rc != 0 and (answer.rc in DOUBTFUL_STATUS or COMPLAINTS.search(answer.err) is not None)


def missing(answer: Answer) -> bool:
    """Return whether the state of a hop is unknown because there is no such container."""
    return answer.rc != 0 and re.search(r"No such (container|object)", answer.err) is not None


def fault(way: Way, number: int, state: Answer, running: list[str]) -> str | None:
    """Return the fault of a hop by the answer to `way.state(number)`, or None when it runs.

    All hops before it are known to run. `running` names the containers beside a hop that is missing.
    """
    there = way.there(number)
    client = f" (docker_command is {' '.join(way.docker)!r})" if number == 1 else ""
    if state.rc == 0:
        status = state.out.strip()
        if status == "running":
            return None
        what = "is paused" if status == "paused" else f"is not running ({status})"
    elif missing(state):
        what = f"no such container; running there: {', '.join(running) or 'none'}"
    elif re.search("permission denied.*(docker|socket)|docker.*permission denied", state.err, re.IGNORECASE):
        remedy = "; set docker_command to e.g. 'sudo -n docker'" if number == 1 else ""
        what = f"the docker daemon {there} refuses this user{client}: {state.line}{remedy}"
    elif re.search("Cannot connect to the Docker daemon|error during connect|Is the docker daemon running", state.err):
        what = f"the docker daemon {there} does not answer: {state.line}"
    elif state.rc in (126, 127) or re.search("docker.*(not found|No such file)", state.err):
        what = f"there is no docker client {there}{client}"
    elif state.err.startswith("sudo: "):
        what = f"sudo {there} refuses{client}: {state.line}"
    else:
        what = f"its state cannot be determined{client}: {state.line}"
    return way.blame(number, what)


def entry_fault(way: Way, shell: str, answer: Answer) -> str | None:
    """Return why nothing can be run in the innermost container although it runs, by the answer to an empty command
    there.
    """
    if answer.rc == 0:
        return None
    if "unable to find user" in f"{answer.out}{answer.err}":
        return way.blame(len(way.hops), f"there is no user {way.user} in it: set remote_user (ansible_nested_user)")
    return way.blame(len(way.hops), f"{shell} cannot be run in it: {answer.line}")
