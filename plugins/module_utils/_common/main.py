# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of every module: its result, or the error that prevented it."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused


def finish(
    module: AnsibleModule, work: Callable[[], Mapping[str, Any]], path: str, option: str = "", **always: Any
) -> None:
    """Exit with what `work` returns, or fail with the error that it raises, in one line.

    The message of an OSError names `option`, and `path` where the error names no file. `always` is in the result of a
    failure.
    """
    try:
        answer = work()
    except Refused as error:
        module.fail_json(msg=str(error), **{**always, **error.details})
    except CommandFailed as error:
        output = {"stdout": error.output} if error.output else {}
        module.fail_json(msg=str(error), cmd=list(error.command), rc=error.status, **output, **always)
    except OSError as error:
        module.fail_json(msg=f"{option}{option and ': '}{error.filename or path}: {error.strerror or error}", **always)
    module.exit_json(**answer)
