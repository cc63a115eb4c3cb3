# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images by contexts that Docker's own client made: a unix socket, a real sshd, and a real dockerd that wants
certificates.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_runner import MARK, answer, run_module, started, wait_until
from docker_in_docker import DAEMON_IMAGE, docker, image_id, import_image, nested_daemon
from qemu_machine import free_port
from sshd import own_sshd

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.ssh]

FAR, SMALL = f"t-by-context-{MARK}", f"t-by-context-{MARK}-small"
LABEL = f"nested.kata.test=by_context-{MARK}"
MEBIBYTE = 1 << 20
SOCKET = "/var/run/docker.sock"


TLS = {
    "tlsverify": True,
    "tlscacert": "/certs/ca.pem",
    "tlscert": "/certs/server.pem",
    "tlskey": "/certs/server-key.pem",
}


def on_tcp(place: Path, port: int) -> tuple[str, ...]:
    """Return the options of a container whose daemon is reached on TCP."""
    return "--volume", f"{place}/certs:/certs:ro", "--publish", f"127.0.0.1:{port}:2376"


def openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_certificates(place: Path) -> None:
    """Make certificates as Docker's manual does: a CA, one for the daemon at 127.0.0.1, and one for us."""
    place.mkdir()
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=a CA",
        "-keyout",
        place / "ca-key.pem",
        "-out",
        place / "ca.pem",
    )
    for who, extensions in {
        "server": "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth",
        "client": "extendedKeyUsage=clientAuth",
    }.items():
        key, request, cert = (place / f"{who}{suffix}" for suffix in ("-key.pem", ".csr", ".pem"))
        (place / f"{who}.ext").write_text(extensions)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={who}", "-keyout", key, "-out", request)
        signing = ("-CA", place / "ca.pem", "-CAkey", place / "ca-key.pem", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *signing, "-extfile", place / f"{who}.ext", "-out", cert)


@dataclass
class Contexts:
    """What leads to the daemon of this machine and to the far one, and the environment in which the module is to
    run.
    """

    place: Path
    sshd: int  # ports on 127.0.0.1
    tls: int

    @property
    def environment(self) -> dict[str, str]:
        # A daemon that nobody runs: the module must not care.
        return {
            "DOCKER_CONFIG": str(self.place / "docker"),
            "DOCKER_HOST": "tcp://127.0.0.1:1",
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
        }

    @property
    def far_socket(self) -> str:
        return f"{self.place}/far/docker.sock"

    def make(self, name: str, endpoint: str) -> None:
        environment = {**os.environ, "DOCKER_CONFIG": str(self.place / "docker")}
        subprocess.run(
            ["docker", "context", "create", name, "--docker", endpoint],
            env=environment,
            check=True,
            capture_output=True,
        )

    def files(self, ca: str = "certs", pair: str = "certs") -> str:
        """Return what follows the host where certificates are in these directories, or are left out."""
        theirs = f",ca={self.place}/{ca}/ca.pem" if ca else ""
        return theirs + (f",cert={self.place}/{pair}/client.pem,key={self.place}/{pair}/client-key.pem" if pair else "")

    def kept(self, name: str) -> Path:
        """Return where Docker keeps the certificates of a context."""
        return self.place / "docker" / "contexts" / "tls" / hashlib.sha256(name.encode()).hexdigest() / "docker"

    def transfer(self, options: dict, *, check: bool = False, **environment: str) -> dict:
        running = started(
            "image_transfer", {**options, "_ansible_check_mode": check}, **{**self.environment, **environment}
        )
        return answer(running, 180)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contexts]:
    place = tmp_path_factory.mktemp("ctx")
    for certificates in ("certs", "others"):
        make_certificates(place / certificates)
    port = free_port()
    mounts = ("--volume", "/var/lib/docker", "--volume", f"{place}/far:/far", *on_tcp(place, port))
    hosts = [f"unix://{SOCKET}", "unix:///far/docker.sock", "tcp://0.0.0.0:2376"]
    try:
        with own_sshd(place) as sshd, nested_daemon(FAR, storage=mounts, hosts=hosts, **TLS):
            made = Contexts(place, sshd, port)
            (place / "known").write_text(f"[127.0.0.1]:{sshd} {(place / 'host.pub').read_text()}")
            (place / "ssh_config").write_text(
                f"IdentityFile {place}/user\nIdentitiesOnly yes\nUserKnownHostsFile {place}/known\nGlobalKnownHostsFile"
                " none\n"
            )
            # OpenSSH finds ~/.ssh by the user and not by HOME, so that its real program must be told of another
            # configuration.
            (place / "bin").mkdir()
            (place / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place}/ssh_config "$@"\n')
            (place / "bin" / "ssh").chmod(0o755)
            made.make("unix", f"host=unix://{made.far_socket}")
            made.make("ssh", f"host=ssh://root@127.0.0.1:{sshd}")
            made.make("ssh-far", f"host=ssh://root@127.0.0.1:{sshd}{made.far_socket}")
            made.make("tls", f"host=tcp://127.0.0.1:{port}{made.files()}")
            yield made
    finally:
        for image in docker("images", "--quiet", "--filter", f"label={LABEL}").split():
            docker("rmi", "--force", image)


