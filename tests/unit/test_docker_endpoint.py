# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of a location of a daemon mean, and which transport leads there."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._docker.endpoint import Endpoint
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Exec, UnixSocket
from ansible_collections.nested.kata.plugins.module_utils._docker.tunnel import Tunnel


@pytest.mark.parametrize(
    ("option", "leads"),
    [
        ({"socket": "/x.sock", "transport": "auto"}, UnixSocket),
        ({"hops": [], "transport": "tunnel"}, UnixSocket),
        ({"hops": ["x"]}, Tunnel),
        ({"hops": ["x"], "transport": "auto"}, Tunnel),
        ({"hops": ["x"], "transport": "tunnel"}, Tunnel),
        ({"hops": ["x"], "transport": "exec"}, Exec),
    ],
)
def test_hops_are_what_a_transport_is_chosen_for(option: dict, leads: type) -> None:
    assert isinstance(Endpoint.parse(option).transport(), leads)


def test_only_auto_may_fall_back_to_exec() -> None:
    assert [Endpoint.parse({"hops": ["x"], "transport": by}).transport().or_exec for by in ("auto", "tunnel")] == [
        True,
        False,
    ]


def test_a_daemon_is_the_same_whatever_leads_to_it() -> None:
    assert Endpoint.parse({"hops": ["x"], "transport": "exec"}) == Endpoint.parse({"hops": ["x"]})


def test_a_transport_for_a_socket_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^transport exec and socket exclude each other: a transport leads through hops$"
    ):
        Endpoint.parse({"socket": "/x.sock", "transport": "exec"})
