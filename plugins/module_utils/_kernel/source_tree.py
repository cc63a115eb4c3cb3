# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux source tree: its version and architecture, the tools it needs, and how its own make and Kconfig are run.

Kconfig is run beside the tree, in which nothing is written: see workplace().
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Callable, Collection, Iterable, Mapping, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused

# Names of architectures for make, where they differ from the directory (top-level Makefile, SRCARCH).
SOURCE_DIRECTORY = {"x86_64": "x86", "i386": "x86", "sparc32": "sparc", "sparc64": "sparc", "parisc64": "parisc"}
# As machines call themselves.
MACHINE = {
    "aarch64": "arm64",
    "i586": "i386",
    "i686": "i386",
    "ppc64le": "powerpc",
    "ppc64": "powerpc",
    "riscv64": "riscv",
    "s390x": "s390",
}
PACKAGE = {"ld": "binutils", "ld.lld": "lld"}  # Debian's, where the name is not that of the command
# Variables of make that are no make_vars, and what takes their place.
OTHERWISE = {
    "ARCH": "; use the option arch",
    "KCONFIG_CONFIG": "; use the option path of kernel_config",
    "KCONFIG_ALLCONFIG": "; use the options base and fragments of kernel_config",
    **dict.fromkeys(
        ("O", "KBUILD_OUTPUT"), "; use the option path of kernel_config, which may be in the directory of objects"
    ),
}
# Whatever else is in the environment could change what Kconfig decides (ARCH, CROSS_COMPILE, LLVM, KCONFIG_…).
ENVIRONMENT = ("PATH", "HOME", "TMPDIR")


@dataclass(frozen=True)
class Tree:
    """A source tree, and for which architecture and with which make variables it is used."""

    path: str
    arch: str
    make_vars: tuple[tuple[str, str], ...]
    version: str

    @property
    def source_directory(self) -> str:
        """The name of the architecture's directory below arch/."""
        return source_directory(self.arch)

    def tool(self, variable: str) -> str:
        """Return the command that make takes for CC, HOSTCC or LD."""
        given = dict(self.make_vars)
        if variable in given:
            return given[variable].split()[-1] if given[variable].startswith("ccache ") else given[variable].split()[0]
        llvm = given.get("LLVM", "")
        # LLVM=/path/ is a prefix, LLVM=-15 a suffix, anything else just means yes.
        prefix, suffix = (llvm if llvm.endswith("/") else ""), (llvm if llvm.startswith("-") else "")
        if llvm:
            return prefix + {"CC": "clang", "HOSTCC": "clang", "LD": "ld.lld"}[variable] + suffix
        return ("" if variable == "HOSTCC" else given.get("CROSS_COMPILE", "")) + {
            "CC": "gcc",
            "HOSTCC": "gcc",
            "LD": "ld",
        }[variable]

    def command(self, *arguments: str) -> list[str]:
        """Return a call of make on this tree."""
        return [
            "make",
            "-C",
            self.path,
            "--no-print-directory",
            f"ARCH={self.arch}",
            *(f"{key}={value}" for key, value in self.make_vars),
            *arguments,
        ]


def source_directory(arch: str) -> str:
    """Return the name of an architecture's directory below arch/."""
    return SOURCE_DIRECTORY.get(arch, arch)


def host_arch() -> str:
    """Return this machine's architecture, as make calls it."""
    machine = platform.machine()
    return MACHINE.get(machine, machine)


def open_tree(path: str, arch: str | None, make_vars: Mapping[str, object]) -> Tree:
    """Return the tree, or raise Refused where it is not one, or does not have that architecture."""
    try:
        with open(os.path.join(path, "Makefile"), encoding="utf-8", errors="replace") as makefile:
            head = makefile.read(4096)
    except OSError as error:
        raise Refused(f"tree: {path} is not a Linux source tree: {error.filename}: {error.strerror}") from error
    number = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(.*)$", head, re.MULTILINE))
    if "PATCHLEVEL" not in number or not os.path.isfile(os.path.join(path, "scripts/kconfig/Makefile")):
        raise Refused(
            f"tree: {path} is not a Linux source tree: its Makefile names no version, or it lacks"
            " scripts/kconfig/Makefile"
        )
    version = ".".join(number[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if number.get(key)) + number.get(
        "EXTRAVERSION", ""
    )
    for key in make_vars:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) or key in OTHERWISE:
            raise Refused(f"make_vars: {key} cannot be set here{OTHERWISE.get(key, '')}")
    tree = Tree(
        os.path.abspath(path),
        arch or host_arch(),
        tuple((key, str(value)) for key, value in sorted(make_vars.items())),
        version,
    )
    known = sorted(
        name
        for name in os.listdir(os.path.join(path, "arch"))
        if os.path.isfile(os.path.join(path, "arch", name, "Kconfig"))
    )
    if "/" in tree.arch or tree.source_directory not in known:
        more = [name for name, directory in SOURCE_DIRECTORY.items() if directory in known]
        raise Refused(f"arch: this tree has no architecture {tree.arch}; it has {', '.join(sorted(known + more))}")
    return tree


def require(commands: Iterable[str]) -> None:
    """Raise Refused with all missing commands."""
    missing = [command for command in dict.fromkeys(commands) if shutil.which(command) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGE.get(command, command) for command in missing))
        raise Refused(f"{', '.join(missing)}: not found in {os.environ.get('PATH', '')}; install {packages}")


def tools_of_kconfig(tree: Tree) -> list[str]:
    """Return the commands without which a tree cannot even be configured."""
    return ["make", "flex", "bison", tree.tool("HOSTCC"), tree.tool("CC"), tree.tool("LD")]


