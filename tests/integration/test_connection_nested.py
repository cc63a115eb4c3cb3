# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection plugin against real daemons: a container on this machine with a daemon of its own, and containers in
that.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import nested_copy
import pytest
import yaml
from ansible_runner import BIN, CHECKOUT, MARK, ansible_environment, play
from docker_in_docker import CONTAINER_IMAGE, DAEMON_IMAGE, PASSWORD, USER, docker, load, nested_daemon
from sshd import own_sshd

pytestmark = [pytest.mark.root, pytest.mark.docker]

OUTER, MUTE = f"nested-kata-test-outer-{MARK}", f"nested-kata-test-mute-{MARK}"
INNER, FROZEN, NEW, VICTIM = "inner", "frozen", "new", "victim"
NESTED = {"ansible_connection": "nested.kata.nested", "ansible_python_interpreter": "/usr/bin/python3"}
SSH = {
    "ansible_host_key_checking": False,
    "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
}

# Every way to the two containers, by the name of the host.
LOCAL_WAYS = {
    "outer": {"ansible_nested_hops": [OUTER]},
    "inner": {"ansible_nested_hops": [OUTER, INNER]},
    "outer-via": {"ansible_nested_via": "machine", "ansible_nested_hops": OUTER},
    "inner-via": {"ansible_nested_via": "outer-via", "ansible_nested_hops": [INNER]},
    "outer-via-localhost": {"ansible_nested_via": "localhost", "ansible_nested_hops": [OUTER]},
}
SSH_WAYS = {
    "inner-ssh": {"ansible_nested_parent": "ssh", "ansible_nested_hops": [OUTER, INNER]},
    "outer-ssh-via": {"ansible_nested_via": "machine-ssh", "ansible_nested_hops": [OUTER]},
    "inner-ssh-via": {"ansible_nested_via": "outer-ssh-via", "ansible_nested_hops": [INNER]},
    "inner-sudo": {
        "ansible_nested_via": "outer-as-machine",
        "ansible_nested_hops": [INNER],
        "ansible_nested_docker_command": "sudo -n docker",
    },
}
WAYS = {"local": LOCAL_WAYS, "ssh": SSH_WAYS}


def ask(inventory, hosts, module, arguments="", *more, **environment):
    """Run one module on many hosts at once and return {host: result}."""
    command = [
        str(BIN / "ansible"),
        hosts,
        "-i",
        str(inventory),
        "-m",
        module,
        "-f",
        "4",
        *(["-a", arguments] if arguments else []),
        *more,
    ]
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env=ansible_environment(
            ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1", **environment
        ),
    )
    assert "{" in done.stdout, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"][0]["hosts"]


def inner_docker(*arguments, **options):
    return docker(*arguments, hops=[OUTER], **options)


@pytest.fixture(scope="module")
def daemons():
    """Containers in every state that a hop can be in."""
    with nested_daemon(OUTER):
        load(CONTAINER_IMAGE, OUTER)
        inner_docker("run", "-d", "--name", INNER, "--tmpfs", "/small:size=20m", CONTAINER_IMAGE)
        inner_docker("create", "--name", NEW, CONTAINER_IMAGE)
        inner_docker("run", "-d", "--name", FROZEN, CONTAINER_IMAGE)
        inner_docker("pause", FROZEN)
        try:
            docker("run", "-d", "--init", "--name", MUTE, DAEMON_IMAGE)
            yield
        finally:
            docker("rm", "-fv", MUTE, check=False)
            # a frozen process cannot be killed, and keeps the container around it from going away
            inner_docker("unpause", FROZEN, check=False)


@pytest.fixture(scope="module")
def inventory(daemons, tmp_path_factory):
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    hosts = {name: {**NESTED, **way} for name, way in LOCAL_WAYS.items()}
    hosts["machine"] = {"ansible_connection": "local"}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    return path


