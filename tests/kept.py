# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes long to make and is kept in tests/output, under a name that says what it was made from."""
from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

CACHE = Path(__file__).resolve().parent / "output"


def kept(name: str, recipe: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """Return NAME-RECIPE SUFFIX. Where it is missing it is made, and what other recipes made goes. Whoever else asks waits."""
    CACHE.mkdir(exist_ok=True)
    thing = CACHE / f"{name}-{recipe}{suffix}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not thing.exists():
            for old in CACHE.glob(f"{name}-*"):
                old.unlink()
            unfinished = thing.with_name(f"{thing.name}.part")
            make(unfinished)
            unfinished.rename(thing)
    return thing
