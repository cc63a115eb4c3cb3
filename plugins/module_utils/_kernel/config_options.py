# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kernel_config, parsed and checked, with the files that they name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.compression import (
    HEAD,
    MAGIC,
    READ_BY,
    compression_of,
    uncompressed,
)
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import Unexpected, joined
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import (
    Assignment,
    from_options,
)
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import (
    parse as parse_assignments,
)
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Tree, open_tree

LARGEST = 16 << 20  # bytes of a configuration: that of a distribution has a third of one
INTERACTIVE = ("config", "oldconfig", "menuconfig", "nconfig", "xconfig", "gconfig")


@dataclass(frozen=True)
class Wanted:
    """The options of the task, read and checked."""

    tree: Tree
    path: str
    base: Sequence[Assignment]
    base_target: str | None
    layers: Sequence[Sequence[Assignment]]
    new_symbols: str
    allowed: Mapping[str, str]
    on_redefine: str

    @property
    def requested(self) -> int:
        """Number of requested symbols."""
        return len({each.symbol for layer in self.layers for each in layer})


def parse(options: Mapping[str, Any]) -> Wanted:
    """Return the module's options, or raise Refused. Reads the files that they name."""
    tree = open_tree(options["tree"], options["arch"], options["make_vars"])
    for pattern, why in options["allow_missing"].items():
        if not isinstance(why, str) or not why.strip():
            raise Refused(f"allow_missing: {pattern} has no reason: state briefly why it may be missing")
    target = options["base_target"]
    if target and (not re.fullmatch(r"[A-Za-z0-9_.-]*config", target) or target in INTERACTIVE):
        raise Refused(f"base_target: {target} is not a target that makes a configuration by itself, such as defconfig")
    path = os.path.realpath(options["path"] or os.path.join(tree.path, ".config"))
    if not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"path: there is no directory {os.path.dirname(path)}")
    if os.path.isdir(path):
        raise Refused(f"path: {path} is a directory")
    return Wanted(
        tree,
        path,
        _read(options["base"], "base") if options["base"] else [],
        target,
        [*(_read(fragment, "fragments") for fragment in options["fragments"]), from_options(options["options"])],
        options["new_symbols"],
        options["allow_missing"],
        options["on_redefine"],
    )


def _read(path: str, option: str) -> Sequence[Assignment]:
    try:
        with open(path, "rb") as file:
            kind = compression_of(file.peek(HEAD), MAGIC)
            if kind and kind not in READ_BY:
                raise Refused(f"{option}: {path} is compressed with {kind}: uncompress it first")
            text = joined(uncompressed(file, kind), LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{option}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{option}: {path} is not text in UTF-8") from error
    except Unexpected as error:
        raise Refused(f"{option}: {path} has more than {LARGEST >> 20} MiB, and is not a configuration") from error
    except Damaged as error:
        raise Refused(f"{option}: {path}: {error}") from error
    return parse_assignments(text, path)