@pytest.fixture(scope="module")
def ssh_inventory(daemons, tmp_path_factory):
    """This machine by an sshd of our own, and the outer container by its sshd, as a user who needs sudo to call
    docker.
    """
    directory = tmp_path_factory.mktemp("ssh")
    with own_sshd(directory) as port:
        public = (directory / "user.pub").read_text()
        login = (
            f"mkdir -p /run/sshd && ssh-keygen -A && install -d -o {USER} /home/{USER}/.ssh && cat >"
            f" /home/{USER}/.ssh/authorized_keys && /usr/sbin/sshd"
        )
        subprocess.run(
            ["docker", "exec", "-i", OUTER, "sh", "-ec", login],
            input=public,
            text=True,
            check=True,
            capture_output=True,
        )
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", OUTER)
        key = {**SSH, "ansible_ssh_private_key_file": str(directory / "user")}
        machine = {**key, "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_user": "root"}
        hosts = {name: {**NESTED, **way} for name, way in SSH_WAYS.items()}
        hosts["inner-ssh"].update(machine)
        hosts["machine-ssh"] = machine
        hosts["outer-as-machine"] = {**key, "ansible_host": address, "ansible_user": USER}
        hosts["inner-denied"] = {**hosts["inner-sudo"], "ansible_nested_docker_command": "docker"}
        hosts["inner-password"] = {**hosts["inner-sudo"], "ansible_nested_docker_command": "sudo -n env docker"}
        hosts["inner-stranger"] = {**hosts["inner-ssh"], "ansible_user": "nobody"}
        path = directory / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        yield path


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def ways(request):
    """An inventory and the hosts in it that must all behave alike."""
    return request.getfixturevalue("inventory" if request.param == "local" else "ssh_inventory"), WAYS[request.param]


def test_setup_sees_the_container_that_the_way_leads_to(ways):
    inventory, hosts = ways
    names = {
        "outer": (
            subprocess.run(
                ["docker", "exec", OUTER, "hostname"], capture_output=True, text=True, check=True
            ).stdout.strip()
        ),
        "inner": inner_docker("exec", INNER, "hostname"),
    }
    assert names["outer"] != names["inner"]
    answers = ask(inventory, ",".join(hosts), "setup", "gather_subset=!all,min")
    for host in hosts:
        assert answers[host].get("ansible_facts", answers[host])["ansible_hostname"] == names[host.split("-")[0]]


def test_a_command_keeps_its_exit_status_and_its_two_outputs_apart(ways):
    inventory, hosts = ways
    answers = ask(
        inventory,
        ",".join(hosts),
        "raw",
        "printf '%s|' 'two  words' '$HOME' \"it's\" '\"' 'back\\\\slash'; echo wrong >&2; exit 7",
    )
    for host in hosts:
        assert (answers[host]["rc"], answers[host]["stdout"], answers[host]["stderr"]) == (
            7,
            "two  words|$HOME|it's|\"|back\\\\slash|",
            "wrong\n",
        )


def test_a_command_that_reads_its_input_meets_the_end_of_it(ways):
    inventory, hosts = ways
    answers = ask(inventory, ",".join(hosts), "raw", "cat; echo done")
    assert {host: answers[host]["stdout"] for host in hosts} == dict.fromkeys(hosts, "done\n")


def test_a_command_that_prints_what_docker_prints_is_an_ordinary_failure(ways):
    inventory, hosts = ways
    answers = ask(
        inventory, ",".join(hosts), "raw", "echo 'Error response from daemon: No such container: x' >&2; exit 1"
    )
    for host in hosts:
        assert (answers[host]["rc"], answers[host]["stderr"]) == (
            1,
            "Error response from daemon: No such container: x\n",
        )
        assert "unreachable" not in answers[host]
    answers = ask(inventory, ",".join(hosts), "raw", "docker-of-the-user")
    for host in hosts:
        assert answers[host]["rc"] == 127
        assert "unreachable" not in answers[host]


