# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of this repository owe each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uses
import yaml
from ansible_runner import BIN, CHECKOUT

ALL_ROLES = sorted(path for path in CHECKOUT.glob("roles/*") if path.is_dir())
# Nobody but the collection calls the internal ones, so they have neither a main nor defaults. ansible-lint allows no
# name that begins with "_".
INTERNAL_ROLES = [path for path in ALL_ROLES if path.name.startswith("internal_")]
ROLES = [path for path in ALL_ROLES if path not in INTERNAL_ROLES]
MODULES = sorted(CHECKOUT.glob("plugins/modules/*.py"))
SPDX = "License-Identifier: GPL-3.0-or-later"


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text()) or {}


def repository_files() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {name for name in listed.split("\0") if name and (CHECKOUT / name).is_file()}


def name_of(path: Path) -> str:
    return path.name


def test_there_are_roles_and_modules_to_look_at() -> None:
    assert ROLES
    assert INTERNAL_ROLES
    assert MODULES


@pytest.mark.parametrize("role", ROLES, ids=name_of)
def test_a_role_s_defaults_are_those_that_its_argument_specs_say(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    said = {name: option.get("default") for name, option in options.items() if not option.get("required")}
    assert load(role / "defaults" / "main.yml") == said


@pytest.mark.parametrize("role", ROLES, ids=name_of)
def test_a_role_s_variables_begin_with_its_name_or_with_nested_kata(role: Path) -> None:
    strangers = [
        name for name in load(role / "defaults" / "main.yml") if not name.startswith((f"{role.name}_", "nested_kata_"))
    ]
    assert strangers == []


@pytest.mark.parametrize("role", INTERNAL_ROLES, ids=name_of)
def test_each_entry_point_of_an_internal_role_says_what_it_takes_and_checks_who_calls_first(role: Path) -> None:
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    tasks = {path.stem: load(path) for path in (role / "tasks").glob("*.yml") if path.stem != "caller"}
    assert set(specs) == set(tasks)
    assert [name for spec in specs.values() for name in spec["options"] if not name.startswith(f"{role.name}_")] == []
    first = {listed[0]["ansible.builtin.include_tasks"].rpartition("/")[2] for listed in tasks.values()}
    assert (first, (role / "tasks" / "main.yml").exists(), (role / "defaults").exists()) == (
        {"caller.yml"},
        False,
        False,
    )


@pytest.mark.parametrize("role", ALL_ROLES, ids=name_of)
def test_each_task_file_that_a_role_names_is_there_and_a_folder_has_at_most_ten(role: Path) -> None:
    tasks = role / "tasks"
    files = sorted(tasks.rglob("*.yml"))
    include = re.compile(
        r'(?:include|import)_tasks:(?:\n +file:)? "?({{ role_path }}/tasks/)?([\w/]+\.yml)"?$', re.MULTILINE
    )
    names = {path: include.findall(path.read_text()) for path in files}
    # Of a relative name in a folder Ansible looks for a file of the user's first, beside the playbook.
    assert [
        path.name for path in files if path.parent != tasks and not all(absolute for absolute, dummy in names[path])
    ] == []
    named = {name for found in names.values() for dummy, name in found}
    assert [name for name in sorted(named) if not (tasks / name).is_file()] == []
    # The others are entry points, which stand at the top.
    assert [path for path in files if path.parent != tasks and str(path.relative_to(tasks)) not in named] == []
    assert max(sum(other.parent == path.parent for other in files) for path in files) <= 10


TASK_FILES = [*(CHECKOUT / "playbooks").rglob("*.yml"), *(CHECKOUT / "roles").glob("*/tasks/**/*.yml")]
# Hosts that no tenant controls: what their modules return may become facts of the host that a play is for.
TRUSTED = {None, "localhost", "{{ guest_kernel_build_host }}", "{{ nested_kata_way.via }}"}


def mappings(node: object) -> Iterator[dict]:
    """Yield every mapping in a YAML document."""
    if isinstance(node, dict):
        yield node
    for below in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from mappings(below)


def test_no_task_reads_how_a_host_is_reached_from_variables_that_its_facts_override() -> None:
    # The filter nested.kata.way reads it. As a key it is set.
    defaults = [*(CHECKOUT / "roles").glob("*/defaults/*.yml"), *(CHECKOUT / "roles").glob("*/vars/*.yml")]
    assert len(TASK_FILES) > 50
    reading = re.compile(r"(?:\{\{.*|when:.*|\.|\[')ansible_nested_.*")
    found = {path: reading.findall(path.read_text()) for path in [*TASK_FILES, *defaults]}
    assert {str(path.relative_to(CHECKOUT)): lines for path, lines in found.items() if lines} == {}


def test_what_answers_in_a_container_gives_no_facts_to_the_host_of_a_play() -> None:
    open_ones = [
        (path.name, mapping["delegate_to"])
        for path in TASK_FILES
        for mapping in mappings(load(path))
        if mapping.get("delegate_to") not in TRUSTED and mapping.get("delegate_facts") is not True
    ]
    assert open_ones == []


@pytest.mark.parametrize("role", ALL_ROLES, ids=name_of)
def test_the_name_in_a_role_s_meta_is_that_of_its_directory(role: Path) -> None:
    assert load(role / "meta" / "main.yml")["galaxy_info"]["role_name"] == role.name


@pytest.mark.parametrize("role", ALL_ROLES, ids=name_of)
def test_a_role_s_readme_names_each_of_its_variables(role: Path) -> None:
    readme = (role / "README.md").read_text()
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"].values()
    assert [name for spec in specs for name in spec["options"] if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("role", ALL_ROLES, ids=name_of)
def test_a_role_s_meta_agrees_with_the_collection(role: Path) -> None:
    info = load(role / "meta" / "main.yml")["galaxy_info"]
    assert load(CHECKOUT / "meta" / "runtime.yml")["requires_ansible"] == f">={info['min_ansible_version']}.0"
    assert [info["license"]] == load(CHECKOUT / "galaxy.yml")["license"]


@pytest.mark.parametrize("role", ALL_ROLES, ids=name_of)
def test_a_role_claims_no_platform_that_the_tests_do_not_run_on(role: Path) -> None:
    assert load(role / "meta" / "main.yml")["galaxy_info"]["platforms"] == [
        {"name": "Debian", "versions": ["bookworm", "trixie"]}
    ]


def used_by_tests() -> set[str]:
    """Return the files of plugins/ that are used by tests of pytest, and by the scenarios of molecule with their
    playbooks.
    """
    used: set[str] = set()
    for test in (*CHECKOUT.glob("tests/*/test_*.py"), *CHECKOUT.glob("molecule/*/tests/test_*.py")):
        used.update(uses.of_python(test.read_text(encoding="utf-8")))
    for playbook in CHECKOUT.glob("molecule/*/*.yml"):
        used.update(uses.of_yaml(playbook.read_text(encoding="utf-8")))
    return used


def test_every_module_and_plugin_is_used_by_a_test() -> None:
    plugins = CHECKOUT / "plugins"
    documentation = plugins / "doc_fragments"  # ansible-test sanity reads what becomes of it
    files = {
        ".".join(path.relative_to(plugins).with_suffix("").parts)
        for path in plugins.rglob("*.py")
        if documentation not in path.parents
    }
    assert len(files) > 50
    assert sorted(files - used_by_tests()) == []


def test_all_modules_are_in_the_action_group_and_nothing_else_is() -> None:
    assert load(CHECKOUT / "meta" / "runtime.yml")["action_groups"]["all"] == [path.stem for path in MODULES]


def test_the_collection_s_dependencies_are_those_of_requirements_yml() -> None:
    required = {entry["name"]: entry["version"] for entry in load(CHECKOUT / "requirements.yml")["collections"]}
    assert load(CHECKOUT / "galaxy.yml")["dependencies"] == required


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_what_is_installed_for_run_sh_and_the_tests_is_pinned(name: str) -> None:
    lines = [line for line in (CHECKOUT / name).read_text().splitlines() if line and not line.startswith(("#", "-r "))]
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+==[0-9][0-9.]*", line) for line in lines)


def test_the_version_to_come_has_a_summary_for_its_release_notes() -> None:
    version = load(CHECKOUT / "galaxy.yml")["version"]
    fragment = CHECKOUT / "changelogs" / "fragments" / f"{version}.yml"
    released = CHECKOUT / "changelogs" / "changelog.yaml"
    assert (fragment.exists() and load(fragment)["release_summary"]) or version in load(released)["releases"]


def test_every_program_says_what_its_licence_is() -> None:
    programs = [
        name
        for name in repository_files()
        if name.endswith((".py", ".sh")) or (CHECKOUT / name).read_bytes().startswith(b"#!")
    ]
    assert [name for name in programs if SPDX not in (CHECKOUT / name).read_text()[:600]] == []


def test_what_is_published_is_in_the_repository_and_holds_nothing_of_a_workplace(tmp_path: Path) -> None:
    subprocess.run(
        [str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(tmp_path), str(CHECKOUT)],
        check=True,
        capture_output=True,
    )
    with tarfile.open(next(tmp_path.glob("nested-kata-*.tar.gz"))) as archive:
        published = {member.name for member in archive if member.isfile()}
    assert published - repository_files() == {"MANIFEST.json", "FILES.json"}
    assert {name.split("/")[0] for name in published} & {".ci", ".collections", ".run", ".git"} == set()
    assert {
        "plugins/modules/host_check.py",
        "roles/kata_preflight/tasks/main.yml",
        "meta/runtime.yml",
        "LICENSE",
    } <= published


def test_the_tables_of_variables_in_the_readmes_are_those_of_the_argument_specs() -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "docs" / "role_readmes.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_each_linter_is_a_hook_of_pre_commit_and_the_other_way_round() -> None:
    linters = re.search(r"^readonly LINTERS=\((.*)\)$", (CHECKOUT / "test.sh").read_text(), re.MULTILINE).group(1)
    hooks = [hook for repo in load(CHECKOUT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == linters.split()
    assert [hook["entry"] for hook in hooks] == [f"./test.sh lint {linter}" for linter in linters.split()]
