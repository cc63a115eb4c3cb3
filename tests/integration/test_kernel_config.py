# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_config on the trees of two kernels, with their own Kconfig and a real compiler."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_runner import module_command, module_environment, run_module
from kernel_trees import copy_of

FRAGMENTS = {
    "net.config": "# sockets\nCONFIG_NET=y\nCONFIG_INET=y\nCONFIG_UNIX=y\n",
    "disk.config": "# a disk\n"
    + "".join(
        f"CONFIG_{name}=y\n"
        for name in ("BLOCK", "PCI", "VIRTIO_MENU", "VIRTIO_PCI", "BLK_DEV", "VIRTIO_BLK", "BTRFS_FS")
    ),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return copy_of("6.12", tmp_path_factory.mktemp("tree") / "6.12")


@pytest.fixture
def fragments(tmp_path) -> list[str]:
    for name, text in FRAGMENTS.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in FRAGMENTS]


def options(tree: Path, path: Path, **more) -> dict:
    return {"tree": str(tree), "path": str(path), "arch": "x86_64", **more}


def symbols(config: Path) -> dict[str, str]:
    found = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", config.read_text(), re.MULTILINE))
    return {
        **found,
        **dict.fromkeys(re.findall(r"^# CONFIG_(\w+) is not set$", config.read_text(), re.MULTILINE), "n"),
    }


def state(directory: Path) -> dict[str, tuple]:
    return {
        entry.name: (entry.stat().st_mtime_ns, entry.stat().st_ino, entry.stat().st_size)
        for entry in os.scandir(directory)
    }


