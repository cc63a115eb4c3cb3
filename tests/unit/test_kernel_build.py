# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel builds, the pure part: whether one is needed, what it needs, what make's output says."""
from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils.kernel_build import (
    Found, Make, Output, Put, Wanted, decide, foreign, lacking, needs, read_record, targets_of, under_way, with_ccache,
)

WANTED = Wanted("/tree", "x86_64", ("vmlinux", "bzImage"), "/out", "key 1")
RECORD = {"key": "key 1", "arch": "x86_64", "targets": ["vmlinux", "bzImage"], "files": {"vmlinux": {"sha256": "aa"}, "bzImage": {"sha256": "bb"}}}
DIGESTS = {"vmlinux": "aa", "bzImage": "bb"}

DECISIONS = {
    "nothing there": (Found(), "there is no build in /out yet"),
    "another key": (Found({**RECORD, "key": "key 0"}, DIGESTS), "the build in /out has another key"),
    "another architecture": (Found({**RECORD, "arch": "arm64"}, DIGESTS), "the build in /out has another arch"),
    "other targets": (Found({**RECORD, "targets": ["vmlinux"]}, DIGESTS), "the build in /out has another targets"),
    "a file is missing": (Found(RECORD, {"vmlinux": "aa"}), "/out/bzImage is missing"),
    "a file is another": (Found(RECORD, {**DIGESTS, "bzImage": "cc"}), "/out/bzImage is not the file that was built"),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_what_differs_is_built_and_put_there_as_a_whole(case: str) -> None:
    found, reason = DECISIONS[case]
    plan = decide(found, WANTED)
    assert plan.steps == (Make("/tree", ("vmlinux", "bzImage")), Put("/out"))
    assert plan.reason == reason
    assert [str(step) for step in plan.steps] == ["build vmlinux, bzImage in /tree", "put the artifacts into /out"]


def test_a_build_that_is_there_is_left_alone() -> None:
    plan = decide(Found(RECORD, DIGESTS), WANTED)
    assert (plan.steps, plan.reason) == ((), "/out holds this build")


TARGETS = {
    ((), "x86_64"): ("vmlinux", "bzImage"),
    ((), "i386"): ("vmlinux", "bzImage"),
    ((), "arm64"): ("vmlinux", "Image"),
    ((), "sh"): ("vmlinux",),
    (("bzImage",), "x86_64"): ("vmlinux", "bzImage"),
    (("Image.gz", "vmlinux"), "arm64"): ("vmlinux", "Image.gz"),
    (("init/main.o",), "x86_64"): ("vmlinux", "init/main.o"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_vmlinux_and_the_image_that_boots_are_built_by_default(case: tuple) -> None:
    assert targets_of(*case) == TARGETS[case]


@pytest.mark.parametrize("target", ["olddefconfig", "config", "clean", "distclean", "mrproper", "-k", "CC=gcc", "a b", ""])
def test_what_is_no_target_for_a_build_is_refused(target: str) -> None:
    with pytest.raises(Refused, match="targets: .* is no target that builds something"):
        targets_of([target], "x86_64")


def test_files_of_somebody_else_are_seen() -> None:
    assert foreign(["vmlinux", "bzImage", "build.json"], RECORD) == []
    assert foreign(["vmlinux", "notes.txt", "build.json"], RECORD) == ["notes.txt"]
    assert foreign(["build.json", "vmlinux"], None) == ["build.json", "vmlinux"]


@pytest.mark.parametrize("value", [[], {}, {"key": "1"}, {"files": {}}, {"key": "1", "files": {"a": {}}}, {"key": "1", "files": {"a": "b"}}])
def test_a_record_of_something_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="it "):
        read_record(value)


NEEDED = {
    "": ["make", "flex", "bison", "bc", "gcc"],
    "CONFIG_OBJTOOL=y\nCONFIG_IKCONFIG=y\n": ["gelf.h", "gzip"],
    "CONFIG_SYSTEM_TRUSTED_KEYRING=y\nCONFIG_KERNEL_ZSTD=y\n": ["openssl/opensslv.h", "zstd"],
    "CONFIG_DEBUG_INFO_BTF=y\n": ["pahole"],
    "# CONFIG_DEBUG_INFO_BTF is not set\nCONFIG_X=\"CONFIG_OBJTOOL=y\"\n": [],
}


@pytest.mark.parametrize("config", NEEDED)
def test_a_build_needs_what_its_configuration_asks_for(config: str) -> None:
    names = [need.name for need in needs(config, ["gcc"])]
    assert [name for name in names if name in NEEDED[config] or name not in NEEDED[""]] == NEEDED[config]


def test_all_that_is_missing_is_named_at_once_with_its_package() -> None:
    missing = [need for need in needs("CONFIG_OBJTOOL=y\n", ["gcc", "ld"]) if need.name in ("bc", "gelf.h", "ld")]
    assert lacking(missing) == "the build needs bc, ld, gelf.h, which this machine lacks: install bc binutils libelf-dev (Debian's names)"


BROKEN_SOURCE = """\
  SYNC    include/config/auto.conf
  CC      init/main.o
  CC [M]  drivers/net/dummy.o
init/main.c: In function 'start_kernel':
init/main.c:5:1: error: expected ';' before 'return'
init/main.c:9:1: error: 'foo' undeclared
init/main.c:9:1: note: each undeclared identifier is reported only once
make[3]: *** [scripts/Makefile.build:229: init/main.o] Error 1
make[2]: *** Waiting for unfinished jobs....
  AS      arch/x86/kernel/head_64.o
make: *** [Makefile:248: __sub-make] Error 2
"""
SAID = {
    "a broken source": (BROKEN_SOURCE, 3, "init/main.c:5:1: error: expected ';' before 'return'; init/main.c:9:1: error: 'foo' undeclared"),
    "a missing header": (
        "  HOSTCC  certs/extract-cert\ncerts/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or directory\ncompilation terminated.\n"
        "make[1]: *** [scripts/Makefile.host:133: certs/extract-cert] Error 1\n", 0,
        "certs/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or directory",
    ),
    "a missing command": ("/bin/sh: 1: pahole: not found\nmake: *** [x] Error 127\n", 0, "/bin/sh: 1: pahole: not found"),
    "a missing symbol": (
        "  LD      .tmp_vmlinux1\nld: vmlinux.o: in function `a':\nfs.c:(.text+0x1): undefined reference to `b'\nmake: *** [vmlinux] Error 1\n", 0,
        "ld: vmlinux.o: in function `a':; fs.c:(.text+0x1): undefined reference to `b'",
    ),
    "a warning of the linker": ("ld: warning: x has a LOAD segment with RWX permissions\nmake: *** [vmlinux] Error 1\n", 0, "make: *** [vmlinux] Error 1"),
    "an unknown target": ("make: *** No rule to make target 'zImage'.  Stop.\n", 0, "make: *** No rule to make target 'zImage'.  Stop."),
    "too little memory": ("gcc: fatal error: Killed signal terminated program cc1\n", 0, "gcc: fatal error: Killed signal terminated program cc1"),
    "nothing special": ("something\n  CC      a.o\nmake[1]: *** [a.o] Error 1\nmake: *** [b] Error 2\n", 1, "make[1]: *** [a.o] Error 1"),
    "nothing at all": ("", 0, "make said nothing"),
    "many errors": ("".join(f"a.c:{line}:1: error: x\n" for line in range(1, 8)), 0, "a.c:1:1: error: x; a.c:2:1: error: x; a.c:3:1: error: x (and 4 more)"),
}


@pytest.mark.parametrize("case", SAID)
def test_the_lines_that_say_why_are_found_and_objects_are_counted(case: str) -> None:
    text, objects, summary = SAID[case]
    output = Output()
    for line in text.splitlines():
        output.take(line)
    assert (output.objects, output.summary(), output.full, output.stale) == (objects, summary, False, False)


def test_a_full_disk_and_a_configuration_that_is_not_complete_are_recognized() -> None:
    full, stale = Output(), Output()
    full.take("fatal error: error writing to /tmp/ccX.s: No space left on device")
    stale.take("*** The configuration requires explicit update.")
    assert (full.full, full.stale, stale.full, stale.stale) == (True, False, False, True)


TOLD = {
    (0, 0, 3.2): "linux 6.12: 0 objects, 3 s",
    (1250, 0, 96.4): "linux 6.12: 1250 objects, 96 s",
    (1250, 2900, 96.4): "linux 6.12: 1250 of 2900 objects, 43 %, 96 s",
    (2900, 2900, 200.0): "linux 6.12: 2900 of 2900 objects, 99 %, 200 s",
    (2901, 2900, 201.0): "linux 6.12: 2901 objects, 201 s",
}


@pytest.mark.parametrize("numbers", TOLD)
def test_how_far_a_build_is_is_told_in_words(numbers: tuple) -> None:
    assert under_way("6.12", *numbers) == TOLD[numbers]


def test_ccache_comes_before_both_compilers_once() -> None:
    assert with_ccache({}, "gcc", "gcc") == {"CC": "ccache gcc", "HOSTCC": "ccache gcc"}
    assert with_ccache({"CC": "ccache clang -Qunused-arguments"}, "clang", "gcc") == {"CC": "ccache clang -Qunused-arguments", "HOSTCC": "ccache gcc"}
