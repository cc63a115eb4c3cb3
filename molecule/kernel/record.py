# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the record of the guest kernels that were built and proven, `proven.json` beside this file, for test.sh.

    record.py files              the files that go into a guest kernel and its proof, a line each
    record.py hash               one hash over their names and contents
    record.py check PROFILE,...  whether the record proves the profiles for these files: exit status 0, or 1 with why
    record.py write HASH JUNIT   write the record from the verifier's report, if the hash is still the same

The record guards against files that changed, and against edits and merges of the record itself. It does not guard
against someone who computes its hash again, which is why `./test.sh --all` never reads it.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import json
import os
import re
import sys
import xml.etree.ElementTree as tree
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[2]
RECORD = "molecule/kernel/proven.json"
UNFINISHED = f"{RECORD}.part"
COLLECTION = "ansible_collections.nested.kata."

# Where the search for files begins. It adds whatever these import or name: playbooks, roles, plugins, tests/support.
START = ("files/kernel", "roles/guest_kernel", "molecule/kernel", "tests/guest")

# The roles and plugins that are named on the way and are not taken as a whole. A role or plugin that is not listed here
# is.
TAKEN_IN_PART: dict[str, tuple[str, ...]] = {
    # The role also builds the machine image; only the base image goes into the container that compiles.
    "machine_image": ("defaults/main.yml", "vars/main.yml", "tasks/base.yml", "files/early/usr/lib/nested-kata/trust"),
    # They provide a running Docker, packages and containers, whose content does not depend on how. The scenario default
    # tests them.
    "docker_engine": (),
    "internal_common": (),
    "internal_machine": (),
    # The targets of the scenario are the machine itself and a plain container: neither of these roles is run.
    "kata_proxy": (),
    "kata_runtime": (),
    # The module downloads from kernel.org. The scenario builds Debian's source, so that building again would not test
    # it.
    "download": (),
    # The connection carries commands and files into the container. It has tests of its own in tests/integration.
    "nested": (),
}

# Files that are imported on the way and that no kernel and no proof depends on: they lock, copy, show progress, and
# word failures. test_kernel_build.py builds a kernel with them in every run of the tests.
NOT_TAKEN = {
    "plugins/filter/failure_reason.py",
    "plugins/module_utils/_common/files.py",
    "plugins/module_utils/_common/untrusted.py",
    "plugins/plugin_utils/failures.py",
    "plugins/plugin_utils/progress.py",
    # On which host kernels are built.
    "plugins/filter/way.py",
    "plugins/plugin_utils/ways.py",
    # Proxy servers, authorities and mirrors: by which way packages and sources come, which apt and the module verify.
    "plugins/lookup/level_environment.py",
    "plugins/lookup/proxy_environment.py",
    "plugins/module_utils/_common/urls.py",
    "plugins/plugin_utils/web.py",
    "plugins/plugin_utils/web_lookup.py",
}

IGNORED_DIRECTORIES = {"__pycache__", ".pytest_cache"}
IMPORTED_ONLY = {"module_utils", "plugin_utils"}  # directories below plugins/ that a playbook cannot name
NAMED = re.compile(r"(?<![\w.])nested\.kata\.([A-Za-z_]\w*)(?![\w-])")  # with a dash it is a label of Docker
YAML_FILE = re.compile(r"[\w./-]+\.ya?ml\b")


class Refused(Exception):
    """The record does not count, or must not be written. The message is the reason."""


# --- which files ---


def covered(root: Path) -> list[str]:
    """Return every file that goes into a guest kernel or its proof, relative to the root, in a stable order."""
    found: set[str] = set()
    waiting = [path for start in START for path in files_at(root, start)]
    while waiting:
        path = waiting.pop()
        if path not in found and path not in NOT_TAKEN:
            found.add(path)
            waiting += references(root, path)
    return sorted(found)