FILES_PLAY = """
- hosts: {hosts}
  gather_facts: false
  vars:
    there: "/tmp/a b'c\\"d $e ü {{{{ inventory_hostname }}}} {pipelining}"
  tasks:
    - name: Send every byte there is
      ansible.builtin.copy: {{src: {source}, dest: "{{{{ there }}}}", mode: "0600"}}
      register: sent
    - name: Take it back in both ways
      ansible.builtin.fetch: {{src: "{{{{ there }}}}", dest: "{back}/{{{{ inventory_hostname }}}}", flat: true}}
    - name: Read it
      ansible.builtin.slurp: {{src: "{{{{ there }}}}"}}
      register: slurped
    - name: Send an empty file
      ansible.builtin.copy: {{src: {empty}, dest: "{{{{ there }}}}.empty", mode: "0600"}}
    - name: Take the empty file back
      ansible.builtin.fetch:
        src: "{{{{ there }}}}.empty"
        dest: "{back}/{{{{ inventory_hostname }}}}.empty"
        flat: true
    - name: Compare
      ansible.builtin.assert:
        that:
          - sent is changed
          - slurped.content == content
"""


@pytest.mark.parametrize(
    ("way", "pipelining"), [("inventory", "true"), pytest.param("ssh_inventory", "false", marks=pytest.mark.ssh)]
)
def test_files_of_any_name_and_any_bytes_come_and_go(request, way, pipelining, tmp_path):
    inventory = request.getfixturevalue(way)
    hosts = ["inner", "inner-via"] if way == "inventory" else ["inner-ssh", "inner-sudo"]
    content = bytes(range(256)) * 1000 + b"\n\0\r\n"
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "empty").touch()
    (tmp_path / "play.yml").write_text(
        FILES_PLAY.format(
            hosts=",".join(hosts),
            pipelining=pipelining,
            source=tmp_path / "source",
            empty=tmp_path / "empty",
            back=tmp_path / "back",
        )
    )
    (tmp_path / "content.json").write_text(json.dumps({"content": base64.b64encode(content).decode()}))
    done = play(
        tmp_path / "play.yml", "-i", str(inventory), "-e", f"@{tmp_path}/content.json", ANSIBLE_PIPELINING=pipelining
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for host in hosts:
        assert (tmp_path / "back" / host).read_bytes() == content
        assert (tmp_path / "back" / f"{host}.empty").read_bytes() == b""


def test_apt_installs_a_package_on_both_levels(inventory):
    answers = ask(inventory, "outer,inner-via", "apt", "name=hello update_cache=true install_recommends=false")
    assert [answers[host].get("changed") for host in ("outer", "inner-via")] == [True, True], answers
    assert inner_docker("exec", INNER, "hello", "-g", "from inside") == "from inside"


# Become


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_become_with_a_password_works_in_the_container(ways, pipelining):
    inventory, hosts = ways
    inner = [host for host in hosts if host.startswith("inner")]
    password = ["-e", json.dumps({"ansible_become_password": PASSWORD})]
    # the user belongs to the last level only, so it is a variable of the hosts and not of the command line
    text = yaml.safe_load(inventory.read_text())
    for host in inner:
        text["all"]["hosts"][host]["ansible_nested_user"] = USER
    path = inventory.with_name("become.yml")
    path.write_text(yaml.safe_dump(text))
    answers = ask(
        path,
        ",".join(inner),
        "shell",
        "id -un; id -un >&2; exit 3",
        "--become",
        *password,
        ANSIBLE_PIPELINING=pipelining,
    )
    for host in inner:
        assert (answers[host].get("rc"), answers[host].get("stdout"), answers[host].get("stderr")) == (
            3,
            "root",
            "root",
        ), answers[host]
    without = ask(path, ",".join(inner), "command", "id -un", ANSIBLE_PIPELINING=pipelining)
    assert {without[host]["stdout"] for host in inner} == {USER}


def test_a_wrong_password_is_told_as_such(inventory):
    answers = ask(
        inventory,
        "inner",
        "command",
        "id -un",
        "--become",
        "-e",
        json.dumps({"ansible_nested_user": USER, "ansible_become_password": "wrong"}),
    )
    assert "password" in answers["inner"]["msg"]
    assert "hop" not in answers["inner"]["msg"]


def test_become_root_as_root_changes_nothing(inventory):
    docker("exec", OUTER, "mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
    try:
        answers = ask(inventory, "outer", "command", "id -un", "--become")
    finally:
        docker("exec", OUTER, "mv", "/usr/bin/sudo.away", "/usr/bin/sudo")
    assert answers["outer"]["stdout"] == "root"


def test_the_remote_user_of_a_play_is_not_the_user_in_the_container(inventory):
    assert ask(inventory, "inner", "command", "id -un", "-u", USER)["inner"]["stdout"] == "root"


# What goes wrong

FAULTS = {
    "no-outer": (
        {"ansible_nested_hops": ["nested-kata-test-nope", INNER]},
        "hop 1 of 2 (nested-kata-test-nope on this machine): no such container; running there: ",
        OUTER,
    ),
    "no-inner": (
        {"ansible_nested_hops": [OUTER, "nope"]},
        f"hop 2 of 2 (nope in {OUTER}): no such container; running there: ",
        INNER,
    ),
    "no-inner-via": (
        {"ansible_nested_via": "outer-via", "ansible_nested_hops": ["nope"]},
        "hop 1 of 1 (nope on outer-via): no such container; running there: ",
        INNER,
    ),
    "no-outer-via": (
        {"ansible_nested_via": "no-outer", "ansible_nested_hops": ["nope"]},
        "hop 1 of 2 (nested-kata-test-nope on this machine): no such container",
        "",
    ),
    "not-started": (
        {"ansible_nested_hops": [OUTER, NEW]},
        f"hop 2 of 2 ({NEW} in {OUTER}): is not running (created)",
        "",
    ),
    "paused": ({"ansible_nested_hops": [OUTER, FROZEN]}, f"hop 2 of 2 ({FROZEN} in {OUTER}): is paused", ""),
    "no-daemon": (
        {"ansible_nested_hops": [MUTE, INNER]},
        f"hop 2 of 2 ({INNER} in {MUTE}): the docker daemon in {MUTE} does not answer: ",
        "Cannot connect",
    ),
    "no-client": (
        {"ansible_nested_hops": [OUTER, INNER, "deeper"]},
        f"hop 3 of 3 (deeper in {INNER}): there is no docker client in {INNER}",
        "",
    ),
    "no-client-here": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_docker_command": "/nope/docker --debug"},
        (
            f"hop 1 of 1 ({OUTER} on this machine): there is no docker client on this machine (docker_command is"
            " '/nope/docker --debug')"
        ),
        "",
    ),
    "no-daemon-here": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_docker_command": "docker -H unix:///nope.sock"},
        f"hop 1 of 1 ({OUTER} on this machine): the docker daemon on this machine does not answer: ",
        "/nope.sock",
    ),
    "no-user": (
        {"ansible_nested_hops": [OUTER, INNER], "ansible_nested_user": "bob"},
        f"hop 2 of 2 ({INNER} in {OUTER}): there is no user bob in it",
        "ansible_nested_user",
    ),
    "no-shell": (
        {"ansible_nested_hops": [OUTER, INNER], "ansible_shell_executable": "/bin/nosh"},
        f"hop 2 of 2 ({INNER} in {OUTER}): /bin/nosh cannot be run in it: ",
        "no such file",
    ),
}

