#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_build
short_description: Build a configured Linux tree, and keep what comes out of it in one directory
version_added: 0.1.0
description:
  - Runs C(make) on a Linux source tree that has a C(.config), and puts the kernel, its configuration and a record of the build into
    a directory, all at once. Whatever interrupts it, the directory holds the build before or this one, and never half of one.
  - Where the directory already holds the build that O(key) stands for, nothing is run and no source tree is needed.
  - The C(.config) is never changed. Make it with M(nested.kata.kernel_config), with the same O(arch) and O(make_vars).
  - The same source, configuration and toolchain in the same directory give the same bytes.
  - While it runs, a person who watches sees every few seconds how many objects are built.
attributes:
  check_mode:
    support: full
    description: Everything is looked at, what a build needs included, and nothing is built.
  diff_mode:
    support: full
    description: Shows the key, the release and the files' digests, before and after. In check mode those of a build to come are not known.
  idempotent:
    support: full
    description: When run twice in a row with the same O(key), O(arch) and O(targets), the second run starts no C(make) and no compiler.
  platform:
    support: full
    platforms: linux
    description: Target machines that the module runs on.
options:
  tree:
    description:
      - The source tree, which holds the C(.config). Objects are made in it, so that a build that was interrupted by hand or failed
        goes on where it ended.
      - Where a build was killed, or the machine went down, C(make clean) comes first, since objects may be cut off.
      - Builds in the same tree wait for each other.
    type: path
    required: true
  path:
    description:
      - The directory that gets C(vmlinux), the images in O(targets), C(config), C(System.map) and C(build.json), the record.
        It is made where it is missing; the directory that it lies in must exist.
      - It is replaced as a whole. So one that holds files that this module did not put there is refused.
    type: path
    required: true
  key:
    description:
      - What the build is a function of, for example a hash over source, configuration and toolchain. Whoever calls knows.
      - Where C(build.json) in O(path) has the same key, O(arch) and O(targets), and every file in it has the SHA-256 that was
        recorded, there is nothing to do.
    type: str
    required: true
  arch:
    description:
      - Architecture, as C(make) calls it, V(x86_64) or V(arm64) for example.
      - For another one than the machine's set C(CROSS_COMPILE) or C(LLVM) in O(make_vars).
      - The default is the machine's.
    type: str
  targets:
    description:
      - What C(make) is to build. V(vmlinux) is always built.
      - A target whose file then lies in the C(boot) directory of the architecture, such as V(bzImage), goes into O(path). Others
        are built, no more.
      - The default is V(vmlinux), and V(bzImage) on x86 and s390, V(Image) on arm64 and riscv.
    type: list
    elements: str
    default: []
  jobs:
    description:
      - How many jobs C(make) runs at once.
      - The default is the number of CPUs that the module may use, by affinity and by the quota of its control group.
    type: int
  make_vars:
    description:
      - Variables for C(make), such as C(CC), C(LLVM) or C(CROSS_COMPILE). They are no part of O(key) by themselves.
    type: dict
    default: {}
  ccache:
    description:
      - Put C(ccache) before the compilers. Where its cache lies is up to its own configuration, or to E(CCACHE_DIR).
    type: bool
    default: false
  log:
    description:
      - File for the whole output of C(make). It is kept, also when the build fails, until the next build. Its directory must exist.
      - The default is the name in O(path) with C(.log).
    type: path
  info:
    description:
      - More to be recorded in C(build.json), for example the profile of the configuration. It makes no difference to the build.
    type: dict
    default: {}
  timestamp:
    description:
      - The time of the build that the kernel shows in C(uname -v), as C(date) reads it. That of the real build would make every
        build another one.
    type: str
    default: Thu Jan  1 00:00:00 UTC 1970
  expected_objects:
    description:
      - How many objects the build will probably have, for percents while it runs.
      - The default is what C(build.json) in O(path) says about the build before, where the tree holds no objects yet.
    type: int
requirements:
  - C(make), C(flex), C(bison), C(bc), a compiler and a linker
  - what the configuration asks for, for example the headers of libelf (C(CONFIG_OBJTOOL)) and OpenSSL
    (C(CONFIG_SYSTEM_TRUSTED_KEYRING)), C(pahole) (C(CONFIG_DEBUG_INFO_BTF)), C(zstd) (C(CONFIG_KERNEL_ZSTD))
  - C(ccache), with O(ccache)
  - whatever of these is missing is named at once, before anything starts
