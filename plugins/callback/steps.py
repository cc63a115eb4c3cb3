# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: steps
type: stdout
short_description: Print a few lines of progress for interactive use
version_added: 0.1.0
author: The nested.kata founders (@nested-kata)
description:
  - Prints the plays and their steps, the tasks that took two seconds or longer, and the messages of
    M(ansible.builtin.debug) tasks.
  - While a task is running it prints its name every ten seconds, so that no step is silent for long. Where the task
    reports its own progress, as long tasks of this collection do, only that is shown.
  - A failure is one message at the end, that of the task that ended the run of its host. Failures that a playbook
    rescues are not shown.
  - C(run.sh) uses it. Set E(ANSIBLE_STDOUT_CALLBACK=ansible.builtin.default) there to see every task.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible import constants as C
from ansible.plugins.callback import CallbackBase
from ansible_collections.nested.kata.plugins.plugin_utils.progress import shown_at

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

SHOWN_FROM = 2.0  # seconds a task has to take to be worth a line
HEARTBEAT = 10.0  # seconds between two lines about a running task


class CallbackModule(CallbackBase):
    """Prints steps, long tasks, messages, and one failure for each host that failed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "nested.kata.steps"

    def __init__(self) -> None:
        super().__init__()
        self._task_name = ""
        self._started = time.monotonic()
        self._failures: dict[str, tuple[str, str]] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Print the running task every ten seconds, unless its progress was just shown.

        Written to the descriptor: the display's lock must not be held by another thread when Ansible forks a worker.
        """
        printed = self._started
        while not self._ended.wait(1.0):
            now = time.monotonic()
            printed = max(printed, self._started, shown_at())
            if self._task_name and now - printed >= HEARTBEAT:
                printed = now
                os.write(sys.stdout.fileno(), f"    ... {self._task_name}, {now - self._started:.0f} s\n".encode())

    def _task_is_done(self, result: CallbackTaskResult) -> None:
        seconds = time.monotonic() - self._started
        if seconds >= SHOWN_FROM and self._task_name == self._name(result.task):
            self._display.display(f"    {self._task_name}: {seconds:.0f} s")

    @staticmethod
    def _name(task: Task) -> str:
        return task.name or task.action

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Print the play's name."""
        self._task_name = ""
        name: str = play.get_name()
        self._display.display(f"==> {name.strip()}", color=C.COLOR_HIGHLIGHT)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """Remember the running task; print it where it is a step of the play itself."""
        self._task_name = self._name(task)
        self._started = time.monotonic()
        if task.action in C._ACTION_INCLUDE_ROLE and not task._role:
            self._display.display(f"  - {task.name}")

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        """Treat a handler like any task."""
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Print the message of a debug task, and the name of a task that took long."""
        if result.task.action not in C._ACTION_DEBUG:
            self._task_is_done(result)
        elif "results" not in result.result:
            self._say(result.result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        """Print the message of a debug task about an item."""
        if result.task.action in C._ACTION_DEBUG:
            self._say(result.result)

    def _say(self, result: Mapping[str, Any]) -> None:
        message = result.get("msg", "")
        for line in message if isinstance(message, list) else [message]:
            self._display.display(str(line))

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Keep the failure until it is known that nothing rescues it."""
        if not ignore_errors:
            self._failures[result.host.get_name()] = (self._name(result.task), self._reason(result.result))

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Keep the failure: an unreachable host's run ends here."""
        self.v2_runner_on_failed(result)

    @staticmethod
    def _reason(result: Mapping[str, Any]) -> str:
        """Return a failure's message, with the end of a command's output; of a loop, those of its first failed item."""
        culprit = next((item for item in result.get("results", []) if item.get("failed")), result)
        output = culprit.get("stderr") or culprit.get("stdout") or ""
        return "\n".join([culprit.get("msg", "no reason given"), *output.splitlines()[-5:]])

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Print the failures that ended a host's run."""
        self._ended.set()
        for host, (task, reason) in self._failures.items():
            if stats.failures.get(host) or stats.dark.get(host):
                text = f"FAILED on {host}: {task}\n{reason}"
                self._display.display(text, color=C.COLOR_ERROR, stderr=True)
