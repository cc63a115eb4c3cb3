# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive file that images are copied to."""

from __future__ import annotations

import os
import time
from typing import Collection, Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Taken
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import Unwritable, Writing, listed
from ansible_collections.nested.kata.plugins.module_utils._image.archive_writer import Packing
from ansible_collections.nested.kata.plugins.module_utils._image.contents import Packed
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import DaemonError
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Part
from ansible_collections.nested.kata.plugins.module_utils._image.plan import Action, Sent, Step


class ArchiveDestination:
    """An archive file as a destination: it holds the images of the task, and no others."""

    taken: Taken | None = None
    whole = True

    def __init__(self, path: str, names: Collection[str]) -> None:
        self.title = f"destination {path}"
        self.status = ""
        if not os.path.isdir(os.path.dirname(path)):
            raise Refused(f"{self.title}: there is no directory {os.path.dirname(path)}: make it, or correct the path")
        self._packing, self._writing = Packing(), Writing(path)
        self._images: dict[str, Image] = {}
        if os.path.lexists(path):
            self._images = self._found(path, names)
        self._started = False

    def _found(self, path: str, names: Collection[str]) -> dict[str, Image]:
        if os.path.islink(path) or not os.path.isfile(path):
            raise Refused(f"{self.title}: it is not a regular file: choose another path")
        try:
            contents = listed(path)
        except (OSError, Damaged) as error:
            raise Refused(
                f"{self.title}: the file there cannot be read as an archive of images ({error}): move it away, or"
                " choose another path"
            ) from error
        found: dict[str, Packed] = {}
        strangers = [str(passed_over) for passed_over in contents.passed_over]
        for packed in contents.images:
            for name in packed.label.names or (packed.image.id,):
                if name not in names or name in found:
                    strangers.append(f"{name} for {packed.image.platform}" if name in found else name)
                found[name] = packed
        if strangers:
            raise Refused(
                f"{self.title}: it also holds {', '.join(sorted(strangers)[:5])}, which would be lost: name that in the"
                " task, or choose another path"
            )
        return {name: packed.image for name, packed in found.items() if not packed.lacks}

    def platform(self) -> str:
        return ""

    def image(self, name: str) -> Image | None:
        return self._images.get(name)

    def tags(self) -> list[str]:
        return []

    def by_content(self) -> bool:
        return True  # the id of an image in a file is the digest of its configuration, whatever it is at the source

    def look_for_layers(self) -> None:
        """An archive must hold all layers."""

    def leave_out(self, image: Image) -> tuple[set[str], str]:
        return set(), "all layers, since an archive must hold them"

    def settle(self, step: Step) -> Sent | None:
        return Sent(step.id_there) if step.action is Action.KEEP else None

    def send(self, step: Step, parts: Iterator[Part], leave_out: Collection[str]) -> Sent:
        start, size, layers = time.monotonic(), self._writing.size, self._packing.layers
        try:
            if not self._started:
                self._writing.start()
                self._started = True
            self._write(self._packing.image(parts, step.names))
        except Unwritable as error:
            raise DaemonError(f"{self.title}: writing {step.reference}: {error}") from error
        return Sent(
            self._packing.ids[-1], self._writing.size - size, self._packing.layers - layers, time.monotonic() - start
        )

    def finish(self) -> None:
        """Replace the file by the archive."""
        if self._started:
            try:
                self._write(self._packing.end(oci=True))
                self._writing.finish()
            except Unwritable as error:
                raise DaemonError(f"{self.title}: {error}") from error

    def _write(self, pieces: Iterator[bytes]) -> None:
        """Write all of the pieces, or nothing."""
        self._writing.begin()
        try:
            for piece in pieces:
                self._writing.write(piece)
            self._writing.complete()
        except BaseException:
            self._writing.take_back()
            raise

    def prune(self, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """Yield nothing: what the archive held is replaced as a whole."""
        return iter(())

    def close(self) -> None:
        self._writing.give_up()
