# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon.json becomes, which of it a running daemon reads again, and what is refused."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_plan import (
    Found,
    Plan,
    Reload,
    Remove,
    Wanted,
    Write,
    decide,
    parse_options,
)
from ansible_collections.nested.kata.plugins.modules.daemon_config import DOCUMENTATION

OURS = "/var/lib/nested-kata"
KATA = {
    "runtimeType": f"{OURS}/kata/4.1.0/shim",
    "options": {"ConfigPath": "/etc/nested-kata/kata/kata/configuration.toml"},
}
NEWER = {**KATA, "runtimeType": f"{OURS}/kata/4.2.0/shim"}
FOREIGN = {"runtimeType": "/opt/kata/bin/containerd-shim-kata-v2"}


def parsed(settings: dict) -> Wanted:
    return parse_options(
        {"settings": settings, "runtimes_below": OURS, "path": "/etc/docker/daemon.json", "timeout": 30}
    )


def plan(text: str | None, settings: dict, read: bool | None = None) -> Plan:
    return decide(Found(text=text, read=read), parsed(settings))


def test_what_is_there_keeps_its_values_its_order_and_its_indentation() -> None:
    text = (
        '{\n\t"log-driver": "journald",\n\t"runtimes": {\n\t\t"other": {"path": "/usr/bin/crun"}\n\t},\n\t"bip":'
        ' "10.0.0.1/24"\n}\n'
    )
    result = plan(text, {"runtimes": {"kata": KATA}})
    (write,) = result.steps
    assert json.loads(write.text) == {
        **json.loads(text),
        "runtimes": {"other": {"path": "/usr/bin/crun"}, "kata": KATA},
    }
    assert list(json.loads(write.text)) == ["log-driver", "runtimes", "bip"]
    assert write.text.splitlines()[1] == '\t"log-driver": "journald",'


@pytest.mark.parametrize("text", [None, "", " \n", "{}", "null", '{"runtimes": null}'])
def test_a_file_that_says_nothing_gets_what_is_wanted(text: str | None) -> None:
    (write,) = plan(text, {"runtimes": {"kata": KATA}}).steps
    assert json.loads(write.text) == {"runtimes": {"kata": KATA}}


def test_nothing_is_done_where_the_file_and_the_daemon_say_it() -> None:
    text = json.dumps({"runtimes": {"kata": KATA}})
    result = plan(text, {"runtimes": {"kata": KATA}}, read=True)
    assert (result.steps, result.before == result.after) == ((), True)


def test_a_daemon_that_did_not_read_the_file_since_is_told_again() -> None:
    result = plan(json.dumps({"runtimes": {"kata": KATA}}), {"runtimes": {"kata": KATA}}, read=False)
    assert (result.steps, result.reason) == ((Reload(),), "dockerd has not read it since it was changed")


def test_a_runtime_of_ours_is_replaced_whole() -> None:
    write, reload = plan(
        json.dumps({"runtimes": {"kata": {**KATA, "extra": 1}}}), {"runtimes": {"kata": NEWER}}, read=True
    ).steps
    assert (json.loads(write.text), reload) == ({"runtimes": {"kata": NEWER}}, Reload())


def test_a_runtime_of_somebody_else_is_neither_replaced_nor_removed() -> None:
    text = json.dumps({"runtimes": {"kata": FOREIGN}})
    with pytest.raises(
        Refused,
        match=r"'kata' there is not managed by nested\.kata .*/opt/kata/bin/containerd-shim-kata-v2, "
        r"not below /var/lib/nested-kata",
    ):
        plan(text, {"runtimes": {"kata": KATA}})
    assert plan(text, {"runtimes": {"kata": None}}, read=True).steps == ()


def test_a_directory_whose_name_only_begins_alike_is_somebody_elses() -> None:
    with pytest.raises(Refused, match=r"is not managed by nested\.kata"):
        plan(json.dumps({"runtimes": {"kata": {"path": f"{OURS}-old/shim"}}}), {"runtimes": {"kata": KATA}})


def test_removing_takes_away_what_was_added_and_no_more() -> None:
    text = json.dumps({"debug": True, "runtimes": {"kata": KATA, "other": FOREIGN}})
    write, reload = plan(text, {"runtimes": {"kata": None}}, read=True).steps
    assert (json.loads(write.text), reload) == ({"debug": True, "runtimes": {"other": FOREIGN}}, Reload())
    (write,) = plan(json.dumps({"debug": True, "runtimes": {"kata": KATA}}), {"runtimes": {"kata": None}}).steps
    assert json.loads(write.text) == {"debug": True}
    assert plan(json.dumps({"runtimes": {"kata": KATA}}), {"runtimes": {"kata": None}}).steps == (Remove(),)
    first, reload, last = plan(json.dumps({"runtimes": {"kata": KATA}}), {"runtimes": {"kata": None}}, read=True).steps
    assert (json.loads(first.text), reload, last) == (
        {"runtimes": {}},
        Reload(),
        Remove(),
    )  # dockerd forgets none that the file is silent about
    assert plan(None, {"runtimes": {"kata": None}}, read=True).steps == ()
    assert plan('{"runtimes": {}}', {"runtimes": {"kata": None}}, read=True).steps == ()


def test_settings_that_take_a_restart_are_named_and_the_others_reloaded() -> None:
    result = plan("{}", {"storage-driver": "btrfs", "debug": True}, read=True)
    assert (result.restart, [type(step) for step in result.steps]) == (("storage-driver",), [Write, Reload])
    assert [type(step) for step in plan("{}", {"storage-driver": "btrfs"}, read=True).steps] == [Write]
    assert plan("{}", {"storage-driver": "btrfs"}).restart == ()  # no daemon runs that could be behind