@pytest.fixture(autouse=True)
def nothing_stays(contexts: Contexts) -> Iterator[None]:
    yield

    def strays() -> str:
        return subprocess.run(
            ["pgrep", "-af", f"^ssh .*{contexts.place}"], capture_output=True, text=True, check=False
        ).stdout

    wait_until(lambda: not strays(), f"no stray processes, found {strays()}", 20)


def make_image(name: str, hops: tuple[str, ...] = ()) -> str:
    return import_image(name, hops, size=MEBIBYTE, label=LABEL)


WAYS = {
    "unix": {"name": "socket", "reason": "a unix socket of this machine leads to it"},
    "ssh-far": {"name": "ssh", "reason": "ssh://root@127.0.0.1:{0.sshd}{0.far_socket} leads to it"},
    "tls": {"name": "tls", "reason": "tcp://127.0.0.1:{0.tls} leads to it"},
}


def way(contexts: Contexts, context: str) -> dict:
    return {key: text.format(contexts) for key, text in WAYS[context].items()}


@pytest.mark.parametrize("context", WAYS)
def test_an_image_arrives_by_a_context_in_four_runs(contexts: Contexts, context: str) -> None:
    name = f"t-by-context-{MARK}/{context}:1"
    made = make_image(name)
    options = {"images": [name], "destination": {"context": context}}

    checked = contexts.transfer(options, check=True)
    assert (checked["failed"], checked["changed"], checked["bytes_sent"]) == (False, True, 0), checked["msg"]
    assert image_id(name, (FAR,)) == ""

    real = contexts.transfer(options)
    assert (real["failed"], real["changed"]) == (False, True), real["msg"]
    assert MEBIBYTE < real["bytes_sent"] < 1.2 * MEBIBYTE
    assert real["destinations"][0]["transport"] == way(contexts, context)
    assert real["images"][0]["destination"] == f"context {context}"
    assert real["msg"].startswith(f"context {context}: sent 1 image (")
    assert image_id(name, (FAR,)) == made

    for check in (False, True):
        again = contexts.transfer(options, check=check)
        assert (again["failed"], again["changed"], again["bytes_sent"]) == (False, False, 0), again["msg"]


@pytest.mark.parametrize("context", WAYS)
def test_an_image_comes_from_a_context(contexts: Contexts, context: str) -> None:
    name = f"t-by-context-{MARK}/from-{context}:1"
    made = make_image(name, (FAR,))
    result = contexts.transfer({"images": [name], "source": {"context": context}})
    assert (result["failed"], result["changed"], result["transport"]) == (False, True, way(contexts, context)), result[
        "msg"
    ]
    elsewhere = "by docker save, since it is on another machine" in result["images"][0]["reason"]
    assert elsewhere == (context != "unix")
    assert image_id(name) == made


def test_contexts_at_both_ends_and_several_of_them(contexts: Contexts) -> None:
    made = make_image(f"t-by-context-{MARK}/several:1")
    ends = [{"context": "ssh-far"}, {"context": "tls"}]
    result = contexts.transfer(
        {"images": [f"t-by-context-{MARK}/several:1"], "source": {"context": "ssh"}, "destinations": ends}
    )
    assert (result["failed"], [end["failed"] for end in result["destinations"]]) == (False, [False, False]), result[
        "msg"
    ]
    assert result["transport"] == {"name": "ssh", "reason": f"ssh://root@127.0.0.1:{contexts.sshd} leads to it"}
    assert image_id(f"t-by-context-{MARK}/several:1", (FAR,)) == made


