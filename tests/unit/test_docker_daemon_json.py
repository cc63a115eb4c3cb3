# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a daemon.json: merged, written and read back."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import is_below, merged, parse, render
from hypothesis import given
from hypothesis import strategies as st

MERGES = [
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"a": {"x": 1}}, {"a": {"x": None}}, {}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"x": None}}, {"a": {"y": 2}}),
    ({"a": 1}, {"a": None, "b": None}, {}),
    ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({}, {"a": {}}, {"a": {}}),
    ({"a": {}}, {"b": 1}, {"a": {}, "b": 1}),
]


@pytest.mark.parametrize(("settings", "wanted", "result"), MERGES)
def test_settings_are_merged(settings: dict, wanted: dict, result: dict) -> None:
    assert merged(settings, wanted) == result


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=8,
)
tables = st.dictionaries(st.text(), values)


@given(tables)
def test_what_is_rendered_is_read_back(settings: dict) -> None:
    assert parse(render(settings, None)) == settings


@given(tables, tables)
def test_merging_a_second_time_changes_nothing(settings: dict, wanted: dict) -> None:
    once = merged(settings, wanted)
    assert merged(once, wanted) == once


@pytest.mark.parametrize(
    ("runtime", "ours"),
    [
        ({"runtimeType": "/var/lib/nested-kata/kata/4.1.0/bin/shim"}, True),
        (
            {
                "runtimeType": "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2",
                "options": {"ConfigPath": "/etc/nested-kata/kata/configuration.toml"},
            },
            False,
        ),
        ({"runtimeType": "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2"}, False),
        ({"runtimeType": "/var/lib/nested-kata/../other/shim"}, False),
        ({"runtimeType": "/var/lib/nested-kata-of-mine/shim"}, False),
        ({"path": "/var/lib/nested-kata/kata"}, True),
        ({}, False),
        ({"options": []}, False),
        ("kata", False),
        (None, False),
    ],
)
def test_a_runtime_is_below_a_directory_by_what_it_runs(runtime: object, ours: bool) -> None:
    assert is_below(runtime, "/var/lib/nested-kata") is ours
