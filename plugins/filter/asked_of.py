# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: asked_of
short_description: Return the command that runs another one in a container, within limits
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - A container may be a tenant's. C(docker exec) itself waits for its command for ever, and passes on all that it
    writes.
  - The command fails where the other one does, where that takes too long (exit status 124), and where it writes more
    than 1 MiB to stdout or 64 KiB to stderr.
  - Needs C(bash), C(timeout) and C(head) where the command runs, not in the container.
  - Pure computation on the control node.
options:
  _input:
    description: The command to run in the container.
    type: list
    elements: str
    required: true
  container:
    description: Name of the container.
    type: str
    required: true
  seconds:
    description: Time limit in seconds.
    type: int
    default: 60
  within:
    description:
      - Seconds for which a command that fails is repeated, with a pause of one second. All of its last output is then
        on stdout.
      - V(0) runs it once.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Ask the Docker of an instance for its images
  ansible.builtin.command:
    argv: "{{ ['docker', 'images', '--quiet'] | nested.kata.asked_of('ci') }}"
"""

RETURN = r"""
_value:
  description: The command, for C(argv) of M(ansible.builtin.command).
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable

from ansible_collections.nested.kata.plugins.module_utils._common.limits import limited

STDOUT = 1 << 20  # bytes
STDERR = 1 << 16

AGAIN = (
    'within=$1; shift; until said=$("$@" 2>&1); do status=$?; '
    'if (( SECONDS >= within )); then printf "%s\\n" "$said"; exit "$status"; fi; sleep 1; done; printf "%s\\n" "$said"'
)


def asked_of(
    command: Iterable[str],
    container: str,
    seconds: int = 60,
    within: int = 0,
    stdout: int = STDOUT,
    stderr: int = STDERR,
) -> list[str]:
    """Return the command."""
    asking = ["timeout", "--kill-after=5", str(seconds), "docker", "exec", container, *map(str, command)]
    once = limited(asking, stdout, stderr)
    return ["bash", "-c", AGAIN, "bash", str(within), *once] if int(within) else once


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"asked_of": asked_of}