def test_ansible_runs_it_with_the_context_of_the_user(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_image(f"t-by-context-{MARK}/played:1")
    for name, value in contexts.environment.items():
        monkeypatch.setenv(name, value)
    result = run_module(
        "image_transfer",
        {
            "images": [f"t-by-context-{MARK}/played:1"],
            "source": {"context": "default"},
            "destination": {"context": "tls"},
        },
    )
    monkeypatch.undo()
    assert (result["failed"], result["changed"]) == (False, True), result["msg"]
    assert image_id(f"t-by-context-{MARK}/played:1", (FAR,)) == made


# What is refused, or fails: each by one line that names the option or the end


def failure(contexts: Contexts, end: dict, **environment: str) -> str:
    make_image(f"t-by-context-{MARK}/refused:1")
    result = contexts.transfer({"images": [f"t-by-context-{MARK}/refused:1"], "destination": end}, **environment)
    assert (result["failed"], result.get("changed", False)) == (True, False)
    assert image_id(f"t-by-context-{MARK}/refused:1", (FAR,)) == ""
    assert "\n" not in result["msg"]
    return result["msg"]


def failure_of(contexts: Contexts, name: str, endpoint: str, **environment: str) -> str:
    contexts.make(name, endpoint)
    return failure(contexts, {"context": name}, **environment)


def test_a_name_that_docker_does_not_know_is_told_with_those_that_it_knows(contexts: Contexts) -> None:
    message = failure(contexts, {"context": "shh"})
    known = f"there is no context of this name in {contexts.place}/docker (near: ssh), only default, "
    assert message.startswith(f"destination: context 'shh': {known}")
    assert ", ssh, ssh-far, tls, unix: correct the name" in message


@pytest.mark.parametrize("other", [{"hops": [FAR]}, {"socket": SOCKET}, {"archive": "/a.tar"}])
def test_a_context_stands_alone(contexts: Contexts, other: dict) -> None:
    message = failure(contexts, {"context": "unix", **other})
    assert "mutually exclusive" in message
    assert "found in destination" in message


def test_the_context_default_is_this_machine_s_own_socket(contexts: Contexts) -> None:
    assert "source and destination are the same daemon" in failure(contexts, {"context": "default"})


def test_tcp_without_tls_is_refused_and_nobody_is_dialled(contexts: Contexts) -> None:
    where = f"tcp://127.0.0.1:{contexts.tls}"
    message = failure_of(contexts, "plain", f"host={where}")
    assert message.startswith(
        f"destination: context 'plain': {where} is TCP without TLS, which is refused: use ssh://, or give it"
        " certificates"
    )
    message = failure_of(contexts, "unverified", f"host={where},skip-tls-verify=true{contexts.files()}")
    assert message.startswith(
        f"destination: context 'unverified': {where} is used without verifying its certificate (SkipTLSVerify), which"
        " is refused"
    )
    message = failure_of(contexts, "no-ca", f"host={where}{contexts.files(ca='')}")
    assert message.startswith(f"destination: context 'no-ca': {where} lacks ca.pem in ")


def test_each_side_s_certificate_must_hold(contexts: Contexts) -> None:
    where = f"tcp://127.0.0.1:{contexts.tls}"
    says = f"{where} presents a certificate that is not valid"
    message = failure_of(contexts, "their-ca", f"host={where}{contexts.files(ca='others')}")
    assert message.startswith(f"destination context their-ca: {says} (")
    assert "certificate verify failed" not in message
    message = failure_of(contexts, "another-name", f"host=tcp://localhost:{contexts.tls}{contexts.files()}")
    assert f"{says.replace('127.0.0.1', 'localhost')} (Hostname mismatch" in message
    message = failure_of(contexts, "their-pair", f"host={where}{contexts.files(pair='others')}")
    assert f"{where} refuses the client's certificate (" in message
    message = failure_of(contexts, "no-pair", f"host={where}{contexts.files(pair='')}")
    assert f"{where} refuses a client without a certificate (" in message


def test_certificates_that_cannot_be_used_are_told_by_their_files(contexts: Contexts) -> None:
    # Docker's client looks at them when it makes a context, so they are spoilt after that.
    where = f"host=tcp://127.0.0.1:{contexts.tls}{contexts.files()}"
    contexts.make("locked", where)
    openssl(
        "pkey",
        "-in",
        contexts.place / "certs" / "client-key.pem",
        "-aes256",
        "-passout",
        "pass:hidden",
        "-out",
        contexts.kept("locked") / "key.pem",
    )
    message = failure(contexts, {"context": "locked"})
    files = [f"{contexts.kept('locked')}/{name}" for name in ("cert.pem", "key.pem")]
    assert message.startswith(f"destination context locked: {' and '.join(files)} cannot be used (")
    assert "a key without a password" in message
    contexts.make("garbled", where)
    (contexts.kept("garbled") / "ca.pem").write_text("no certificate")
    message = failure(contexts, {"context": "garbled"})
    assert message.startswith(f"destination context garbled: {contexts.kept('garbled')}/ca.pem cannot be used (")
    (contexts.kept("garbled") / "ca.pem").unlink()
    message = failure(contexts, {"context": "garbled"})
    assert message.startswith(
        f"destination: context 'garbled': tcp://127.0.0.1:{contexts.tls} lacks ca.pem in {contexts.kept('garbled')}: "
    )


def test_who_does_not_speak_tls_or_does_not_listen_is_told(contexts: Contexts) -> None:
    message = failure_of(contexts, "no-tls", f"host=tcp://127.0.0.1:{contexts.sshd}{contexts.files()}")
    assert f"tcp://127.0.0.1:{contexts.sshd} cannot be reached over TLS (" in message
    port = free_port()
    message = failure_of(contexts, "deaf", f"host=tcp://127.0.0.1:{port}{contexts.files()}")
    assert message.startswith(
        f"destination context deaf: tcp://127.0.0.1:{port} cannot be reached (Connection refused): start dockerd there"
    )


def test_ssh_has_the_last_word_where_it_fails(contexts: Contexts) -> None:
    unknown = f"ssh://root@localhost:{contexts.sshd}"
    message = failure_of(contexts, "unknown-machine", f"host={unknown}")
    remedy = f"make sure that 'docker --host {unknown} version' works here without a prompt"
    assert message == f"destination context unknown-machine: {unknown}: Host key verification failed: {remedy}"
    message = failure_of(contexts, "stranger", f"host=ssh://nobody@127.0.0.1:{contexts.sshd}")
    assert f"ssh://nobody@127.0.0.1:{contexts.sshd}: nobody@127.0.0.1: Permission denied (publickey" in message
    deaf = f"ssh://root@127.0.0.1:{contexts.sshd}/nowhere.sock"
    message = failure_of(contexts, "no-daemon", f"host={deaf}")
    assert re.fullmatch(
        rf"destination context no-daemon: {deaf}: .*dial unix /nowhere.sock: .*no such file or directory: make sure .*",
        message,
    )
    message = failure(contexts, {"context": "ssh"}, PATH="/nowhere")
    assert message.startswith(
        f"destination context ssh: ssh://root@127.0.0.1:{contexts.sshd} is reached by ssh, which does not run here ("
    )


def test_a_daemon_without_space_says_so_over_tls_before_it_hangs_up(contexts: Contexts) -> None:
    port = free_port()
    storage = ("--tmpfs", "/var/lib/docker:size=150m", *on_tcp(contexts.place, port))
    with nested_daemon(SMALL, storage=storage, hosts=[f"unix://{SOCKET}", "tcp://0.0.0.0:2376"], **TLS):
        contexts.make("small", f"host=tcp://127.0.0.1:{port}{contexts.files()}")
        result = contexts.transfer({"images": [DAEMON_IMAGE], "destination": {"context": "small"}})
        held = docker("images", "--quiet", "--all", hops=(SMALL,))
    assert result["failed"]
    assert result["msg"].startswith(f"destination context small: loading {DAEMON_IMAGE}: ")
    assert "no space left on device" in result["msg"]
    assert held == ""
