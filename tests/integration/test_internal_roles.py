# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal roles serve the roles and playbooks of this collection, and nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, play

ENTRY_POINTS = sorted(
    (path.parent.parent.name, path.stem)
    for path in CHECKOUT.glob("roles/internal_*/tasks/*.yml")
    if path.stem != "caller"
)
VARIABLES = {
    "internal_common_packages": ["no-such-package"],
    "internal_common_wanted": {},
    "internal_common_directories": ["/nowhere"],
    "internal_common_unit": "t-nothing.service",
    "internal_common_failure": "Nothing works",
    "internal_firewall_holder": {
        "name": "t-nobody",
        "network": {"Id": "0" * 12},
        "resolvers": [],
        "option": "mine",
        "allow": [],
        "deny": [],
        "private_networks": True,
    },
    "internal_firewall_released": "t-nobody",
    "internal_machine_names": ["t-nobody"],
    "internal_machine_replaced": "t-nobody",
    "internal_machine_removed": "t-nobody",
    "internal_machine_recreate": "always",
    "internal_machine_option": "none",
    "internal_machine_stopping": [],
    "internal_machine_starting": ["true"],
    "internal_machine_network": "t-nobody",
    "internal_machine_owner": {"label": "none", "name": "t-nobody"},
    "internal_machine_stop_timeout": 1,
    "internal_machine_container": {"name": "t-nobody", "image": "t-nothing", "arguments": [], "stop_timeout": 1},
    "internal_machine_awaited": {"name": "t-nobody", "timeout": 1, "option": "none"},
}


def test_there_are_entry_points_to_call() -> None:
    assert {role for role, _entry in ENTRY_POINTS} == {"internal_common", "internal_firewall", "internal_machine"}


@pytest.mark.parametrize(("role", "entry"), ENTRY_POINTS)
@pytest.mark.parametrize("by_a_role", [False, True], ids=["from a play", "from a role outside the collection"])
def test_a_caller_that_is_not_of_this_collection_is_refused_before_anything_is_done(
    tmp_path: Path, role: str, entry: str, by_a_role: bool
) -> None:
    include = [
        {
            "name": "Call",
            "ansible.builtin.include_role": {"name": f"nested.kata.{role}", "tasks_from": entry},
            "vars": VARIABLES,
        }
    ]
    if by_a_role:
        (tmp_path / "roles" / "mine" / "tasks").mkdir(parents=True)
        (tmp_path / "roles" / "mine" / "tasks" / "main.yml").write_text(json.dumps(include))
    what = {"roles": ["mine"]} if by_a_role else {"tasks": include}
    (tmp_path / "play.yml").write_text(
        json.dumps([{"name": "Mine", "hosts": "localhost", "gather_facts": False, **what}])
    )
    done = play(tmp_path / "play.yml", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{role} is internal to nested.kata and may change with any version" in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout


def test_a_playbook_of_this_collection_may_call_them() -> None:
    """The test writes a playbook into the checkout and removes it."""
    mine = CHECKOUT / "tests" / "output" / "t-internal-roles.yml"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text(
        json.dumps(
            [
                {
                    "name": "Ours",
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "name": "Call",
                            "ansible.builtin.include_role": {
                                "name": "nested.kata.internal_common",
                                "tasks_from": "look",
                            },
                            "vars": {"internal_common_wanted": {}},
                        },
                        {"name": "Show", "ansible.builtin.debug": {"var": "internal_common_resolvers_mounts"}},
                    ],
                }
            ]
        )
    )
    try:
        done = play(mine, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    finally:
        mine.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/resolv.conf" in done.stdout
