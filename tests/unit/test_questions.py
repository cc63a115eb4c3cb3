# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all instances of a target are asked at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.filter.asked_of import asked_of
from ansible_collections.nested.kata.plugins.filter.questions import LIMITS, questions
from ansible_collections.nested.kata.plugins.module_utils._host.state import answers
from docker_client import docker_client


def test_each_instance_is_asked_within_a_limit_about_its_images_which_are_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """printf '<%s>' "$0" "$@" && exit 3"""
    commands = questions([{"name": "web", "images": ["$x:1", "a b"]}, {"name": "db", "images": None}], script)
    assert commands == {
        "web": asked_of(["sh", "-c", script, "sh", "$x:1", "a b"], "web", **LIMITS),
        "db": asked_of(["sh", "-c", script, "sh"], "db", **LIMITS),
    }
    with docker_client(tmp_path, monkeypatch) as client:
        client.does = {"*": 'echo "$2" >&2; shift 2; exec "$@"'}
        client.write()
        assert answers(commands) == {
            "web": {"rc": 3, "stdout": "<sh><$x:1><a b>", "stderr": "web\n"},
            "db": {"rc": 3, "stdout": "<sh>", "stderr": "db\n"},
        }
