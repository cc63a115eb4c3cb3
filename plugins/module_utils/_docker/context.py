# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The location of the daemon of a Docker context, according to the files of Docker's client.

The SDK for Python reads them, too (docker.context), but finds no context where there is no config.json, and takes a
context with a missing certificate for one without TLS.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from typing import Any, Mapping, Sequence, Union

SOCKET = "/var/run/docker.sock"
DEFAULT = "default"  # Docker's client has no file for the context of this name
CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
SSH_SECONDS = 20  # how long ssh may take to reach a machine

# The part of a URL behind its scheme. A machine's name keeps its case, in which ~/.ssh/config may have it.
ADDRESS = re.compile(
    r"(?:(?P<user>[^@/:\s]+)(?P<password>:[^@/]*)?@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:/?#\[\]\s]+)(?::(?P<port>\d{1,5}))?(?P<path>/[^?#\s]*)?"
)


@dataclass(frozen=True)
class UnixHost:
    """A unix socket of this machine."""

    path: str


@dataclass(frozen=True)
class SshHost:
    """The daemon of another machine, reached by Docker's client there."""

    host: str
    user: str = ""
    port: str = ""
    path: str = ""  # of the unix socket there, where it is not the usual one

    @property
    def url(self) -> str:
        return f"ssh://{self.user}{self.user and '@'}{bracketed(self.host)}{self.port and ':'}{self.port}{self.path}"

    def dial(self) -> list[str]:
        """Return the command whose standard input and output are a stream to the daemon."""
        docker = ("docker", *(("--host", f"unix://{self.path}") if self.path else ()), "system", "dial-stdio")
        # Nobody can enter a password, or confirm the key of an unknown machine.
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_SECONDS}"]
        login = [*(["-l", self.user] if self.user else []), *(["-p", self.port] if self.port else [])]
        return ["ssh", *options, *login, "--", self.host, shlex.join(docker)]


@dataclass(frozen=True)
class TlsHost:
    """A daemon on TCP, whose certificate is verified."""

    host: str
    port: int
    ca: str  # paths of files
    pair: tuple[str, ...] = ()  # the client's certificate and its key

    @property
    def url(self) -> str:
        return f"tcp://{bracketed(self.host)}:{self.port}"


Host = Union[UnixHost, SshHost, TlsHost]


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# The meaning of a context


@dataclass(frozen=True)
class Kept:
    """A context as its files describe it."""

    url: str
    unverified: bool = False  # SkipTLSVerify
    directory: str = ""  # where its certificates are
    files: frozenset[str] = frozenset()  # the names of the certificates that exist


REMEDY = "correct it ('docker context update')"


def meant(kept: Kept) -> Host:
    """Return the host of the daemon, or raise ValueError with the reason."""
    if not kept.url:
        raise ValueError(f"its endpoint names no host: {REMEDY}")
    scheme, mark, rest = kept.url.partition("://")
    if mark and scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError(f"{kept.url!r} is not the absolute path of a unix socket: {REMEDY}")
        return UnixHost(rest)
    if not mark or scheme not in ("ssh", "tcp"):
        # The rest may be anything, also a secret.
        what = f"{scheme}://" if mark else "its endpoint without a scheme"
        raise ValueError(
            f"{what} leads to no daemon that can be reached from here: use unix://, ssh://, or tcp:// with TLS ('docker"
            " context update')"
        )
    form = "ssh://[USER@]MACHINE[:PORT][/SOCKET], without a password" if scheme == "ssh" else "tcp://MACHINE:PORT"
    address = ADDRESS.fullmatch(rest)
    if not address or address["password"] or int(address["port"] or 1) not in range(1, 1 << 16):
        raise ValueError(f"its host is not of the form {form}: {REMEDY}")
    host, path = address["host"].strip("[]"), (address["path"] or "").rstrip("/")
    if scheme == "ssh":
        return SshHost(host, address["user"] or "", address["port"] or "", path)
    if address["user"] or not address["port"] or path:
        raise ValueError(f"its host is not of the form {form}: {REMEDY}")
    return verified(kept, host, int(address["port"]))


def verified(kept: Kept, host: str, port: int) -> TlsHost:
    """Return a host on TCP, or raise ValueError where its identity could not be verified."""
    where = f"tcp://{bracketed(host)}:{port}"
    remedy = "use ssh://, or give it certificates ('docker context update --docker host=...,ca=...,cert=...,key=...')"
    if kept.unverified:
        raise ValueError(
            f"{where} is used without verifying its certificate (SkipTLSVerify), which is refused: {remedy}"
        )
    if not kept.files:
        raise ValueError(f"{where} is TCP without TLS, which is refused: {remedy}")
    needed = [CA, *((CERTIFICATE, KEY) if kept.files & {CERTIFICATE, KEY} else ())]
    lacking = [name for name in needed if name not in kept.files]
    if lacking:
        raise ValueError(f"{where} lacks {' and '.join(lacking)} in {kept.directory}: {remedy}")
    ca, *pair = (os.path.join(kept.directory, name) for name in needed)
    return TlsHost(host, port, ca, tuple(pair))


# The files of contexts


def host_of(name: str, environment: Mapping[str, str] | None = None) -> Host:
    """Return the host of a context's daemon, or raise ValueError with the fault of the context."""
    if name == DEFAULT:
        return UnixHost(SOCKET)
    try:
        return meant(
            stored(
                name,
                (os.environ if environment is None else environment).get("DOCKER_CONFIG")
                or os.path.expanduser("~/.docker"),
            )
        )
    except ValueError as error:
        raise ValueError(f"context {name!r}: {error}") from error


def stored(name: str, directory: str) -> Kept:
    key = hashlib.sha256(name.encode()).hexdigest()
    path = os.path.join(directory, "contexts", "meta", key, "meta.json")
    try:
        endpoint = endpoint_of(path)
    except FileNotFoundError:
        raise ValueError(unknown(name, names(directory), directory)) from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): correct its mode, or run as the user whose context it is"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be used ({error}): remove the context and create it again ('docker context rm', 'docker"
            " context create')"
        ) from error
    certificates = os.path.join(directory, "contexts", "tls", key, "docker")
    try:
        files = os.listdir(certificates)
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise ValueError(
            f"{certificates} cannot be read ({error.strerror}): correct its mode, or run as the user whose context"
            " it is"
        ) from error
    return Kept(endpoint.get("Host") or "", bool(endpoint.get("SkipTLSVerify")), certificates, frozenset(files))


def endpoint_of(path: str) -> Mapping[str, Any]:
    """Return the docker endpoint of the context in a file."""
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    for key in ("Endpoints", "docker"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise ValueError("it has no endpoint for docker")
    if not isinstance(found.get("Host") or "", str):
        raise ValueError("the host of its endpoint is not a string")
    return found


def names(directory: str) -> list[str]:
    """Return the names of all contexts that can be read."""
    found = [DEFAULT]
    meta = os.path.join(directory, "contexts", "meta")
    for key in os.listdir(meta) if os.path.isdir(meta) else ():
        try:
            with open(os.path.join(meta, key, "meta.json"), encoding="utf-8") as file:
                found.append(str(json.load(file)["Name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # its error matters only to a task that names it
    return sorted(found)


def unknown(name: str, known: Sequence[str], directory: str) -> str:
    near = difflib.get_close_matches(name, known)
    meaning = f" (near: {', '.join(near)})" if near else ""
    return (
        f"there is no context of this name in {directory}{meaning}, only {', '.join(known)}: correct the name, or"
        " create it ('docker context create')"
    )
