# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authorities that sign certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path

REQUEST = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
SIGNS = ("-addext", "keyUsage=critical,keyCertSign")


def make_authority(directory: Path) -> None:
    """Write ca.crt and ca.key, in PEM form."""
    subprocess.run(
        [*REQUEST, "-x509", "-subj", "/CN=Own authority", *SIGNS, "-keyout", "ca.key", "-out", "ca.crt"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
