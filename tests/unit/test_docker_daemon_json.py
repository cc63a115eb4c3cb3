# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: read as dockerd reads it, merged, edited as a text, and written as a file."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import (
    NoSettings,
    content_of,
    decoded,
    is_below,
    merged,
    parse,
    read,
    render,
    replace,
    same,
)
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
indents = st.sampled_from((None, 1, "\t"))


@given(tables)
def test_what_is_rendered_is_read_back(settings: dict) -> None:
    assert parse(render(settings, None)) == settings


@given(tables, tables, indents)
def test_a_text_that_is_edited_has_the_wanted_settings_in_the_wanted_order(
    there: dict, settings: dict, indent: object
) -> None:
    edited = read(render(settings, json.dumps(there, indent=indent)))
    assert edited == settings
    assert [key for key in edited if key in there] == [key for key in there if key in settings]


@given(tables, indents)
def test_a_text_that_says_it_already_is_left_as_it_is(settings: dict, indent: object) -> None:
    text = json.dumps(settings, indent=indent) + "\n\n"
    assert not settings or render(settings, text) == text


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


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels else 1


def test_the_deepest_file_that_is_read_can_be_changed() -> None:
    text = json.dumps({"a": nested(190), "b": 1}, indent=1)
    assert same(read(render({"a": nested(190), "b": 2}, text)), {"a": nested(190), "b": 2})
    assert merged({"a": nested(190)}, {"a": {"b": 1}}) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (b"", {}),
        (b" \r\n\t", {}),
        (b"null", {}),
        (b"\xef\xbb\xbf", {}),
        (b'\xef\xbb\xbf{"debug": true}', {"debug": True}),
        (codecs.BOM_UTF16_LE + '{"labels": ["a=\u00e9"]}'.encode("utf-16-le"), {"labels": ["a=\u00e9"]}),
        (codecs.BOM_UTF16_BE + b"\0{\0}", {}),
        (b'{"runtimes": null}', {"runtimes": None}),
        (b'{"debug": true, "debug": false}', {"debug": False}),
        (b'{"log-opts": {"a": "1", "b": "1"}, "log-opts": {"b": "2"}}', {"log-opts": {"a": "1", "b": "2"}}),
        (b'{"a": %s1%s, "b": "%s"}' % (b"[" * 190, b"]" * 190, b"[" * 500), {"a": nested(190), "b": "[" * 500}),
    ],
)
def test_what_dockerd_takes_is_read(data: bytes, settings: dict) -> None:
    assert read(decoded(data)) == settings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": "\xe9"}', "byte 7 is not valid UTF-8: correct it"),
        (codecs.BOM_UTF16_LE + b"{\0}", "byte 4 is not valid UTF-16: correct it"),
        ('{"a": 1}'.encode("utf-16-le"), "line 1 is not valid JSON"),
        (
            b'{\n "b": "NaN",\n "a": NaN\n}',
            "line 3 is not valid JSON (NaN is no number of JSON): '\"a\": NaN'; correct it",
        ),
        (b'{"a":\n -Infinity}', "line 2 is not valid JSON (-Infinity is no number of JSON): '-Infinity}'"),
        (b'{"a":\n %s}' % (b"1" * 5000), "line 2 is not valid JSON (Exceeds the limit"),
        (
            b'{\n "a": {\n  "b": 1,\n } \n}',
            "line 3 is not valid JSON (there is a comma behind the last value): '\"b\": 1,'",
        ),
        (b'{"a": [1 , ]}', "line 1 is not valid JSON (there is a comma behind the last value)"),
        (b'{"a": 1,, "b": 2}', "line 1 is not valid JSON (Expecting property name"),
        (b'{\n "ipv6": true\n "mtu": 1400}', "line 3 is not valid JSON (Expecting ',' delimiter): '\"mtu\": 1400}'"),
        (b"[1]", "it holds list, not a JSON object"),
        (b'"x"', "it holds str, not a JSON object"),
        (b'{"a": [' * 100_000, "it has more than 200 levels: correct it"),
        (b"{} {}", "line 1 is not valid JSON (Extra data)"),
        (b"{}\n// why", "line 2 has a comment ('// why'), which JSON and dockerd do not know: remove it"),
    ],
)
def test_what_dockerd_refuses_is_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(NoSettings) as refused:
        read(decoded(data))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_what_is_not_there_twice_can_be_changed() -> None:
    with pytest.raises(NoSettings, match="the key 'b' is there twice, and Docker uses the last one: correct it"):
        parse('{"a": {"b": 1, "c": 2, "b": 3}}')


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, 1.0), ("1", 1), ([1], [True]), ({"a": 1}, {"a": True}), ({}, []), ({}, None)],
)
def test_what_python_takes_for_equal_is_not_the_same_json(one: object, other: object) -> None:
    assert not same(one, other)
    assert not same({"x": [one]}, {"x": [other]})
    assert same({"x": [one]}, {"x": [one]})


