#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_config
short_description: Merge settings into Docker's daemon.json, and have the running daemon take them over
version_added: 0.1.0
description:
  - Puts settings into C(daemon.json) and leaves all others as they are, with their order and indentation.
  - Lets C(dockerd --validate) judge the new file before it takes the place of the old one, where dockerd can (Docker 23 and newer).
  - Has the daemon reload it, which no container notices. A restart, which some settings need, is left to whoever can say that
    containers may stop; see RV(restart).
  - Waits for the event by which the daemon says that it has reloaded. Where that does not come, the old file comes back.
attributes:
  check_mode:
    support: full
    description: Says what would change. The new file is not shown to C(dockerd --validate).
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: Where the file and the daemon say what is wanted, nothing is written and nothing is reloaded.
  platform:
    support: full
    platforms: linux
    description: Target machines that the module runs on.
options:
  settings:
    description:
      - What the file is to say, by dockerd's names. Objects are merged, lists and single values are replaced, and V(null) takes a key away.
      - A runtime below C(runtimes) is replaced whole. V(null) removes it where it is ours; see O(runtimes_below).
    type: dict
    required: true
  runtimes_below:
    description:
      - Directory below which the C(runtimeType) or C(path) of a runtime lies that may be replaced or removed.
      - A runtime of a wanted name that lies elsewhere is somebody else's, and the module fails.
    type: path
    default: /var/lib/nested-kata
  path:
    description: The file. Where it is a link, what it leads to is written. Where nothing is left in it, it is removed.
    type: path
    default: /etc/docker/daemon.json
  timeout:
    description: Seconds that the daemon may take to reload the file.
    type: int
    default: 30
notes:
  - Run it as root, where dockerd runs. Its process is that of C(/run/docker.pid); where there is none, only the file is seen to.
  - The daemon is told by the signal SIGHUP, as C(systemctl reload docker) does, and asked with the command C(docker).
  - What it was told is noted in C(/run/nested-kata/daemon.json.read), so that a run that ended before it told the daemon is made good
    by the next one.
seealso:
  - name: dockerd
    description: What may stand in the file, and what of it the daemon takes over while it runs.
    link: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Register Kata with Docker
  nested.kata.daemon_config:
    settings:
      runtimes:
        kata:
          runtimeType: /var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2
          options:
            ConfigPath: /etc/nested-kata/kata/kata/4.1.0/configuration.toml

- name: Take it away again
  nested.kata.daemon_config:
    settings:
      runtimes:
        kata: null

- name: Take images from a mirror
  nested.kata.daemon_config:
    settings:
      registry-mirrors: [https://mirror.example.org]
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /etc/docker/daemon.json
settings:
  description: All that the file says now, or would say in check mode.
  returned: success
  type: dict
  sample: {"runtimes": {"kata": {"runtimeType": "/var/lib/nested-kata/kata/4.1.0/runtime-rs/bin/containerd-shim-kata-v2"}}}
steps:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [write the file, have dockerd read it]
restart:
  description: The settings that this run changed and that the running daemon only takes over when it is restarted.
  returned: success
  type: list
  elements: str
  sample: [storage-driver]
msg:
  description: Why, in a sentence.
  returned: success
  type: str
  sample: runtimes differed
"""

import errno
import hashlib
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import sync_directory
from ansible_collections.nested.kata.plugins.module_utils._docker.daemon_json import (
    Found, Plan, Reload, Remove, Wanted, Write, decide, render,
)

PIDFILE = "/run/docker.pid"
TOLD = "/run/nested-kata/daemon.json.read"  # what the running daemon was told last
CLOCK_GRAIN = 1.0  # seconds: the kernel gives its boot in whole ones


@dataclass(frozen=True)
class Dockerd:
    """The daemon's process, and when it started, in seconds since the epoch."""

    process: int
    started: float


def text_of(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:  # dockerd skips a byte order mark, too
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise Refused(f"byte {error.start} is no UTF-8: mend it, then run this again") from None


def look_for_dockerd() -> Optional[Dockerd]:
    """Return the process that the pid file names, where it is dockerd."""
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


def has_read(dockerd: Dockerd, path: str, text: Optional[str]) -> bool:
    """Whether the daemon knows this text: it started after the file was changed, or was told of it since by this module."""
    try:
        if os.stat(path).st_mtime < dockerd.started - CLOCK_GRAIN:
            return True
    except FileNotFoundError:
        if not os.path.exists(TOLD):
            return True
    try:
        with open(TOLD, encoding="ascii") as file:
            return file.read() == told(dockerd, path, text)
    except FileNotFoundError:
        return False


def told(dockerd: Dockerd, path: str, text: Optional[str]) -> str:
    digest = hashlib.sha256((text or "").encode()).hexdigest()
    return f"{dockerd.process} {dockerd.started} {path} {digest}\n"


def validate(module: AnsibleModule, path: str, text: str) -> None:
    """Let dockerd judge the text, or raise Refused with its reason."""
    dockerd = module.get_bin_path("dockerd", opt_dirs=["/usr/sbin"])
    if not dockerd or "--validate" not in module.run_command([dockerd, "--help"])[1]:
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=module.tmpdir, suffix=".json") as file:
        file.write(text)
        file.flush()
        status, out, err = module.run_command([dockerd, "--validate", "--config-file", file.name])
    if status != 0:
        reason = (err.strip() or out.strip() or f"status {status}").splitlines()[-1].replace(file.name, path)
        raise Refused(f"dockerd would not take it with these settings: {reason}; nothing was changed")


def replace(path: str, text: Optional[str]) -> None:
    """Give the file this text, with the owner and mode that it has, or remove it; never half of either."""
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    if text is None:
        os.unlink(path)
        sync_directory(directory)
        return
    os.makedirs(directory, mode=0o755, exist_ok=True)
    unfinished = os.path.join(directory, f".{os.path.basename(path)}.nested-kata")
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            try:
                there = os.stat(path)
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), there.st_mode & 0o7777)
            except FileNotFoundError:
                os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, path)
    except OSError:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    sync_directory(directory)