MISTAKES = {
    "no-hops": ({}, "hops (ansible_nested_hops) of no-hops names no container", ""),
    "empty-hops": ({"ansible_nested_hops": []}, "hops (ansible_nested_hops) of empty-hops names no container", ""),
    "bad-hop": (
        {"ansible_nested_hops": [OUTER, "--privileged"]},
        "hops (ansible_nested_hops) of bad-hop holds '--privileged'",
        "",
    ),
    "no-command": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_docker_command": ""},
        "docker_command (ansible_nested_docker_command) of no-command is empty",
        "",
    ),
    "no-parent": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_parent": "nope"},
        "there is no connection plugin 'nope'",
        "ansible_nested_parent",
    ),
    "own-parent": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_parent": "nested.kata.nested"},
        "cannot be its own parent",
        "ansible_nested_via",
    ),
    "both": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_parent": "local", "ansible_nested_via": "machine"},
        "exclude each other",
        "ansible_nested_via",
    ),
    "no-via": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_via": "nope"},
        "via (ansible_nested_via) names 'nope', which is not a host",
        "",
    ),
    "circle": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_via": "circle-back"},
        "goes in a circle: circle-back -> circle -> circle-back",
        "",
    ),
    "circle-back": (
        {"ansible_nested_hops": [OUTER], "ansible_nested_via": "circle"},
        "goes in a circle: circle -> circle-back -> circle",
        "",
    ),
}


