# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes long to make and is kept in tests/output, under a name that says what it was made from; and the lock of
whatever is made once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / "output"
# Held by whoever builds or removes machine images with this machine's Docker: a removal ends the builds that it finds.
# test.sh knows it too.
MACHINE_IMAGE = CACHE / "machine-image.lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a path, a directory or a file that is made for it. Whoever else asks for it waits, in every
    process of this machine.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    # Programs that are started meanwhile do not get the descriptor, and so they hold no lock when the test is killed.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def kept(name: str, recipe: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """Return NAME-RECIPE SUFFIX. Where it is missing it is made, and what other recipes made goes. Whoever else asks
    waits.
    """
    thing = CACHE / f"{name}-{recipe}{suffix}"
    with locked(CACHE / f"{name}.lock"):
        if not thing.exists():
            for old in CACHE.glob(f"{name}-*"):
                old.unlink()
            unfinished = thing.with_name(f"{thing.name}.part")
            make(unfinished)
            unfinished.rename(thing)
    return thing
