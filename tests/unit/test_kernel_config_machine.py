# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kernel_config finds is read, and files are replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.nested.kata.plugins.module_utils._kernel.config_machine import carry_out, fit_for_make, look
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_plan import REMEMBERED, Found, Write
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Tree


def test_what_is_remembered_is_read_and_anything_else_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".config"
    wanted = Wanted(Tree(str(tmp_path), "x86_64", (), "6.12"), str(path), [], None, [], "no", {}, "warn")
    assert look(wanted) == Found(None, {})
    path.write_bytes(b'CONFIG_A="\xff"\n')
    for text, remembered in (("{", {}), ("[]", {}), ('{"request": "a"}', {"request": "a"})):
        (tmp_path / (".config" + REMEMBERED)).write_text(text)
        assert look(wanted) == Found('CONFIG_A="\udcff"\n', remembered)


def test_a_file_is_replaced_and_what_a_killed_run_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".config.new").write_text("half")
    carry_out(Write(str(tmp_path / ".config"), 'CONFIG_A="\udcff"\n'))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(".config", b'CONFIG_A="\xff"\n')]


def test_make_runs_in_no_directory_whose_path_it_takes_for_several() -> None:
    assert fit_for_make("/root/.ansible/tmp/a-1.5") == "/root/.ansible/tmp/a-1.5"
    assert [fit_for_make(path) for path in ("/home/a b/tmp", "/mnt/c:/tmp", "/a\tb")] == [None, None, None]
