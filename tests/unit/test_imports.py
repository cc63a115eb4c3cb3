# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports between the files of plugins/ run one way: plugins, plugin_utils, one subject's package, _docker, _common.

Every import counts, also one within a function or below TYPE_CHECKING. `python tests/unit/test_imports.py` prints the
graph.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"
PREFIX = "ansible_collections.nested.kata.plugins."
SHARED = ("_docker", "_common")  # every subject's package may import these
LEVELS = ("a plugin", "plugin_utils", "a subject", *SHARED)

Graph = dict[str, set[str]]  # by file, as in `module_utils._disk.plan`: the files that it imports


def imported(text: str, files: set[str]) -> set[str]:
    """Return the files of ours that a file's text imports, or raise ValueError for an import that is relative."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"line {node.lineno}: the import is relative")
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if name.removeprefix(PREFIX) in files}
            found |= modules | ({node.module or ""} if names - modules else set())
    return {name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX)}


def graph_of(texts: dict[str, str]) -> Graph:
    return {name: imported(text, set(texts)) for name, text in texts.items()}


def circle_in(graph: Graph) -> list[str]:
    """Return files that import each other in a circle, or nothing."""
    done: set[str] = set()

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        circle = next(filter(None, (search(other, [*way, name]) for other in sorted(graph[name]))), [])
        done.add(name)
        return circle

    return next(filter(None, (search(name, []) for name in graph)), [])


def package_of(name: str) -> str:
    """Return the package of a file below module_utils, else the directory that it is in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "module_utils" else parts[0]


def level_of(name: str) -> int:
    """Return how far down a file is: arrows lead down."""
    package = package_of(name)
    if package in SHARED or package == "plugin_utils":
        return LEVELS.index(package)
    return LEVELS.index("a subject" if name.startswith("module_utils.") else "a plugin")


def upward(graph: Graph) -> list[str]:
    """Return the arrows that lead up, or from one package to another one beside it."""
    return [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if package_of(name) != package_of(other) and level_of(name) >= level_of(other)
    ]


def subjects_of(name: str, graph: Graph) -> set[str]:
    """Return the packages of subjects that a file imports from."""
    return {package_of(other) for other in graph[name] if LEVELS[level_of(other)] == "a subject"}


def the_graph() -> Graph:
    return graph_of(
        {
            ".".join(path.relative_to(PLUGINS).with_suffix("").parts): path.read_text(encoding="utf-8")
            for path in sorted(PLUGINS.rglob("*.py"))
        }
    )


def test_every_import_of_ours_is_that_of_a_file() -> None:
    graph = the_graph()
    assert len(graph) > 50
    assert sorted({other for others in graph.values() for other in others} - set(graph)) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle_in(the_graph()) == []


def test_no_arrow_leads_up_or_from_one_subject_to_another() -> None:
    assert upward(the_graph()) == []


def test_a_plugin_is_about_one_subject() -> None:
    graph = the_graph()
    assert {name: subjects for name in graph if len(subjects := subjects_of(name, graph)) > 1} == {}


def test_every_file_of_module_utils_is_in_a_package() -> None:
    assert list((PLUGINS / "module_utils").glob("*.py")) == []


# What the checks above are worth.

FILES = {"module_utils._disk.plan", "module_utils._disk.loop", "module_utils._common.errors"}
IMPORTS = {
    f"from {PREFIX}module_utils._disk.plan import decide": {"module_utils._disk.plan"},
    f"from {PREFIX}module_utils._disk import loop as loops, plan": {
        "module_utils._disk.loop",
        "module_utils._disk.plan",
    },
    f"import {PREFIX}module_utils._disk.loop": {"module_utils._disk.loop"},
    f"def f():\n    from {PREFIX}module_utils._disk.plan import decide": {"module_utils._disk.plan"},
    f"if TYPE_CHECKING:\n    from {PREFIX}module_utils._disk.plan import Plan": {"module_utils._disk.plan"},
    f"from {PREFIX}module_utils._disk import gone": {"module_utils._disk"},
    "import os\nfrom ansible.module_utils.basic import AnsibleModule": set(),
    f"# from {PREFIX}module_utils._disk.plan import decide": set(),
}
UPWARD = {
    ("module_utils._common.sizes", "module_utils._disk.plan"): True,
    ("module_utils._common.sizes", "module_utils._docker.client"): True,
    ("module_utils._docker.client", "module_utils._image.image"): True,
    ("module_utils._host.facts", "module_utils._disk.usage"): True,
    ("module_utils._disk.plan", "plugin_utils.table"): True,
    ("plugin_utils.table", "filter.box"): True,
    ("module_utils._disk.plan", "modules.disk_image"): True,
    ("filter.table", "modules.disk_image"): True,
    ("modules.disk_image", "module_utils._disk.plan"): False,
    ("modules.disk_image", "module_utils._common.main"): False,
    ("filter.table", "plugin_utils.table"): False,
    ("plugin_utils.table", "module_utils._common.errors"): False,
    ("module_utils._host.facts", "module_utils._docker.client"): False,
    ("module_utils._docker.client", "module_utils._common.versions"): False,
    ("module_utils._disk.plan", "module_utils._disk.loop"): False,
    ("filter.box", "filter.table"): False,
}


@pytest.mark.parametrize("text", IMPORTS)
def test_every_form_of_import_counts(text: str) -> None:
    assert imported(text, FILES) == IMPORTS[text]


def test_a_relative_import_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1: the import is relative"):
        imported("from .plan import decide", FILES)


@pytest.mark.parametrize("arrow", UPWARD, ids=" to ".join)
def test_an_arrow_leads_down_or_within_a_package(arrow: tuple[str, str]) -> None:
    assert bool(upward({arrow[0]: {arrow[1]}})) is UPWARD[arrow]


def test_a_circle_is_found_wherever_it_begins() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_plugin_that_imports_from_two_subjects_is_seen() -> None:
    assert subjects_of(
        "modules.a",
        {"modules.a": {"module_utils._disk.plan", "module_utils._kata.plan", "module_utils._docker.client"}},
    ) == {"_disk", "_kata"}


def shown(graph: Graph) -> str:
    """Return the graph as text: the packages, then each file, with what they import."""
    packages: dict[str, set[str]] = {}
    for name, others in graph.items():
        packages.setdefault(package_of(name), set()).update(
            package_of(other) for other in others if package_of(other) != package_of(name)
        )
    lines = [
        "packages",
        *(f"  {name} -> {', '.join(sorted(others)) or 'nothing'}" for name, others in sorted(packages.items())),
    ]
    lines += [
        "",
        "files",
        *(f"  {name} -> {', '.join(sorted(others)) or 'nothing'}" for name, others in sorted(graph.items())),
    ]
    return "\n".join(lines).replace("module_utils.", "")


if __name__ == "__main__":
    sys.stdout.write(shown(the_graph()) + "\n")
