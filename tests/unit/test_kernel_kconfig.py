# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import (
    NOT_SET,
    NUMBER,
    TEXT,
    Answer,
    Assignment,
    Lost,
    Menu,
    allow,
    complaint,
    doubtful,
    fitted,
    from_options,
    lost,
    merge,
    parse,
    reason,
    render,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

ASKED = st.builds(
    Assignment,
    st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True),
    st.one_of(
        st.sampled_from(["y", "m", "n"]),
        st.integers().map(str),
        st.integers(0).map(hex),
        st.text(
            st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cs"])
        ).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    ),
    st.just("a:1"),
)


def asked(text: str, name: str = "f") -> list[Assignment]:
    return parse(text, name)


def missing(symbol: str, wanted: str, actual: str, given_as: str = "") -> Lost:
    return Lost(Assignment(symbol, wanted, "f:1", given_as), actual)


def test_a_fragment_is_read_with_the_line_of_each_symbol():
    text = (
        '# what it is for\n\nCONFIG_NET=y\n# CONFIG_IPV6 is not set\nCONFIG_X=n\r\nCONFIG_CMDLINE="a=\\"b\\"'
        ' c"\nCONFIG_START=0x1000\nCONFIG_HZ=-5'
    )
    assert parse(text, "net.config") == [
        Assignment("NET", "y", "net.config:3"),
        Assignment("IPV6", "n", "net.config:4"),
        Assignment("X", "n", "net.config:5"),
        Assignment("CMDLINE", '"a=\\"b\\" c"', "net.config:6"),
        Assignment("START", "0x1000", "net.config:7"),
        Assignment("HZ", "-5", "net.config:8"),
    ]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("CONFIG_NET=yes", "f:2: NET has the value yes; it must be y, m, n, a number"),
        ("CONFIG_NET=", "f:2: NET has the value nothing"),
        ("CONFIG_START=1f", "f:2: START has the value 1f"),
        ('CONFIG_NAME="open', 'f:2: NAME has the value "open'),
        ('CONFIG_NAME="a" b', 'f:2: NAME has the value "a" b'),
        ("CONFIG_NET =y", "f:2: 'CONFIG_NET =y' is neither"),
        ("NET=y", "f:2: 'NET=y' is neither CONFIG_NAME=VALUE nor"),
        (" CONFIG_NET=y", "f:2: ' CONFIG_NET=y' is neither"),
        ("<<<<<<< HEAD", "f:2: '<<<<<<< HEAD' is neither"),
        ("  # CONFIG_NET is not set", "f:2: '  # CONFIG_NET is not set' is neither"),
        ("CONFIG_NET is not set", "f:2: 'CONFIG_NET is not set' is neither"),
        ("CONFIG_NET=y  # why", "f:2: NET has the value y  # why;"),
        ("CONFIG_NAME='x'", "f:2: NAME has the value 'x';"),
    ],
)
def test_a_line_that_kconfig_would_skip_or_misread_is_an_error(line, part):
    with pytest.raises(Refused) as error:
        parse(f"# first\n{line}\n", "f")
    assert str(error.value).startswith(part)
    assert "\n" not in str(error.value)


NEARLY = [
    "#CONFIG_NET is not set",
    "#  CONFIG_NET is not set",
    "#\tCONFIG_NET is not set",
    "#\u00a0CONFIG_NET is not set",
    "##  CONFIG_NET is not set",
    "# - CONFIG_NET is not set",
    "# CONFIG_NET is not set.",
    "# CONFIG_NET is not set,",
    "# CONFIG_NET is not set  # hardening",
    "# CONFIG_NET is not set: nobody needs it",
    "# CONFIG_NET is not set (hardening)",
    "# CONFIG_NET  is not set",
    "# CONFIG_NET\tis not set",
    "# CONFIG_NET is  not set",
    "# CONFIG_NET is not  set",
    "# CONFIG_NET isnot set",
    "# CONFIG_NET is not Set",
    "# CONFIG_NET IS NOT SET",
    "# CONFIG_NET not set",
    "# CONFIG_NET isn't set",
    "# CONFIG_NET isn\u2019t set",
    "# CONFIG_NET is unset",
    "# CONFIG_NET: is not set",
    "# CONFIG_NET=y is not set",
    "# CONFIG_A-B is not set",
    "# config_net is not set",
    "# NET is not set",
    "#NET is not set.",
]


@pytest.mark.parametrize("line", NEARLY)
def test_a_line_that_nearly_turns_a_symbol_off_is_an_error(line):
    with pytest.raises(Refused) as error:
        parse(f"CONFIG_A=y\n{line}\n", "f")
    assert str(error.value).startswith(f"f:2: {line!r} is only a comment for Kconfig: write '# CONFIG_NAME is not set'")


