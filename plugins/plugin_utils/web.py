# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a machine and the levels below it reach the web: proxy servers, authorities whose certificates they trust, and
mirrors of registries. All of it travels down in the environment of containers.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.nested.kata.plugins.module_utils._common.urls import without_user
from ansible_collections.nested.kata.plugins.plugin_utils.firewall import elsewhere

PROXIES = ("http_proxy", "https_proxy")
DIRECT = ("localhost", "127.0.0.1", "::1")  # never by a proxy server
CERTIFICATES = "NESTED_KATA_CA_CERTIFICATES"
MIRRORS = "NESTED_KATA_REGISTRY_MIRRORS"

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
NAMED = ("http", "https")  # Ansible's own downloads know no others
BREAKING = re.compile(r"[\s\x00-\x1f\x7f\"'\\]")  # what breaks the lines and the files in which values are handed on
PEM = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")
LARGEST = 96 << 10  # characters of all certificates: the kernel takes 128 KiB for a variable (execve(2))


class Invalid(ValueError):
    """A value that cannot be handed on. The message names it, and what it should be."""


@dataclass(frozen=True)
class Proxies:
    """The proxy servers, by URL, and what is reached without them."""

    http: str = ""
    https: str = ""
    direct: tuple[str, ...] = ()
    none: tuple[str, ...] = ()  # variables of the machine that are overridden with nothing
    unusable: tuple[str, ...] = ()  # values of the machine, without passwords, that no program could use

    def environment(self) -> dict[str, str]:
        """Return the variables that programs read: some read only those in capitals, some only the others."""
        found = {"http_proxy": self.http, "https_proxy": self.https}
        if any(found.values()):
            found["no_proxy"] = ",".join(self.direct)
        kept = {key: value for key, value in found.items() if value or key in self.none}
        return {name: value for key, value in kept.items() for name in (key, key.upper())}


def proxies(named: Mapping[str, Any], machine: Mapping[str, str], direct: Iterable[str] = ()) -> Proxies:
    """Return the proxy servers of a machine: those that are named, else those of its environment. An empty name means
    none. `direct` is added to what is reached without them.
    """
    found, none, unusable = {}, [], []
    for name in PROXIES:
        value, theirs = named.get(name), of_machine(machine, name)
        usable = [url for url in map(with_scheme, theirs) if is_usable(url)]
        if value:
            found[name] = checked(f"nested_kata_{name}", value, NAMED)
        elif usable and value is None:
            found[name] = usable[0]
        elif theirs:
            none.append(name)
            unusable += [without_user(theirs[0])] * (value is None)
    without = named.get("no_proxy")
    if without is None:
        listed = [word for word in words_of(of_machine(machine, "no_proxy")[:1]) if not BREAKING.search(word)]
    else:
        listed = words("nested_kata_no_proxy", without)
    http, https = (found.get(name, "") for name in PROXIES)
    return Proxies(http, https, tuple(dict.fromkeys([*listed, *DIRECT, *direct])), tuple(none), tuple(unusable))


def of_machine(machine: Mapping[str, str], name: str) -> list[str]:
    """Return the values that a variable of an environment has, in either spelling."""
    values = (str(machine.get(spelled) or "").strip() for spelled in (name, name.upper()))
    return [value for value in values if value]


def words(option: str, value: Any) -> list[str]:
    """Return the words of a list or of a text with commas, or raise Invalid."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise Invalid(f"{option} is {value!r}, and not a list of hosts, domains and ranges, or a text with commas")
    found = words_of(given)
    for word in found:
        if BREAKING.search(word):
            raise Invalid(f"{option} has {word!r}, which is not a host, a domain or a range")
    return found


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the words between commas and blanks."""
    return [word for text in texts for word in re.split(r"[\s,]+", text) if word]


def handed_on(found: Proxies) -> tuple[Proxies, list[str]]:
    """Return the proxy servers that containers reach too, and the URLs of those that mean the machine itself."""
    own = [url for url in (found.http, found.https) if url and is_own(url)]
    http, https = ("" if url in own else url for url in (found.http, found.https))
    return replace(found, http=http, https=https), list(dict.fromkeys(map(without_user, own)))


