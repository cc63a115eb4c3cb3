# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxy servers, certificates and mirrors, as they travel from a machine to the levels below it."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import pytest
from ansible_collections.nested.kata.plugins.filter.web_reach import FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.web import (
    Invalid,
    certificates,
    handed_on,
    mirrors,
    proxies,
)
from authorities import make_authority

web_reach = FilterModule().filters()["web_reach"]

PROXY, OTHER = "http://192.0.2.10:3128", "http://proxy.example.org:8080"
NOTHING: dict[str, Any] = {}


def test_a_machine_without_a_proxy_server_gets_no_variables() -> None:
    assert proxies(NOTHING, {"no_proxy": "example.org", "PATH": "/bin"}, ["10.0.0.0/8"]).environment() == {}


def test_the_environment_of_the_machine_is_the_default_in_either_spelling() -> None:
    found = proxies(NOTHING, {"HTTP_PROXY": PROXY, "https_proxy": OTHER, "NO_PROXY": "example.org, .corp"})
    direct = "example.org,.corp,localhost,127.0.0.1,::1"
    assert found.environment() == {
        "http_proxy": PROXY,
        "HTTP_PROXY": PROXY,
        "https_proxy": OTHER,
        "HTTPS_PROXY": OTHER,
        "no_proxy": direct,
        "NO_PROXY": direct,
    }


def test_a_name_comes_before_the_environment_and_an_empty_one_means_none() -> None:
    machine = {"http_proxy": OTHER, "https_proxy": OTHER, "no_proxy": "of.the.machine"}
    found = proxies({"http_proxy": PROXY, "https_proxy": "", "no_proxy": "named"}, machine)
    assert (found.http, found.https, found.direct[0]) == (PROXY, "", "named")


def test_what_the_machine_has_and_must_not_count_is_set_empty() -> None:
    machine = {"HTTP_PROXY": OTHER, "PATH": "/bin"}
    empty = {"http_proxy": "", "HTTP_PROXY": ""}
    assert proxies({"http_proxy": "", "https_proxy": ""}, machine).environment() == empty
    assert proxies({"http_proxy": ""}, {"https_proxy": PROXY}).environment()["https_proxy"] == PROXY


@pytest.mark.parametrize(
    ("theirs", "used", "unusable"),
    [
        ("proxy:3128", "http://proxy:3128", ()),
        ("me:secret@proxy:3128", "http://me:secret@proxy:3128", ()),
        ("socks5://proxy", "socks5://proxy", ()),
        ("me:secret@proxy:port", "", ("proxy:port",)),
        ("http://me:secret@pro xy", "", ("http://pro xy",)),
        ("ftp://proxy", "", ("ftp://proxy",)),
        ("http://proxy:0", "", ("http://proxy:0",)),
        ("http://[broken", "", ("http://[broken",)),
        ("http:/me:secret@proxy:3128", "", ("proxy:3128",)),
        (" http://proxy ", "http://proxy", ()),
    ],
)
def test_a_proxy_server_of_the_machine_is_used_or_named(theirs: str, used: str, unusable: tuple[str, ...]) -> None:
    found = proxies(NOTHING, {"http_proxy": theirs})
    assert (found.http, found.unusable) == (used, unusable)
    assert proxies({"http_proxy": PROXY}, {"http_proxy": theirs}).unusable == ()
    assert found.environment()["http_proxy"] == used


def test_ranges_are_reached_directly_each_once() -> None:
    machine = {"http_proxy": PROXY, "no_proxy": "localhost,10.213.0.0/16"}
    found = proxies(NOTHING, machine, ["10.213.0.0/16", "10.1.0.0/16"])
    assert found.direct == ("localhost", "10.213.0.0/16", "127.0.0.1", "::1", "10.1.0.0/16")


@pytest.mark.parametrize(
    "url",
    [
        "proxy:3128",
        "192.0.2.10",
        "http://",
        "http://proxy:port",
        "http://proxy:99999",
        "ftp://proxy",
        "http://pro xy",
        "http://proxy\n",
        'http://pro"xy',
        "http://[::1",
        "socks5://proxy",
    ],
)
def test_a_named_proxy_server_that_is_no_url_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(Invalid, match=r"^nested_kata_https_proxy is .*, which is not a URL such as http://"):
        proxies({"https_proxy": url}, {})


@pytest.mark.parametrize(
    "url", ["worker:secret@proxy:3128", "http:/me:secret@p", "http://me:/secret@p", ["x://me:secret@p"]]
)
def test_an_error_does_not_show_the_password(url: Any) -> None:
    with pytest.raises(Invalid) as caught:
        proxies({"http_proxy": url}, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["a, b", ["a", "b"], ["a,b"]])
def test_what_is_reached_directly_is_a_text_or_a_list(value: Any) -> None:
    assert proxies({"no_proxy": value}, {}).direct[:2] == ("a", "b")


@pytest.mark.parametrize("wrong", [False, 5, [5], {"a": 1}, 'a"b', ["a\\b"]])
def test_what_is_reached_directly_is_nothing_else(wrong: Any) -> None:
    with pytest.raises(Invalid, match=r"^nested_kata_no_proxy "):
        proxies({"no_proxy": wrong}, {})


def test_what_the_machine_reaches_directly_is_taken_but_for_what_cannot_be_handed_on() -> None:
    assert proxies(NOTHING, {"no_proxy": 'a"b,c'}).direct == ("c", "localhost", "127.0.0.1", "::1")


def test_a_value_that_can_be_used_counts_in_either_spelling() -> None:
    assert proxies(NOTHING, {"http_proxy": "http://proxy:port", "HTTP_PROXY": PROXY}).http == PROXY