# A text, settings, and the text that has them.
EDITED = {
    "one value": ('{\n  "a": 1,\n  "b": [1, 2]\n}\n', {"a": 2, "b": [1, 2]}, '{\n  "a": 2,\n  "b": [1, 2]\n}\n'),
    "spellings": (
        '{"a": "\\u00e9", "n": 1.50, "big": 123456789012345678901234567890, "x":1}',
        {"a": "\u00e9", "n": 1.5, "big": 123456789012345678901234567890, "x": 2},
        '{"a": "\\u00e9", "n": 1.50, "big": 123456789012345678901234567890, "x":2}',
    ),
    "a new key": (
        '{\n    "a": 1\n}',
        {"a": 1, "b": {"c": [1]}},
        '{\n    "a": 1,\n    "b": {\n        "c": [\n            1\n        ]\n    }\n}',
    ),
    "a new key in one line": ('{"a": 1}\n', {"a": 1, "b": {"c": 1}}, '{"a": 1, "b": {"c": 1}}\n'),
    "a new key below": (
        '{\n\t"log-opts": {\n\t\t"max-size": "1m"\n\t}\n}\n',
        {"log-opts": {"max-size": "1m", "max-file": "3"}},
        '{\n\t"log-opts": {\n\t\t"max-size": "1m",\n\t\t"max-file": "3"\n\t}\n}\n',
    ),
    "the first goes": ('{\n  "a": 1,\n  "b": 2\n}\n', {"b": 2}, '{\n  "b": 2\n}\n'),
    "the last goes": ('{\n  "a": 1,\n\n  "b": 2\n}\n', {"a": 1}, '{\n  "a": 1\n}\n'),
    "one in the middle goes": ('{"a": 1,  "b": 2, "c": 3}', {"a": 1, "c": 3}, '{"a": 1,  "c": 3}'),
    "one goes and one comes": ('{\n  "a": 1\n}', {"b": 2}, '{\n  "b": 2\n}'),
    "lines of Windows": (
        '{\r\n  "a": 1\r\n}\r\n',
        {"a": 1, "b": {"c": 1}},
        '{\r\n  "a": 1,\r\n  "b": {\r\n    "c": 1\r\n  }\r\n}\r\n',
    ),
    "an odd layout": ('{ "a" : 1\n, "b" :2 }', {"a": 1, "b": 2, "c": 3}, '{ "a" : 1\n, "b" :2\n, "c": 3 }'),
    "an empty object": ("{ }\n", {"a": {"b": 1}}, '{\n  "a": {\n    "b": 1\n  }\n}\n'),
    "an empty object below": ('{\n "a": {}\n}', {"a": {"b": 1}}, '{\n "a": {\n  "b": 1\n }\n}'),
    "1 for true": ('{"debug": 1}', {"debug": True}, '{"debug": true}'),
    "an object for a value": ('{"a": 1}', {"a": {"b": 1}}, '{"a": {"b": 1}}'),
    "a value for an object": ('{"a": {"b": 1}}', {"a": None}, '{"a": null}'),
    "nothing left": ('{\n  "a": 1\n}\n', {}, "{}\n"),
    "nothing left below": ('{"a": {"b": 1}}', {"a": {}}, '{"a": {}}'),
    "braces in texts": (
        '{"a}": "}{", "b": ["}", {"c": "}"}]}',
        {"a}": "}{", "b": ["}", {"c": "}"}], "d": 1},
        '{"a}": "}{", "b": ["}", {"c": "}"}], "d": 1}',
    ),
    "escaped keys": ('{"\\u0061": 1}', {"a": 2}, '{"\\u0061": 2}'),
    "a key that is there twice": ('{"a": 1, "a": 2}', {"a": 2}, '{\n  "a": 2\n}\n'),
    "no text": ("", {"a": 1}, '{\n  "a": 1\n}\n'),
    "null": ("null", {"a": 1}, '{\n  "a": 1\n}\n'),
}


