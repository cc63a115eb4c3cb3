# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds in every profile: systemd is up, the kernel has no modules, and says how it is configured."""

from __future__ import annotations

import gzip
import platform
import re
from pathlib import Path

from .moby import ABSENT, CHECKED
from .proof import attempt, expect, named, run

CONFIG = Path("/proc/config.gz")


def systemd_says_running() -> str:
    status, state = attempt("systemctl is-system-running --wait", 300)
    expect(
        status == 0 and state == "running",
        f"{state}: {attempt('systemctl --failed --plain --no-legend; systemctl list-jobs --no-legend')[1]}",
    )
    return f"{state}, {run('systemctl --version').splitlines()[0]}"


def the_kernel_has_no_modules() -> str:
    loaded = Path("/proc/modules").read_text().split("\n") if Path("/proc/modules").exists() else None
    expect(not loaded or loaded == [""], f"loaded: {loaded}")
    return "loadable, none loaded" if loaded else "not loadable"


def the_kernel_tells_its_configuration() -> str:
    symbols = configuration()
    expect(len(symbols) > 300, f"{CONFIG} has {len(symbols)} symbols")
    first = gzip.decompress(CONFIG.read_bytes()).decode().splitlines()[2]
    expect(platform.release().split("-", maxsplit=1)[0] in first, f"{first}, but uname says {platform.release()}")
    return f"{len(symbols)} symbols are set"


def all_that_moby_calls_generally_necessary_is_there() -> str:
    return configured(CHECKED["generally necessary"])


def all_that_moby_calls_optional_is_there_or_absent_by_decision() -> str:
    return configured(
        tuple(symbol for heading in CHECKED if heading != "generally necessary" for symbol in CHECKED[heading])
    )


def configuration() -> dict[str, str]:
    """Return what this kernel says of itself: symbols without CONFIG_, and their values."""
    expect(CONFIG.exists(), f"there is no {CONFIG}: IKCONFIG_PROC is off")
    return dict(re.findall(r"^CONFIG_(\w+)=(.+)$", gzip.decompress(CONFIG.read_bytes()).decode(), re.MULTILINE))


def configured(wanted: tuple[str, ...]) -> str:
    symbols = configuration()
    missing = [symbol for symbol in wanted if symbols.get(symbol) not in ("y", "m")]
    expect(not set(missing) - set(ABSENT), f"missing: {' '.join(symbol for symbol in missing if symbol not in ABSENT)}")
    return "; ".join(
        [f"{len(wanted) - len(missing)} of {len(wanted)}", *(f"{symbol} {ABSENT[symbol]}" for symbol in missing)]
    )


BOOTED = named(systemd_says_running)
CONFIGURED = named(
    the_kernel_has_no_modules,
    the_kernel_tells_its_configuration,
    all_that_moby_calls_generally_necessary_is_there,
    all_that_moby_calls_optional_is_there_or_absent_by_decision,
)
