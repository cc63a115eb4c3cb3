# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers in the store of a daemon with a classic graph driver, read as `docker save` reads them, but only those that
are needed.

`docker save` writes every layer of an image to a temporary directory before it sends the first byte. Here they are read
from the files of the graph driver (layer_files.py): by this process on this machine, and at the end of hops by the
Python there, which gets the same program. What it answers is taken for nothing but bytes: every layer is compared with
its digest on the way. Where the store differs from what is expected, or there is no Python, the layers are read by
`docker save`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from typing import Any, BinaryIO, Collection, Iterator, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged
from ansible_collections.nested.kata.plugins.module_utils._common.files import PIECE
from ansible_collections.nested.kata.plugins.module_utils._common.pace import Paced, slowest
from ansible_collections.nested.kata.plugins.module_utils._common.pieces import Pieces
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Broken, Exec
from ansible_collections.nested.kata.plugins.module_utils._image import layer_files
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image
from ansible_collections.nested.kata.plugins.module_utils._image.layers import (
    Blob,
    Manifest,
    Part,
    chain_ids,
    sha256,
    verified,
)

PYTHON = ("python3", "-IS", "-c")  # isolated and without site-packages, which starts it faster
DIGEST = re.compile("sha256:([0-9a-f]{64})")
SIZES = re.compile(rb"[0-9]{1,15}( [0-9]{1,15})*\n")
LONGEST_SIZES = 1 << 14  # bytes of the line of sizes: an image has at most some hundred layers


class Unreadable(Exception):
    """The layers cannot be read from the store."""


class Store:
    """The store of a daemon with a classic graph driver. `quiet`: seconds without a byte after which a program at the
    end of hops is ended.
    """

    def __init__(self, info: Mapping[str, Any], hops: Sequence[str], quiet: float) -> None:
        self._root, self._driver, self._quiet = str(info["DockerRootDir"]), str(info["Driver"]), quiet
        if self._driver not in layer_files.FILES:
            raise Unreadable(f"it keeps layers in {shown(self._driver, 40)}")
        self._hops = tuple(hops)

    def parts(self, image: Image, wanted: Collection[str]) -> Iterator[Part]:
        """Yield the wanted layers, base first, and the manifest of all layers."""
        chains = {layer: chain for layer, chain in zip(image.layers, chain_ids(image.layers)) if layer in wanted}
        names = [DIGEST.fullmatch(digest) for digest in (image.id, *chains.values())]
        if None in names:
            raise Unreadable("its image has an id or a layer that is not named by a digest")
        arguments = (self._root, self._driver, *(name[1] for name in names if name))
        with self._answers(arguments) as answers:
            line = answers.readline(LONGEST_SIZES)
            if not SIZES.fullmatch(line):
                raise EOFError("there is no python3 that reads them")
            size, *sizes = map(int, line.split())
            if len(sizes) != len(chains) or size > layer_files.LARGEST_CONFIG:
                raise EOFError("they are not those that were asked for")
            config = b"".join(bytes_of(answers, size))
            if sha256(config) != image.id:
                raise Damaged("the configuration is of another image")
            yield from verified(layers_of(answers, dict(zip(chains, sizes))))
            yield Manifest(config, image.layers)

    @contextlib.contextmanager
    def _answers(self, arguments: Sequence[str]) -> Iterator[BinaryIO]:
        """Yield what the program answers."""
        try:
            with self._here(arguments) if not self._hops else self._there(arguments) as answers:
                yield answers
        except (Damaged, *layer_files.FAULTS) as error:
            raise Unreadable(f"its files cannot be read ({error})") from error

    @staticmethod
    @contextlib.contextmanager
    def _here(arguments: Sequence[str]) -> Iterator[BinaryIO]:
        with contextlib.closing(layer_files.answer(*arguments)) as pieces:
            yield io.BufferedReader(Pieces(pieces), PIECE)

    @contextlib.contextmanager
    def _there(self, arguments: Sequence[str]) -> Iterator[BinaryIO]:
        program = inspect.getsource(layer_files)
        try:
            child = Exec(self._hops).start(len(self._hops), [*PYTHON, program, *arguments])
        except Broken as error:
            raise EOFError(str(error)) from error
        try:
            child.stream.settimeout(self._quiet)
            raw = Paced(child.stream.makefile("rb", buffering=0), slowest(self._quiet))
            with io.BufferedReader(raw, PIECE) as answers:
                yield answers
        except (OSError, EOFError) as error:
            child.end()  # only then its last words are complete
            raise EOFError(child.last_words() or error) from error
        finally:
            child.end()


def layers_of(answers: BinaryIO, sizes: Mapping[str, int]) -> Iterator[Part]:
    for layer, size in sizes.items():
        yield Blob(layer, size)
        yield from bytes_of(answers, size)


def bytes_of(answers: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = answers.read(min(PIECE, size))
        if not piece:
            raise EOFError("they end too early")
        size -= len(piece)
        yield piece
