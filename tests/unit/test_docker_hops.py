# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines that lead through hops, and what a docker client's answers mean."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker import hops
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import Answer, Way

ONE = Way("this machine", ("docker",), ("outer",), "root")
TWO = Way("machine", ("sudo", "-n", "docker"), ("outer", "inner"), "worker")
THREE = Way("machine", ("docker",), ("a", "b", "c"))

COMMANDS = [
    (ONE.command(["ls"]), "docker exec -i --user root outer ls"),
    (TWO.command(["ls"]), "sudo -n docker exec -i outer docker exec -i --user worker inner ls"),
    (THREE.command(["ls"]), "docker exec -i a docker exec -i b docker exec -i c ls"),
    (TWO.into(0, ["ls"]), "ls"),
    (TWO.into(1, ["ls"]), "sudo -n docker exec -i outer ls"),
    (TWO.state(1), "sudo -n docker inspect --type container --format {{.State.Status}} outer"),
    (TWO.state(2), "sudo -n docker exec -i outer docker inspect --type container --format {{.State.Status}} inner"),
    (THREE.state(3), "docker exec -i a docker exec -i b docker inspect --type container --format {{.State.Status}} c"),
    (TWO.neighbours(2), "sudo -n docker exec -i outer docker ps --format {{.Names}}"),
]


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=[line for _command, line in COMMANDS])
def test_a_command_goes_through_every_hop_and_only_the_last_one_changes_the_user(command, line):
    assert command == line.split()


@pytest.mark.parametrize("names", [["kata-in-docker"], ["kata-in-docker", "kata"], ["0", "A_b.c-d"]])
def test_names_that_docker_takes_are_hops(names):
    assert hops.refused(names) is None


@pytest.mark.parametrize(
    "names", [[], ["-it"], ["outer", "--privileged"], ["a b"], ["a;b"], [""], ["a", 5], ["a/b"], ["a\n"]]
)
def test_names_that_docker_would_refuse_or_take_for_an_option_are_no_hops(names):
    assert hops.refused(names)


DOUBTFUL = [
    Answer(1, "", "Error: No such container: kata"),
    Answer(1, "", "Error response from daemon: Container abc is not running"),
    Answer(1, "", "Error response from daemon: Container abc is paused, unpause the container before exec"),
    Answer(1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
    Answer(
        1, "", "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    ),
    Answer(1, "", "warning: something\nsudo: a password is required"),
    Answer(126, "OCI runtime exec failed: exec failed: unable to start container process", ""),
    Answer(127, "", "/bin/sh: 1: docker: not found"),
    Answer(137, "", ""),
]

PLAIN = [
    Answer(0, "", "Error response from daemon: this command succeeded all the same"),
    Answer(1, "", ""),
    Answer(2, "", "ls: cannot access 'x': No such file or directory"),
    Answer(1, "", "pseudo: an error"),
]


@pytest.mark.parametrize("answer", DOUBTFUL, ids=str)
def test_a_failure_that_a_hop_may_have_caused_is_looked_into(answer):
    assert hops.doubtful(answer)


@pytest.mark.parametrize("answer", PLAIN, ids=str)
def test_an_ordinary_failure_asks_no_hop(answer):
    assert not hops.doubtful(answer)


DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: connect:"
    " permission denied"
)
NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
NO_CLIENT = (
    'OCI runtime exec failed: exec failed: unable to start container process: exec: "docker": executable file not found'
    " in $PATH: unknown"
)
NO_CLIENT_ON_MACHINE = (
    "hop 1 of 2 (outer on machine): there is no docker client on machine (docker_command is 'sudo -n docker')"
)

FAULTS = [
    (2, Answer(0, "running\n", ""), [], None),
    (2, Answer(0, "exited\n", ""), [], "hop 2 of 2 (inner in outer): is not running (exited)"),
    (1, Answer(0, "created\n", ""), [], "hop 1 of 2 (outer on machine): is not running (created)"),
    (1, Answer(0, "paused\n", ""), [], "hop 1 of 2 (outer on machine): is paused"),
    (
        2,
        Answer(1, "\n", "Error: No such container: inner"),
        ["a", "b"],
        "hop 2 of 2 (inner in outer): no such container; running there: a, b",
    ),
    (
        2,
        Answer(1, "\n", "Error response from daemon: No such container: inner"),
        [],
        "hop 2 of 2 (inner in outer): no such container; running there: none",
    ),
    (
        2,
        Answer(1, "", NO_DAEMON),
        [],
        f"hop 2 of 2 (inner in outer): the docker daemon in outer does not answer: {NO_DAEMON}",
    ),
    (2, Answer(126, NO_CLIENT, ""), [], "hop 2 of 2 (inner in outer): there is no docker client in outer"),
    (2, Answer(127, "", NO_CLIENT), [], "hop 2 of 2 (inner in outer): there is no docker client in outer"),
    (1, Answer(127, "", "sh: 1: sudo: not found"), [], NO_CLIENT_ON_MACHINE),
    (1, Answer(1, "", "sudo: docker: command not found"), [], NO_CLIENT_ON_MACHINE),
    (
        1,
        Answer(1, "", "sudo: a password is required"),
        [],
        (
            "hop 1 of 2 (outer on machine): sudo on machine refuses (docker_command is 'sudo -n docker'): sudo: a"
            " password is required"
        ),
    ),
    (
        1,
        Answer(1, "", DENIED),
        [],
        (
            "hop 1 of 2 (outer on machine): the docker daemon on machine refuses this user (docker_command is 'sudo -n"
            f" docker'): {DENIED}; set docker_command to e.g. 'sudo -n docker'"
        ),
    ),
    (
        2,
        Answer(1, "", "template: :1: no such field"),
        [],
        "hop 2 of 2 (inner in outer): its state cannot be determined: template: :1: no such field",
    ),
]


@pytest.mark.parametrize(
    ("number", "state", "running", "message"), FAULTS, ids=[str(message) for *_rest, message in FAULTS]
)
def test_the_fault_of_a_hop_is_told_in_one_line(number, state, running, message):
    assert hops.fault(TWO, number, state, running) == message


def test_a_container_that_runs_but_cannot_be_entered_is_told():
    no_user = Answer(126, "", "unable to find user worker: no matching entries in passwd file")
    no_shell = Answer(127, "", 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown')
    assert (
        hops.entry_fault(TWO, "/bin/sh", no_user)
        == "hop 2 of 2 (inner in outer): there is no user worker in it: set remote_user (ansible_nested_user)"
    )
    assert (
        hops.entry_fault(TWO, "/bin/sh", no_shell)
        == f"hop 2 of 2 (inner in outer): /bin/sh cannot be run in it: {no_shell.err}"
    )
    assert hops.entry_fault(TWO, "/bin/sh", Answer(0, "", "")) is None