def files_at(root: Path, name: str) -> Iterator[str]:
    """Yield a file, or all files below a directory but for documentation, caches and the record."""
    place = root / name
    if not os.path.lexists(place):
        raise Refused(f"there is no {name}: correct START or TAKEN_IN_PART in molecule/kernel/record.py")
    for path in place.rglob("*") if place.is_dir() and not place.is_symlink() else [place]:
        relative = path.relative_to(root)
        unwanted = (
            path.suffix == ".md" or IGNORED_DIRECTORIES & set(relative.parts) or str(relative) in (RECORD, UNFINISHED)
        )
        if not unwanted and (path.is_symlink() or path.is_file()):
            yield relative.as_posix()


def references(root: Path, path: str) -> set[str]:
    """Return the files that a file imports or names."""
    file = root / path
    if file.is_symlink() or file.suffix not in (".py", ".yml", ".yaml", ".j2"):
        return set()
    try:
        text = file.read_text(encoding="utf-8")
        return imported(root, path, text) if file.suffix == ".py" else named(root, path, text)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def named(root: Path, path: str, text: str) -> set[str]:
    """Return the YAML files, roles and plugins that a YAML file or template names."""
    beside = {os.path.normpath(PurePath(path).parent / name) for name in YAML_FILE.findall(text)}
    found = {name for name in beside if not name.startswith("..") and (root / name).is_file()}
    for name in NAMED.findall(text):
        if name in TAKEN_IN_PART:
            found.update(file for part in TAKEN_IN_PART[name] for file in files_at(root, f"roles/{name}/{part}"))
        elif (root / "roles" / name).is_dir():
            found.update(files_at(root, f"roles/{name}"))
        else:
            plugins = [
                file
                for file in root.glob(f"plugins/*/{name}.*")
                if file.suffix in (".py", ".yml") and file.parent.name not in IMPORTED_ONLY
            ]
            if not plugins:
                raise Refused(f"{path} names nested.kata.{name}, which is neither a role nor the file of a plugin")
            found.update(file.relative_to(root).as_posix() for file in plugins)
    return found


def imported(root: Path, path: str, text: str) -> set[str]:
    """Return the files of the repository that a Python file imports."""
    found: set[str] = set()
    here = (root / path).parent
    for level, name in imports(text):
        dotted = name.removeprefix(COLLECTION)
        if dotted != name:
            bases, must_exist = [root], True
        elif level:
            bases, must_exist = [here, *here.parents][level - 1 : level], True
        else:
            # Both are in the pythonpath of pyproject.toml.
            bases, must_exist = [here, root / "tests", root / "tests/support"], False
        files = {file.relative_to(root).as_posix() for base in bases for file in modules(base, dotted)}
        if must_exist and not files:
            raise Refused(f"{path} imports {dotted}, which is not a file of the repository")
        found |= files
    return found


def imports(text: str) -> Iterator[tuple[int, str]]:
    """Yield the level (the leading dots) and the full name of whatever a program imports; the last part may be no
    module.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names)


def modules(base: Path, dotted: str) -> Iterator[Path]:
    """Yield the files that Python runs to import a name: the module, and each package above it that has an
    __init__.py.
    """
    parts = dotted.split(".")
    for length in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:length])
        yield from (file for file in (place.with_name(f"{place.name}.py"), place / "__init__.py") if file.is_file())


def hash_of(root: Path, paths: Iterable[str]) -> str:
    """Return a hash over names, contents, kinds and executable bits of files, whatever git knows of them."""
    lines = []
    for path in sorted(paths):
        file = root / path
        if file.is_symlink():
            kind, content = "link", os.fsencode(os.readlink(file))
        else:
            kind, content = "program" if file.stat().st_mode & 0o100 else "file", file.read_bytes()
        lines.append([path, kind, hashlib.sha256(content).hexdigest()])
    return digest(lines)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# --- the record ---


def proven(text: str | None, files: str, profiles: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the record's kernels by profile, or raise Refused where it does not prove the profiles for the files with
    this hash.
    """
    if text is None:
        raise Refused(f"there is no {RECORD}")
    try:
        record = json.loads(text)
    except ValueError as error:
        raise Refused(f"{RECORD} is not valid JSON: {error}") from error
    if not isinstance(record, dict) or not {"files", "kernels", "hash"} <= set(record):
        raise Refused(f"{RECORD} is not a record of proven kernels")
    if record.pop("hash") != digest(record):
        raise Refused(f"{RECORD} was changed by hand or by a merge: its hash does not match its content")
    kernels = record["kernels"]
    if record["files"] != files:
        raise Refused(
            "files that go into the kernel or its proof have changed since"
            f" {max(kernel['date'] for kernel in kernels.values())}"
        )
    missing = [profile for profile in profiles if profile not in kernels]
    if missing:
        raise Refused(f"{RECORD} does not cover the profile {', '.join(missing)}")
    return kernels


