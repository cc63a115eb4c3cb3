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
  - The tree's own Kconfig decides. The module writes down what is asked for, has C(make) run Kconfig, reads the result, and
    compares. What was asked for and is not in the result is an error, with the reason that Kconfig has for it.
  - Never edits what Kconfig wrote. The file is replaced as a whole, and only when it differs.
attributes:
  check_mode:
    description: Can run in check mode and return the changed status without changing the configuration.
    support: full
    details:
      - Kconfig is run in check mode too, on a scratch file. Its program is then compiled in C(scripts/kconfig), as by any
        C(make) that configures.
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
    support: full
    details:
      - A second run with the same input on the same tree with the same compiler does not run C(make), and writes nothing.
  platform:
    description: Target machines that the module runs on.
    support: full
    platforms: linux
options:
  tree:
    description:
      - Directory of a Linux source tree, in which C(make) may compile C(scripts/kconfig).
    type: path
    required: true
  path:
    description:
      - The configuration to write. Its directory has to exist. Where it is a link, what it leads to is written.
      - Beside it a file with the suffix C(.nested-kata) remembers what it was made from.
      - The default is C(.config) in O(tree).
    type: path
  arch:
    description:
      - Architecture, as C(make) calls it, V(x86_64) or V(arm64) for example. It is always given to C(make), so that what is asked
        for 64 bits never becomes a kernel of 32.
      - To configure for another architecture than the machine's no cross compiler is needed, but without it Kconfig asks the native
        compiler what it can do, and turns off what depends on more. Set C(CROSS_COMPILE) in O(make_vars) for a build.
      - The default is the machine's.
    type: str
  base:
    description:
      - A configuration to start from, on the target, for example that of a distribution's kernel.
      - Only O(fragments) and O(options) have to be in the result. What O(base) says and the tree does not keep is no error;
        RV(base_missing) lists it, since it often comes from another version.
    type: path
  base_target:
    description:
      - A target of C(make) that makes the configuration to start from, such as V(defconfig), V(tinyconfig) or V(allnoconfig).
        Those that ask a person (V(menuconfig), V(oldconfig)) are refused.
    type: str
  fragments:
    description:
      - Files on the target that are merged in this order, each over those before.
      - A line is C(CONFIG_NAME=VALUE), C(# CONFIG_NAME is not set), a comment, or empty. C(VALUE) is V(y), V(m), V(n), a decimal
        number, a hexadecimal one that begins with C(0x), or a text in double quotes.
    type: list
    elements: path
    default: []
  options:
    description:
      - Symbols and their values, merged after O(fragments). C(CONFIG_) may be left out of the name.
      - Booleans become V(y) and V(n). A text that is no value of the kinds named at O(fragments) is put into double quotes.
    type: dict
    default: {}
  new_symbols:
    description:
      - The value of all that is not asked for.
    type: str
    choices:
      "no": V(n) wherever Kconfig allows it, as C(allnoconfig) does, and C(merge_config.sh -n).
      default: What the tree has as its default, as C(alldefconfig) does, and C(merge_config.sh).
    default: "no"
  allow_missing:
    description:
      - Symbols of O(fragments) and O(options) that may be missing in the result, each with the reason, for example since they
        exist only in later versions. Names may be globs, such as V(NF_NAT_*).
    type: dict
    default: {}
  on_redefine:
    description:
      - What to do when O(fragments) and O(options) give a symbol two values. The last one counts.
      - That they change a value of O(base) is not meant by this.
    type: str
    choices: [warn, error, ignore]
    default: warn
  make_vars:
    description:
      - Variables for C(make), such as C(CC), C(LLVM) or C(CROSS_COMPILE). Others than these are not taken from the environment.
    type: dict
    default: {}
requirements:
  - On the target the commands C(make), C(flex), C(bison), C(gcc) and C(ld), or those that O(make_vars) names in the place of the last two.
notes:
  - Use the same O(arch) and O(make_vars), and the same compiler, for the build, since Kconfig asks the compiler what it can do.
  - Several of these may run at once on different trees, not on the same.
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

- name: Start from what the distribution has, and see what would become of it
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
  description: What came out.
  returned: success
  type: dict
  contains:
    path:
      description: The configuration, O(path) with its links resolved.
      returned: success
      type: str
      sample: /usr/src/linux-6.12/.config
    kernel:
      description: Version of the tree, without what C(LOCALVERSION) adds.
      returned: success
      type: str
      sample: 6.12.107
    arch:
      description: Architecture.
      returned: success
      type: str
      sample: x86_64
    requested:
      description: Number of symbols that O(fragments) and O(options) ask for.
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
  description: What was asked for and is not in the result.
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
      description: The value that was asked for.
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
        - The reason, as the tree's Kconfig has it. Empty where it could not be asked, and where RV(missing[].allowed) has one.
      returned: success
      type: str
      sample: NF_TABLES_INET needs IPV6=y, is n
    allowed:
      description: The reason of O(allow_missing), V(null) where it has none.
      returned: success
      type: str
base_missing:
  description: What O(base) or O(base_target) says, nothing overrides, and is not in the result. As RV(missing), without reasons.
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
      description: The value that no longer counts.
      returned: success
      type: str
      sample: y
    from_source:
      description: File and line, or the option.
      returned: success
      type: str
      sample: /usr/src/fragments/base-x86_64.config:88
    to:
      description: The value that counts.
      returned: success
      type: str
      sample: n
    to_source:
      description: File and line, or the option.
      returned: success
      type: str
      sample: options.XFS_FS
sha256:
  description: SHA-256 of the configuration, also of the one that check mode does not write.
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

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, replace
from typing import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils import kconfig, kernel_tree
from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused

REMEMBERED = ".nested-kata"
ASKS_A_PERSON = ("config", "oldconfig", "menuconfig", "nconfig", "xconfig", "gconfig")
KCONFIG_TARGET = {"no": "allnoconfig", "default": "alldefconfig"}
FORMAT = 1  # of what is remembered


@dataclass(frozen=True)
class Wanted:
    """What the task asked for, read and checked."""

    tree: kernel_tree.Tree
    path: str
    base: list
    base_target: str | None
    layers: list
    new_symbols: str
    allowed: dict
    on_redefine: str


@dataclass(frozen=True)
class Found:
    """What lies where the configuration is to be."""

    config: str | None
    remembered: dict


@dataclass(frozen=True)
class Outcome:
    """What Kconfig made of the request."""

    config: str
    missing: list
    base_missing: list
    redefined: list


@dataclass(frozen=True)
class Write:
    """Replace a file as a whole."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


# --- look ---

def wanted_of(params: dict) -> Wanted:
    """Return what the options mean, or raise Malformed or Refused. Reads the files that they name."""
    tree = kernel_tree.open_tree(params["tree"], params["arch"], params["make_vars"])
    for pattern, why in params["allow_missing"].items():
        if not isinstance(why, str) or not why.strip():
            raise Refused(f"allow_missing: {pattern} has no reason; say in a few words why it may be missing")
    target = params["base_target"]
    if target and (not re.fullmatch(r"[A-Za-z0-9_.-]*config", target) or target in ASKS_A_PERSON):
        raise Refused(f"base_target: {target} is no target that makes a configuration by itself, as defconfig does")
    path = os.path.realpath(params["path"] or os.path.join(tree.path, ".config"))
    if not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"path: there is no directory {os.path.dirname(path)}")
    if os.path.isdir(path):
        raise Refused(f"path: {path} is a directory")
    return Wanted(
        tree, path, read(params["base"], "base") if params["base"] else [], target,
        [*(read(fragment, "fragments") for fragment in params["fragments"]), kconfig.from_options(params["options"])],
        params["new_symbols"], params["allow_missing"], params["on_redefine"],
    )


def read(path: str, option: str) -> list:
    try:
        with open(path, encoding="utf-8") as file:
            return kconfig.parse(file.read(), path)
    except OSError as error:
        raise Refused(f"{option}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{option}: {path} is no text in UTF-8") from error


def look(wanted: Wanted) -> Found:
    try:
        with open(wanted.path, encoding="utf-8", errors="surrogateescape") as file:
            config = file.read()
    except FileNotFoundError:
        config = None
    try:
        with open(wanted.path + REMEMBERED, encoding="utf-8") as file:
            remembered = json.load(file)
    except (OSError, ValueError):
        remembered = {}
    return Found(config, remembered if isinstance(remembered, dict) else {})


def fingerprint(wanted: Wanted) -> str:
    """Return a hash over all that the result depends on."""
    return sha256(repr((FORMAT, wanted, kernel_tree.fingerprint(wanted.tree))))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def ask_kconfig(wanted: Wanted, scratch: str) -> Outcome:
    """Return what the tree's Kconfig makes of the request."""
    base = wanted.base
    if wanted.base_target:
        started = os.path.join(scratch, "base")
        kernel_tree.configure(wanted.tree, wanted.base_target, started)
        with open(started, encoding="utf-8") as file:
            base = kconfig.parse(file.read(), wanted.base_target)
    request, redefined = kconfig.merge(base, wanted.layers)
    asked, result = os.path.join(scratch, "request"), os.path.join(scratch, "config")
    with open(asked, "w", encoding="utf-8") as file:
        file.write(kconfig.render(request))
    kernel_tree.configure(wanted.tree, KCONFIG_TARGET[wanted.new_symbols], result, asked)
    with open(result, encoding="utf-8") as file:
        config = file.read()
    values = kconfig.values(config, result)
    of_base = {id(each) for each in base}
    lost = kconfig.lost(request.values(), values)
    missing = [replace(each, allowed=kconfig.allow(each, wanted.allowed)) for each in lost if id(each.wanted) not in of_base]
    answers = ask_why(wanted, result, [each.wanted.symbol for each in missing if each.allowed is None], scratch)
    missing = [
        replace(each, why=kconfig.reason(each, answers[each.wanted.symbol], values.get("MODULES") == "y")) if each.wanted.symbol in answers else each
        for each in missing
    ]
    return Outcome(config, missing, [each for each in lost if id(each.wanted) in of_base], redefined)


def ask_why(wanted: Wanted, config: str, symbols: list, scratch: str) -> dict:
    """Return Kconfig's answers; none where a tree's Kconfig is unlike those that can be asked: the rest of the result holds anyway."""
    if not symbols:
        return {}
    try:
        return kernel_tree.ask(wanted.tree, config, symbols, scratch)
    except CommandFailed:
        return {}


# --- decide ---

class NotKept(Exception):
    """Kconfig's result is not what was asked for."""

    def __init__(self, message: str, told: dict) -> None:
        super().__init__(message)
        self.details = {key: told[key] for key in ("missing", "redefined")}


def decide(wanted: Wanted, found: Found, outcome: Outcome, remember: dict) -> tuple[list, str]:
    """Return the files to write and the reason, or raise NotKept."""
    if wanted.on_redefine == "error" and outcome.redefined:
        raise NotKept(f"on_redefine: {len(outcome.redefined)} symbols get two values: {kconfig.listing(outcome.redefined)}", remember)
    if any(each.allowed is None for each in outcome.missing):
        raise NotKept(kconfig.complaint(requested(wanted), outcome.missing), remember)
    steps = []
    if found.config is None:
        why = "there is none yet"
    elif found.config != outcome.config:
        before, after = (dict(re.findall(r"^(?:# )?(CONFIG_\w+)(.*)$", text, re.MULTILINE)) for text in (found.config, outcome.config))
        changed = sum(before.get(symbol) != after.get(symbol) for symbol in {**before, **after})
        why = f"{changed} symbols change" if changed else "the heading changes"
    else:
        why = "it is as asked for"
    if found.config != outcome.config:
        steps.append(Write(wanted.path, outcome.config))
    if found.remembered != remember:
        steps.append(Write(wanted.path + REMEMBERED, json.dumps(remember, indent=1) + "\n"))
    return steps, f"{wanted.path}: {why}"


def requested(wanted: Wanted) -> int:
    return len({each.symbol for layer in wanted.layers for each in layer})


def memory(outcome: Outcome, request: str) -> dict:
    return {
        "request": request,
        "sha256": sha256(outcome.config),
        "missing": [described(each) for each in outcome.missing],
        "base_missing": [described(each) for each in outcome.base_missing],
        "redefined": [
            {
                "symbol": each.before.symbol, "from": each.before.value, "from_source": each.before.source,
                "to": each.after.value, "to_source": each.after.source,
            }
            for each in outcome.redefined
        ],
    }


def described(lost: kconfig.Lost) -> dict:
    return {
        "symbol": lost.wanted.symbol, "requested": lost.wanted.value, "actual": lost.actual, "source": lost.wanted.source,
        "why": lost.why, "allowed": lost.allowed,
    }


# --- act ---

def carry_out(step: Write) -> None:
    """Replace the file; whoever looks finds the old one or the new one. What a killed run left is overwritten by the next."""
    new = step.path + ".new"
    with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(step.text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, step.path)


def configure(wanted: Wanted, scratch: Callable[[], str], check_mode: bool) -> dict:
    """Bring the configuration about and return the result."""
    kernel_tree.require(kernel_tree.tools_of_kconfig(wanted.tree))
    found, request = look(wanted), fingerprint(wanted)
    if found.config is not None and found.remembered.get("request") == request and found.remembered.get("sha256") == sha256(found.config):
        steps, why, config, told = [], f"{wanted.path}: made from the same before", found.config, found.remembered
    else:
        with tempfile.TemporaryDirectory(dir=scratch()) as directory:
            outcome = ask_kconfig(wanted, directory)
        config, told = outcome.config, memory(outcome, request)
        steps, why = decide(wanted, found, outcome, told)
        for step in [] if check_mode else steps:
            carry_out(step)
    set_to = re.findall(r"^CONFIG_\w+=(.*)$", config, re.MULTILINE)
    return {
        "changed": any(step.path == wanted.path for step in steps),
        "config": {
            "path": wanted.path, "kernel": wanted.tree.version, "arch": wanted.tree.arch, "requested": requested(wanted),
            "built_in": set_to.count("y"), "modules": set_to.count("m"),
        },
        "missing": told["missing"], "base_missing": told["base_missing"], "redefined": told["redefined"], "sha256": told["sha256"],
        "diff": {"before_header": wanted.path, "after_header": wanted.path, "before": found.config or "", "after": config},
        "msg": why,
    }


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
    try:
        answer = configure(wanted_of(module.params), lambda: module.tmpdir, module.check_mode)
    except NotKept as error:
        module.fail_json(msg=str(error), **error.details)
    except CommandFailed as error:
        module.fail_json(msg=f"tree: {error}", cmd=error.command, rc=error.status, stdout=error.output)
    except (Refused, kconfig.Malformed) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror}")
    if module.params["on_redefine"] == "warn":
        for each in answer["redefined"]:
            module.warn(f"{each['symbol']} is {each['from']} in {each['from_source']}, then {each['to']} in {each['to_source']}: the last one counts")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