COMMENTS = [
    "# !s390x !ppc64le",
    "#CONFIG_NET=y",
    "# CONFIG_NET=m",
    "# CONFIG_NET",
    "# CONFIG_NET needs what is not set here",
    "# CONFIG_NET and CONFIG_INET: sockets, which are not set up here",
    "# what CONFIG_NET is not set for",
    "# CONFIG_NET is not settled yet",
    "# this is not set by default",
    "# Linux/x86 6.12.1 Kernel Configuration",
    "# end of Networking support",
    "##",
]


@pytest.mark.parametrize("line", COMMENTS)
def test_a_comment_is_a_comment(line):
    assert parse(f"{line}\nCONFIG_A=y\n", "f") == [Assignment("A", "y", "f:2")]


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        (True, "y"),
        (False, "n"),
        ("m", "m"),
        (17, "17"),
        ("0x10", "0x10"),
        ("-docker", '"-docker"'),
        ('"-docker"', '"-docker"'),
        ('say "hi" \\', '"say \\"hi\\" \\\\"'),
        ("", '""'),
    ],
)
def test_an_option_becomes_what_stands_in_a_configuration(given_value, text):
    assert from_options({"CONFIG_A": given_value}) == [Assignment("A", text, "options.CONFIG_A")]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"A-B": "y"}, "options: 'A-B' is not a valid symbol name"),
        ({"": "y"}, "options: '' is not a valid symbol name"),
        ({"A": None}, "options: A has the value None"),
        ({"A": [1]}, "options: A has the value [1]"),
        ({"A": "x\nCONFIG_B=y"}, "options: A has the value"),
        ({"A": "x\0y"}, "options: A has the value"),
        ({"A": "\ud83d"}, "options: A has the value"),
        ({"A": 1.5}, "options: A has the value 1.5; put it into quotes if it is a text"),
    ],
)
def test_an_option_that_cannot_be_is_an_error(options, part):
    with pytest.raises(Refused) as error:
        from_options(options)
    assert str(error.value).startswith(part)


@pytest.mark.parametrize(
    ("value", "given_as"),
    [(17, NUMBER), (-1, NUMBER), ("17", TEXT), ("0x10", TEXT), ("y", TEXT), (False, NOT_SET), (True, ""), ("a", "")],
)
def test_an_option_whose_meaning_depends_on_the_type_says_so(value, given_as):
    (option,) = from_options({"A": value})
    assert option.given == given_as


def test_a_line_that_turns_off_says_so_and_one_that_sets_n_does_not():
    assert [each.given for each in parse('# CONFIG_A is not set\nCONFIG_B=n\nCONFIG_C=17\nCONFIG_D="1"', "f")] == [
        NOT_SET,
        "",
        "",
        "",
    ]


# How a value was given, and what it is for a symbol of each type.
FITTED = [
    ("17", NUMBER, {"hex": "0x11", "integer": "17", "string": "17", "bool": "17", "unknown": "17", "": "17"}),
    ("-1", NUMBER, {"hex": "-1", "integer": "-1", "string": "-1"}),
    ("17", TEXT, {"hex": "17", "integer": "17", "string": '"17"', "tristate": "17"}),
    ("-1", TEXT, {"integer": "-1", "string": '"-1"'}),
    ("0x10", TEXT, {"hex": "0x10", "integer": "0x10", "string": '"0x10"'}),
    ("y", TEXT, {"bool": "y", "string": '"y"', "integer": "y"}),
    ("n", TEXT, {"bool": "n", "string": "n"}),
    ("n", NOT_SET, {"bool": "n", "tristate": "n", "string": '""', "integer": "n", "hex": "n"}),
    ("17", "", {"hex": "17", "string": "17"}),
    ("n", "", {"string": "n"}),
]


@pytest.mark.parametrize(("value", "given_as", "by_type"), FITTED)
def test_a_value_is_what_the_type_of_the_symbol_makes_of_it(value, given_as, by_type):
    for type_, wanted in by_type.items():
        assert fitted(Assignment("A", value, "f:1", given_as), type_).value == wanted, type_


def test_the_types_that_decide_are_asked_for_and_no_others():
    layer = [
        Assignment("NUMBER", "17", "f:1", NUMBER),
        Assignment("DIGITS", "17", "f:2", TEXT),
        Assignment("HEX", "0x11", "f:3", TEXT),
        Assignment("OFF", "n", "f:4", NOT_SET),
        Assignment("PLAIN", "17", "f:5"),
        Assignment("NUMBER", "18", "f:6", NUMBER),
    ]
    assert doubtful([layer], []) == ["NUMBER", "DIGITS"]
    losses = [Lost(layer[2], '""'), Lost(layer[3], "17"), Lost(layer[4], "unset")]
    assert doubtful([layer[2:5]], losses) == ["HEX", "OFF"]
    assert doubtful([layer[3:4]], [Lost(layer[3], "y")]) == []


