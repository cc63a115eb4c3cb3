# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that the connection plugin writes on this machine."""

from __future__ import annotations

import os

import pytest
from ansible.errors import AnsibleError
from ansible_collections.nested.kata.plugins.connection import nested


def test_a_fetched_file_takes_the_place_of_an_older_one_and_keeps_its_mode(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with nested._replacing(str(target)) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_fetch_that_breaks_off_leaves_the_older_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), nested._replacing(str(target)) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_fetch_through_a_link_replaces_what_it_leads_to(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    with nested._replacing(str(tmp_path / "link")) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_device_or_a_directory_is_never_replaced_by_a_fetched_file(tmp_path):
    for path in ("/dev/null", str(tmp_path)):
        with pytest.raises(AnsibleError, match="not a regular file"), nested._replacing(path):
            pass
    assert not os.path.isfile("/dev/null")


def test_messages_of_the_parent_are_not_taken_for_the_size_of_a_fetched_file(monkeypatch):
    """Two ssh that start at the same time both want to make the control socket."""
    said = b"ControlSocket /root/.ansible/cp/1 already exists, disabling multiplexing\nsize 4\n0+1 records in\n"
    monkeypatch.setattr(nested.Connection, "_execute", lambda connection, script: (0, b"text", said))
    assert nested.Connection._read(object.__new__(nested.Connection), "/file", 0) == (b"text", 4)
