# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter size_in_bytes reads sizes as disk_image does."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.filter.size_in_bytes import FilterModule

size_in_bytes = FilterModule().filters()["size_in_bytes"]


@pytest.mark.parametrize(("size", "bytes_of_it"), [("20G", 20 << 30), ("20GB", 20000002048), (4097, 8192)])
def test_a_size_is_what_disk_image_makes_of_it(size: object, bytes_of_it: int) -> None:
    assert size_in_bytes(size) == bytes_of_it


def test_what_is_not_a_size_is_an_error_that_names_its_option() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^disk\.max_size: 'much' is not a valid size"):
        size_in_bytes("much", "disk.max_size")