@pytest.mark.parametrize(
    "how", [[], ["--become", "-e", "ansible_nested_user=worker ansible_become_password=x"]], ids=["plain", "become"]
)
def test_every_fault_of_a_hop_is_told_with_its_number_name_and_place(inventory, how):
    faults = {
        name: case
        for name, case in FAULTS.items()
        if not how or name not in ("no-user", "no-outer-via", "no-inner-via")
    }
    path = inventory.with_name("faults.yml")
    hosts = {
        **yaml.safe_load(inventory.read_text())["all"]["hosts"],
        **{name: {**NESTED, **way} for name, (way, *_rest) in FAULTS.items()},
    }
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    answers = ask(path, ",".join(faults), "command", "true", *how)
    for name, (_way, begin, more) in faults.items():
        message = answers[name]["msg"]
        assert answers[name].get("unreachable"), (name, answers[name])
        assert begin in message and more in message, (name, message)


def test_every_mistake_in_the_options_is_told_with_the_option(inventory):
    path = inventory.with_name("mistakes.yml")
    hosts = {
        **yaml.safe_load(inventory.read_text())["all"]["hosts"],
        **{name: {**NESTED, **way} for name, (way, *_rest) in MISTAKES.items()},
    }
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    answers = ask(path, ",".join(MISTAKES), "command", "true")
    for name, (_way, begin, more) in MISTAKES.items():
        assert answers[name].get("failed"), (name, answers[name])
        assert begin in answers[name]["msg"] and more in answers[name]["msg"], (name, answers[name]["msg"])


@pytest.mark.ssh
def test_a_machine_that_refuses_docker_names_the_option_that_helps(ssh_inventory):
    answers = ask(ssh_inventory, "inner-denied,inner-password", "command", "true")
    denied, password = (answers[host]["msg"] for host in ("inner-denied", "inner-password"))
    assert (
        f"hop 1 of 1 ({INNER} on outer-as-machine): the docker daemon on outer-as-machine refuses this user"
        " (docker_command is 'docker')" in denied
    )
    assert "set docker_command to e.g. 'sudo -n docker'" in denied
    assert (
        f"hop 1 of 1 ({INNER} on outer-as-machine): sudo on outer-as-machine refuses (docker_command is 'sudo -n env"
        " docker')" in password
    )


@pytest.mark.ssh
def test_a_machine_that_cannot_be_reached_is_told_by_the_parent(ssh_inventory):
    answer = ask(ssh_inventory, "inner-stranger", "command", "true")["inner-stranger"]
    assert answer["unreachable"]
    assert "over ssh" in answer["msg"]
    assert "Permission denied" in answer["msg"]
    assert "hop" not in answer["msg"]


def test_a_hop_that_dies_under_a_command_is_told(inventory):
    inner_docker("run", "-d", "--name", VICTIM, CONTAINER_IMAGE)

    def kill_when_busy():
        end = time.monotonic() + 30
        while "sleep 99" not in inner_docker("top", VICTIM, check=False) and time.monotonic() < end:
            time.sleep(0.1)
        inner_docker("rm", "-f", VICTIM)

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    answers = ask(
        inventory, "inner", "raw", "sleep 99; true", "-e", json.dumps({"ansible_nested_hops": [OUTER, VICTIM]})
    )
    killer.join()
    # how far the daemon has got with taking it away is a matter of milliseconds
    assert answers["inner"].get("unreachable"), answers["inner"]
    assert f"hop 2 of 2 ({VICTIM} in {OUTER}): " in answers["inner"]["msg"]


