# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unix socket that listens where dockerd would, in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class UnixServer:
    """Counts the connections, and attends to each in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def attend(self, connection: socket.socket) -> None:
        """Send back what comes."""
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)

    def close(self) -> None:
        # To close it alone leaves the thread in accept, which may go on with the next socket that gets this
        # descriptor's number.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self.attend(connection)
