# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build needs what its configuration asks for."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.needs import lacking, needs

NEEDED = {
    "": ["make", "flex", "bison", "bc", "gcc"],
    "CONFIG_OBJTOOL=y\nCONFIG_IKCONFIG=y\n": ["gelf.h", "gzip"],
    "CONFIG_SYSTEM_TRUSTED_KEYRING=y\nCONFIG_KERNEL_ZSTD=y\n": ["openssl/opensslv.h", "zstd"],
    "CONFIG_DEBUG_INFO_BTF=y\n": ["pahole"],
    '# CONFIG_DEBUG_INFO_BTF is not set\nCONFIG_X="CONFIG_OBJTOOL=y"\n': [],
}


@pytest.mark.parametrize("config", NEEDED)
def test_a_build_needs_what_its_configuration_asks_for(config: str) -> None:
    names = [need.name for need in needs(config, ["gcc"])]
    assert [name for name in names if name in NEEDED[config] or name not in NEEDED[""]] == NEEDED[config]


def test_all_that_is_missing_is_named_at_once_with_its_package() -> None:
    missing = [need for need in needs("CONFIG_OBJTOOL=y\n", ["gcc", "ld"]) if need.name in ("bc", "gelf.h", "ld")]
    assert (
        lacking(missing)
        == "the build needs bc, ld, gelf.h, which this machine lacks: install bc binutils libelf-dev (Debian's names)"
    )
