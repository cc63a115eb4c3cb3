# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a long task, in one line that is shown while it runs: the control node's side.

A module of this collection needs two things for it:

1. The module reports its progress: `with Progress() as progress: … progress.say("image 2 of 3, 61 of 145 MiB, 42 %")`,
   from plugins/module_utils/_common/progress.py.
2. An action plugin of the module's name, plugins/action/NAME.py, holds nothing but
   `class ActionModule(WatchedAction)` and a docstring.

Then `... HOST: LINE` is shown on stderr every five seconds, with any callback, as long as the line changes. (On stdout
it would spoil the output of callbacks that machines read, and a pipe would hold it back: Ansible does not flush.) The
variable `nested_kata_progress_seconds` of a play or host sets another number of seconds; 0 shows nothing.

The module and a thread of the worker know the same path on the target; the module makes that file when it has progress
to report, and the thread reads it through a connection of its own. So a short task costs nothing, and modules have no
option or result for it. In check mode, with `async` and with `no_log`, the module runs as any other.
"""

from __future__ import annotations

import contextvars
import copy
import mmap
import os
import secrets
import shlex
import struct
import threading
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.module_utils._common.progress import LONGEST, VARIABLE
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown

display = Display()

PERIOD = 5.0  # seconds between two looks
PERIOD_VARIABLE = "nested_kata_progress_seconds"
PATIENCE = 3  # looks in a row that may fail

# The time at which any worker last showed a line, for a callback that prints running tasks itself. The memory is shared
# with the workers, which Ansible forks after it has loaded the callback.
_SHOWN = mmap.mmap(-1, struct.calcsize("d"))


def shown_at() -> float:
    """Return the monotonic time at which a line was last shown, 0 where none was."""
    seconds: float = struct.unpack_from("d", _SHOWN)[0]
    return seconds


def _show(host: str, line: str) -> None:
    struct.pack_into("d", _SHOWN, 0, time.monotonic())
    display.display(f"    ... {host}: {line}", stderr=True, screen_only=True)


class WatchedAction(NormalAction):
    """Runs the module of its name as Ansible does, and shows its progress."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        variables = task_vars or {}
        period = self._period(variables)
        if not period or self._task.check_mode or self._task.async_val or self._task.no_log:
            return self._run(tmp, task_vars)
        path = f"/tmp/nested-kata-{secrets.token_hex(16)}.progress"
        given = self._task.environment
        self._task.environment = [*(given if isinstance(given, list) else [given]), {VARIABLE: path}]
        try:
            with _Watch(self, variables, path, period):
                return self._run(tmp, task_vars)
        finally:
            self._task.environment = given

    def _run(self, tmp: str | None, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        return result

    def _period(self, variables: dict[str, t.Any]) -> float:
        wanted = self._templar.template(variables.get(PERIOD_VARIABLE, PERIOD))
        try:
            period = float(wanted)
        except (TypeError, ValueError):
            period = -1
        if not 0 <= period < threading.TIMEOUT_MAX:
            raise AnsibleActionFail(
                f"{PERIOD_VARIABLE} is {wanted!r}: make it a number of seconds, or 0 for no progress"
            )
        return period


class _Watch:
    """Reads the module's line every few seconds and shows it, from when it is entered until it is left, no longer."""

    def __init__(self, action: ActionBase, variables: dict[str, t.Any], path: str, period: float) -> None:
        self._path = path
        self._period = period
        self._host = variables.get("inventory_hostname", "?")
        if action._task.delegate_to:
            self._host += f" -> {action._task.delegate_to}"
        self._module = action
        # A copy with a connection of its own, whose functions have no types.
        self._action: t.Any = copy.copy(action)
        try:
            self._action._connection = _connection_like(action, variables)
        except Exception as error:  # no task fails because of its progress
            display.vvv(f"no progress: {error}", host=self._host)
            self._action = None
        self._seen = ""
        self._over = False
        self._wake = threading.Condition()
        # Ansible keeps data of the current task in context variables, which a new thread would not have.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._watch,), daemon=True)

    def __enter__(self) -> None:
        if self._action:
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        with self._wake:
            self._over = True
            self._wake.notify()
        if not self._action:
            return
        # A look that hangs is left alone: it shows nothing any more.
        self._thread.join(timeout=2)
        if self._seen:
            self._remove()

    def _remove(self) -> None:
        """Remove the file of a module that was killed. Other modules have removed it themselves."""
        try:
            command = f"rm -f {shlex.quote(self._path)} {shlex.quote(self._path)}.new"
            self._module._low_level_execute_command(command)
        except Exception as error:
            display.vvv(f"{self._path} may be left: {error}", host=self._host)

    def _watch(self) -> None:
        failures = 0
        while failures < PATIENCE:
            with self._wake:
                if self._over or self._wake.wait_for(lambda: self._over, self._period):
                    break
            try:
                line = self._look()
                failures = 0
            except Exception as error:
                display.vvv(f"no progress: {error}", host=self._host)
                failures += 1
                continue
            with self._wake:
                if line and line != self._seen and not self._over:
                    self._seen = line
                    _show(self._host, line)
        try:
            self._action._connection.close()
        except Exception as error:
            display.vvv(f"closing the connection for progress: {error}", host=self._host)

    def _look(self) -> str:
        answer = self._action._low_level_execute_command(f"cat {shlex.quote(self._path)}")
        # It comes from the target and goes to a terminal.
        return shown(answer["stdout"], LONGEST) if answer["rc"] == 0 else ""


def _connection_like(action: ActionBase, variables: dict[str, t.Any]) -> t.Any:
    """Return a new connection to where the action's own leads, made the way Ansible's task executor makes it."""
    task, its = action._task, action._connection
    play_context = action._play_context.copy()
    connection = connection_loader.get(
        its.ansible_name, play_context, task_uuid=task._uuid, ansible_playbook_pid=str(os.getppid())
    )
    if task.delegate_to:
        variables = variables["ansible_delegated_vars"][task.delegate_to]
    # The executor passes the engine below the action's templar to connections.
    templar = action._templar._engine.copy()
    templar.available_variables = variables
    keys = task.dump_attrs()
    # The task's keywords of these names are not the connection's options.
    keys["timeout"] = play_context.timeout
    del keys["retries"]
    if play_context.password:
        keys["password"] = play_context.password
    connection.set_options(task_keys=keys, var_options=connection._resolve_option_variables(variables, templar))
    # The become plugin remembers the prompt of the running command.
    connection.set_become_plugin(copy.copy(its.become))
    return connection
