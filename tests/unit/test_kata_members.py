# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of an archive are judged before anything is written."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kata import members
from ansible_collections.nested.kata.plugins.module_utils._kata.members import (
    Judge,
    MakeDirectory,
    MakeLink,
    MakeSymlink,
    Member,
    WriteFile,
)
from ansible_collections.nested.kata.plugins.module_utils._kata.unpack import member_of
from hostile_tars import GOOD, MEMBERS


@pytest.mark.parametrize("case", MEMBERS)
def test_a_hostile_member_is_refused_by_name_and_reason(case: str) -> None:
    entries, words = MEMBERS[case]
    judge = Judge()
    for info, _dummy in (*GOOD, *entries[:-1]):
        judge.pieces(member_of(info))
    with pytest.raises(Refused) as refused:
        judge.pieces(member_of(entries[-1][0]))
    assert str(refused.value).startswith(f"member {entries[-1][0].name[:200]!r}: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def pieces(*members: Member) -> list:
    judge = Judge()
    return [piece for member in members for piece in judge.pieces(member)]


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name, "a directory", mode=mode)


def symlink(name: str, target: str) -> Member:
    return Member(name, "a symlink", target=target)


def test_the_prefix_is_stripped_and_parents_are_made_where_no_member_names_them() -> None:
    assert pieces(
        directory("./"),
        directory("./opt"),
        directory("opt/kata/"),
        directory("./opt/kata/bin"),
        Member("./opt/kata/bin/a", "a file", 3),
    ) == [
        MakeDirectory(("bin",)),
        WriteFile(("bin", "a"), 3, 0o644, 0),
    ]
    assert pieces(
        Member("opt/kata/a/b/c", "a file"), Member("opt/kata/a/d", "a file"), directory("opt/kata/a", 0o750)
    ) == [
        MakeDirectory(("a",)),
        MakeDirectory(("a", "b")),
        WriteFile(("a", "b", "c"), 0, 0o644, 0),
        WriteFile(("a", "d"), 0, 0o644, 0),
        MakeDirectory(("a",), 0o750),
    ]


MODES = {
    0o644: 0o644,
    0o666: 0o644,
    0o777: 0o755,
    0o4755: 0o755,
    0o2755: 0o755,
    0o1777: 0o755,
    0o600: 0o600,
    0o000: 0o400,
    0o555: 0o555,
}


@pytest.mark.parametrize("mode", MODES)
def test_nobody_but_the_owner_may_write_and_nobody_gets_the_owner_s_rights(mode: int) -> None:
    file, made = pieces(Member("opt/kata/a", "a file", mode=mode), directory("opt/kata/d", mode))
    assert file.mode == MODES[mode]
    assert made.mode == MODES[mode] | 0o700


@pytest.mark.parametrize(
    "time", {-5: 0, 10**12: 0, float("nan"): 0, float("inf"): 0, 1_700_000_000.5: 1_700_000_000.5}.items()
)
def test_a_time_is_kept_where_it_is_one(time: tuple) -> None:
    (file,) = pieces(Member("opt/kata/a", "a file", mtime=time[0]))
    assert file.mtime == time[1]


TARGETS = {
    ("opt/kata/bin/l", "a"): "a",
    ("opt/kata/bin/l", "./a"): "a",
    ("opt/kata/bin/l", "../share//x/"): "../share/x",
    ("opt/kata/bin/l", ".."): "..",
    ("opt/kata/bin/l", "/opt/kata/share/x"): "../share/x",
    ("opt/kata/l", "/opt/kata"): ".",
    ("opt/kata/l", "../kata/x"): "x",
    ("opt/kata/bin/l", "../../../opt/kata/x"): "../x",
    ("opt/kata/a/b/l", "c/../../d"): "../d",
    ("opt/kata/l", "/opt/./kata//x/../y"): "y",
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_symlink_becomes_relative_with_dots_at_its_beginning_only(case: tuple[str, str]) -> None:
    assert pieces(symlink(*case))[-1].target == TARGETS[case]


def test_a_hard_link_leads_to_a_file_that_was_written() -> None:
    made = pieces(
        Member("opt/kata/bin/a", "a file"),
        Member("opt/kata/b", "a hard link", target="./opt/kata/bin/a"),
        Member("opt/kata/c", "a hard link", target="opt/kata/b"),
    )
    assert made[2:] == [MakeLink(("b",), ("bin", "a")), MakeLink(("c",), ("b",))]


def test_symlinks_need_not_lead_to_anything() -> None:
    assert pieces(symlink("opt/kata/l", "l"), symlink("opt/kata/m", "none")) == [
        MakeSymlink(("l",), "l"),
        MakeSymlink(("m",), "none"),
    ]


def test_members_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_MEMBERS", 3)
    with pytest.raises(Refused, match="member 'opt/kata/3': there are more than 3 of them"):
        pieces(*(Member(f"opt/kata/{number}", "a file") for number in range(4)))
    half = members.MOST_BYTES // 2 + 1
    with pytest.raises(Refused, match="member 'opt/kata/1': the files up to this one are larger than 20 GiB"):
        pieces(*(Member(f"opt/kata/{number}", "a file", half) for number in range(2)))
