# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts or fetches a file through the connection plugin, in a process of its own whose memory can be measured.

    python nested_copy.py '{"ansible_nested_hops": [...]}' put|fetch FROM TO

prints {"grown": MiB by which the process grew} or {"error": class, "message": text}. With LARGEST in the environment, a
file without a size may have so many bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader, init_plugin_loader
from ansible.template import Templar


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    variables, way, source, target = json.loads(sys.argv[1]), *sys.argv[2:]
    init_plugin_loader()
    play_context = PlayContext()
    play_context.remote_addr = "container"
    connection = connection_loader.get("nested.kata.nested", play_context, None)
    var_options = connection._resolve_option_variables(variables, Templar(loader=DataLoader(), variables=variables))
    connection.set_options(task_keys={}, var_options=var_options)
    if "LARGEST" in os.environ:
        sys.modules[type(connection).__module__].LARGEST_WITHOUT_SIZE = int(os.environ["LARGEST"])
    before = peak()
    try:
        {"put": connection.put_file, "fetch": connection.fetch_file}[way](source, target)
    except AnsibleError as ex:
        print(json.dumps({"error": type(ex).__name__, "message": str(ex)}))
    else:
        print(json.dumps({"grown": peak() - before}))
    finally:
        connection.close()


if __name__ == "__main__":
    main()
