# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The location of a docker daemon: a socket of this machine, another machine, or the end of hops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from ansible_collections.nested.kata.plugins.module_utils._docker.context import (
    SOCKET,
    SshHost,
    TlsHost,
    UnixHost,
    host_of,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.hops import NAME
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Exec, Ssh, Tls, Transport, UnixSocket
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import Tunnel


@dataclass(frozen=True)
class Endpoint:
    """A daemon: behind a socket of this machine, on another machine, or at the end of hops that start at this machine's
    own daemon.
    """

    socket: str = SOCKET
    hops: tuple[str, ...] = ()
    by: str = field(default="auto", compare=False)  # the transport that leads through the hops
    remote: SshHost | TlsHost | None = None  # instead of a socket
    context: str = field(default="", compare=False)  # the context that led to it

    @classmethod
    def parse(cls, option: Mapping[str, Any] | None) -> Endpoint:
        """Parse an option {socket | context | hops, transport}. Without any of them it is this machine's own daemon."""
        found = {key: value for key, value in (option or {}).items() if value is not None}
        by = found.pop("transport", "auto")
        if len(found) > 1:
            two = " and ".join(name for name in ("socket", "context", "hops") if name in found)
            why = "hops start at this machine's own daemon" if "hops" in found else "each names a daemon"
            raise ValueError(f"{two} exclude each other: {why}: leave one out")
        for way in ("socket", "context"):
            if by != "auto" and way in found:
                raise ValueError(f"transport {by} and {way} exclude each other: a transport leads through hops")
        if "context" in found:
            name = found["context"]
            host = host_of(name)
            return cls(socket=host.path, context=name) if isinstance(host, UnixHost) else cls(remote=host, context=name)
        hops = tuple(found.get("hops", ()))
        for hop in hops:
            if not NAME.fullmatch(hop):
                raise ValueError(
                    f"{hop!r} in hops is not a valid name of a container (letters, digits, '_', '.' and '-')"
                )
        path = found.get("socket", SOCKET)
        if not path.startswith("/"):
            raise ValueError(f"socket {path!r} is not the absolute path of a unix socket")
        return cls(socket=path, hops=hops, by=by)

    def __str__(self) -> str:
        if self.context:
            return f"context {self.context}"
        return " > ".join(self.hops) if self.hops else self.socket

    def transport(self) -> Transport:
        if self.remote:
            return Ssh(self.remote) if isinstance(self.remote, SshHost) else Tls(self.remote)
        if not self.hops:
            return UnixSocket(self.socket)
        return Exec(self.hops) if self.by == "exec" else Tunnel(self.hops, or_exec=self.by == "auto")