# text, what the error says
BAD_FILES = [
    ('{"a": 1,}', "line 1 is not valid JSON"),
    (
        '{\n  // a comment\n  "a": 1\n}',
        r"line 2 has a comment \('// a comment'\), which JSON and dockerd do not know: remove it",
    ),
    ('{\n  "a": 1, # why\n  "b": 2\n}', "line 2 has a comment"),
    ('{"a": 1 /* why */}', "line 1 has a comment"),
    ('["a"]', r"it holds list, not a JSON object"),
    ('{"a": 1, "a": 2}', "'a' is there twice"),
    ('{"runtimes": {"x": {}, "x": {}}}', "'x' is there twice"),
    ('{"runtimes": ["kata"]}', "runtimes is list, not a JSON object"),
    ('{"a": 1', "line 1 is not valid JSON"),
    ("debug: true", "line 1 is not valid JSON"),
    ('{"a": "no // comment",}', "line 1 is not valid JSON"),
    (f'{{"a": {"1" * 5000}}}', "line 1 is not valid JSON"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_FILES, ids=[case[1] for case in BAD_FILES])
def test_a_file_that_is_not_as_dockerd_has_it_is_refused_with_the_line(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        plan(text, {"runtimes": {"kata": KATA}})
    assert "\n" not in str(refused.value)


def test_what_is_not_asked_for_is_left_as_it_is_written() -> None:
    text = '{"labels": ["a=\\u00e9"],\r\n "mtu":1400, "debug": false}'
    (write,) = plan(text, {"debug": True}).steps
    assert write.text == '{"labels": ["a=\\u00e9"],\r\n "mtu":1400, "debug": true}'


@pytest.mark.parametrize(("text", "settings"), [('{"debug": 1}', {"debug": True}), ('{"mtu": 1400.0}', {"mtu": 1400})])
def test_what_only_python_takes_for_the_same_is_changed(text: str, settings: dict) -> None:
    (write,) = plan(text, settings).steps
    assert json.loads(write.text) == settings
    assert write.text != text


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"log-opts": {"max-file": 3}},
            'log-opts.max-file is the number 3, and dockerd takes only a text: write "3" with',
        ),
        ({"debug": 1}, "debug is the number 1, and dockerd takes only true or false: write true"),
        ({"mtu": float("nan")}, "mtu is nan, which is no number of JSON"),
        ({"labels": ["a=\ud83d"]}, r"labels\[0\] has half a character"),
        ({"labels": [None]}, r"labels\[0\] is null, and dockerd takes only a text"),
    ],
)
def test_settings_that_dockerd_refuses_are_refused_before_anything_is_read(settings: dict, reason: str) -> None:
    with pytest.raises(Refused, match=f"^settings: {reason}.*nothing was changed$"):
        parsed(settings)


def test_null_removes_whatever_the_type_is() -> None:
    (write,) = plan(
        '{"default-shm-size": "64M", "labels": ["a=b"], "debug": true}', {"default-shm-size": None, "labels": None}
    ).steps
    assert json.loads(write.text) == {"debug": True}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"log-opts": {"max-size": 10}}', "log-opts.max-size is the number 10"),
        ('{"ipv6": "true"}', 'ipv6 is the text "true"'),
        ('{"labels": ["team=\\ud83d"]}', r"labels\[0\] has half a character \('team=\\ud83d'\)"),
    ],
)
def test_what_dockerd_refuses_in_the_file_is_refused_before_it_is_written_and_left_otherwise(
    text: str, reason: str
) -> None:
    with pytest.raises(Refused, match=f"^{reason}.*: correct it, then run this again$"):
        plan(text, {"debug": True})
    assert plan(text, {"debug": None}).steps == ()


def test_a_key_that_is_there_twice_is_no_matter_where_nothing_changes() -> None:
    text = '{"debug": true, "log-opts": {"max-size": "1m", "max-size": "2m"}}'
    assert plan(text, {"debug": True}).steps == ()
    with pytest.raises(Refused, match="the key 'max-size' is there twice, and Docker uses the last one: correct it"):
        plan(text, {"debug": False})


DEBIAN = ("/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock")


def test_a_key_that_is_a_flag_of_dockerd_is_refused_with_what_mends_it() -> None:
    found = Found(text='{"live-restore": true}', read=True, arguments=DEBIAN, systemd=True)
    with pytest.raises(
        Refused,
        match=r"started with -H fd://, and does not start with hosts .*`ExecStart=/usr/sbin/dockerd "
        r"--containerd=/run/containerd/containerd.sock`.* docker`, then run this again; nothing was changed$",
    ):
        decide(found, parsed({"hosts": ["fd://", "tcp://127.0.0.1:2375"]}))
    assert decide(found, parsed({"debug": True})).steps
    assert decide(found, parsed({"hosts": None, "live-restore": True})).steps == ()


@pytest.mark.parametrize(
    "runtimes",
    [["kata"], {"kata": "shim"}, {"kata": {}}, {"kata": {"path": "a", "runtimeType": "b"}}, {"kata": {"options": {}}}],
)
def test_a_runtime_that_dockerd_could_not_have_is_refused(runtimes: object) -> None:
    with pytest.raises(Refused, match="nothing was changed"):
        parsed({"runtimes": runtimes})


def test_the_example_of_the_documentation_is_below_the_default_directory() -> None:
    assert OURS in DOCUMENTATION
