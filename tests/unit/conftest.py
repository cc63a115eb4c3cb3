# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several unit tests need."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml


@pytest.fixture
def handlers() -> Iterator[None]:
    """Give the signals back to pytest."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def lookups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have templates find the lookups in LOOKUPS of the test's file, which it imports without Ansible's loader."""
    # Not on every Python of a target is there an Ansible that has all of these.
    from ansible import constants  # noqa: PLC0415
    from ansible.plugins.loader import lookup_loader  # noqa: PLC0415
    from ansible_collections.nested.kata.plugins.doc_fragments.proxies import ModuleDocFragment  # noqa: PLC0415

    def get(name: str, **options: Any) -> Any:
        (module,) = (one for one in request.module.LOOKUPS if one.__name__.endswith(f".{name.rpartition('.')[2]}"))
        shared, own = (
            yaml.safe_load(text)["options"] for text in (ModuleDocFragment.DOCUMENTATION, module.DOCUMENTATION)
        )
        constants.config.initialize_plugin_configuration_definitions("lookup", name, {**shared, **own})
        lookup = module.LookupModule(**options)
        lookup._load_name = name
        return lookup

    monkeypatch.setattr(lookup_loader, "get", get)
