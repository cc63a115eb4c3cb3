# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.nested.kata.plugins.plugin_utils.progress import WatchedAction


class ActionModule(WatchedAction):
    """Runs the module kata_release and shows its progress."""
