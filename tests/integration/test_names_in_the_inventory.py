# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role adds no container to the inventory under the name of another host, over all hosts of a play."""

from __future__ import annotations

import sys

import pytest
import yaml
from ansible_runner import play

pytestmark = [pytest.mark.root, pytest.mark.docker]

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
ELSEWHERE = {**LOCAL, "ansible_password": "secret"}


def refused(directory, role: str, hosts: dict, targets: str) -> str:
    """Run a role on the targets, where it must fail before it changes anything, and return what it printed."""
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    tasks = [{"name": "Run the role", "ansible.builtin.include_role": {"name": f"nested.kata.{role}"}}]
    (directory / "play.yml").write_text(yaml.safe_dump([{"hosts": targets, "gather_facts": True, "tasks": tasks}]))
    done = play(directory / "play.yml", "-i", str(directory / "hosts.yml"), "--check")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "changed=1" not in done.stdout
    return done.stdout + done.stderr


def test_an_instance_does_not_take_over_a_host_or_the_name_of_another_instance(tmp_path):
    runc = {"kata_instance_runtime": "runc", **LOCAL}
    hosts = {
        "c": {**runc, "kata_instance_list": [{"name": "a.b"}]},
        "b.c": {**runc, "kata_instance_list": [{"name": "aa"}, {"name": "db"}]},
        "db.b.c": ELSEWHERE,
    }
    found = refused(tmp_path, "kata_instance", hosts, "b.c")
    assert "kata_instance_list on b.c has names" in found
    assert "db would be db.b.c in the inventory, as is another host: choose" in found
    hosts["b.c"]["kata_instance_list"] = [{"name": "a0"}]
    hosts["c"]["kata_instance_list"] = [{"name": "a0.b"}]
    found = refused(tmp_path, "kata_instance", hosts, "c:b.c")
    assert "a0.b would be a0.b.c in the inventory, as is a0 on b.c: choose" in found
    assert "a0 would be a0.b.c in the inventory, as is a0.b on c: choose" in found


def test_a_proxy_does_not_take_over_a_host(tmp_path):
    hosts = {"c": {**LOCAL, "kata_proxy_name": "pp", "kata_proxy_image": "none"}, "pp.c": ELSEWHERE}
    found = refused(tmp_path, "kata_proxy", hosts, "c")
    assert "kata_proxy_inventory_name on c belongs to others: pp would be pp.c in the inventory, as is another" in found
