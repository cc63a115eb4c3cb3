# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_environment
short_description: Return the environment by which a machine reaches the web through proxy servers
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns the variables C(http_proxy), C(https_proxy) and C(no_proxy), in both spellings, for the keyword
    C(environment) of a task. Without a proxy server it returns an empty dictionary. A variable of the machine that is
    overridden with nothing is returned empty.
  - The roles of this collection use it for packages, downloads and builds.
extends_documentation_fragment: nested.kata.proxies
options:
  containers:
    description:
      - Return what containers on the machine can use. A proxy server on an address of the loopback is left out with a
        warning, since in a container it would mean the container.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Download a file through the proxy server
  ansible.builtin.get_url:
    url: https://download.example.org/file
    dest: /tmp/file
    mode: "0644"
  environment: "{{ lookup('nested.kata.proxy_environment') }}"
"""

RETURN = r"""
_raw:
  description: The variables.
  type: list
  elements: dict
"""

from ansible_collections.nested.kata.plugins.plugin_utils.web_lookup import WebLookup


class LookupModule(WebLookup):
    """The lookup of this file."""

    def answer(self) -> dict[str, str]:
        """Return the variables."""
        return self.proxies(containers=self.get_option("containers")).environment()
