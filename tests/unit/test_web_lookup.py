# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookups about the way to the web, in Ansible's templates: level_environment and proxy_environment."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.lookup import level_environment, proxy_environment
from ansible_collections.nested.kata.plugins.plugin_utils.web_lookup import WebLookup
from authorities import make_authority

PROXY = "http://192.0.2.10:3128"


LOOKUPS = (level_environment, proxy_environment)
pytestmark = pytest.mark.usefixtures("lookups")


def looked_up(name: str, *options: str, **variables: Any) -> dict[str, str]:
    """Return what a lookup returns in a template."""
    text = ", ".join([f"'nested.kata.{name}'", *options])
    return Templar(DataLoader(), variables=variables).template(trust_as_template(f"{{{{ lookup({text}) }}}}"))


def test_both_read_variables_files_and_facts_alike() -> None:
    assert [one.LookupModule.__bases__ for one in LOOKUPS] == [(WebLookup,)] * 2


def test_the_facts_of_the_machine_are_the_default() -> None:
    more = {"NESTED_KATA_REGISTRY_MIRRORS": "https://m", "NESTED_KATA_CA_CERTIFICATES": "QQ=="}
    facts = {"env": {"http_proxy": PROXY, **more}}
    proxies = looked_up("proxy_environment", ansible_facts=facts)
    assert set(proxies) == {"http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"}
    assert looked_up("level_environment", ansible_facts=facts) == {**proxies, **more}
    assert looked_up("proxy_environment") == looked_up("level_environment") == {}


def test_a_variable_may_be_a_template_and_comes_before_the_facts() -> None:
    found = looked_up(
        "level_environment",
        "direct=['10.213.0.0/16']",
        ansible_facts={"env": {"http_proxy": "http://other"}},
        where="192.0.2.10",
        nested_kata_http_proxy=trust_as_template("http://{{ where }}:3128"),
        nested_kata_registry_mirrors=[trust_as_template("https://{{ where }}:5000")],
    )
    assert found["http_proxy"] == PROXY
    assert found["no_proxy"] == "localhost,127.0.0.1,::1,10.213.0.0/16"
    assert found["NESTED_KATA_REGISTRY_MIRRORS"] == "https://192.0.2.10:5000"


def test_the_environment_of_another_machine_can_be_given() -> None:
    facts = {"env": {"http_proxy": "http://other"}}
    given = looked_up("proxy_environment", f"machine={{'http_proxy': '{PROXY}'}}", ansible_facts=facts)
    assert given["http_proxy"] == PROXY
    assert looked_up("proxy_environment", "machine={}", ansible_facts=facts) == {}


def test_containers_are_not_given_a_proxy_server_that_means_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text, *_more, **_options: said.append(text))
    variables = {"nested_kata_http_proxy": "http://me:secret@127.0.0.1:3128"}
    assert "http_proxy" in looked_up("proxy_environment", **variables)
    assert said == []
    assert looked_up("proxy_environment", "containers=true", **variables) == {}
    assert "http://127.0.0.1:3128 is the machine itself" in said[0]
    assert "secret" not in said[0]


def test_what_is_no_proxy_server_in_the_environment_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text, *_more, **_options: said.append(text))
    facts = {"env": {"http_proxy": "http://me:secret@proxy:port"}}
    assert looked_up("level_environment", ansible_facts=facts) == {}
    assert looked_up("proxy_environment", ansible_facts=facts) == {"http_proxy": "", "HTTP_PROXY": ""}
    assert "the proxy server 'http://proxy:port', which is not a URL" in said[0]
    assert "secret" not in said[0]


def test_certificates_are_read_on_the_control_node(tmp_path: Path) -> None:
    make_authority(tmp_path)
    for named in ([str(tmp_path / "ca.crt")], str(tmp_path / "ca.crt")):
        found = looked_up("level_environment", nested_kata_ca_certificates=named)
        assert base64.b64decode(found["NESTED_KATA_CA_CERTIFICATES"]).decode() == (tmp_path / "ca.crt").read_text()


@pytest.mark.parametrize(
    ("options", "variables", "reason"),
    [
        (["'http://proxy'"], {}, "is not an option: the lookup takes options by their names only"),
        ([], {"nested_kata_http_proxy": "proxy"}, "nested_kata_http_proxy is 'proxy', which is not a URL"),
        ([], {"nested_kata_ca_certificates": ["/none.pem"]}, "/none.pem cannot be read on the control node"),
    ],
)
def test_an_error_names_the_variable(options: list[str], variables: dict, reason: str) -> None:
    with pytest.raises(AnsibleError) as caught:
        looked_up("level_environment", *options, **variables)
    assert reason in str(caught.value) + str(caught.value.__cause__)