# Files, directly


def copy(way, source, target, **environment):
    """Put or fetch through [outer, inner] in a process of its own."""
    variables = {"ansible_nested_hops": [OUTER, INNER]}
    done = subprocess.run(
        [sys.executable, nested_copy.__file__, json.dumps(variables), way, str(source), str(target)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        env=ansible_environment(**environment),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_file_of_200_mb_passes_in_constant_memory(daemons, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    with open(source, "wb") as file:
        # no multiple of any block or piece
        file.writelines(os.urandom(1024 * 1024) for _mebibyte in range(200))
        file.write(b"and a bit")
    put = copy("put", source, "/tmp/big")
    assert inner_docker("exec", INNER, "sha256sum", "/tmp/big").split()[0] == digest(source)
    fetched = copy("fetch", "/tmp/big", back)
    assert digest(back) == digest(source)
    inner_docker("exec", INNER, "rm", "/tmp/big")
    assert put["grown"] < 64
    assert fetched["grown"] < 64


def test_a_relative_path_begins_at_the_root(daemons, tmp_path):
    (tmp_path / "file").write_bytes(b"here")
    copy("put", tmp_path / "file", "tmp/relative")
    assert inner_docker("exec", INNER, "cat", "/tmp/relative") == "here"
    copy("fetch", "tmp/relative", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"here"


def test_a_shorter_file_replaces_a_longer_one_whole(daemons, tmp_path):
    for content in (b"a longer text", b"short", b""):
        (tmp_path / "file").write_bytes(content)
        copy("put", tmp_path / "file", "/tmp/shrinking")
        assert inner_docker("exec", INNER, "cat", "/tmp/shrinking") == content.decode()


def test_a_put_onto_a_full_disk_says_how_much_arrived(daemons, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(33 * 1024 * 1024))
    answer = copy("put", tmp_path / "file", "/small/file")
    inner_docker("exec", INNER, "rm", "/small/file")
    assert answer["error"] == "AnsibleError"
    assert f"{20 * 1024 * 1024} of {33 * 1024 * 1024} bytes arrived: " in answer["message"]
    assert "No space left on device" in answer["message"]


@pytest.mark.parametrize(
    ("way", "source", "target", "error", "message"),
    [
        ("put", "/nope", "/tmp/file", "AnsibleFileNotFound", "/nope"),
        ("put", "/etc", "/tmp/file", "AnsibleError", "Is a directory"),
        ("put", "/etc/hostname", "/nope/file", "AnsibleError", "No such file or directory"),
        ("put", "/etc/hostname", "/tmp", "AnsibleError", "Is a directory"),
        ("fetch", "/nope it's", "back", "AnsibleFileNotFound", f"there is no file /nope it's in {INNER}"),
        ("fetch", "/etc", "back", "AnsibleError", "Is a directory"),
        ("fetch", "/etc/hostname", "/dev/null", "AnsibleError", "not a regular file"),
        ("fetch", "/etc/hostname", "nope/back", "AnsibleError", "No such file or directory"),
    ],
)
def test_a_copy_that_cannot_be_made_says_why_and_leaves_nothing(daemons, tmp_path, way, source, target, error, message):
    answer = copy(way, source, tmp_path / target if way == "fetch" else target)
    assert answer["error"] == error
    assert message in answer["message"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/null"])
def test_a_file_that_reports_another_size_is_fetched_for_what_it_holds(daemons, tmp_path, path):
    assert "error" not in copy("fetch", path, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_text().strip() == inner_docker("exec", INNER, "cat", path)


def test_a_file_that_grows_meanwhile_is_fetched_as_it_was(daemons, tmp_path):
    growing = "while [ -e /tmp/grows ]; do head -c 1000000 /dev/zero >>/tmp/growing; sleep 0.02; done"
    inner_docker("exec", INNER, "sh", "-c", "touch /tmp/grows; head -c 20000000 /dev/zero >/tmp/growing")
    inner_docker("exec", "-d", INNER, "sh", "-c", growing)
    try:
        assert "error" not in copy("fetch", "/tmp/growing", tmp_path / "fetched")
        now = int(inner_docker("exec", INNER, "stat", "-c", "%s", "/tmp/growing"))
    finally:
        inner_docker("exec", INNER, "rm", "/tmp/grows")
    assert 20000000 <= (tmp_path / "fetched").stat().st_size < now


def test_a_device_without_an_end_is_not_fetched_for_ever(daemons, tmp_path):
    answer = copy("fetch", "/dev/zero", tmp_path / "fetched", LARGEST=str(32 << 20))
    assert "it reports no size, and has no end within" in answer["message"]
    assert os.listdir(tmp_path) == []


# How it is done


@pytest.fixture
def counted(daemons, tmp_path):
    """An inventory whose way to the inner container writes down every docker process on this machine, and where it
    does.
    """
    log = tmp_path / "log"
    counting = tmp_path / "docker"
    counting.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec docker "$@"\n')
    counting.chmod(0o755)
    inventory = tmp_path / "hosts.yml"
    way = {**NESTED, "ansible_nested_hops": [OUTER, INNER], "ansible_nested_docker_command": str(counting)}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"inner": way}}}))
    return inventory, log


def test_one_command_is_one_docker_process_and_so_is_a_module(counted):
    inventory, log = counted
    assert ask(inventory, "inner", "raw", "exit 5")["inner"]["rc"] == 5
    assert log.read_text().splitlines() == [f"exec -i {OUTER} docker exec -i --user root {INNER} /bin/sh -c exit 5"]
    log.unlink()
    assert ask(inventory, "inner", "ping", ANSIBLE_PIPELINING="true")["inner"]["ping"] == "pong"
    assert len(log.read_text().splitlines()) == 1


def test_a_command_that_fails_in_a_doubtful_way_costs_one_question_for_each_hop_and_one_for_the_shell(counted):
    inventory, log = counted
    assert ask(inventory, "inner", "raw", "exit 127")["inner"]["rc"] == 127
    assert [line.split(" ")[0] for line in log.read_text().splitlines()] == ["exec", "inspect", "exec", "exec"]


def test_a_container_that_writes_without_end_is_an_error_of_its_host_alone(inventory):
    commands = {"outer": "yes", "inner": "yes >&2", "outer-via": "printf %060000000d 0"}
    answers = ask(inventory, ",".join(commands), "raw", f"exec {{{{ {commands}[inventory_hostname] }}}}")
    for name, way in {"outer": OUTER, "inner": f"{OUTER} > {INNER}"}.items():
        assert f"a command in {way} wrote more than 64 MiB and was ended" in answers[name]["msg"]
    assert len(answers["outer-via"]["stdout"]) == 60_000_000


WITHOUT_STDIN = """
from __future__ import annotations
DOCUMENTATION = "{name: without_stdin, short_description: s, description: d, author: a, \
extends_documentation_fragment: [connection_pipelining]}"
import subprocess
from ansible.plugins.connection import ConnectionBase
class Connection(ConnectionBase):
    transport = "without_stdin"
    has_pipelining = False
    def _connect(self):
        return self
    def exec_command(self, cmd, in_data=None, sudoable=True):
        assert not in_data
        done = subprocess.run(["sh", "-c", cmd], capture_output=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr
    put_file = fetch_file = None
    def close(self):
        pass
"""


def test_a_parent_that_cannot_send_data_to_a_command_carries_files_all_the_same(daemons, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "without_stdin.py").write_text(WITHOUT_STDIN)
    content = os.urandom(150_000)
    (tmp_path / "file").write_bytes(content)
    inventory = tmp_path / "hosts.yml"
    way = {**NESTED, "ansible_nested_hops": [OUTER, INNER], "ansible_nested_parent": "without_stdin"}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"inner": way}}}))
    answers = ask(
        inventory,
        "inner",
        "copy",
        f"src={tmp_path}/file dest=/tmp/in-pieces",
        ANSIBLE_CONNECTION_PLUGINS=str(plugins),
        ANSIBLE_PIPELINING="true",
    )
    assert answers["inner"].get("changed"), answers["inner"]
    assert inner_docker("exec", INNER, "sha256sum", "/tmp/in-pieces").split()[0] == hashlib.sha256(content).hexdigest()
    become = ["--become", "-e", f"ansible_nested_user={USER} ansible_become_password=x"]
    answers = ask(inventory, "inner", "command", "true", *become, ANSIBLE_CONNECTION_PLUGINS=str(plugins))
    assert "without_stdin cannot answer sudo in a container" in answers["inner"]["msg"]