@given(st.lists(ASKED, unique_by=lambda each: each.symbol))
def test_what_is_rendered_reads_as_what_was_asked_for(request_):
    request, redefined = merge([], [request_])
    assert not redefined
    assert values(render(request), "f") == {each.symbol: each.value for each in request_}


def test_the_last_one_that_asks_counts_and_a_contradiction_is_told():
    base, one, two = (
        asked("CONFIG_A=n\nCONFIG_B=n\n", "base"),
        asked("CONFIG_A=y\nCONFIG_C=m\n", "one"),
        asked("CONFIG_C=y\nCONFIG_A=y\n", "two"),
    )
    request, redefined = merge(base, [one, two])
    assert [str(each) for each in request.values()] == ["B=n (base:2)", "C=y (two:1)", "A=y (two:2)"]
    assert [str(each) for each in redefined] == ["C: m (one:2), then y (two:1)"]


def test_a_file_can_contradict_itself():
    assert len(merge([], [asked("CONFIG_A=y\n# CONFIG_A is not set\n")])[1]) == 1


@given(st.lists(ASKED), st.lists(st.lists(ASKED)))
def test_every_symbol_that_anybody_asks_for_is_in_the_request_once_with_its_last_value(base, layers):
    request, _dummy = merge(base, layers)
    last = {each.symbol: each.value for each in [*base, *(each for layer in layers for each in layer)]}
    assert {symbol: each.value for symbol, each in request.items()} == last


def test_what_is_n_and_nowhere_in_the_result_is_kept_and_what_is_y_is_lost():
    result = {"A": "y", "B": "y", "S": '"x"'}
    request = asked(
        'CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_GONE is not set\nCONFIG_NEW=y\nCONFIG_S="y"\nCONFIG_T="t"\n'
    )
    assert [(each.wanted.symbol, each.actual) for each in lost(request, result)] == [
        ("B", "y"),
        ("NEW", "n"),
        ("S", '"x"'),
        ("T", "unset"),
    ]


def test_a_text_that_is_not_set_is_kept_where_it_is_empty_or_not_in_the_result():
    off = Assignment("A", "n", "f:1", NOT_SET)
    assert lost([off, fitted(off, "string")], {"A": '""'}) == []
    assert lost([off, fitted(off, "string")], {}) == []
    assert len(lost([off, fitted(off, "string")], {"A": '"x"'})) == 2
    assert len(lost([Assignment("A", "n", "f:1"), Assignment("A", '""', "f:1")], {"A": '"x"'})) == 2
    assert len(lost([Assignment("A", '""', "f:1")], {})) == 1


def test_digits_that_kconfig_would_take_for_hexadecimal_ones_are_lost_also_where_they_are_kept():
    digits, single = Assignment("A", "16777216", "f:1", TEXT), Assignment("A", "8", "f:1", TEXT)
    assert lost([digits], {"A": "16777216"}, {"A": "hex"}) == [Lost(digits, "16777216")]
    assert lost([digits], {"A": "16777216"}, {"A": "integer"}) == []
    assert lost([single], {"A": "8"}, {"A": "hex"}) == []


@given(st.lists(ASKED, unique_by=lambda each: each.symbol))
def test_a_result_that_is_what_was_asked_for_has_lost_nothing(request_):
    assert lost(request_, {each.symbol: each.value for each in request_ if each.value != "n"}) == []


