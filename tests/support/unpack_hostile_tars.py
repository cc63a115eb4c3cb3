# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack every hostile archive, and print those that are not refused in the words that refuse them: a program for any
Python, with nothing but the collection and hostile_tars.py beside it, since each release reads such archives otherwise.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._kata.members import Judge
from ansible_collections.nested.kata.plugins.module_utils._kata.unpack import unpack
from hostile_tars import GOOD, HEADERS, MEMBERS, tar


def outcome(archive: bytes) -> str:
    """Return why an archive is refused, or what came of it."""
    judge = Judge()
    with tempfile.TemporaryDirectory() as directory:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            unpack(io.BytesIO(archive), judge, root)
        except (Damaged, Refused) as error:
            return str(error)
        finally:
            os.close(root)
    return f"{judge.files} files were unpacked" if judge.files else "there are no files in it"


def main() -> None:
    """Print the number of archives, and each that was not refused as it should be."""
    archives = {case: (make(), words) for case, (make, words) in HEADERS.items()}
    archives.update({case: (tar(*GOOD, *entries), words) for case, (entries, words) in MEMBERS.items()})
    for case, (archive, words) in archives.items():
        found = outcome(archive)
        if words not in found:
            print(f"{case}: {found}, and not: {words}")
    print(f"{len(archives)} archives on Python {sys.version_info.major}.{sys.version_info.minor}")


if __name__ == "__main__":
    main()