@pytest.fixture
def calls_of_make(tmp_path, monkeypatch):
    """Counts the calls of make."""
    bin_, log = tmp_path / "bin", tmp_path / "make.log"
    bin_.mkdir()
    (bin_ / "make").write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {shutil.which("make")} "$@"\n')
    (bin_ / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []


# --- four runs ---


def test_check_real_again_and_again_in_check_mode(any_tree, tmp_path, fragments, calls_of_make):
    out = tmp_path / "out"
    out.mkdir()
    asked = options(any_tree, out / ".config", fragments=fragments, options={"LOCALVERSION": "-test"})

    foreseen = run_module("kernel_config", asked, check=True)
    assert foreseen["changed"] and not state(out), foreseen["msg"]

    done = run_module("kernel_config", asked)
    assert done["changed"], done["msg"]
    assert done["sha256"] == foreseen["sha256"]
    assert done["diff"] == foreseen["diff"]
    kept = symbols(out / ".config")
    assert {name: kept[name] for name in ("BTRFS_FS", "VIRTIO_BLK", "UNIX", "64BIT", "LOCALVERSION")} == {
        "BTRFS_FS": "y",
        "VIRTIO_BLK": "y",
        "UNIX": "y",
        "64BIT": "y",
        "LOCALVERSION": '"-test"',
    }
    assert kept["BRIDGE"] == "n"
    assert kept["MODULES"] == "n"
    assert done["missing"] == []
    assert done["config"]["requested"] == 11
    assert done["config"]["modules"] == 0
    assert "CONFIG_BTRFS_FS=y" in done["diff"]["after"]
    assert done["diff"]["before"] == ""

    before, calls = state(out), len(calls_of_make())
    for check in (False, True):
        again = run_module("kernel_config", asked, check=check)
        assert not again["changed"] and again["sha256"] == done["sha256"] and again["config"] == done["config"], again[
            "msg"
        ]
    assert state(out) == before
    assert calls
    assert len(calls_of_make()) == calls


def test_whatever_the_result_depends_on_brings_kconfig_into_play_again(tree, tmp_path, fragments, calls_of_make):
    config, asked = tmp_path / ".config", options(tree, tmp_path / ".config", fragments=fragments)

    def other_result() -> None:
        config.write_text(config.read_text().replace("CONFIG_UNIX=y", "# CONFIG_UNIX is not set"))

    def other_fragment() -> None:
        Path(fragments[0]).write_text(FRAGMENTS["net.config"] + "CONFIG_BRIDGE=y\n")

    # What happens, whether the file changes for it, and whether the result is another one.
    changes = [
        (other_result, True, False),
        (config.unlink, True, False),
        (lambda: os.utime(tree / "net" / "Kconfig"), False, False),
        (lambda: asked.update(on_redefine="error"), False, False),
        (other_fragment, True, True),
        (lambda: asked.update(options={"LLC2": "y"}), True, True),
    ]
    last = alone(asked)
    for number, (happens, changed, another) in enumerate(changes):
        calls = len(calls_of_make())
        happens()
        result = alone(asked)
        assert (number, len(calls_of_make()) > calls) == (number, True)
        assert (number, result["changed"], result["sha256"] != last["sha256"]) == (number, changed, another)
        assert symbols(config)["UNIX"] == "y"
        last = result


def test_the_time_stamp_of_a_configuration_that_comes_out_the_same_is_kept(tree, tmp_path, fragments):
    asked = options(tree, tmp_path / ".config", fragments=fragments)
    alone(asked)
    before = (tmp_path / ".config").stat().st_mtime_ns
    asked["options"] = {"UNIX": "y"}  # asked for twice, with the same value
    again = alone(asked)
    assert not again["changed"]
    assert again["redefined"] == []
    assert (tmp_path / ".config").stat().st_mtime_ns == before


def test_the_default_path_is_the_one_that_make_reads(tmp_path, fragments):
    tree = copy_of("6.12", tmp_path / "tree")
    assert alone({"tree": str(tree), "arch": "x86_64", "fragments": fragments})["changed"]
    asked_again = subprocess.run(
        ["make", "-s", "ARCH=x86_64", "listnewconfig"], cwd=tree, check=True, capture_output=True, text=True
    )
    assert asked_again.stdout == ""


# --- the same as the tree's own script ---


def by_merge_config(tree: Path, where: Path, inputs: list[str], *flags: str) -> list[str]:
    """Return the lines that scripts/kconfig/merge_config.sh makes of the same input."""
    environment = {**os.environ, "ARCH": "x86_64", "KCONFIG_CONFIG": str(where / "merged")}
    subprocess.run(
        ["scripts/kconfig/merge_config.sh", *flags, *inputs], cwd=tree, env=environment, check=True, capture_output=True
    )
    return (where / "merged").read_text().splitlines()


@pytest.mark.parametrize(("new_symbols", "flags"), [("no", ["-n"]), ("default", [])])
def test_the_result_is_that_of_merge_config_byte_for_byte(any_tree, tmp_path, fragments, new_symbols, flags):
    result = alone(options(any_tree, tmp_path / ".config", fragments=fragments, new_symbols=new_symbols))
    assert not result["failed"], result["msg"]
    assert (tmp_path / ".config").read_text().splitlines() == by_merge_config(any_tree, tmp_path, fragments, *flags)


def test_a_base_counts_before_the_fragments_and_what_it_loses_is_no_error(any_tree, tmp_path, fragments):
    base = tmp_path / "base"
    base.write_text(
        "CONFIG_UNIX=n\nCONFIG_GONE_SINCE_5_0=y\nCONFIG_IPV6=y\nCONFIG_VIRTIO_NET=y\n# CONFIG_64BIT is not set\n"
    )
    result = alone(options(any_tree, tmp_path / ".config", base=str(base), fragments=fragments))
    assert not result["failed"], result["msg"]
    assert result["redefined"] == []
    assert result["missing"] == []
    assert [(each["symbol"], each["actual"]) for each in result["base_missing"]] == [
        ("GONE_SINCE_5_0", "n"),
        ("VIRTIO_NET", "n"),
        ("64BIT", "y"),
    ]
    kept = symbols(tmp_path / ".config")
    assert (kept["UNIX"], kept["IPV6"]) == ("y", "y")
    assert (tmp_path / ".config").read_text().splitlines() == by_merge_config(
        any_tree, tmp_path, [str(base), *fragments], "-n"
    )


@pytest.mark.parametrize(("target", "symbol"), [("defconfig", "E1000"), ("tinyconfig", "KERNEL_XZ")])
def test_a_target_of_make_can_be_the_base(tree, tmp_path, target, symbol):
    result = alone(options(tree, tmp_path / ".config", base_target=target, options={"EXPERT": True}))
    assert not result["failed"], result["msg"]
    kept = symbols(tmp_path / ".config")
    assert (kept[symbol], kept["EXPERT"]) == ("y", "y")


def test_another_architecture_is_configured_without_a_cross_compiler(any_tree, tmp_path):
    asked = options(any_tree, tmp_path / ".config", options={"VIRTIO_MENU": True, "VIRTIO_MMIO": True, "OF": True}) | {
        "arch": "arm64"
    }
    result = alone(asked)
    assert not result["failed"], result["msg"]
    kept = symbols(tmp_path / ".config")
    assert (kept["ARM64"], kept["VIRTIO_MMIO"]) == ("y", "y")
    assert "X86" not in kept
    assert result["config"]["arch"] == "arm64"


# --- a person's way ---


def by_hand(tree: Path, config: Path) -> list[str]:
    """Answer make oldconfig: n to what can be n, Enter to a choice, a number or a text, which would be asked for ever
    if answered with n.

    Returns what was asked.
    """
    asked: list[str] = []
    process = subprocess.Popen(
        ["make", "-s", "ARCH=x86_64", f"KCONFIG_CONFIG={config}", "oldconfig"],
        cwd=tree,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, alternatives = b"", []
    while letter := process.stdout.read(1):
        said += letter
        question, answer = re.search(rb"\((\w+)\) \[([^\[\]]*)\] \(NEW\) $", said), None
        if question and not re.fullmatch(rb"[YMN]/\?", question.group(2)):  # what has one answer is not waited for
            asked.append(question.group(1).decode())
            answer = b"n" if re.search(rb"(?i)(^|/)n/", question.group(2)) else b""
        elif re.search(rb"choice\[1-[0-9]+\?\]: $", said) and any(b"(NEW)" in each for each in alternatives):
            answer = b""
        if answer is not None:
            process.stdin.write(answer + b"\n")
            process.stdin.flush()
        if answer is not None or letter == b"\n":
            alternatives = [*alternatives, said] if re.match(rb"[ >] +[0-9]+\. ", said) else []
            said = b""
    assert process.wait() == 0
    return asked


def test_no_is_what_a_person_gets_who_says_no_in_oldconfig(any_tree, tmp_path, fragments):
    result = alone(options(any_tree, tmp_path / "ours", fragments=fragments))
    assert not result["failed"], result["msg"]
    (tmp_path / "theirs").write_text("".join(Path(fragment).read_text() for fragment in fragments))
    asked = by_hand(any_tree, tmp_path / "theirs")
    assert len(asked) > 100
    ours, theirs = symbols(tmp_path / "ours"), symbols(tmp_path / "theirs")
    differing = {
        name: (ours.get(name), theirs.get(name)) for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)
    }
    # Both leave to Kconfig what has no prompt, a choice, a number or a text; there is no line in which they differ.
    assert differing == {}


# --- what is not kept ---

LOSSES = {  # symbol: what is asked for, and how the reason begins, on every tree
    "NF_TABLES_INET": ("y", "NF_TABLES_INET needs NETFILTER=y, is n and NF_TABLES=y, is n"),
    "NO_SUCH_SYMBOL": ("y", "no such symbol in this tree"),
    "LLC": ("y", "has no prompt, only a select sets it"),
    "X86": ("n", "has no prompt, only its default counts"),
    "LIBCRC32C": ("n", "set by select from BTRFS_FS"),
    "VHOST_NET": ("m", "this configuration has no modules (MODULES is n): y or n"),
    "BRIDGE": ("yes", "is of type tristate: it must be y, m or n"),
    "LOG_BUF_SHIFT": ("0x11", "is of type int: write a decimal number"),
    "PHYSICAL_START": ("1000000", "is of type hex: write 0x1000000, or 0xf4240 if it is decimal"),
    "DEFAULT_HOSTNAME": (17, 'is of type string: write "17"'),
    "NR_CPUS": (False, "is of type int, which is always set"),
}


def test_each_loss_has_the_reason_that_the_trees_kconfig_has_for_it(any_tree, tmp_path, fragments):
    asked = {name: value for name, (value, dummy) in LOSSES.items()}
    result = alone(options(any_tree, tmp_path / ".config", fragments=fragments, options=asked))
    assert result["failed"]
    assert f"{len(asked)} of {len(asked) + 10} requested symbols are not in the result" in result["msg"]
    assert "\n" not in result["msg"]
    told = {each["symbol"]: each for each in result["missing"]}
    assert set(told) == set(asked)
    for name, (_dummy, why) in LOSSES.items():
        assert told[name]["why"].startswith(why), (name, told[name])
        assert told[name]["source"] == f"options.{name}"
        assert told[name]["allowed"] is None
    assert not (tmp_path / ".config").exists()


def test_one_of_a_choice_loses_to_another(tree, tmp_path, fragments):
    result = alone(
        options(tree, tmp_path / ".config", fragments=fragments, options={"KERNEL_XZ": "y", "KERNEL_ZSTD": "y"}),
    )
    assert [each["why"] for each in result["missing"]] == ["is a choice, KERNEL_ZSTD was chosen"]


@pytest.mark.thorough
def test_what_a_choice_falls_back_to_cannot_be_turned_off_before_6_11(tmp_path, fragments):
    tree = copy_of("6.1", tmp_path / "tree")
    result = alone(options(tree, tmp_path / ".config", fragments=fragments, options={"KERNEL_GZIP": "n"}))
    assert [each["why"] for each in result["missing"]] == [
        "is a choice, KERNEL_GZIP was chosen: ask for another symbol of the choice"
    ]


def test_a_loss_that_is_allowed_is_told_with_its_reason(tree, tmp_path, fragments):
    asked = options(
        tree,
        tmp_path / ".config",
        fragments=fragments,
        options={"NO_SUCH_SYMBOL": "y"},
        allow_missing={"NO_*": "never was"},
    )
    for changed in (True, False):
        result = alone(asked)
        assert result["changed"] == changed, result["msg"]
        assert [(each["symbol"], each["allowed"]) for each in result["missing"]] == [("NO_SUCH_SYMBOL", "never was")]


# --- types, which only the tree knows ---


def test_a_value_means_what_the_type_of_its_symbol_makes_of_it(any_tree, tmp_path, fragments):
    """As YAML hands over LOCALVERSION: "-1" and PHYSICAL_START: 0x1000000, and scripts/config --disable writes."""
    (tmp_path / "off.config").write_text(
        "CONFIG_KEYS=y\nCONFIG_ASYMMETRIC_KEY_TYPE=y\nCONFIG_ASYMMETRIC_PUBLIC_KEY_SUBTYPE=y\n"
        "CONFIG_X509_CERTIFICATE_PARSER=y\nCONFIG_SYSTEM_TRUSTED_KEYRING=y\n# CONFIG_SYSTEM_TRUSTED_KEYS is not set\n"
        "# CONFIG_DEFAULT_HOSTNAME is not set\n# CONFIG_MODULE_SIG_KEY is not set\n"
    )
    given = {
        "LOCALVERSION": "-1",
        "EXPERT": True,
        "PHYSICAL_START": 0x2000000,
        "PHYSICAL_ALIGN": "0x400000",
        "PRINTK": "y",
        "LOG_BUF_SHIFT": 18,
    }
    asked = options(
        any_tree,
        tmp_path / ".config",
        base=str(tmp_path / "off.config"),
        fragments=[*fragments, str(tmp_path / "off.config")],
        options=given,
        on_redefine="error",
    )
    result = alone(asked)
    assert not result["failed"], result["msg"]
    kept = symbols(tmp_path / ".config")
    assert {name: kept.get(name) for name in (*given, "SYSTEM_TRUSTED_KEYS", "DEFAULT_HOSTNAME", "MODULE_SIG_KEY")} == {
        "LOCALVERSION": '"-1"',
        "EXPERT": "y",
        "PHYSICAL_START": "0x2000000",
        "PHYSICAL_ALIGN": "0x400000",
        "PRINTK": "y",
        "LOG_BUF_SHIFT": "18",
        "SYSTEM_TRUSTED_KEYS": '""',
        "DEFAULT_HOSTNAME": '""',  # Kconfig's default is "(none)"
        "MODULE_SIG_KEY": None,
    }
    assert (result["missing"], result["base_missing"]) == ([], [])
    assert alone(asked)["changed"] is False


# --- the tree stays as it is ---


def everything(tree: Path) -> list[tuple]:
    return [
        (path, entry.stat(follow_symlinks=False).st_mtime_ns, entry.stat(follow_symlinks=False).st_size)
        for path, _dummy, _names in os.walk(tree)
        for entry in os.scandir(path)
    ]


@pytest.mark.root
def test_nothing_is_written_below_a_tree_for_a_configuration_that_is_elsewhere(tmp_path, fragments, calls_of_make):
    """A tree that can only be read, as it comes and as a build leaves it; then make O= does not refuse it."""
    tree, blank = copy_of("6.12", tmp_path / "tree"), tmp_path / "a blank"
    blank.mkdir()
    before = everything(tree)
    lost = options(tree, blank / "lost", fragments=fragments, options={"NO_SUCH_SYMBOL": "y", "LOG_BUF_SHIFT": 17})
    read_only = f"mount --bind -o ro '{tree}' '{tree}' && mount -o remount,bind,ro '{tree}'"
    for asked, words in (
        (options(tree, blank / ".config", fragments=fragments), "there is none yet"),
        (lost, "NO_SUCH_SYMBOL=y (options.NO_SUCH_SYMBOL): no such symbol in this tree"),
        (options(tree, tree / ".config", fragments=fragments) | {"_ansible_check_mode": True}, "there is none yet"),
    ):
        result = alone(asked, within=["unshare", "--mount", "sh", "-ec", f'{read_only}; exec "$@"', "sh"])
        assert words in result["msg"]
    assert everything(tree) == before
    assert calls_of_make()
    subprocess.run(
        ["make", "-s", "ARCH=x86_64", f"O={tmp_path}/objects", "outputmakefile"],
        cwd=tree,
        check=True,
        capture_output=True,
    )

    for name in (".config", "include/config/auto.conf", "include/generated/autoconf.h"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("not of this run\n")
    for name in ("basic/fixdep", "kconfig/conf", "kconfig/conf.o", "kconfig/lexer.lex.c"):
        (tree / "scripts" / name).write_text("of another machine\n")
        (tree / "scripts" / name).chmod(0o755)
    before = everything(tree)
    again = alone(options(tree, blank / "again", fragments=fragments))
    assert not again["failed"], again["msg"]
    assert (blank / "again").read_text() == (blank / ".config").read_text()
    assert everything(tree) == before


def test_what_make_says_names_the_tree_and_not_the_place_beside_it(tree, tmp_path):
    result = alone(options(tree, tmp_path / ".config", base_target="nosuch_defconfig"))
    assert result["msg"].startswith(f"tree: make -C {tree} ")
    assert "/sources" not in result["msg"]


# --- bad input ---


def bad(name: str, text: str) -> dict:
    return {"file": (name, text)}


BAD = {
    "a syntax error": (bad("a.config", "CONFIG_NET=y\nCONFIG_INET =y\n"), "a.config:2: 'CONFIG_INET =y' is neither"),
    "a value that is none": (bad("a.config", "CONFIG_NET=yes\n"), "a.config:1: NET has the value yes"),
    "m without modules": (bad("a.config", "\nCONFIG_BRIDGE=m\n"), "BRIDGE=m (/"),
    "a text for a bool": (bad("a.config", 'CONFIG_NET="y"\n'), 'NET="y" (/'),
    "a hexadecimal number without 0x": (bad("a.config", "CONFIG_PHYSICAL_START=1000000\n"), "write 0x1000000"),
    "a symbol that does not exist": (bad("a.config", "CONFIG_NETT=y\n"), "a.config:1): no such symbol in this tree"),
    "a contradiction": (
        bad("a.config", "CONFIG_NET=y\n# CONFIG_NET is not set\n") | {"on_redefine": "error"},
        "on_redefine: 1 symbols get two values: NET: y (/",
    ),
    "no such file": ({"fragments": ["/nowhere/a.config"]}, "fragments: /nowhere/a.config: No such file"),
    "no such base": ({"base": "/nowhere/config"}, "base: /nowhere/config: No such file"),
    "a line that nearly turns off": (
        bad("a.config", "\n#CONFIG_NET is not set\n"),
        "a.config:2: '#CONFIG_NET is not set'",
    ),
    "a number that is not set": (
        bad("a.config", "# CONFIG_NR_CPUS is not set\n"),
        "is of type int, which is always set",
    ),
    "objects elsewhere": ({"make_vars": {"O": "/build"}}, "make_vars: O cannot be set here; use the option path"),
    "no text": (bad("a.config", "\udcff"), "is not text in UTF-8"),
    "no tree": ({"tree": "/usr"}, "tree: /usr is not a Linux source tree"),
    "an unknown architecture": ({"arch": "z80"}, "arch: this tree has no architecture z80; it has "),
    "an architecture outside the tree": ({"arch": "../arch/x86"}, "arch: this tree has no architecture"),
    "ARCH by the back door": (
        {"make_vars": {"ARCH": "arm64"}},
        "make_vars: ARCH cannot be set here; use the option arch",
    ),
    "a target that asks": ({"base_target": "menuconfig"}, "base_target: menuconfig is not a target"),
    "a target that is none": ({"base_target": "nosuch_defconfig"}, "tree: make -C "),
    "a base and a target": ({"base": "/x", "base_target": "defconfig"}, "mutually exclusive"),
    "no reason": ({"allow_missing": {"NET": ""}}, "allow_missing: NET has no reason"),
    "an option without a value": ({"options": {"NET": None}}, "options: NET has the value None"),
    "no directory": ({"path": "/nowhere/at/all"}, "path: there is no directory /nowhere/at"),
    "a compiler that is not there": (
        {"make_vars": {"CROSS_COMPILE": "z80-linux-"}},
        "z80-linux-gcc, z80-linux-ld: not found in ",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_and_changes_nothing(tree, tmp_path, case):
    more, part = BAD[case]
    more = dict(more)
    if "file" in more:
        name, text = more.pop("file")
        (tmp_path / name).write_text(text, errors="surrogateescape")
        more["fragments"] = [str(tmp_path / name)]
    (tmp_path / ".config").write_text("CONFIG_OLD=y\n")
    before = state(tmp_path), source_files(tree)
    result = alone(options(tree, tmp_path / ".config") | more)
    assert result["failed"] and part in result["msg"], result["msg"]
    assert "\n" not in result["msg"]
    assert (state(tmp_path), source_files(tree)) == before


def source_files(tree: Path) -> list[tuple]:
    """The entries of the tree, and what Kconfig reads for an architecture."""
    return [(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(tree)] + [
        (str(path), path.stat().st_mtime_ns) for path in sorted((tree / "arch/x86").rglob("Kconfig*"))
    ]


def test_all_missing_tools_are_named_before_anything_starts(tree, tmp_path):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in ("sh", "env", "make", "gcc", "ld"):
        (bin_ / tool).symlink_to(shutil.which(tool))
    result = alone(options(tree, tmp_path / ".config"), PATH=str(bin_))
    assert result["failed"]
    assert result["msg"] == f"flex, bison: not found in {bin_}; install flex bison"
    assert not (tmp_path / ".config").exists()


@pytest.mark.root
def test_a_full_disk_leaves_the_old_configuration(tree, tmp_path, fragments):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=True)
    try:
        (small / ".config").write_text("CONFIG_OLD=y\n")
        result = alone(options(tree, small / ".config", fragments=fragments))
        assert result["failed"] and "No space left on device" in result["msg"] and str(small) in result["msg"], result[
            "msg"
        ]
        assert (small / ".config").read_text() == "CONFIG_OLD=y\n"
    finally:
        subprocess.run(["umount", small], check=True)


# --- killed ---

# The steps that it decided on, carried out until the Nth line of the code that does so is reached.
KILLED = """
import json, os, signal, sys
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_machine import carry_out
from ansible_collections.nested.kata.plugins.module_utils._kernel.config_plan import Write
steps, left = [Write(*step) for step in json.loads(sys.argv[1])], int(sys.argv[2])
def trace(frame, event, argument):
    global left
    if frame.f_code.co_name != "carry_out":
        return trace if event == "call" else None
    if event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
for step in steps:
    carry_out(step)
"""


def alone(asked: dict, within: Sequence[str] = (), **environment: str) -> dict:
    """Run the module without Ansible around it, but a command if there is one, and return its result."""
    done = subprocess.run(
        [*within, *module_command("kernel_config", asked)],
        env=module_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return {"failed": False, **json.loads(done.stdout)}


def carried_out_until(line: int, steps: list[list[str]]) -> int:
    command = [sys.executable, "-c", KILLED, json.dumps(steps), str(line)]
    return subprocess.run(command, env=module_environment(), check=False).returncode


def test_killed_at_any_line_that_writes_there_is_the_old_configuration_or_the_new_one_and_the_next_run_converges(
    tree, tmp_path, fragments
):
    config, memory = tmp_path / ".config", tmp_path / ".config.nested-kata"
    old, new = options(tree, config), options(tree, config, fragments=fragments)
    texts = {}
    for name, asked in (("old", old), ("new", new)):
        assert not alone(asked)["failed"]
        texts[name] = config.read_text(), memory.read_text()
    left = {}
    for line in range(1, 40):
        config.write_text(texts["old"][0])
        memory.write_text(texts["old"][1])
        status = carried_out_until(line, [[str(config), texts["new"][0]], [str(memory), texts["new"][1]]])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert config.read_text() in (texts["old"][0], texts["new"][0])
        assert memory.read_text() in (texts["old"][1], texts["new"][1])
        left.setdefault(
            (config.read_text(), memory.read_text()),
            {path.name: path.read_bytes() for path in tmp_path.glob(".config*")},
        )
    assert line > 10
    assert {texts["old"], (texts["new"][0], texts["old"][1])} <= set(left)
    for files in left.values():
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        assert not alone(new)["failed"]
        assert (config.read_text(), memory.read_text()) == texts["new"]
        assert alone(new)["changed"] is False
        assert sorted(path.name for path in tmp_path.glob(".config*")) == [config.name, memory.name]


@pytest.mark.parametrize("seconds", [0.5, 1.2, 2.0])
def test_killed_while_kconfig_runs_nothing_has_changed_and_the_next_run_converges(tmp_path, tree, fragments, seconds):
    config = tmp_path / ".config"
    config.write_text("CONFIG_OLD=y\n")
    asked = options(tree, config, fragments=fragments)
    process = subprocess.Popen(
        module_command("kernel_config", asked),
        env=module_environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert config.read_text() == "CONFIG_OLD=y\n" or symbols(config)["BTRFS_FS"] == "y"
    assert not alone(asked)["failed"]
    assert symbols(config)["BTRFS_FS"] == "y"
