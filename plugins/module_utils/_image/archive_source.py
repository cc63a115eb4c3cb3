# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive file as a source of images: which of its images a task means, and their layers."""

from __future__ import annotations

import contextlib
from typing import Callable, Collection, Generator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Taken
from ansible_collections.nested.kata.plugins.module_utils._image.archive_file import listed, opened
from ansible_collections.nested.kata.plugins.module_utils._image.archive_reader import Layer, measured, unpacked
from ansible_collections.nested.kata.plugins.module_utils._image.contents import Packed
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import DaemonError
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Manifest, Part, verified
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import best
from ansible_collections.nested.kata.plugins.module_utils._image.reference import HANDFUL, absent, enumerated


class ArchiveSource:
    """An archive file as a source."""

    taken: Taken | None = None

    def __init__(self, path: str, platform: str) -> None:
        self._path = path
        self._platform = platform
        self.title = f"source {path}"
        self.read_from = "read from the archive"
        try:
            self._contents = listed(path)
        except OSError as error:
            raise Refused(f"source: archive {path} cannot be read: {error.strerror}") from error
        except Damaged as error:
            raise Refused(f"source: archive {path} cannot be used: {error}") from error
        self._chosen: dict[str, Packed] = {}  # by reference
        self._how: dict[str, str] = {}  # by reference, what is to be said of the choice
        self._sizes: dict[int, int] = {}  # of layers that are compressed, by the number of their member

    def image(self, reference: str, own: Callable[[], str]) -> Image | None:
        found, self._how[reference] = self._contents.called(reference)
        if not found:
            return None
        self._chosen[reference] = self._choice(reference, found, own)
        return self._chosen[reference].image

    def _choice(self, reference: str, found: Sequence[Packed], own: Callable[[], str]) -> Packed:
        """Return the image for the platform that the task names, or else for that of the destinations."""
        whole = [packed for packed in found if not packed.lacks] or found
        if len(whole) == 1 and not self._platform:
            return whole[0]
        wanted = self._platform or own()
        fitting = best([packed.image.platform for packed in found], wanted) if wanted else []
        chosen = [found[number] for number in fitting]
        chosen = [packed for packed in chosen if not packed.lacks] or chosen
        if len(chosen) == 1:
            return chosen[0]
        left = chosen or found
        platforms = dict.fromkeys(packed.image.platform or "no platform" for packed in left)
        has = f"{self.title} has {reference} for {enumerated(platforms)}"
        if len(platforms) == 1 and len(left) > 1:
            ids = enumerated(packed.image.id for packed in left)
            raise Refused(
                f"images: {has} {len(left)} times: name one by its id ({ids}), and in tags the name that it gets:"
                " nothing was sent"
            )
        if self._platform and not chosen:
            raise Refused(f"platform: {has}, not for {self._platform}: nothing was sent")
        where = f", and the destination runs {wanted}" if wanted and not self._platform else ""
        raise Refused(f"platform: {has}{where}: name one of them: nothing was sent")

    def absence(self, reference: str) -> str:
        there = self._contents.images
        passed_over = [one for one in self._contents.passed_over if reference in one.label.names or not there]
        if passed_over:
            return f"no image {reference} ({'; '.join(map(str, passed_over[:HANDFUL]))})"
        names = sorted({name for packed in there for name in packed.label.names})
        nameless = [
            " ".join((packed.image.id, *(f"(tag {tag})" for tag in packed.label.tags)))
            for packed in there
            if not packed.label.names
        ]
        return absent(reference, names, nameless)

    def lacking(self, reference: str) -> Mapping[str, str]:
        return self._chosen[reference].lacks

    @property
    def passed_over(self) -> Sequence[str]:
        return [
            *map(str, self._contents.passed_over),
            *(
                shown(f"{packed.label}: {why}")
                for packed in self._contents.images
                for why in list(packed.lacks.values())[:1]
                if packed not in self._chosen.values()
            ),
        ]

    def by_content(self) -> bool:
        return False

    def forgo(self, why: Unreadable) -> bool:
        return False

    def parts(self, reference: str, image: Image, wanted: Collection[str]) -> Generator[Part, None, None]:
        packed = self._chosen[reference]
        self.read_from = ", ".join(filter(None, ("read from the archive", self._how[reference])))
        try:
            layers = packed.needed(wanted)
            unknown = {number for number, layer in layers.items() if layer.kind} - set(self._sizes)
            if unknown:
                self._measure({number: layers[number] for number in unknown})
            with contextlib.ExitStack() as stack:
                archive = stack.enter_context(opened(self._path))
                yield from verified(unpacked(archive, layers, self._sizes))
            yield Manifest(packed.config, packed.image.layers)
        except OSError as error:
            raise DaemonError(f"{self.title}: reading {reference}: {error.strerror}") from error
        except Damaged as error:
            raise DaemonError(f"{self.title}: reading {reference}: {error}") from error

    def _measure(self, layers: Mapping[int, Layer]) -> None:
        with opened(self._path) as archive:
            self._sizes.update(measured(archive, layers))

    def close(self) -> None:
        """Nothing is open between two images."""