def recorded(files: str, kernels: dict[str, dict[str, str]]) -> str:
    """Return the text of a record."""
    record: dict[str, object] = {
        "about": (
            "Written by ./test.sh molecule kernel when every proof has passed; docs/contributing.md explains it. An"
            " edit makes it invalid."
        ),
        "files": files,
        "kernels": dict(sorted(kernels.items())),
    }
    return json.dumps({**record, "hash": digest(record)}, indent=2) + "\n"


def reported(junit: str, date: str) -> dict[str, dict[str, str]]:
    """Return the kernels that the verifier's report is about, by profile, or raise Refused unless all of its tests
    passed.
    """
    try:
        report = tree.fromstring(junit)
    except tree.ParseError as error:
        raise Refused(f"the report of the verifier is not valid: {error}") from error
    for case in report.iter("testcase"):
        if any(case.find(outcome) is not None for outcome in ("failure", "error", "skipped")):
            raise Refused(f"{case.get('name')} did not pass")
    kernels: dict[str, dict[str, str]] = {}
    for each in report.iter("property"):
        if each.get("name") == "kernel":
            kernels.update(
                {profile: {**about, "date": date} for profile, about in json.loads(each.get("value", "")).items()}
            )
    if not kernels:
        raise Refused("the report of the verifier is about no kernel")
    return kernels


def shown(kernels: dict[str, dict[str, str]], profiles: Iterable[str]) -> str:
    """Return in a line what was proven of the profiles, and when."""
    return "; ".join(
        f"{profile} was proven on {kernels[profile]['date']} ({kernels[profile].get('linux')})" for profile in profiles
    )


# --- the commands ---


def read(root: Path) -> str | None:
    try:
        return (root / RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"{RECORD} cannot be read: {error}") from error


def check(root: Path, profiles: list[str]) -> str:
    """Return what the record proves of the profiles, or raise Refused."""
    return shown(proven(read(root), hash_of(root, covered(root)), profiles), profiles)


def write(root: Path, before: str, junit: Path) -> str:
    """Write the record of a run. What the record before proved of other profiles, for the same files, stays."""
    files = hash_of(root, covered(root))
    if files != before:
        raise Refused("files that go into the kernel or its proof were changed while it ran")
    try:
        kernels = reported(junit.read_text(encoding="utf-8"), datetime.datetime.now(datetime.UTC).date().isoformat())
    except OSError as error:
        raise Refused(f"there is no report of the verifier: {error}") from error
    try:
        earlier = proven(read(root), files, ())
    except Refused:
        earlier = {}
    unfinished = root / UNFINISHED
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(recorded(files, {**earlier, **kernels}))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(root / RECORD)
    return f"{RECORD} written: {shown(kernels, sorted(kernels))}; commit it"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["files"]:
                print(*covered(ROOT), sep="\n")
            case ["hash"]:
                print(hash_of(ROOT, covered(ROOT)))
            case ["check", profiles]:
                print(check(ROOT, profiles.split(",")))
            case ["write", before, junit]:
                print(write(ROOT, before, Path(junit)))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Refused as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
