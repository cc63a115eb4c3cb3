# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of make's output that matter are found, and how far a build is."""

from __future__ import annotations

import pytest
from ansible_collections.nested.kata.plugins.module_utils._kernel.make import Output, under_way, with_ccache

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
    "a broken source": (
        BROKEN_SOURCE,
        3,
        "init/main.c:5:1: error: expected ';' before 'return'; init/main.c:9:1: error: 'foo' undeclared",
    ),
    "a missing header": (
        (
            "  HOSTCC  certs/extract-cert\ncerts/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or"
            " directory\ncompilation terminated.\nmake[1]: *** [scripts/Makefile.host:133: certs/extract-cert]"
            " Error 1\n"
        ),
        0,
        "certs/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or directory",
    ),
    "a missing command": (
        "/bin/sh: 1: pahole: not found\nmake: *** [x] Error 127\n",
        0,
        "/bin/sh: 1: pahole: not found",
    ),
    "a missing symbol": (
        (
            "  LD      .tmp_vmlinux1\nld: vmlinux.o: in function `a':\nfs.c:(.text+0x1): undefined reference to"
            " `b'\nmake: *** [vmlinux] Error 1\n"
        ),
        0,
        "ld: vmlinux.o: in function `a':; fs.c:(.text+0x1): undefined reference to `b'",
    ),
    "a warning of the linker": (
        "ld: warning: x has a LOAD segment with RWX permissions\nmake: *** [vmlinux] Error 1\n",
        0,
        "make: *** [vmlinux] Error 1",
    ),
    "an unknown target": (
        "make: *** No rule to make target 'zImage'.  Stop.\n",
        0,
        "make: *** No rule to make target 'zImage'.  Stop.",
    ),
    "too little memory": (
        "gcc: fatal error: Killed signal terminated program cc1\n",
        0,
        "gcc: fatal error: Killed signal terminated program cc1",
    ),
    "nothing special": (
        "something\n  CC      a.o\nmake[1]: *** [a.o] Error 1\nmake: *** [b] Error 2\n",
        1,
        "make[1]: *** [a.o] Error 1",
    ),
    "nothing at all": ("", 0, "make printed nothing"),
    "many errors": (
        "".join(f"a.c:{line}:1: error: x\n" for line in range(1, 8)),
        0,
        "a.c:1:1: error: x; a.c:2:1: error: x; a.c:3:1: error: x (and 4 more)",
    ),
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
    assert with_ccache({"CC": "ccache clang -Qunused-arguments"}, "clang", "gcc") == {
        "CC": "ccache clang -Qunused-arguments",
        "HOSTCC": "ccache gcc",
    }
