# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kernel_config are parsed, or refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_options import parse
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Assignment


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What open_tree takes for a source tree."""
    for name in ("scripts/kconfig/Makefile", "arch/x86/Kconfig", "arch/arm64/Kconfig"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\nEXTRAVERSION =\n")
    (tmp_path / "net.config").write_text("CONFIG_NET=y\n")
    return tmp_path


def options(tree: Path, **more: Any) -> dict[str, Any]:
    return {
        "tree": str(tree),
        "path": None,
        "arch": "x86_64",
        "base": None,
        "base_target": None,
        "fragments": [str(tree / "net.config")],
        "options": {"IPV6": True},
        "new_symbols": "no",
        "allow_missing": {},
        "on_redefine": "warn",
        "make_vars": {},
        **more,
    }


def test_options_become_what_is_wanted_with_the_content_of_the_files(tree: Path) -> None:
    wanted = parse(options(tree))
    assert (wanted.tree.version, wanted.path, wanted.base, wanted.requested) == ("6.12.1", str(tree / ".config"), [], 2)
    assert wanted.layers == [
        [Assignment("NET", "y", f"{tree}/net.config:1")],
        [Assignment("IPV6", "y", "options.IPV6")],
    ]


BAD = {
    "no reason": ({"allow_missing": {"NET": " "}}, "allow_missing: NET has no reason"),
    "a target that asks a person": (
        {"base_target": "menuconfig"},
        "base_target: menuconfig is not a target that makes a configuration by itself",
    ),
    "a target that is none": ({"base_target": "vmlinux"}, "base_target: vmlinux is not a target"),
    "no directory": ({"path": "/none/at/all"}, "path: there is no directory /none/at"),
    "a directory": ({"path": "/"}, "path: / is a directory"),
    "no fragment": ({"fragments": ["/none.config"]}, "fragments: /none.config: No such file or directory"),
    "no base": ({"base": "/none.config"}, "base: /none.config: No such file or directory"),
    "no architecture": (
        {"arch": "pdp11"},
        "arch: this tree has no architecture pdp11; it has arm64, i386, x86, x86_64",
    ),
    "no symbol": ({"options": {"A B": True}}, "options: 'A B' is not a valid symbol name"),
    "arch among the variables": (
        {"make_vars": {"ARCH": "x86"}},
        "make_vars: ARCH cannot be set here; use the option arch",
    ),
    "another directory among the variables": (
        {"make_vars": {"KBUILD_OUTPUT": "/build"}},
        "make_vars: KBUILD_OUTPUT cannot be set here; use the option path of kernel_config",
    ),
    "a file without end": ({"base": "/dev/zero"}, "base: /dev/zero has more than 16 MiB, and is not a configuration"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_that_cannot_be_meant_are_refused(case: str, tree: Path) -> None:
    more, message = BAD[case]
    with pytest.raises(Refused) as refused:
        parse(options(tree, **more))
    assert str(refused.value).startswith(message)


def test_a_fragment_that_is_no_text_is_refused(tree: Path) -> None:
    (tree / "net.config").write_bytes(b"\xff")
    with pytest.raises(Refused, match=f"^fragments: {tree}/net.config is not text in UTF-8$"):
        parse(options(tree))


COMPRESSED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_configuration_is_read_as_that_of_the_running_kernel_is(tree: Path, kind: str) -> None:
    (tree / "config").write_bytes(COMPRESSED[kind](b"# a kernel's\nCONFIG_NET=y\n"))
    wanted = parse(options(tree, base=str(tree / "config"), fragments=[str(tree / "config")]))
    assert wanted.base == wanted.layers[0] == [Assignment("NET", "y", f"{tree}/config:2")]


DAMAGED = {
    "cut": (gzip.compress(b"CONFIG_NET=y\n")[:-4], "it cannot be uncompressed: Compressed file ended before"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "is compressed with zstd: uncompress it first"),
    "large": (gzip.compress(b"#" * (17 << 20)), "has more than 16 MiB, and is not a configuration"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_compressed_configuration_that_cannot_be_read_is_refused(tree: Path, case: str) -> None:
    content, message = DAMAGED[case]
    (tree / "config").write_bytes(content)
    with pytest.raises(Refused) as refused:
        parse(options(tree, base=str(tree / "config")))
    assert str(refused.value).replace(": it", " it").startswith(f"base: {tree}/config {message}")


@pytest.mark.parametrize("text", ["CONFIG_NET=y\n", "# a fragment\nCONFIG_NET=y\n"])
def test_a_byte_order_mark_is_skipped(tree: Path, text: str) -> None:
    (tree / "net.config").write_text(f"\ufeff{text}")
    (assignment,) = parse(options(tree)).layers[0]
    assert (assignment.symbol, assignment.value) == ("NET", "y")