def test_a_mirror_of_the_environment_is_looked_at_too() -> None:
    with pytest.raises(Invalid, match=r"^NESTED_KATA_REGISTRY_MIRRORS is 'garbage', which is not a URL"):
        mirrors(None, {"NESTED_KATA_REGISTRY_MIRRORS": "garbage"})


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:3128", True),
        ("http://127.9.9.9", True),
        ("http://localhost:3128", True),
        ("http://LOCALHOST.:3128", True),
        ("http://me:secret@[::1]:3128", True),
        ("http://[::ffff:127.0.0.1]:3128", True),
        ("http://0.0.0.0:3128", True),
        ("127.0.0.1:3128", True),
        (PROXY, False),
        (OTHER, False),
        ("http://10.0.0.1:3128", False),
        ("http://[2001:db8::1]:3128", False),
        ("http://localhost.example.org:3128", False),
    ],
)
def test_a_proxy_server_that_is_the_machine_itself_is_not_handed_on(url: str, own: bool) -> None:
    found, left_out = handed_on(proxies(NOTHING, {"http_proxy": url, "https_proxy": OTHER}))
    assert (found.http == "", found.https) == (own, OTHER)
    assert len(left_out) == own
    assert "secret" not in "".join(left_out)


def test_mirrors_are_those_that_are_named_else_those_of_the_environment() -> None:
    machine = {"NESTED_KATA_REGISTRY_MIRRORS": "https://a https://b:5000"}
    assert mirrors(None, machine) == ["https://a", "https://b:5000"]
    assert mirrors(["http://c:5000"], machine) == ["http://c:5000"]
    assert mirrors([], machine) == mirrors(None, {}) == []
    for wrong in (
        "https://me:secret@a",
        {"me:secret@a": 1},
        ["mirror.example.org"],
        [1],
        ["https://me:secret@c"],
        ["https://me:/secret@c"],
        ["https://c/path"],
        ["https://c/?q"],
        ["https://c/#f"],
    ):
        with pytest.raises(Invalid, match="nested_kata_registry_mirrors is ") as caught:
            mirrors(wrong, machine)
        assert "secret" not in str(caught.value)


# --- certificates ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key, in PEM form."""
    directory = tmp_path_factory.mktemp("authority")
    make_authority(directory)
    return (directory / "ca.crt").read_text(), (directory / "ca.key").read_text()


def decoded(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def test_certificates_are_handed_on_without_what_stands_between_them(authority: tuple[str, str]) -> None:
    certificate = authority[0]
    text = decoded(certificates([("one", f"# Ours\n{certificate}subject=x\n{certificate}"), ("two", certificate)]))
    assert text == certificate * 3
    assert len(ssl.create_default_context(cadata=text).get_ca_certs()) == 1
    assert certificates([]) == ""


def test_a_private_key_is_not_handed_to_tenants(authority: tuple[str, str]) -> None:
    with pytest.raises(Invalid, match=r"^nested_kata_ca_certificates: own\.pem has a private key") as caught:
        certificates([("own.pem", "".join(authority))])
    assert authority[1].splitlines()[1] not in str(caught.value)


def test_what_has_no_certificate_and_what_is_damaged_is_named(authority: tuple[str, str]) -> None:
    with pytest.raises(Invalid, match=r"ca.der has no certificate in PEM form \(-----BEGIN CERTIFICATE-----\)"):
        certificates([("ca.der", "0\x82\x01")])
    first, *lines, last = authority[0].splitlines()
    damaged = "\n".join([first, *reversed(lines), last])
    with pytest.raises(Invalid, match=r"ca.pem: certificate 2 is damaged: "):
        certificates([("ca.pem", authority[0] + damaged)])


def test_more_than_fits_into_the_environment_is_refused(authority: tuple[str, str]) -> None:
    with pytest.raises(Invalid, match="KiB of certificates are more than 96 KiB: name your own authorities"):
        certificates([("bundle", authority[0] * (200 * 1024 // len(authority[0])))])


# --- the firewall ---


def test_what_has_an_address_is_let_through() -> None:
    environment = {
        "http_proxy": PROXY,
        "HTTP_PROXY": PROXY,
        "https_proxy": "https://me:secret@[2001:db8::1]",
        "NESTED_KATA_REGISTRY_MIRRORS": f"{OTHER} http://192.0.2.11 {PROXY}",
        "no_proxy": "10.0.0.0/8",
    }
    assert web_reach(environment) == [
        {"network": "192.0.2.10", "ports": ["3128"], "protocol": "tcp"},
        {"network": "2001:db8::1", "ports": ["443"], "protocol": "tcp"},
        {"network": "192.0.2.11", "ports": ["80"], "protocol": "tcp"},
    ]
    assert web_reach({}) == []
    assert web_reach({"http_proxy": "http://192.0.2.10:99999", "https_proxy": "192.0.2.10"}) == []


@pytest.mark.parametrize(
    ("running", "recreate", "stays"),
    [
        (True, "stopped", True),
        (False, "stopped", False),
        (True, "never", True),
        (False, "never", True),
        (True, "always", False),
    ],
)
def test_a_container_that_is_not_made_again_reaches_what_it_was_given(
    running: bool, recreate: str, stays: bool
) -> None:
    there = {"exists": True, "running": running, "environment": {"http_proxy": "http://192.0.2.77"}}
    found = [one["network"] for one in web_reach({"http_proxy": PROXY}, there=there, recreate=recreate)]
    assert found == ["192.0.2.10", *["192.0.2.77"] * stays]
    assert len(web_reach({"http_proxy": PROXY}, there={**there, "environment": {"http_proxy": PROXY}})) == 1
    assert len(web_reach({"http_proxy": PROXY}, there={"exists": False})) == 1
