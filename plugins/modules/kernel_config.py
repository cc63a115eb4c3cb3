#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_config
short_description: Configure a Linux kernel tree from fragments, and verify the result
version_added: 0.1.0
description:
  - Merges a base, fragment files and single options into the C(.config) of a Linux source tree.
  - The tree's own Kconfig decides. The module writes the request, has C(make) run Kconfig, reads the result, and
    compares. A requested value that is not in the result is an error, with Kconfig's reason.
  - Never edits Kconfig's output. The file is replaced as a whole, and only when it differs.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - Kconfig is run in check mode too, in a scratch directory.
  idempotent:
    details:
      - A second run with the same input on the same tree with the same compiler does not run C(make), and writes
        nothing.
options:
  tree:
    description:
      - Directory of a Linux source tree. It may be read-only, and C(make) may have been run in it.
      - Nothing is written below it, unless O(path) is there, so that C(make O=) does not refuse it. Kconfig's program
        is compiled in a scratch directory.
    type: path
    required: true
  path:
    description:
      - The configuration to write. Its directory must exist; it may be that of C(make O=). Where it is a link, its
        target is written.
      - Beside it a file with the suffix C(.nested-kata) records its inputs.
      - The default is C(.config) in O(tree).
    type: path
  arch:
    description:
      - Architecture, as C(make) calls it, V(x86_64) or V(arm64) for example. It is always given to C(make), so that a
        request for 64 bits never becomes a kernel of 32 bits.
      - A configuration for another architecture than the machine's needs no cross compiler, but without it Kconfig asks
        the native compiler for its features, and turns off what depends on others. Set C(CROSS_COMPILE) in O(make_vars)
        for a build.
      - The default is the machine's.
    type: str
  base:
    description:
      - A configuration to start from, on the target, for example that of a distribution's kernel, or
        C(/proc/config.gz). Files compressed with gzip, bzip2 or xz are read.
      - Only O(fragments) and O(options) must be in the result. Values of O(base) that the tree does not keep are not an
        error; RV(base_missing) lists them, since the base often comes from another version.
    type: path
  base_target:
    description:
      - A target of C(make) that makes the configuration to start from, such as V(defconfig), V(tinyconfig) or
        V(allnoconfig). Interactive targets (V(menuconfig), V(oldconfig)) are refused.
    type: str
  fragments:
    description:
      - Files on the target that are merged in this order, each overriding the earlier ones.
      - A line is C(CONFIG_NAME=VALUE), C(# CONFIG_NAME is not set), a comment, or empty. C(VALUE) is V(y), V(m), V(n),
        a decimal number, a hexadecimal one that begins with C(0x), or a text in double quotes.
      - C(# CONFIG_NAME is not set) has exactly these blanks and nothing behind it. A comment that only looks like it,
        such as C(#CONFIG_NAME is not set), is an error, since Kconfig would pass over it.
      - A symbol that is a text is empty where it is not set. A number always has a value, and it is an error if it is
        not to be set.
    type: list
    elements: path
    default: []
  options:
    description:
      - Symbols and their values, merged after O(fragments). C(CONFIG_) may be left out of the name.
      - Booleans become V(y) and V(n), where V(false) means that the symbol is not set.
      - A text is put into double quotes, unless it is a value as described in O(fragments). What V(17) or V("-1") means
        then depends on the symbol's type in O(tree). For a symbol that is a text it is a text.
      - A number in YAML becomes hexadecimal where the symbol is, so that C(0x1000000) stays what it is. A text of
        decimal digits for such a symbol is an error.
    type: dict
    default: {}
  new_symbols:
    description:
      - The value of all symbols that are not requested.
    type: str
    choices:
      "no": V(n) wherever Kconfig allows it, as C(allnoconfig) does, and C(merge_config.sh -n).
      default: The tree's own default, as C(alldefconfig) does, and C(merge_config.sh).
    default: "no"
  allow_missing:
    description:
      - Symbols of O(fragments) and O(options) that may be missing in the result, each with the reason, for example that
        they exist only in later versions. Names may be globs, such as V(NF_NAT_*).
    type: dict
    default: {}
  on_redefine:
    description:
      - What to do when O(fragments) and O(options) give a symbol two values. The last value applies.
      - A changed value of O(base) is always allowed.
    type: str
    choices: [warn, error, ignore]
    default: warn
  make_vars:
    description:
      - Variables for C(make), such as C(CC), C(LLVM) or C(CROSS_COMPILE). Other variables are not taken from the
        environment.
    type: dict
    default: {}
requirements:
  - On the target the commands C(make), C(flex), C(bison), C(gcc) and C(ld), or the replacements of the last two in
    O(make_vars).
notes:
  - Use the same O(arch) and O(make_vars), and the same compiler, for the build, since Kconfig asks the compiler what it
    can do.
  - Several tasks may run at once, also on the same tree, but not for the same O(path).
seealso:
  - module: nested.kata.kernel_build
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Configure a kernel for Docker
  nested.kata.kernel_config:
    tree: /usr/src/linux-6.12
    fragments:
      - /usr/src/fragments/base-x86_64.config
      - /usr/src/fragments/docker.config
    options:
      BTRFS_FS: true
      LOCALVERSION: -docker
    allow_missing:
      NETFILTER_XTABLES_LEGACY: new in 6.17

- name: Start from the distribution's configuration, and show the result
  nested.kata.kernel_config:
    tree: /usr/src/linux-6.12
    base: /boot/config-6.1.0-44-amd64
    new_symbols: default
    options:
      KVM_AMD: y
  check_mode: true
  diff: true

- name: Merge and verify for another architecture
  nested.kata.kernel_config:
    tree: /usr/src/linux-6.12
    path: /tmp/arm64.config
    arch: arm64
    fragments:
      - /usr/src/fragments/base-arm64.config
"""

RETURN = r"""
config:
  description: The resulting configuration.
  returned: success
  type: dict
  contains:
    path:
      description: The configuration, O(path) with its links resolved.
      returned: success
      type: str
      sample: /usr/src/linux-6.12/.config
    kernel:
      description: Version of the tree, without C(LOCALVERSION).
      returned: success
      type: str
      sample: 6.12.107
    arch:
      description: Architecture.
      returned: success
      type: str
      sample: x86_64
    requested:
      description: Number of symbols in O(fragments) and O(options).
      returned: success
      type: int
      sample: 412
    built_in:
      description: Number of symbols that are V(y).
      returned: success
      type: int
      sample: 1034
    modules:
      description: Number of symbols that are V(m).
      returned: success
      type: int
      sample: 0
missing:
  description: Requested values that are not in the result.
  returned: success, and when it is the reason of the failure
  type: list
  elements: dict
  contains:
    symbol:
      description: Name, without C(CONFIG_).
      returned: success
      type: str
      sample: NF_TABLES_INET
    requested:
      description: The requested value.
      returned: success
      type: str
      sample: y
    actual:
      description: The value in the result, V(unset) where it has none.
      returned: success
      type: str
      sample: n
    source:
      description: File and line, or the option.
      returned: success
      type: str
      sample: /usr/src/fragments/docker.config:12
    why:
      description:
        - The reason from the tree's Kconfig. Empty where it could not be asked, and where RV(missing[].allowed) is set.
      returned: success
      type: str
      sample: NF_TABLES_INET needs IPV6=y, is n
    allowed:
      description: The reason in O(allow_missing), V(null) where it has none.
      returned: success
      type: str
base_missing:
  description: Values of O(base) or O(base_target) that nothing overrides and that are not in the result. As
    RV(missing), without reasons.
  returned: success
  type: list
  elements: dict
redefined:
  description: Symbols to which O(fragments) and O(options) give two values, one after the other.
  returned: success, and when it is the reason of the failure
  type: list
  elements: dict
  contains:
    symbol:
      description: Name, without C(CONFIG_).
      returned: success
      type: str
      sample: XFS_FS
    from:
      description: The overridden value.
      returned: success
      type: str
      sample: y
    from_source:
      description: File and line, or the option.
      returned: success
      type: str
      sample: /usr/src/fragments/base-x86_64.config:88
    to:
      description: The value that applies.
      returned: success
      type: str
      sample: n
    to_source:
      description: File and line, or the option.
      returned: success
      type: str
      sample: options.XFS_FS
sha256:
  description: SHA-256 of the configuration, also in check mode, which does not write it.
  returned: success
  type: str
  sample: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
diff:
  description: The configuration before and after.
  returned: success
  type: dict
msg:
  description: What was done and why, in one line.
  returned: always
  type: str
  sample: "/usr/src/linux-6.12/.config: the input differs from that of the last run; 3 symbols changed"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_machine import apply
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_options import parse
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_plan import result_of, warnings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tree": {"type": "path", "required": True},
            "path": {"type": "path"},
            "arch": {"type": "str"},
            "base": {"type": "path"},
            "base_target": {"type": "str"},
            "fragments": {"type": "list", "elements": "path", "default": []},
            "options": {"type": "dict", "default": {}},
            "new_symbols": {"type": "str", "choices": ["no", "default"], "default": "no"},
            "allow_missing": {"type": "dict", "default": {}},
            "on_redefine": {"type": "str", "choices": ["warn", "error", "ignore"], "default": "warn"},
            "make_vars": {"type": "dict", "default": {}},
        },
        mutually_exclusive=[("base", "base_target")],
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        result = result_of(wanted, *apply(wanted, lambda: module.tmpdir, module.check_mode))
        for text in warnings(wanted, result["redefined"]):
            module.warn(text)
        return result

    finish(module, work, module.params["path"] or module.params["tree"])


if __name__ == "__main__":
    main()
