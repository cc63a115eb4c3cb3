# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contexts as Docker's client keeps them, and what is said of those that lead nowhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.context import (
    Host,
    Kept,
    SshHost,
    TlsHost,
    UnixHost,
    host_of,
    meant,
    names,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Ssh, Tls, UnixSocket

ALL = frozenset(("ca.pem", "cert.pem", "key.pem"))
OWN = "/var/run/docker.sock"


def keep(directory: Path, name: str, docker: object, *files: str) -> Path:
    """Write a context as Docker's client does, and return the path of its meta.json."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = directory / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}}))
    tls = directory / "contexts" / "tls" / key / "docker"
    for file in files:
        tls.mkdir(parents=True, exist_ok=True)
        (tls / file).write_text("")
    return meta


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    return tmp_path


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("unix:///run/x.sock", UnixHost("/run/x.sock")),
        ("ssh://Build7", SshHost("Build7")),
        ("ssh://root@192.0.2.1:2222", SshHost("192.0.2.1", "root", "2222")),
        ("ssh://[2001:db8::1]:22/", SshHost("2001:db8::1", "", "22")),
        ("ssh://a@b/run/x.sock", SshHost("b", "a", "", "/run/x.sock")),
        ("tcp://build7:2376", TlsHost("build7", 2376, "/tls/ca.pem", ("/tls/cert.pem", "/tls/key.pem"))),
        ("tcp://[2001:db8::1]:2376/", TlsHost("2001:db8::1", 2376, "/tls/ca.pem", ("/tls/cert.pem", "/tls/key.pem"))),
    ],
)
def test_an_endpoint_says_where_the_daemon_is(url: str, host: Host) -> None:
    assert meant(Kept(url, directory="/tls", files=ALL)) == host


def test_a_client_s_certificate_is_used_where_there_is_one() -> None:
    assert meant(Kept("tcp://a:1", directory="/tls", files=frozenset(("ca.pem",)))) == TlsHost("a", 1, "/tls/ca.pem")


@pytest.mark.parametrize(
    "url",
    [
        "ssh://Build7",
        "ssh://root@192.0.2.1:2222",
        "ssh://[2001:db8::1]:22",
        "ssh://a@b:3/run/x.sock",
        "tcp://[2001:db8::1]:2376",
    ],
)
def test_a_host_is_named_as_the_context_names_it(url: str) -> None:
    assert meant(Kept(url, directory="/tls", files=ALL)).url == url


@pytest.mark.parametrize(
    ("host", "end"),
    [
        (SshHost("b"), ["--", "b", "docker system dial-stdio"]),
        (SshHost("b", "a", "3"), ["-l", "a", "-p", "3", "--", "b", "docker system dial-stdio"]),
        (SshHost("-oProxyCommand=x"), ["--", "-oProxyCommand=x", "docker system dial-stdio"]),
        (SshHost("b", path="/run/$(x).sock"), ["--", "b", "docker --host 'unix:///run/$(x).sock' system dial-stdio"]),
    ],
)
def test_ssh_asks_nothing_and_takes_no_name_for_an_option_or_a_command(host: SshHost, end: list[str]) -> None:
    assert host.dial() == ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", *end]


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (Kept(""), "its endpoint names no host: correct it"),
        (Kept("unix://x.sock"), "'unix://x.sock' is not the absolute path of a unix socket"),
        (
            Kept("npipe:////./pipe/docker_engine"),
            "npipe:// leads to no daemon that can be reached from here: use unix://, ssh://, or tcp:// with TLS",
        ),
        (Kept("https://user:hidden@a"), "https:// leads to no daemon"),
        (Kept("hidden"), "its endpoint without a scheme leads to no daemon"),
        (Kept("ssh://"), "its host is not of the form ssh://[USER@]MACHINE[:PORT][/SOCKET], without a password"),
        (Kept("ssh://a:hidden@b"), "without a password"),
        (Kept("ssh://a b"), "its host is not of the form ssh://"),
        (Kept("ssh://a:0"), "its host is not of the form ssh://"),
        (Kept("ssh://a:65536"), "its host is not of the form ssh://"),
        (Kept("tcp://a", files=ALL), "its host is not of the form tcp://MACHINE:PORT: correct it"),
        (Kept("tcp://a@b:1", files=ALL), "its host is not of the form tcp://MACHINE:PORT"),
        (Kept("tcp://b:1/x", files=ALL), "its host is not of the form tcp://MACHINE:PORT"),
        (
            Kept("tcp://a:2375"),
            "tcp://a:2375 is TCP without TLS, which is refused: use ssh://, or give it certificates",
        ),
        (
            Kept("tcp://a:1", unverified=True, files=ALL),
            "tcp://a:1 is used without verifying its certificate (SkipTLSVerify), which is refused",
        ),
        (Kept("tcp://a:1", unverified=True), "(SkipTLSVerify)"),
        (Kept("tcp://a:1", directory="/tls", files=ALL - {"ca.pem"}), "tcp://a:1 lacks ca.pem in /tls: use ssh://, or"),
        (Kept("tcp://a:1", directory="/tls", files=ALL - {"key.pem"}), "tcp://a:1 lacks key.pem in /tls"),
        (
            Kept("tcp://a:1", directory="/tls", files=frozenset(("key.pem",))),
            "tcp://a:1 lacks ca.pem and cert.pem in /tls",
        ),
    ],
)
def test_what_leads_to_no_daemon_or_to_anybody_is_refused_without_a_secret(kept: Kept, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        meant(kept)
    assert why in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_context_is_found_where_docker_keeps_it(contexts: Path) -> None:
    tls = keep(contexts, "b", {"Host": "tcp://b:1"}, *ALL).parts[-2]
    at = f"{contexts}/contexts/tls/{tls}/docker"
    assert host_of("b") == TlsHost("b", 1, f"{at}/ca.pem", (f"{at}/cert.pem", f"{at}/key.pem"))
    keep(contexts, "../c", {"Host": "ssh://c", "SkipTLSVerify": False})
    assert host_of("../c") == SshHost("c")
    assert names(str(contexts)) == ["../c", "b", "default"]


def test_without_docker_config_they_are_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep(tmp_path / ".docker", "b", {"Host": "ssh://b"})
    assert host_of("b", {}) == host_of("b", {"DOCKER_CONFIG": ""}) == SshHost("b")


def test_default_is_this_machine_s_own_socket_whatever_docker_host_says(contexts: Path) -> None:
    keep(contexts, "default", {"Host": "ssh://elsewhere"})
    assert host_of("default") == UnixHost(OWN)


def test_a_name_that_is_not_there_is_told_with_those_that_are(contexts: Path) -> None:
    keep(contexts, "production", {"Host": "ssh://p"})
    keep(contexts, "broken", {}).write_text("{")
    with pytest.raises(ValueError) as refused:
        host_of("prodction")
    assert str(refused.value) == (
        f"context 'prodction': there is no context of this name in {contexts} (near: production), only default,"
        " production: correct the name, or create it ('docker context create')"
    )
    with pytest.raises(
        ValueError, match=r"^context '': there is no context of this name in .*, only default, production: "
    ):
        host_of("")


def test_where_there_is_no_context_at_all_that_is_told(contexts: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no context of this name in \S+, only default: "):
        host_of("x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it has no endpoint for docker"),
        ('{"Endpoints": null}', "it has no endpoint for docker"),
        ('{"Endpoints": {"kubernetes": {"Host": "https://k"}}}', "it has no endpoint for docker"),
        ('{"Endpoints": {"docker": {"Host": 5}}}', "the host of its endpoint is not a string"),
        (b"\xff", "can't decode byte"),
    ],
)
def test_a_damaged_context_is_told_with_its_file(contexts: Path, text: str | bytes, why: str) -> None:
    meta = keep(contexts, "b", {})
    meta.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as refused:
        host_of("b")
    assert str(refused.value).startswith(f"context 'b': {meta} cannot be used (")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["meta.json", "tls"])
def test_what_cannot_be_read_is_told_with_its_path(contexts: Path, part: str) -> None:
    # Tests run as root, whom no mode keeps out: a directory instead of the file, and a file instead of the directory.
    meta = keep(contexts, "b", {"Host": "tcp://b:1"})
    path = meta if part == "meta.json" else contexts / "contexts" / "tls" / meta.parts[-2] / "docker"
    if part == "meta.json":
        path.unlink()
        path.mkdir()
    else:
        path.parent.mkdir(parents=True)
        path.write_text("")
    with pytest.raises(ValueError) as refused:
        host_of("b")
    assert str(refused.value).startswith(f"context 'b': {path} cannot be read (")


@pytest.mark.parametrize("docker", [{}, {"Host": ""}, {"Host": None}])
def test_an_endpoint_without_a_host_is_refused(contexts: Path, docker: dict) -> None:
    keep(contexts, "b", docker)
    with pytest.raises(ValueError, match=r"^context 'b': its endpoint names no host: correct it"):
        host_of("b")


# As an option


@pytest.mark.parametrize(
    ("docker", "leads"),
    [({"Host": "unix:///x.sock"}, UnixSocket), ({"Host": "ssh://b"}, Ssh), ({"Host": "tcp://b:1"}, Tls)],
)
def test_a_context_is_what_a_transport_is_chosen_for(contexts: Path, docker: dict, leads: type) -> None:
    keep(contexts, "b", docker, *ALL)
    endpoint = Endpoint.parse({"context": "b", "socket": None, "transport": "auto"})
    assert (type(endpoint.transport()), str(endpoint)) == (leads, "context b")


def test_a_daemon_is_the_same_by_whatever_name(contexts: Path) -> None:
    for name, url in {"own": f"unix://{OWN}", "a": "ssh://m", "b": "ssh://m", "c": "ssh://n"}.items():
        keep(contexts, name, {"Host": url})
    end = {name: Endpoint.parse({"context": name}) for name in ("default", "own", "a", "b", "c")}
    assert end["default"] == end["own"] == Endpoint.parse({})
    assert end["a"] == end["b"]
    assert len({end["default"], end["a"], end["c"]}) == 3


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (
            {"context": "default", "socket": "/x"},
            "socket and context exclude each other: each names a daemon: leave one out",
        ),
        (
            {"context": "default", "hops": ["x"]},
            "context and hops exclude each other: hops start at this machine's own daemon: leave one out",
        ),
        (
            {"context": "default", "transport": "exec"},
            "transport exec and context exclude each other: a transport leads through hops",
        ),
        ({"context": "nowhere"}, "context 'nowhere': there is no context of this name"),
    ],
)
def test_what_contradicts_a_context_is_refused(contexts: Path, option: dict, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        Endpoint.parse(option)
    assert str(refused.value).startswith(why)
