#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_build
short_description: Build a configured Linux tree, and keep its artifacts in one directory
version_added: 0.1.0
description:
  - Runs C(make) on a Linux source tree that has a C(.config), and puts the kernel, its configuration and a record of
    the build into a directory, all at once. Whatever interrupts it, the directory holds the earlier build or this one,
    and never half of one.
  - Where the directory already holds the build with this O(key), nothing is run and no source tree is needed.
  - The C(.config) is never changed. Make it with M(nested.kata.kernel_config), with the same O(arch) and O(make_vars).
  - The same source, configuration and toolchain in the same directory give the same bytes.
  - While it runs, it shows every few seconds how many objects are built.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - Everything is checked, including what a build needs, and nothing is built.
  diff_mode:
    details:
      - Shows the key, the release and the files' digests, before and after. In check mode those of a future build are
        not known.
  idempotent:
    details:
      - With the same O(key), O(arch) and O(targets), the second run starts no C(make) and no compiler.
options:
  tree:
    description:
      - The source tree, which holds the C(.config). Objects are made in it, so that a build that was interrupted by
        hand or failed continues where it ended.
      - Where a build was killed, or the machine went down, C(make clean) comes first, since objects may be cut off.
      - Builds in the same tree wait for each other.
    type: path
    required: true
  path:
    description:
      - The directory that gets C(vmlinux), the images in O(targets), C(config), C(System.map) and C(build.json), the
        record. It is created where it is missing; its parent directory must exist.
      - It is replaced as a whole. So a directory that holds files not from this module is refused.
    type: path
    required: true
  key:
    description:
      - Identifies all inputs of the build, for example a hash over source, configuration and toolchain. The caller
        chooses it.
      - Where C(build.json) in O(path) has the same key, O(arch) and O(targets), and every file in it has the SHA-256
        that was recorded, there is nothing to do.
    type: str
    required: true
  arch:
    description:
      - Architecture, as C(make) calls it, V(x86_64) or V(arm64) for example.
      - For an architecture other than the machine's set C(CROSS_COMPILE) or C(LLVM) in O(make_vars).
      - The default is the machine's.
    type: str
  targets:
    description:
      - Targets of C(make). V(vmlinux) is always built.
      - A target whose file is then in the C(boot) directory of the architecture, such as V(bzImage), is put into
        O(path). Other targets are only built.
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
      - Variables for C(make), such as C(CC), C(LLVM) or C(CROSS_COMPILE). They are not part of O(key) by themselves.
    type: dict
    default: {}
  ccache:
    description:
      - Put C(ccache) before the compilers. Its own configuration, or E(CCACHE_DIR), determines the location of its
        cache.
    type: bool
    default: false
  log:
    description:
      - File for the whole output of C(make). It is kept, also when the build fails, until the next build. Its directory
        must exist.
      - The default is the name in O(path) with C(.log).
    type: path
  info:
    description:
      - More to record in C(build.json), for example the profile of the configuration. It has no effect on the build.
    type: dict
    default: {}
  timestamp:
    description:
      - The time of the build that the kernel shows in C(uname -v), as C(date) reads it. With the real time every build
        would differ.
    type: str
    default: Thu Jan  1 00:00:00 UTC 1970
  expected_objects:
    description:
      - Expected number of objects of the build, for percentages while it runs.
      - The default is the number of the earlier build in C(build.json) in O(path), where the tree holds no objects yet.
    type: int
requirements:
  - C(make), C(flex), C(bison), C(bc), a compiler and a linker
  - what the configuration needs, for example the headers of libelf (C(CONFIG_OBJTOOL)) and OpenSSL
    (C(CONFIG_SYSTEM_TRUSTED_KEYRING)), C(pahole) (C(CONFIG_DEBUG_INFO_BTF)), C(zstd) (C(CONFIG_KERNEL_ZSTD))
  - C(ccache), with O(ccache)
  - all that is missing is reported in one error, before anything starts
seealso:
  - module: nested.kata.kernel_config
notes:
  - The directories of O(path) are exchanged in one step where the file system can, as those of Linux can. On one that
    cannot, O(path) does not exist for a moment.
  - The variable C(nested_kata_progress_seconds) sets how often progress is shown, 5 by default; 0 shows none.
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
  description: The contents of C(build.json). In check mode V(null) where it would be built.
  returned: success
  type: dict
  contains:
    release:
      description: What C(uname -r) prints when the kernel runs.
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
      description: Version line of the compiler.
      type: str
      sample: gcc (Debian 14.2.0-19) 14.2.0
    linker:
      description: Version line of the linker.
      type: str
      sample: GNU ld (GNU Binutils for Debian) 2.44
    seconds:
      description: How long C(make) ran.
      type: float
      sample: 412.7
    objects:
      description: How many objects were compiled or assembled. Those that an interrupted build had made before are not
        counted.
      type: int
      sample: 2931
    timestamp:
      description: As O(timestamp).
      type: str
    files:
      description: Size in bytes and SHA-256 of every other file in the directory, by name.
      type: dict
      sample:
        bzImage:
          sha256: 96cb19f39e9a90b0e14b7d2e4c0e1e5a0e8f9d8c3a47ad3e61a0ed1bd6ab4aa5
          size: 9123840
steps:
  description: The steps that were done, in this order, or would be done.
  returned: success
  type: list
  elements: str
  sample:
    - build vmlinux, bzImage in /usr/src/linux-6.12
    - put the artifacts into /var/lib/nested-kata/kernels/6.12-btrfs
errors:
  description: The lines of the build's output that show why it failed, ten at most.
  returned: when the build fails
  type: list
  elements: str
  sample: ["fs/btrfs/super.c:42:9: error: expected ';' before 'return'"]
msg:
  description: The reason, in one line.
  returned: always
  type: str
  sample: there is no build in /var/lib/nested-kata/kernels/6.12-btrfs yet
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_machine import apply, interruptible
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_options import log_of, parse
from ansible_collections.nested.kata.plugins.module_utils._kernel.build_plan import result_of


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

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        with interruptible(wanted), Progress() as progress:
            plan, found, built, compiled = apply(wanted, module.check_mode, progress)
        return result_of(wanted, plan, found, built, compiled)

    finish(module, work, module.params["path"], log=log_of(module.params))


if __name__ == "__main__":
    main()