seealso:
  - module: nested.kata.kernel_config
notes:
  - The directories of O(path) are exchanged in one step where the file system can, as those of Linux can. On one that cannot,
    O(path) does not exist for a moment.
  - How often progress is shown is up to the variable C(nested_kata_progress_seconds), 5 by default; 0 shows none.
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Configure
  nested.kata.kernel_config:
    tree: /usr/src/linux-6.12
    base_target: defconfig
    options:
      BTRFS_FS: true
  register: configured

- name: Build
  nested.kata.kernel_build:
    tree: /usr/src/linux-6.12
    path: /var/lib/nested-kata/kernels/6.12-btrfs
    key: "6.12 {{ configured.sha256 }}"
    info:
      profile: btrfs

- name: Build for another architecture, with a cache of objects
  nested.kata.kernel_build:
    tree: /usr/src/linux-6.12
    path: /var/lib/nested-kata/kernels/6.12-arm64
    key: "6.12 arm64 {{ configured.sha256 }}"
    arch: arm64
    make_vars:
      CROSS_COMPILE: aarch64-linux-gnu-
    ccache: true
  environment:
    CCACHE_DIR: /var/cache/nested-kata/ccache
"""

RETURN = r"""
path:
  description: The directory with the artifacts.
  returned: success
  type: str
  sample: /var/lib/nested-kata/kernels/6.12-btrfs
log:
  description: The file with the whole output of the build. It is not there before the first one.
  returned: always
  type: str
  sample: /var/lib/nested-kata/kernels/6.12-btrfs.log
objects:
  description: How many objects were compiled or assembled in this run.
  returned: success
  type: int
  sample: 2931
build:
  description: What C(build.json) holds. In check mode V(null) where a build is to come.
  returned: success
  type: dict
  contains:
    release:
      description: What C(uname -r) says when the kernel runs.
      type: str
      sample: 6.12.48
    arch:
      description: As O(arch).
      type: str
      sample: x86_64
    targets:
      description: As O(targets), with V(vmlinux).
      type: list
      elements: str
      sample: [vmlinux, bzImage]
    key:
      description: As O(key).
      type: str
    info:
      description: As O(info), when it was built.
      type: dict
    compiler:
      description: What the compiler calls itself.
      type: str
      sample: gcc (Debian 14.2.0-19) 14.2.0
    linker:
      description: What the linker calls itself.
      type: str
      sample: GNU ld (GNU Binutils for Debian) 2.44
    seconds:
      description: How long C(make) ran.
      type: float
      sample: 412.7
    objects:
      description: How many objects were compiled or assembled. Those that an interrupted build had made before are not counted.
      type: int
      sample: 2931
    timestamp:
      description: As O(timestamp).
      type: str
    files:
      description: Size in bytes and SHA-256 of every other file in the directory, by name.
      type: dict
      sample: {"bzImage": {"sha256": "96cb19f39e9a90b0e14b7d2e4c0e1e5a0e8f9d8c3a47ad3e61a0ed1bd6ab4aa5", "size": 9123840}}
steps:
  description: What was done, in this order, or would be done.
  returned: success
  type: list
  elements: str
  sample:
    - build vmlinux, bzImage in /usr/src/linux-6.12
    - put the artifacts into /var/lib/nested-kata/kernels/6.12-btrfs
errors:
  description: The lines of the build's output that say why it failed, ten at most.
  returned: when the build fails
  type: list
  elements: str
  sample: ["fs/btrfs/super.c:42:9: error: expected ';' before 'return'"]
msg:
  description: Why, in one line.
  returned: always
  type: str
  sample: there is no build in /var/lib/nested-kata/kernels/6.12-btrfs yet
