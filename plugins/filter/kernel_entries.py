# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kernel_entries
short_description: Fill in the defaults of the entries of guest_kernel_list
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Merges each entry into the defaults, and resolves its profile, fragments, patches and base configuration to files on
    the control node.
  - A fragment named by letters, digits, V(_) and V(-) alone is one of O(fragment_directory). Any other relative path is
    below O(directory).
  - Pure computation on the control node.
options:
  _input:
    description: The entries, as in C(guest_kernel_list) of the role P(nested.kata.guest_kernel#role).
    type: list
    elements: dict
    required: true
  defaults:
    description: The values of keys that an entry leaves out. They have every key of an entry but C(name), which is that
      of the profile.
    type: dict
    required: true
  arch:
    description: The architecture of the kernels, as C(make ARCH=) of the fragments' names has it.
    type: str
    required: true
  profiles:
    description: The fragments of each profile. V(base) stands for the fragment C(base-ARCH), which an entry with a base
      configuration does without.
    type: dict
    required: true
  versions:
    description: The version of a kernel that names none, by kind of source, and for Debian by suite.
    type: dict
    required: true
  allow_missing:
    description: Symbols that may be missing in any kernel, each with the reason.
    type: dict
    required: true
  fragment_directory:
    description: Directory with the fragments of the collection.
    type: str
    required: true
  directory:
    description: Directory that relative paths start from.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Fill in the defaults
  ansible.builtin.set_fact:
    guest_kernel_entries: >-
      {{ guest_kernel_list | nested.kata.kernel_entries(
           defaults=guest_kernel_plain, arch='x86_64', profiles={'docker': ['base', 'docker']},
           versions={'kernel.org': '6.12.104'},
           allow_missing={}, fragment_directory='/srv/files/kernel', directory=playbook_dir) }}
"""

RETURN = r"""
_value:
  description: The entries with all defaults filled in, and with absolute paths. C(files) are the files that must be on
    the control node.
  type: list
  elements: dict
  sample:
    - name: docker
      state: present
      arch: x86_64
      profile: docker
      version: 6.12.104
      source: {"kind": "kernel.org"}
      base: ""
      fragments: [/srv/files/kernel/base-x86_64.config, /srv/files/kernel/docker.config]
      patches: []
      files: [/srv/files/kernel/base-x86_64.config, /srv/files/kernel/docker.config]
      options: {}
      allow_missing: {}
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.nested.kata.plugins.plugin_utils.merge import Table, merged

DEFAULT_SUITE = "trixie"  # of Debian
NAME = re.compile(r"[A-Za-z0-9_-]+")


def kernel_entries(
    entries: Iterable[Table],
    defaults: Table,
    arch: str,
    profiles: Mapping[str, Sequence[str]],
    versions: Mapping[str, str],
    allow_missing: Mapping[str, str],
    fragment_directory: str,
    directory: str,
) -> list[dict[str, Any]]:
    """Return the entries with all defaults filled in."""

    def absolute(path: str) -> str:
        return f"{directory}/{path}" if path and not path.startswith("/") else path

    def fragment(name: str) -> str:
        name = f"base-{arch}" if name == "base" else name
        return f"{fragment_directory}/{name}.config" if NAME.fullmatch(name) else absolute(name)

    def filled_in(entry: Table) -> dict[str, Any]:
        kind = entry["source"].get("kind", "")
        source = {"suite": DEFAULT_SUITE, **entry["source"]} if kind == "debian" else entry["source"]
        asked = [*profiles.get(entry["profile"], []), *entry["fragments"]]
        base = absolute(entry["base"])
        fragments = [fragment(name) for name in asked if name != "base" or not base]
        patches = [absolute(path) for path in entry["patches"]]
        archive = source.get("path", "") if kind == "archive" and not source.get("remote_src", False) else ""
        return {
            "name": entry.get("name", entry["profile"]),
            "state": entry["state"],
            "arch": arch,
            "profile": entry["profile"],
            "version": entry["version"] or versions.get(source["suite"] if kind == "debian" else kind, ""),
            "source": source,
            "base": base,
            "fragments": fragments,
            "patches": patches,
            "files": [path for path in (base, *fragments, *patches, source.get("keyring", ""), archive) if path],
            "options": entry["options"],
            "allow_missing": {**allow_missing, **entry["allow_missing"]},
        }

    return [filled_in(merged(defaults, entry)) for entry in entries]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"kernel_entries": kernel_entries}