def is_own(url: str) -> bool:
    """Return whether a URL leads to the machine that reads it."""
    host = (split(url).hostname or "").rstrip(".")
    return host == "localhost" or host.endswith(".localhost") or (is_address(host) and elsewhere(host) is None)


def is_address(host: str) -> bool:
    """Return whether a host is given by its address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def split(url: str) -> SplitResult:
    """Return the parts of a URL, and none of one that cannot be used."""
    return urlsplit(url if is_usable(url) else "")


def with_scheme(url: str) -> str:
    """Return a URL of a machine. Some programs take one without a scheme, others do not."""
    return url if "://" in url else f"http://{url}"


def is_usable(url: str, schemes: Iterable[str] = tuple(PORTS)) -> bool:
    """Return whether programs can use a URL that leads to a server and to no file there."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and parts.path in ("", "/") and not (parts.query or parts.fragment or BREAKING.search(url))


def checked(option: str, url: Any, schemes: Sequence[str]) -> str:
    """Return a URL, or raise Invalid."""
    if not isinstance(url, str):
        raise Invalid(f"{option} is {kind(url)}, and not a URL")
    if not is_usable(url, schemes):
        example = f"{schemes[0]}://name.example.org:3128"
        raise Invalid(f"{option} is {without_user(url)!r}, which is not a URL such as {example}")
    return url


def kind(value: Any) -> str:
    """Return what a value is, without what is in it. Ansible has types of its own for texts, lists and dictionaries."""
    kinds = {str: "a text", Mapping: "a dictionary", Sequence: "a list"}
    return next((name for each, name in kinds.items() if isinstance(value, each)), f"of type {type(value).__name__}")


def mirrors(named: Any, machine: Mapping[str, str]) -> list[str]:
    """Return the mirrors of Docker Hub: those that are named, else those of the environment."""
    option = MIRRORS if named is None else "nested_kata_registry_mirrors"
    urls = str(machine.get(MIRRORS, "")).split() if named is None else named
    if not isinstance(urls, Sequence) or isinstance(urls, str):
        raise Invalid(f"{option} is {kind(urls)}, and not a list of URLs")
    found = [checked(option, url, ("https", "http")) for url in urls]
    for url in found:
        if "@" in url:
            raise Invalid(f"{option} is {without_user(url)!r} with a user name, which dockerd refuses")
    return found


def certificates(texts: Iterable[tuple[str, str]]) -> str:
    """Return the certificates in the texts of files, for the environment: base64 over PEM, without what stands between
    them. Raise Invalid where a file has none, or more than certificates.
    """
    encoded = base64.b64encode("".join(f"{one}\n" for path, text in texts for one in blocks(path, text)).encode())
    if len(encoded) > LARGEST:
        raise Invalid(
            f"nested_kata_ca_certificates: {len(encoded) >> 10} KiB of certificates are more than {LARGEST >> 10} KiB:"
            " name your own authorities, not those that everybody trusts"
        )
    return encoded.decode()


def blocks(path: str, text: str) -> Iterator[str]:
    """Yield the certificates in the text of a file."""
    where = f"nested_kata_ca_certificates: {path}"
    if "PRIVATE KEY-----" in text:
        raise Invalid(f"{where} has a private key, and would be handed to every tenant: name a file with certificates")
    found = PEM.findall(text)
    if not found:
        raise Invalid(f"{where} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    for number, one in enumerate(found, 1):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=one)
        except (ssl.SSLError, ValueError) as error:
            raise Invalid(f"{where}: certificate {number} is damaged: {error}") from None
        yield one


def reaches(environments: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return what the firewall must let through for environments, each once: proxy servers and mirrors that have an
    address in place of a name.
    """
    found = []
    for environment in environments:
        urls = [environment.get(name, "") for name in PROXIES] + environment.get(MIRRORS, "").split()
        for parts in map(split, urls):
            if is_address(parts.hostname or ""):
                port = parts.port or PORTS[parts.scheme]
                found.append({"network": parts.hostname, "ports": [str(port)], "protocol": "tcp"})
    return [one for number, one in enumerate(found) if one not in found[:number]]
