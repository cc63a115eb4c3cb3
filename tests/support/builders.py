# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What builders of images write."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from collections.abc import Callable


def by_command(*command: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(command, input=data, capture_output=True, check=True).stdout


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": by_command("zstd", "-q", "-c"),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