def reload(module: AnsibleModule) -> Dockerd:
    """Have the daemon read the file, and wait until it says that it has; or raise Refused."""
    dockerd = look_for_dockerd()
    if dockerd is None:
        raise Refused(f"{PIDFILE} names no running dockerd any more: start Docker, then run this again")
    docker = module.get_bin_path("docker", required=True)
    began = time.time()
    os.kill(dockerd.process, signal.SIGHUP)
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        span = ["--since", f"{began:.9f}", "--until", f"{time.time():.9f}"]
        events = module.run_command([docker, "events", "--filter", "type=daemon", "--filter", "event=reload", "--format", "{{.Action}}", *span])[1]
        if "reload" in events:
            return dockerd
        if time.monotonic() > deadline:
            raise Refused(f"dockerd did not take it over within {module.params['timeout']} s (timeout); its log says why")
        time.sleep(0.1)


def act(module: AnsibleModule, path: str, plan: Plan, old: Optional[str]) -> None:
    dockerd = None
    for step in plan.steps:
        if isinstance(step, Write):
            validate(module, path, step.text)
            replace(path, step.text)
        elif isinstance(step, Remove):
            replace(path, None)
        elif isinstance(step, Reload):
            try:
                dockerd = reload(module)
            except Refused as refused:
                if text_of(path) != old:
                    replace(path, old)
                raise Refused(f"{refused}; the file is as it was before") from None
    if dockerd is not None:
        os.makedirs(os.path.dirname(TOLD), mode=0o755, exist_ok=True)
        replace(TOLD, told(dockerd, path, text_of(path)))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "runtimes_below": {"type": "path", "default": "/var/lib/nested-kata"},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        wanted = Wanted.of(module.params["settings"], module.params["runtimes_below"])
    except Refused as refused:
        module.fail_json(msg=f"settings: {refused}")
    try:
        text = text_of(path)
        dockerd = look_for_dockerd()
        found = Found(text=text, read=has_read(dockerd, path, text) if dockerd else None)
        plan = decide(found, wanted)
        if not module.check_mode:
            act(module, path, plan, found.text)
    except Refused as refused:
        module.fail_json(msg=f"{path}: {refused}")
    except OSError as error:
        reason = "no space is left" if error.errno == errno.ENOSPC else error.strerror
        module.fail_json(msg=f"{path}: {reason} ({error.filename or path}); the file is as it was before")
    module.exit_json(
        changed=bool(plan.steps),
        path=path,
        settings=plan.after,
        steps=[str(step) for step in plan.steps],
        restart=list(plan.restart),
        msg=plan.reason,
        diff={
            "before_header": path, "after_header": path,
            "before": found.text or "", "after": render(plan.after, found.text) if plan.before != plan.after else found.text or "",
        },
    )


if __name__ == "__main__":
    main()