@pytest.mark.ssh
def test_resetting_the_connection_ends_the_ssh_session_to_the_machine(ssh_inventory, tmp_path):
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        "- hosts: inner-ssh-via\n  gather_facts: false\n  tasks:\n    - ansible.builtin.meta: reset_connection\n"
    )
    # a socket's path has 107 bytes at most
    environment = {"ANSIBLE_SSH_CONTROL_PATH_DIR": f"/tmp/nested-kata-{MARK}"}
    assert ask(ssh_inventory, "inner-ssh-via", "ping", **environment)["inner-ssh-via"]["ping"] == "pong"
    assert len(os.listdir(environment["ANSIBLE_SSH_CONTROL_PATH_DIR"])) == 1
    done = play(playbook, "-i", str(ssh_inventory), **environment)
    assert done.returncode == 0, done.stdout
    assert os.listdir(environment["ANSIBLE_SSH_CONTROL_PATH_DIR"]) == []
    os.rmdir(environment["ANSIBLE_SSH_CONTROL_PATH_DIR"])


ADDED_PLAY = f"""
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Add the proxy
      ansible.builtin.add_host:
        name: proxy
        ansible_connection: nested.kata.nested
        ansible_nested_via: "{{{{ inventory_hostname }}}}"
        ansible_nested_hops: [{OUTER}]
        ansible_python_interpreter: /usr/bin/python3
    - name: Add the instance
      ansible.builtin.add_host:
        name: instance
        groups: instances
        ansible_connection: nested.kata.nested
        ansible_nested_via: proxy
        ansible_nested_hops: [{INNER}]
        ansible_python_interpreter: /usr/bin/python3
    - name: Do something in both
      ansible.builtin.command: cat /proc/1/comm
      delegate_to: "{{{{ item }}}}"
      loop: [proxy, instance, proxy]
      register: first
    - name: Compare
      ansible.builtin.assert:
        that: first.results | map(attribute='stdout') | list == ['docker-init', 'sleep', 'docker-init']
- hosts: instances
  become: true
  tasks:
    - name: Loop
      ansible.builtin.command: "echo {{{{ item }}}}"
      loop: [a, b]
      register: looped
    - name: Let something run on its own
      # Said before it ends: what a command says in the moment of its end, a second after it began, Ansible may lose.
      ansible.builtin.shell: echo late; sleep 1
      async: 20
      poll: 1
      register: late
    - name: Compare
      ansible.builtin.assert:
        that:
          - looped.results | map(attribute='stdout') | list == ['a', 'b']
          - late.stdout == 'late'
"""


def test_hosts_that_a_play_adds_are_hosts_like_any_other(daemons, tmp_path):
    (tmp_path / "play.yml").write_text(ADDED_PLAY)
    done = play(tmp_path / "play.yml", "-i", "localhost,", "-e", "", "-c", "local")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documentation_renders():
    command = [str(BIN / "ansible-doc"), "-t", "connection", "nested.kata.nested"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=ansible_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert "ansible_nested_hops" in done.stdout
    assert "ERROR" not in done.stderr