PROMPT = (Menu("Some text"),)
REASONS = {
    "no such symbol in this tree": (missing("A", "y", "n"), Answer()),
    "A needs IPV6=y, is n": (missing("A", "y", "n"), Answer("tristate", "NET [=y] && IPV6 [=n]", menus=PROMPT)),
    "A needs NET=y, is n and IPV6=y, is m": (
        missing("A", "y", "n"),
        Answer("bool", "NET [=n] && IPV6 [=m]", menus=PROMPT),
    ),
    "A needs B=y, is n or C=y, is n": (missing("A", "y", "n"), Answer("bool", "B [=n] || C [=n]", menus=PROMPT)),
    "A needs B=n, is y": (missing("A", "y", "n"), Answer("bool", "!B [=y]", menus=PROMPT)),
    "A needs EXPERT=y, is n": (
        missing("A", "y", "n"),
        Answer("bool", "NET [=y]", menus=(Menu("text", "NET [=y] && EXPERT [=n]"),)),
    ),
    "A needs EMBEDDED=y, is n": (missing("A", "n", "y"), Answer("bool", menus=(Menu("text", "EMBEDDED [=n]"),))),
    "is a choice, B was chosen": (missing("A", "y", "n"), Answer("bool", chosen="B", menus=PROMPT)),
    "is a choice, A was chosen: ask for another symbol of the choice": (
        missing("A", "n", "y"),
        Answer("bool", chosen="A", menus=PROMPT),
    ),
    "set by select from BRIDGE": (
        missing("A", "n", "y"),
        Answer("bool", selected="BRIDGE [=y] && NET [=y] || GARP [=n]", menus=PROMPT),
    ),
    "has no prompt, only a select sets it: STP, BRIDGE": (
        missing("A", "y", "n"),
        Answer("tristate", selected="STP [=n] || BRIDGE [=n]", menus=(Menu(),)),
    ),
    "has no prompt, only its default counts": (missing("A", "n", "y"), Answer("bool", menus=(Menu(),))),
    "is of type bool: it must be y or n": (missing("A", '"yes"', "n"), Answer("bool", menus=PROMPT)),
    "is of type bool, which cannot be m: y or n": (missing("A", "m", "n"), Answer("bool", menus=PROMPT)),
    "this configuration has no modules (MODULES is n): y or n": (
        missing("A", "m", "y"),
        Answer("tristate", menus=PROMPT),
    ),
    'is of type string: write "17"': (missing("A", "17", '""'), Answer("string", menus=PROMPT)),
    "is of type string: write a text in double quotes": (missing("A", "y", '""'), Answer("string", menus=PROMPT)),
    """is of type string: write "" for no text, or '"n"' for the letter""": (
        missing("A", "n", '"x"', TEXT),
        Answer("string", menus=PROMPT),
    ),
    "is of type hex: write 0x1000000, or 0xf4240 if it is decimal": (
        missing("A", "1000000", "0x1000000"),
        Answer("hex", menus=PROMPT),
    ),
    "is of type hex: write 0x10, or 0xa if it is decimal": (missing("A", '"10"', "0x0"), Answer("hex", menus=PROMPT)),
    "is of type hex: write 0x1f": (missing("A", '"1f"', "0x0"), Answer("hex", menus=PROMPT)),
    "is of type hex: write 0x2f": (missing("A", '"0x2f"', "0x0"), Answer("hex", menus=PROMPT)),
    "is of type hex: write 0x5": (missing("A", '"5"', "0x0"), Answer("hex", menus=PROMPT)),
    "is of type hex: write 0x and hexadecimal digits": (
        missing("A", "-1", "0x0", NUMBER),
        Answer("hex", menus=PROMPT),
    ),
    "is of type hex, which is always set: write a number, or leave it out for its default": (
        missing("A", "n", "0x0", NOT_SET),
        Answer("hex", menus=PROMPT),
    ),
    "is of type int, which is always set: write a number, or leave it out for its default": (
        missing("A", "n", "17", NOT_SET),
        Answer("integer", menus=PROMPT),
    ),
    "is of type int: write a decimal number": (missing("A", "y", "16"), Answer("integer", menus=PROMPT)),
    "is of type int: write a decimal number, 16": (missing("A", "0x10", "16"), Answer("integer", menus=PROMPT)),
    "is of type int: write a decimal number, 18": (missing("A", '"18"', "16"), Answer("integer", menus=PROMPT)),
    "is of type int: write a decimal number without zeros before it": (
        missing("A", "017", "16"),
        Answer("integer", menus=PROMPT),
    ),
    # What was taken for a text, or for empty, has the same reasons as any other value.
    "A needs NET=y, is n": (missing("A", "-1", "unset", TEXT), Answer("string", depends="NET [=n]", menus=PROMPT)),
    "B needs NET=y, is n": (missing("B", "16", "unset", NUMBER), Answer("hex", depends="NET [=n]", menus=PROMPT)),
    "out of its range, or changed by this tree's Kconfig: is 8": (
        missing("A", "9000", "8"),
        Answer("integer", menus=PROMPT),
    ),
}


@pytest.mark.parametrize("why", REASONS)
def test_a_loss_has_its_reason(why):
    loss, answer = REASONS[why]
    assert reason(loss, answer, modules=False) == why


def test_a_loss_is_allowed_by_name_or_glob_with_its_reason():
    allowed = {"NF_NAT_*": "went into NF_NAT", "CONFIG_B": "old"}
    assert allow(missing("NF_NAT_IPV4", "y", "n"), allowed) == "went into NF_NAT"
    assert allow(missing("B", "y", "n"), allowed) == "old"
    assert allow(missing("NF_NAT", "y", "n"), allowed) is None


def test_the_complaint_is_one_line_with_the_first_few_that_are_not_allowed():
    losses = [
        Lost(Assignment(f"A{number}", "y", "f:1"), "n", "no such symbol in this tree", "old" if number == 0 else None)
        for number in range(9)
    ]
    text = complaint(20, losses)
    assert text.startswith(
        "8 of 20 requested symbols are not in the result, and .config is unchanged: A1=y (f:1): no such symbol in this"
        " tree; A2=y"
    )
    assert text.endswith("; and 3 more")
    assert "A0" not in text
    assert "\n" not in text
