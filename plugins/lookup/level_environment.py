# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: level_environment
short_description: Return the environment of a container with a Docker of its own
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Returns what a container made from the machine image takes from its environment to reach the web, for its programs,
    its Docker, and the containers and builds there. Without a proxy server, certificates and mirrors it returns an
    empty dictionary.
  - A proxy server on an address of the loopback is left out with a warning, since in a container it would mean the
    container.
  - The roles C(kata_proxy) and C(kata_instance) use it. What is not set for a target that is such a container itself is
    taken from there, so that one setting for the Kata host reaches every level.
extends_documentation_fragment: nested.kata.proxies
options:
  ca_certificates:
    description:
      - Files on the control node with certificates, in PEM form, of authorities that every level trusts beside those of
        its distribution.
    type: list
    elements: path
    vars:
      - name: nested_kata_ca_certificates
  registry_mirrors:
    description: URLs of mirrors of Docker Hub, for the Docker of every level.
    type: list
    elements: str
    vars:
      - name: nested_kata_registry_mirrors
  direct:
    description: Ranges of addresses that are reached without a proxy server too.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what an instance is given
  ansible.builtin.debug:
    msg: "{{ lookup('nested.kata.level_environment', direct=['10.213.192.0/18']) }}"
"""

RETURN = r"""
_raw:
  description: The variables.
  type: list
  elements: dict
"""

from ansible_collections.nested.kata.plugins.plugin_utils.web import CERTIFICATES, MIRRORS
from ansible_collections.nested.kata.plugins.plugin_utils.web_lookup import WebLookup


class LookupModule(WebLookup):
    """The lookup of this file."""

    def answer(self) -> dict[str, str]:
        """Return the variables."""
        found = self.proxies(containers=True, direct=self.get_option("direct")).environment()
        more = {CERTIFICATES: self.certificates(), MIRRORS: " ".join(self.mirrors())}
        return {name: value for name, value in (found | more).items() if value}
