# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dockerd takes for each key of daemon.json is taken, and what it refuses is refused with what it takes. The same
cases are shown to a real one in tests/integration/test_daemon_config.py.
"""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_types import TYPES, listing, problems
from daemon_json_cases import REFUSED, TAKEN


@pytest.mark.parametrize("key", TAKEN)
def test_what_dockerd_takes_is_taken(key: str) -> None:
    for value in TAKEN[key]:
        assert problems({key: value}) == []


@pytest.mark.parametrize("key", REFUSED)
def test_what_dockerd_refuses_is_refused_with_the_key(key: str) -> None:
    for value in REFUSED[key]:
        (found,) = problems({key: value})
        assert found.startswith(key)
        assert ", and dockerd takes only " in found


def test_there_is_a_case_for_each_type_and_nothing_is_said_of_other_keys() -> None:
    for cases in (TAKEN, REFUSED):
        assert {repr(kind) for kind in TYPES.values()} == {repr(TYPES[key]) for key in cases}
    assert problems({"a-key-of-docker-30": [1], "x": {"y": None}}) == []


MESSAGES = [
    (
        {"log-opts": {"max-size": 10}},
        'log-opts.max-size is the number 10, and dockerd takes only a text: write "10" with the quotes',
    ),
    (
        {"cgroup-parent": 1.5},
        'cgroup-parent is the number 1.5, and dockerd takes only a text: write "1.5" with the quotes',
    ),
    ({"log-driver": True}, "log-driver is true, and dockerd takes only a text in double quotes"),
    ({"debug": 1}, "debug is the number 1, and dockerd takes only true or false: write true without quotes"),
    ({"ipv6": "false"}, 'ipv6 is the text "false", and dockerd takes only true or false: write false without quotes'),
    ({"debug": "maybe"}, 'debug is the text "maybe", and dockerd takes only true or false'),
    ({"mtu": "1400"}, 'mtu is the text "1400", and dockerd takes only a whole number: write 1400 without quotes'),
    ({"mtu": 1400.0}, "mtu is the number 1400.0, and dockerd takes only a whole number: write 1400 without quotes"),
    ({"mtu": True}, "mtu is true, and dockerd takes only a whole number"),
    ({"labels": {"a": "b"}}, "labels is an object, and dockerd takes only a list: write [...]"),
    (
        {"labels": ["a"]},
        (
            'labels[0] is the text "a", and dockerd takes only a text like name=value, whose name does not begin with'
            " com.docker. or io.docker. or org.dockerproject."
        ),
    ),
    (
        {"default-ulimits": {"nofile": "1024:2048"}},
        'default-ulimits.nofile is the text "1024:2048", and dockerd takes only an object by names: write {...}',
    ),
    (
        {"default-ulimits": {"nofile": {"Hard": "9"}}},
        'default-ulimits.nofile.Hard is the text "9", and dockerd takes only a whole number: write 9 without quotes',
    ),
    ({"dns": ["dns.example.org"]}, 'dns[0] is the text "dns.example.org", and dockerd takes only an IP address'),
    (
        {"log-level": "loud"},
        (
            'log-level is the text "loud", and dockerd takes only one of panic, fatal, error, warn, warning, info,'
            " debug, trace"
        ),
    ),
    (
        {"registry-mirrors": ["mirror:5000"]},
        (
            'registry-mirrors[0] is the text "mirror:5000", and dockerd takes only an address that begins with'
            " https:// or http://"
        ),
    ),
    (
        {"max-concurrent-downloads": -1},
        "max-concurrent-downloads is the number -1, and dockerd takes only a number from 0 to 9223372036854775807",
    ),
    (
        {"pidfile": 10**60},
        f'pidfile is the number 1{"0" * 37} …, and dockerd takes only a text: write "1{"0" * 60}" with the quotes',
    ),
]


@pytest.mark.parametrize(("settings", "message"), MESSAGES, ids=[message for _settings, message in MESSAGES])
def test_a_problem_names_what_was_found_and_what_to_write(settings: dict, message: str) -> None:
    assert problems(settings) == [message]


def test_what_is_no_json_in_utf_8_is_refused_wherever_it_is() -> None:
    settings = {
        "labels": ["team=\ud83d"],
        "runtimes": {"kata": {"path": "/x", "options": {"a": [float("nan")], "b": float("-inf")}}},
        "\udfff": 1,
    }
    assert problems(settings) == [
        "labels[0] has half a character ('team=\\ud83d'), which is no text",
        "runtimes.kata.options.a[0] is nan, which is no number of JSON",
        "runtimes.kata.options.b is -inf, which is no number of JSON",
        "a key has half a character ('\\udfff'), which is no text",
    ]


def test_many_problems_are_told_in_one_line() -> None:
    assert listing(["a", "b", "c"]) == "a; b; c"
    assert listing(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
