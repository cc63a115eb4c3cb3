# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands and headers that the build of a configuration needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import PACKAGE


@dataclass(frozen=True)
class Need:
    """A command, or a header for the build's own programs, and Debian's package with it."""

    name: str
    package: str
    header: bool = False


ALWAYS = (Need("make", "make"), Need("flex", "flex"), Need("bison", "bison"), Need("bc", "bc"))


LIBELF = Need("gelf.h", "libelf-dev", header=True)


OPENSSL = Need("openssl/opensslv.h", "libssl-dev", header=True)


# Needs of some symbols when they are y (or m).
NEEDED_BY = {
    "OBJTOOL": LIBELF,
    "STACK_VALIDATION": LIBELF,
    "SYSTEM_TRUSTED_KEYRING": OPENSSL,
    "MODULE_SIG_FORMAT": OPENSSL,
    "SYSTEM_EXTRA_CERTIFICATE": OPENSSL,
    "DEBUG_INFO_BTF": Need("pahole", "pahole"),
    "KERNEL_GZIP": Need("gzip", "gzip"),
    "IKCONFIG": Need("gzip", "gzip"),
    "KERNEL_BZIP2": Need("bzip2", "bzip2"),
    "KERNEL_XZ": Need("xz", "xz-utils"),
    "KERNEL_LZMA": Need("lzma", "xz-utils"),
    "KERNEL_LZO": Need("lzop", "lzop"),
    "KERNEL_LZ4": Need("lz4", "lz4"),
    "KERNEL_ZSTD": Need("zstd", "zstd"),
    "IKHEADERS": Need("cpio", "cpio"),
    "OID_REGISTRY": Need("perl", "perl"),
    "CRYPTO_POLY1305_X86_64": Need("perl", "perl"),
}


def needs(config: str, commands: Iterable[str]) -> tuple[Need, ...]:
    """Return all that the build of a configuration needs of the machine, with the commands of the toolchain."""
    on = set(re.findall(r"^CONFIG_([A-Za-z0-9_]+)=[ym]$", config, re.MULTILINE))
    toolchain = (Need(command, PACKAGE.get(command, command)) for command in commands)
    return tuple(dict.fromkeys([*ALWAYS, *toolchain, *(need for symbol, need in NEEDED_BY.items() if symbol in on)]))


def lacking(missing: Iterable[Need]) -> str:
    """Return a sentence about all that is missing."""
    missing = list(missing)
    packages = " ".join(dict.fromkeys(need.package for need in missing))
    return (
        f"the build needs {', '.join(need.name for need in missing)}, which this machine lacks: install {packages}"
        " (Debian's names)"
    )