def line_that_matters(output: str) -> str:
    """Return the line of make's output that shows why, not that something failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern in (
        r"No space left on device",
        r"\berror:",
        r"\*\*\* (?!\[)",
        r": (?!warning)[^:]*(not found|No such file|[Dd]enied|invalid)",
    ):
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else "it printed nothing"


def environment(**more: str) -> dict[str, str]:
    """Return the environment for make, a part of this process's."""
    kept = {key: value for key, value in os.environ.items() if key in ENVIRONMENT or key.startswith("CCACHE_")}
    return {**kept, "LC_ALL": "C", **more}


def run(command: Sequence[str], **more: str) -> str:
    """Run a command with these environment variables and return what it wrote, or raise CommandFailed."""
    done = subprocess.run(
        command,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, line_that_matters(done.stdout), done.stdout, option="tree")
    return done.stdout


@dataclass(frozen=True)
class Workplace:
    """A place beside a tree where make can run: links to the tree's sources, and what make makes of them."""

    tree: Tree
    directory: str

    @property
    def sources(self) -> str:
        return self.scratch("sources")

    @property
    def objects(self) -> str:
        return self.scratch("objects")

    def scratch(self, name: str) -> str:
        """Return the path of a file of ours."""
        return os.path.join(self.directory, name)

    def make(self, *arguments: str, **more: str) -> None:
        """Run make with these environment variables, or raise CommandFailed, in which the tree has its own name."""
        options = (f"O={self.objects}", f"-j{len(os.sched_getaffinity(0))}")
        command = replace(self.tree, path=self.sources).command(*options, *arguments)
        if "HOSTCFLAGS" not in dict(self.tree.make_vars):
            command.append("HOSTCFLAGS=-O0")  # Kconfig's program runs twice, which takes less than optimizing it
        try:
            run(command, **more)
        except CommandFailed as error:
            own = self.tree.command(f"O={self.objects}", *arguments)
            line, output = (text.replace(self.sources, self.tree.path) for text in (error.line, error.output))
            raise CommandFailed(own, error.status, line, output, option="tree") from None


def workplace(tree: Tree, directory: str) -> Workplace:
    """Return a place in a directory where make can run without writing into the tree, which may be read-only.

    `make O=` alone refuses a tree in which something was configured or built. That is left out of the links.
    """
    place = Workplace(tree, directory)
    made = [
        ".config",
        "include/config",
        "include/generated",
        f"arch/{tree.source_directory}/include/generated",
    ]
    for scripts in ("scripts/basic", "scripts/kconfig"):
        with os.scandir(os.path.join(tree.path, scripts)) as entries:
            made += [f"{scripts}/{entry.name}" for entry in entries if entry.is_file() and _is_made(entry.name)]
    _link(tree.path, place.sources, made)
    os.mkdir(place.objects)
    return place


def _is_made(name: str) -> bool:
    """Return whether a file in a directory of scripts is compiled or generated."""
    return name.endswith((".o", ".cmd", *GENERATED)) or ("." not in name and name != "Makefile")


def _link(source: str, target: str, left_out: Collection[str]) -> None:
    """Make a directory with links to the entries of another one, without these paths below it."""
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            prefix = f"{entry.name}/"
            below = [path[len(prefix) :] for path in left_out if path.startswith(prefix)]
            if below and entry.is_dir():
                _link(entry.path, os.path.join(target, entry.name), below)
            elif entry.name not in left_out:
                os.symlink(entry.path, os.path.join(target, entry.name))


def configure(place: Workplace, target: str, config: str, request: str | None = None) -> None:
    """Have Kconfig write the file `config` by one of its targets, from the file `request` where there is one."""
    place.make("-s", f"KCONFIG_CONFIG={config}", target, **({"KCONFIG_ALLCONFIG": request} if request else {}))


def fingerprint(tree: Tree) -> str:
    """Return a hash that changes when an input of Kconfig's decisions may have changed.

    Kconfig's files and the programs it asks are identified by name, size and time of change, since reading them would
    take as long as running Kconfig.
    """
    digest = hashlib.sha256(repr(tree).encode())
    for path in sorted(_kconfig_files(tree)):
        _add(digest.update, path)
    for command in (*tools_of_kconfig(tree), "rustc", "bindgen", "pahole"):
        found = shutil.which(command)
        if found:
            _add(digest.update, os.path.realpath(found))
    return digest.hexdigest()


def _add(update: Callable[[bytes], None], path: str) -> None:
    state = os.stat(path)
    update(f"{path}\0{state.st_mtime_ns}\0{state.st_size}\n".encode("utf-8", "surrogateescape"))


def _kconfig_files(tree: Tree) -> list[str]:
    scripts = os.path.join(tree.path, "scripts")
    found = [os.path.join(tree.path, "Makefile"), os.path.join(tree.path, "arch", tree.source_directory, "Makefile")]
    with os.scandir(scripts) as entries:
        found += [
            entry.path
            for entry in entries
            if entry.is_file() and entry.name.endswith((".sh", ".include", ".pl", ".py"))
        ]
    with os.scandir(os.path.join(scripts, "kconfig")) as entries:
        found += [
            entry.path
            for entry in entries
            if entry.name.endswith((".c", ".h", ".l", ".y", "Makefile")) and not entry.name.endswith(GENERATED)
        ]
    waiting = [tree.path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in ("Documentation", "tools", ".git"):
                        waiting.append(entry.path)
                elif entry.name.startswith("Kconfig"):
                    found.append(entry.path)
    return found


GENERATED = (".lex.c", ".tab.c", ".tab.h")  # by flex and bison, in the tree
