# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dockerd of this machine and its daemon.json: look at both, and carry out the plan of daemon_config."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import (
    NoSettings,
    content_of,
    read,
    render,
    replace,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json_plan import (
    Found,
    Plan,
    Reload,
    Remove,
    Wanted,
    Write,
    decide,
)
from ansible_collections.nested.kata.plugins.module_utils._docker.dockerd_flags import arguments_of_unit, unknown

PIDFILE = "/run/docker.pid"
READ = "/run/nested-kata/daemon.json.read"  # the text that the running daemon was made to read last
SYSTEMD = "/run/systemd/system"
CLOCK_GRAIN = 1.0  # seconds: the kernel reports the time of its boot in whole ones


@dataclass(frozen=True)
class Dockerd:
    """The daemon's process, and when it started, in seconds since the epoch."""

    process: int
    started: float

    def arguments(self) -> list[str]:
        """Return its command line; nothing where it has just ended."""
        try:
            with open(f"/proc/{self.process}/cmdline", encoding="utf-8", errors="surrogateescape") as file:
                return file.read().split("\0")[:-1]
        except OSError:
            return []


def text_of(path: str) -> str | None:
    """Return the text of the file, None where there is none, or raise Refused."""
    try:
        return content_of(path)
    except NoSettings as error:
        raise Refused(f"{error}, then run this again") from None


def look_for_dockerd() -> Dockerd | None:
    """Return the process of the pid file, where it is dockerd."""
    try:
        with open(PIDFILE, encoding="ascii") as file:
            process = int(file.read())
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            name, fields = file.read().split("(", 1)[1].rsplit(")", 1)
        with open("/proc/stat", encoding="ascii") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    except (OSError, ValueError):
        return None
    # Field 22 of proc(5) is when it started, in ticks since boot; the first two are cut off here.
    return Dockerd(process, boot + int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")) if name == "dockerd" else None


def has_read(dockerd: Dockerd, path: str, text: str | None) -> bool:
    """Return whether the daemon has read this text: it started after the file was changed, or this module made it read
    it since.
    """
    try:
        if os.stat(path).st_mtime < dockerd.started - CLOCK_GRAIN:
            return True
    except FileNotFoundError:
        if not os.path.exists(READ):
            return True
    try:
        with open(READ, encoding="ascii") as file:
            return file.read() == mark_of(dockerd, path, text)
    except FileNotFoundError:
        return False


def mark_of(dockerd: Dockerd, path: str, text: str | None) -> str:
    """Return the line that names a daemon's process and the text that it was made to read."""
    digest = hashlib.sha256((text or "").encode()).hexdigest()
    return f"{dockerd.process} {dockerd.started} {path} {digest}\n"


def validate(module: AnsibleModule, path: str, text: str) -> None:
    """Validate the text with dockerd, or raise Refused with its reason."""
    dockerd = module.get_bin_path("dockerd", opt_dirs=["/usr/sbin"])
    usage = module.run_command([dockerd, "--help"])[1] if dockerd else ""
    if "--validate" not in usage:
        strange = unknown(read(text), usage) if usage else []
        if strange:
            raise Refused(f"dockerd does not know {', '.join(strange)}: correct it; nothing was changed")
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=module.tmpdir, suffix=".json") as file:
        file.write(text)
        file.flush()
        command = [dockerd, "--validate", "--config-file", file.name]
        status, out, err = module.run_command(command)
    if status != 0:
        reason = (err.strip() or out.strip() or f"status {status}").splitlines()[-1].replace(file.name, path)
        raise Refused(f"dockerd would not accept it with these settings: {reason}; nothing was changed")


def reload(module: AnsibleModule, timeout: int) -> Dockerd:
    """Have the daemon read the file, and wait until it reports that it has; or raise Refused."""
    dockerd = look_for_dockerd()
    if dockerd is None:
        raise Refused(f"{PIDFILE} names no running dockerd any more: start Docker, then run this again")
    docker = module.get_bin_path("docker", required=True)
    began = time.time()
    os.kill(dockerd.process, signal.SIGHUP)
    deadline = time.monotonic() + timeout
    while True:
        span = ["--since", f"{began:.9f}", "--until", f"{time.time():.9f}"]
        events = module.run_command(
            [docker, "events", "--filter", "type=daemon", "--filter", "event=reload", "--format", "{{.Action}}", *span]
        )[1]
        if "reload" in events:
            return dockerd
        if time.monotonic() > deadline:
            raise Refused(f"dockerd did not reload it within {timeout} s (timeout); its log shows why")
        time.sleep(0.1)


def look(path: str, of_unit: Callable[[], Sequence[str]] = tuple) -> Found:
    """Return the text of the file, whether the running daemon has read it, and its command line. `of_unit` returns that
    of its unit.
    """
    text = text_of(path)
    dockerd = look_for_dockerd()
    return Found(
        text=text,
        read=has_read(dockerd, path, text) if dockerd else None,
        arguments=tuple(dockerd.arguments() if dockerd else of_unit()),
        systemd=os.path.isdir(SYSTEMD),
    )


def unit_of(module: AnsibleModule) -> list[str]:
    """Return the command line with which systemd would start dockerd."""
    systemctl = module.get_bin_path("systemctl")
    if not systemctl or not os.path.isdir(SYSTEMD):
        return []
    return arguments_of_unit(module.run_command([systemctl, "show", "--property=ExecStart", "docker.service"])[1])


def carry_out(module: AnsibleModule, wanted: Wanted, plan: Plan, old: str | None) -> None:
    """Carry out the steps, or raise Refused with the file as it was before."""
    path, dockerd = wanted.path, None
    for step in plan.steps:
        if isinstance(step, Write):
            validate(module, path, step.text)
            replace(path, step.text)
        elif isinstance(step, Remove):
            replace(path, None)
        elif isinstance(step, Reload):
            try:
                dockerd = reload(module, wanted.timeout)
            except Refused as refused:
                if text_of(path) != old:
                    replace(path, old)
                raise Refused(f"{refused}; the file is as it was before") from None
    if dockerd is not None:
        os.makedirs(os.path.dirname(READ), mode=0o755, exist_ok=True)
        replace(READ, mark_of(dockerd, path, text_of(path)))


def apply(module: AnsibleModule, wanted: Wanted) -> dict[str, Any]:
    """Look, decide and act; return the module's result."""
    path = wanted.path
    try:
        found = look(path, lambda: unit_of(module))
        plan = decide(found, wanted)
        if not module.check_mode:
            carry_out(module, wanted, plan, found.text)
    except Refused as refused:
        raise Refused(f"{path}: {refused}") from None
    except OSError as error:
        reason = "no space is left" if error.errno == errno.ENOSPC else error.strerror
        raise Refused(f"{path}: {reason} ({error.filename or path}); the file is as it was before") from error
    before = found.text or ""
    return {
        "changed": bool(plan.steps),
        "path": path,
        "settings": plan.after,
        "steps": [str(step) for step in plan.steps],
        "restart": list(plan.restart),
        "msg": plan.reason,
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": before,
            "after": render(plan.after, found.text) if plan.before != plan.after else before,
        },
    }
