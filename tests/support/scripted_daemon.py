# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that answers by a script, also what no daemon would say."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from unix_server import UnixServer


def answer(body: bytes | dict | list, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]).encode() + data


class ScriptedDaemon(UnixServer):
    """Answers each path by a function of the connection; what it was asked and what bodies came is kept."""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, bytes | Callable[[socket.socket, object], None]] = {
            "/version": answer({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
        }
        super().__init__(path)

    def attend(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while True:
                line = stream.readline().decode()
                if not line:
                    return
                path = line.split()[1].partition("?")[0]
                while stream.readline() not in (b"\r\n", b""):
                    pass
                self.asked.append(path)
                unknown = answer({"message": f"no script for {path}"}, "500 Oops")
                scripted = next((found for name, found in self.answers.items() if path.endswith(name)), unknown)
                if callable(scripted):
                    if scripted(connection, stream) == "hang up":
                        return
                else:
                    connection.sendall(scripted)

    def read_body(self, stream) -> bool:
        """Read a chunked body; return whether it came to its end."""
        body = b""
        while True:
            size = int(stream.readline() or b"-1", 16)
            if size == 0:
                stream.readline()
            if size <= 0:
                self.bodies.append(body)
                return size == 0
            body += stream.read(size)
            stream.readline()


# What a hostile daemon sends in place of an answer


def endless(head: bytes, piece: bytes, pause: float = 0) -> Callable[[socket.socket, BinaryIO], None]:
    """Send a head, and then a piece again and again, until nobody listens any more."""

    def send(connection: socket.socket, _stream: BinaryIO) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return send


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MUCH = bytes(1 << 16)
HOSTILE: dict[str, bytes | Callable[[socket.socket, BinaryIO], None]] = {
    "a list": answer([]),
    "null": answer(b"null"),
    "a text": answer(b'"1.41"'),
    "other types": answer({"ApiVersion": ["1.41"], "Id": 7, "RootFS": [], "Config": "x"}),
    "layers that are numbers": answer({"ApiVersion": {}, "Id": "x", "RootFS": {"Layers": [1]}}),
    "a path": answer({"ApiVersion": "../../etc", "Id": "x", "RootFS": {"Layers": {"a": "b"}}}),
    "many levels": answer(b"[" * 100_000 + b"]" * 100_000),
    "some levels": answer(b'{"a":' * 200 + b"1" + b"}" * 200),
    "many values": answer(b"[" + b"[]," * (1 << 20) + b"0]"),
    "a long number": answer(b'{"ApiVersion": ' + b"9" * 1_000_000 + b"}"),
    "no JSON": answer(b"\xff\xfe"),
    "an error that is a list": answer([], "404 Not Found"),
    "an error of other types": answer({"message": {"a": ["b"]}}, "404 Not Found"),
    "an error without end": endless(b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * (1 << 16)),
    "a redirection": answer(b"", "302 Found", "Location: http://127.0.0.1:1/secret"),
    "a redirection without end": endless(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", MUCH),
    "a body without end": endless(OK + b"\r\n", b" " * (1 << 16)),
    "chunks without end": endless(CHUNKED, b"10000\r\n" + b" " * (1 << 16) + b"\r\n"),
    "a chunk of a negative size": endless(CHUNKED + b"-1\r\n", MUCH),
    "a chunk of a large size": endless(CHUNKED + b"ffffffffffff\r\n", MUCH),
    "the size of a chunk without end": endless(CHUNKED, b"0" * (1 << 16)),
    "the end of chunks without end": endless(CHUNKED + b"0\r\n", b"x" * (1 << 16)),
    "a length that is too large": endless(OK + b"Content-Length: 999999999999999\r\n\r\n", MUCH),
    "a negative length": endless(OK + b"Content-Length: -1\r\n\r\n", MUCH),
    "a header without end": endless(OK + b"X: ", b"x" * (1 << 16)),
    "headers without end": endless(OK, b"X: x\r\n" * 10_000),
    "to be continued": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a gigabyte in a megabyte": answer(
        gzip.compress(bytes(1 << 28), 9) * 4, "200 OK", "Content-Encoding: gzip", "Content-Type: application/json"
    ),
    "a byte now and then": endless(OK + b"Content-Length: 1000\r\n\r\n", b" ", 0.05),
    "a header now and then": endless(b"", b"H", 0.05),
}