"""

import ctypes
import errno
import json
import os
import shutil
import signal
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils import kernel_build as builds, kernel_tree
from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import alone_in, digest_of, sync_directory
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress

BUILDER = "nested-kata"
MARK = ".nested-kata-build"  # in the tree while make runs: where it is found later, make was killed
RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100  # fcntl.h


class Failed(Exception):
    """The build failed: the message says why, `facts` are for the result."""

    def __init__(self, message: str, killed: bool = False, **facts) -> None:
        super().__init__(message)
        self.killed = killed
        self.facts = facts


# --- look ---

def look(path: str) -> builds.Found:
    """Return what lies in the directory of the artifacts, or raise Refused where it is not ours to replace."""
    if not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"path: there is no directory {os.path.dirname(path)}: make it, or correct the path")
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
        raise Refused(f"path: {path} is not a directory: move it away, or choose another path")
    names = os.listdir(path) if os.path.isdir(path) else []
    record = None
    if builds.RECORD in names:
        try:
            with open(os.path.join(path, builds.RECORD), encoding="utf-8") as file:
                record = builds.read_record(json.load(file))
        except ValueError as error:
            raise Refused(f"path: {path}/{builds.RECORD} cannot be read as the record of a build ({error}): move {path} away") from error
    strangers = builds.foreign(names, record)
    if strangers:
        raise Refused(f"path: {path} holds what is no build of this module ({', '.join(strangers[:5])}): choose another directory")
    digests = {name: digest_of(os.path.join(path, name)) for name in (record or {"files": ()})["files"] if name in names}
    return builds.Found(record, digests)


def prepare(params: dict, module: AnsibleModule) -> tuple[kernel_tree.Tree, dict[str, str]]:
    """Return the tree and the variables that make gets beside its own, or raise Refused where a build cannot even begin."""
    if "KBUILD_OUTPUT" in params["make_vars"]:
        raise Refused("make_vars: KBUILD_OUTPUT cannot be set here: the build happens in the tree")
    tree = kernel_tree.open_tree(params["tree"], params["arch"], params["make_vars"])
    try:
        with open(os.path.join(tree.path, ".config"), encoding="utf-8", errors="replace") as file:
            config = file.read()
    except FileNotFoundError as error:
        raise Refused(f"tree: {tree.path} has no .config: make one with nested.kata.kernel_config") from error
    compiler, host_compiler = tree.tool("CC"), tree.tool("HOSTCC")
    commands = [compiler, host_compiler, tree.tool("LD"), *(["ccache"] if params["ccache"] else [])]
    missing = [need for need in builds.needs(config, commands) if not there(need, host_compiler, module)]
    if missing:
        raise Refused(f"tree: {builds.lacking(missing)}")
    return tree, builds.with_ccache(dict(tree.make_vars), compiler, host_compiler) if params["ccache"] else {}


def there(need: builds.Need, host_compiler: str, module: AnsibleModule) -> bool:
    if not need.header:
        return shutil.which(need.name) is not None
    if not shutil.which(host_compiler):
        return True  # without a compiler, which is named itself, nobody can tell
    return module.run_command([host_compiler, "-E", "-x", "c", "-include", need.name, "-o", os.devnull, os.devnull])[0] == 0


def usable_cpus() -> int:
    """Return how many CPUs this process may use: a container's quota counts, too."""
    cpus = len(os.sched_getaffinity(0))
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            with open(f"/sys/fs/cgroup/{quota_file}", encoding="ascii") as file:
                numbers = file.read().split()
            if period_file:
                with open(f"/sys/fs/cgroup/{period_file}", encoding="ascii") as file:
                    numbers += file.read().split()
            quota, period = int(numbers[0]), int(numbers[1])
        except (OSError, ValueError, IndexError):
            continue  # no such version of control groups, or "max"
        if quota > 0:
            cpus = min(cpus, -(-quota // period))
    return max(1, cpus)


# --- act ---

def build(tree: kernel_tree.Tree, more_vars: dict[str, str], wanted: builds.Wanted, params: dict, lock: int, known: int, progress: Progress) -> dict:
    """Run make and return what is to be recorded about it."""
    environment = kernel_tree.environment(
        KBUILD_BUILD_TIMESTAMP=params["timestamp"], KBUILD_BUILD_USER=BUILDER, KBUILD_BUILD_HOST=BUILDER, KBUILD_BUILD_VERSION="1",
        KCONFIG_NOSILENTUPDATE="1",
    )
    variables = [f"{name}={value}" for name, value in more_vars.items()]
    mark = os.path.join(tree.path, MARK)
    fresh = not os.path.exists(os.path.join(tree.path, "init", "main.o"))
    start = time.monotonic()
    with open(params["log"], "wb", buffering=0) as log:
        if os.path.exists(mark):
            clean = tree.command(*variables, "clean")
            make(clean, environment, log, lock, lambda output: progress.say(f"linux {tree.version}: make clean, since a build was killed"), tree, params)
            fresh = True
        expected = params["expected_objects"] or (known if fresh else 0)

        def tell(output: builds.Output) -> None:
            progress.say(builds.under_way(tree.version, output.objects, expected, time.monotonic() - start))

        with open(mark, "w", encoding="ascii"):
            pass
        command = tree.command(f"-j{params['jobs'] or usable_cpus()}", *variables, *wanted.targets)
        try:
            output = make(command, environment, log, lock, tell, tree, params)
        except BaseException as error:
            # Make that ends by itself, or is asked to, leaves nothing half made.
            if not getattr(error, "killed", False):
                os.unlink(mark)
            raise
        os.unlink(mark)
    return {
        "release": text_of(os.path.join(tree.path, "include/config/kernel.release")),
        "arch": wanted.arch, "targets": list(wanted.targets), "key": wanted.key, "info": params["info"],
        "compiler": version_of(tree.tool("CC")), "linker": version_of(tree.tool("LD")), "timestamp": params["timestamp"],
        "seconds": round(time.monotonic() - start, 1), "objects": output.objects if fresh else max(known, output.objects), "compiled": output.objects,
    }


def make(command: list[str], environment: dict[str, str], log, lock: int, tell, tree: kernel_tree.Tree, params: dict) -> builds.Output:
    """Run make, or raise Failed with the lines that matter."""
    status, output = builds.run(command, environment, log, lock, tell)
    if status == 0:
        return output
    facts = {"errors": output.errors, "rc": status, "cmd": command, "killed": status < 0}
    if output.stale:
        raise Failed(
            f"tree: {tree.path}/.config is not what this tree's Kconfig makes of it with {tree.tool('CC')} for {tree.arch}, and would be changed: "
            "run nested.kata.kernel_config with the same arch and make_vars", **facts,
        )
    if output.full:
        raise Failed(f"tree: the build in {tree.path} failed: {full_disk(params)}; the whole output is in {params['log']}", **facts)
    if status < 0:
        raise Failed(f"tree: make was killed by {signal.Signals(-status).name}; its output is in {params['log']}", **facts)
    raise Failed(f"tree: the build in {tree.path} failed: {output.summary()}; the whole output is in {params['log']}", **facts)


def full_disk(params: dict) -> str:
    """Return which file system has no space left, of those that a build writes to."""
    places = {"tree": params["tree"], "the directory for temporary files": tempfile.gettempdir(), "log": os.path.dirname(params["log"]),
              "path": os.path.dirname(params["path"])}
    free = {}
    for name, place in places.items():
        state = os.statvfs(place)
        free[name] = state.f_bavail * state.f_frsize if state.f_favail or not state.f_files else 0
    name = min(free, key=lambda place: free[place])
    mount = os.path.realpath(places[name])
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return f"no space left on {mount}, which holds {name} ({places[name]}; {free[name] // 1024} KiB free): make room there"


def text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def version_of(command: str) -> str:
    return kernel_tree.run([command, "--version"]).splitlines()[0].strip()


def artifacts(tree: kernel_tree.Tree, wanted: builds.Wanted) -> dict[str, str]:
    """Return where each file lies that the build made, by the name it is to have."""
    boot = os.path.join(tree.path, "arch", tree.source_directory, "boot")
    images = {target: os.path.join(boot, target) for target in wanted.targets if "/" not in target and os.path.isfile(os.path.join(boot, target))}
    return {"vmlinux": os.path.join(tree.path, "vmlinux"), **images, "config": os.path.join(tree.path, ".config"),
            "System.map": os.path.join(tree.path, "System.map")}


def put(files: dict[str, str], record: dict, path: str) -> dict:
    """Put files and record into the directory, which is replaced as a whole; return the record."""
    parent, name = os.path.split(path)
    beside = f".{name}.nested-kata-"
    with alone_in(parent, lambda: None):
        for left in os.listdir(parent):
            if left.startswith(beside):
                shutil.rmtree(os.path.join(parent, left))
        staging = tempfile.mkdtemp(prefix=beside, dir=parent)
        try:
            record["files"] = {}
            for file, source in files.items():
                target = os.path.join(staging, file)
                record["files"][file] = {"sha256": digest_of(source, copy=target), "size": os.path.getsize(target)}
            with open(os.path.join(staging, builds.RECORD), "x", encoding="utf-8") as file:
                json.dump(record, file, indent=2, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            for file in os.listdir(staging):
                os.chmod(os.path.join(staging, file), 0o644)
            os.chmod(staging, 0o755)
            sync_directory(staging)
            exchange(staging, path)
            sync_directory(parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return record


def exchange(staging: str, path: str) -> None:
    """Give a directory the name of another one, which gets its name if it exists."""
    if not os.path.isdir(path):
        os.rename(staging, path)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        code = errno.ENOSYS
    elif libc.renameat2(AT_FDCWD, os.fsencode(staging), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        return
    else:
        code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
        raise OSError(code, os.strerror(code), path)
    old = tempfile.mkdtemp(prefix=f"{staging}-", dir=os.path.dirname(path))
    os.rename(path, old)
    os.rename(staging, path)
    os.rename(old, staging)


def shown(record: dict | None) -> dict:
    """Return what diff mode shows of a build."""
    if record is None:
        return {}
    return {"key": record["key"], "release": record.get("release"), "files": {name: file["sha256"] for name, file in record["files"].items()}}


def look_decide_act(module: AnsibleModule, params: dict, progress: Progress) -> dict:
    arch = params["arch"] or kernel_tree.host_arch()
    wanted = builds.Wanted(params["tree"], arch, builds.targets_of(params["targets"], arch), params["path"], params["key"])
    found = look(wanted.path)
    plan = builds.decide(found, wanted)
    record = compiled = None
    if plan.steps:
        tree, more_vars = prepare(params, module)
        if not os.path.isdir(os.path.dirname(params["log"])) or os.path.isdir(params["log"]) or os.path.dirname(params["log"]) == wanted.path:
            raise Refused(f"log: {params['log']} is no file in a directory that exists, outside of path: correct it")
        if not module.check_mode:
            with alone_in(tree.path, lambda: progress.say(f"waiting for another build in {tree.path}")) as lock:
                found = look(wanted.path)
                plan = builds.decide(found, wanted)  # another run may just have built it
                if plan.steps:
                    known = int((found.record or {}).get("objects", 0))
                    record = build(tree, more_vars, wanted, params, lock, known, progress)
                    compiled = record.pop("compiled")
                    record = put(artifacts(tree, wanted), record, wanted.path)
    after = record or (None if plan.steps else dict(found.record))
    return {
        "changed": bool(plan.steps), "path": wanted.path, "log": params["log"], "objects": compiled or 0, "build": after,
        "steps": [str(step) for step in plan.steps], "msg": plan.reason,
        "diff": {
            "before_header": wanted.path, "after_header": wanted.path, "before": shown(found.record),
            "after": {"key": wanted.key} if plan.steps and not record else shown(after),
        },
    }


def interrupt(number: int, frame: object) -> None:
    raise builds.Interrupted


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tree": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "arch": {"type": "str"},
            "targets": {"type": "list", "elements": "str", "default": []},
            "jobs": {"type": "int"},
            "make_vars": {"type": "dict", "default": {}},
            "ccache": {"type": "bool", "default": False},
            "log": {"type": "path"},
            "info": {"type": "dict", "default": {}},
            "timestamp": {"type": "str", "default": "Thu Jan  1 00:00:00 UTC 1970"},
            "expected_objects": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = dict(module.params)
    params["tree"], params["path"] = os.path.abspath(params["tree"]), os.path.abspath(params["path"])
    params["log"] = os.path.abspath(params["log"] or f"{params['path']}.log")
    for name in ("jobs", "expected_objects"):
        if params[name] is not None and params[name] < 1:
            module.fail_json(msg=f"{name}: {params[name]} is not 1 or more")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with Progress() as progress:
            answer = look_decide_act(module, params, progress)
    except Failed as error:
        module.fail_json(msg=str(error), log=params["log"], **error.facts)
    except (Refused, CommandFailed) as error:
        module.fail_json(msg=str(error), log=params["log"])
    except builds.Interrupted:
        module.fail_json(msg=f"tree: the build in {params['tree']} was interrupted; the next run goes on with it", log=params["log"])
    except OSError as error:
        why = full_disk(params) if error.errno == errno.ENOSPC else f"{error.filename or params['path']}: {error.strerror}"
        module.fail_json(msg=f"tree: the build in {params['tree']} failed: {why}", log=params["log"])
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
