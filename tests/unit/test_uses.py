# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of plugins/ is used by a test that imports it, runs it or has Ansible load it, and not by one that only names
it.
"""

from __future__ import annotations

import pytest
from uses import of_python, of_yaml

PLUGINS = "ansible_collections.nested.kata.plugins"
DOWNLOAD = {"modules.download", "action.download"}
USES = {
    f"from {PLUGINS}.module_utils._disk.plan import decide": {"module_utils._disk.plan"},
    f"from {PLUGINS}.module_utils._disk import loop as loops, plan": {
        "module_utils._disk.loop",
        "module_utils._disk.plan",
    },
    f"import {PLUGINS}.filter.table": {"filter.table"},
    f"def test():\n    from {PLUGINS}.modules import download": {"modules.download"},
    "run_module('download', {})": DOWNLOAD,
    "run_module('nested.kata.download', {})": DOWNLOAD,
    "started('download', {})": {"modules.download"},
    "module_command('download', {})": {"modules.download"},
    "play(playbook, ANSIBLE_STDOUT_CALLBACK='nested.kata.steps')": {"callback.steps"},
    "tasks = [{'name': 'a task', 'nested.kata.download': {'path': '/f'}}]": DOWNLOAD,
    "host = {'ansible_connection': 'nested.kata.nested'}": {"connection.nested"},
    "PLAYBOOK = '- hosts: all\\n  tasks:\\n    - nested.kata.download:\\n        path: /f\\n'": DOWNLOAD,
    f"PROGRAM = '\\n    import sys\\n    from {PLUGINS}.modules import download\\n    download.main()\\n'": {
        "modules.download"
    },
    "INVENTORY = 'all:\\n  vars:\\n    ansible_connection: nested.kata.nested\\n'": {"connection.nested"},
}
NO_USES = {
    "a quoted word": "NAMES = ['download', 'disk_image']",
    "a comment": f"# from {PLUGINS}.module_utils._disk.plan import decide; run_module('download', {{}})",
    "a docstring": "def test():\n    '''\n    nested.kata.download:\n    '''",
    "a message": "assert 'nested.kata.download says' in text",
    "a path in a message": f"assert '{PLUGINS}.modules.download is missing' in text",
    "another function": "print('download')",
    "a method": "self.started('download')",
    "a module that is not named here": "started(path, url)",
    "a role": "TASKS = '- ansible.builtin.include_role:\\n    name: nested.kata.kata_runtime\\n'",
    "a callback that is not set": "NAME = 'nested.kata.steps'",
    "something else of that name": "from download import get",
}


@pytest.mark.parametrize("text", USES)
def test_a_use_is_seen_in_the_syntax(text: str) -> None:
    packages = {"module_utils", "module_utils._disk", "modules", "filter"}
    assert {name for name in of_python(text) if name not in packages and not name.endswith(".decide")} == USES[text]


@pytest.mark.parametrize("case", NO_USES)
def test_a_name_alone_is_no_use(case: str) -> None:
    assert set(of_python(NO_USES[case])) == set()


def test_a_comment_in_a_playbook_is_no_use() -> None:
    text = (
        "# nested.kata.download:\n- hosts: all\n  tasks:\n    - name: Get it # with nested.kata.download\n     "
        " nested.kata.kata_release:\n"
    )
    assert set(of_yaml(text)) == {"modules.kata_release", "action.kata_release"}
