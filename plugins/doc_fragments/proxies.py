# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What the lookups about the way to the web share."""

    DOCUMENTATION = r"""
options:
  _terms:
    description: None.
  http_proxy:
    description:
      - URL of the proxy server for C(http), which begins with C(http://) or C(https://). An empty string means none.
      - The default is that of the environment of the machine, as its facts have it. A value that is not a URL is left
        out with a warning.
      - A user name and a password in it are known to every level and every tenant that it is handed to.
    type: str
    vars:
      - name: nested_kata_http_proxy
  https_proxy:
    description: The same for C(https).
    type: str
    vars:
      - name: nested_kata_https_proxy
  no_proxy:
    description:
      - Hosts, domains and ranges that are reached without a proxy server, with commas between them, or a list. The
        machine itself is always one of them.
      - The default is that of the environment of the machine.
    type: raw
    vars:
      - name: nested_kata_no_proxy
  machine:
    description: The environment of the machine. The default is that of the current host, from its facts.
    type: dict
"""