@pytest.mark.parametrize("case", EDITED)
def test_of_a_text_only_that_is_changed_which_must_be(case: str) -> None:
    text, settings, wanted = EDITED[case]
    assert render(settings, text) == wanted


def test_a_new_file_can_be_read_by_all_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "daemon.json"
    replace(str(path), "{}\n")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    replace(str(path), '{"a": 1}\n')
    assert (path.read_text(), path.stat().st_mode & 0o777, os.listdir(path.parent)) == (
        '{"a": 1}\n',
        0o640,
        ["daemon.json"],
    )
    replace(str(path), None)
    assert os.listdir(path.parent) == []


def test_a_text_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    with pytest.raises(UnicodeEncodeError):
        replace(str(path), '"\ud83d"')
    (tmp_path / ".daemon.json.nested-kata").mkdir()
    with pytest.raises(IsADirectoryError):
        replace(str(path), '{"a": 1}')
    assert (path.read_text(), sorted(os.listdir(tmp_path))) == ("{}", [".daemon.json.nested-kata", "daemon.json"])


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("there/daemon.json")
    for text in ("{}\n", '{"a": 1}\n'):  # the target need not be there
        replace(str(tmp_path / "link.json"), text)
        assert ((tmp_path / "link.json").is_symlink(), (tmp_path / "there" / "daemon.json").read_text()) == (True, text)


MOUNTED = """
import sys
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import replace
path = sys.argv[1]
for text, found in (('{"a": 1, "b": 2}\\n', None), ("{}\\n", None), (None, "{}\\n")):
    replace(path, text)
    with open(path) as file:
        assert file.read() == (found or text)
"""


@pytest.mark.root
def test_a_mount_point_stays_one(tmp_path: Path) -> None:
    """A file of the same disk, as Docker mounts one, with a blank in its path."""
    directory = tmp_path / "a directory"
    directory.mkdir()
    for path in (tmp_path / "other", directory / "daemon.json"):
        path.write_text('{"a": 0, "a long text that is there": "before"}\n')
    inode = (tmp_path / "other").stat().st_ino
    script = 'mount --bind "$1/other" "$1/a directory/daemon.json"; shift; exec "$@"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [*command, sys.executable, "-c", MOUNTED, str(directory / "daemon.json")], check=True, env=environment
    )
    assert ((tmp_path / "other").read_text(), (tmp_path / "other").stat().st_ino) == ("{}\n", inode)
    assert sorted(os.listdir(directory)) == ["daemon.json"]


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "daemon.json"
    if kind == "fifo":
        os.mkfifo(path)
        with pytest.raises(NoSettings, match="it is not a file: correct it"):
            content_of(str(path))
    else:
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            content_of(str(path))
    assert content_of(str(tmp_path / "none")) is None
