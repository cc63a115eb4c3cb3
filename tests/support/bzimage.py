# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel says of itself in its file (Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import struct


def release_of(bzimage: bytes) -> str:
    """Return what `uname -r` would say: the first word of the version that the header points to."""
    assert bzimage[0x202:0x206] == b"HdrS", "the kernel is no bzImage"
    where = 0x200 + struct.unpack_from("<H", bzimage, 0x20E)[0]
    return bzimage[where : bzimage.index(b"\0", where)].decode().split()[0]
