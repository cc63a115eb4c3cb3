# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lookups about the way to the web share: they read variables, files and facts."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.plugin_utils.web import (
    CERTIFICATES,
    Invalid,
    Proxies,
    certificates,
    handed_on,
    mirrors,
    proxies,
)

PREFIX = "nested_kata_"


class WebLookup(LookupBase):
    """A lookup that takes no terms and returns one answer."""

    def run(self, terms: Any, variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        """Return the answer."""
        if terms:
            raise AnsibleLookupError(f"{terms!r} is not an option: the lookup takes options by their names only")
        self.set_options(direct=kwargs)
        self.variables: Mapping[str, Any] = variables or {}
        try:
            return [self.answer()]
        except Invalid as error:
            raise AnsibleLookupError(str(error)) from None

    @abc.abstractmethod
    def answer(self) -> dict[str, str]:
        """Return the variables."""

    def wanted(self, name: str) -> Any:
        """Return an option, or the variable for it, whose template Ansible leaves to lookups."""
        given = self.get_option(name)
        if given is None and PREFIX + name in self.variables and self._templar:
            return self._templar.template(self.variables[PREFIX + name])
        return given

    def machine(self) -> Mapping[str, str]:
        """Return the environment of the machine."""
        given: Mapping[str, str] | None = self.get_option("machine")
        return (self.variables.get("ansible_facts") or {}).get("env") or {} if given is None else given

    def proxies(self, *, containers: bool, direct: Iterable[str] = ()) -> Proxies:
        """Return the proxy servers of the machine, or those that its containers can use."""
        named = {name: self.wanted(name) for name in ("http_proxy", "https_proxy", "no_proxy")}
        found = proxies(named, self.machine(), direct)
        for url in found.unusable:
            Display().warning(
                f"The environment of the machine has the proxy server {url!r}, which is not a URL with http, https or"
                " socks5: it is left out; correct it there, or set nested_kata_http_proxy and nested_kata_https_proxy"
            )
        if not containers:
            return found
        kept, own = handed_on(found)
        for url in own:
            Display().warning(
                f"The proxy server {url} is the machine itself, and no container on it is given that one: set"
                " nested_kata_http_proxy and nested_kata_https_proxy to an address that containers reach"
            )
        return kept

    def mirrors(self) -> list[str]:
        """Return the mirrors."""
        return mirrors(self.wanted("registry_mirrors"), self.machine())

    def certificates(self) -> str:
        """Return the certificates, encoded."""
        named = self.wanted("ca_certificates")
        if named is None:
            return self.machine().get(CERTIFICATES, "")
        return certificates([(path, self.text_of(path)) for path in ([named] if isinstance(named, str) else named)])

    def text_of(self, path: str) -> str:
        """Return the text of a file on the control node."""
        with contextlib.suppress(AnsibleError, OSError):
            found = self.find_file_in_search_path(self.variables, "files", path)
            if found:
                real = self._loader.get_real_file(found) if self._loader else found
                return Path(real).read_text(encoding="utf-8", errors="replace")
        raise Invalid(f"nested_kata_ca_certificates: {path} cannot be read on the control node")
