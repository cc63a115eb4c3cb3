# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of proven guest kernels: which files it covers, when it counts, and when it is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.nested.kata.molecule.kernel import record
from ansible_runner import CHECKOUT

# One file of each kind, by the directory that it is somewhere below: files move within these.
GOES_IN = [
    ("files/kernel", "docker.config"),
    ("roles/guest_kernel/tasks", "make.yml"),
    ("roles/guest_kernel/vars", "profiles.yml"),
    ("roles/guest_kernel/defaults", "main.yml"),
    ("roles/guest_kernel/meta", "argument_specs.yml"),
    ("roles/guest_kernel/files", "Dockerfile"),
    ("roles/guest_kernel/files", "debian-source"),
    ("roles/machine_image/tasks", "mmdebstrap.yml"),
    ("playbooks", "kernel.yml"),
    ("playbooks", "targets.yml"),
    ("plugins/modules", "kernel_config.py"),
    ("plugins/modules", "kernel_build.py"),
    ("plugins/action", "kernel_build.py"),
    ("plugins/module_utils", "kconfig.py"),
    ("plugins/module_utils", "kvm.py"),
    ("molecule/kernel", "inventory.yml"),
    ("molecule/kernel", "record.py"),
    ("molecule/kernel", "test_kernel.py"),
    ("tests/guest", "moby.py"),
    ("tests/guest", "prove.service"),
    ("tests/support", "qemu_kernel.py"),
    ("tests/support", "kept.py"),
]
STAYS_OUT = [
    ("roles/guest_kernel", "README.md"),
    ("roles/docker_engine", "main.yml"),
    ("roles/machine_image", "rootfs/usr/lib/nested-kata/entry"),
    ("playbooks", "site.yml"),
    ("plugins/modules", "disk_image.py"),
    ("plugins/modules", "download.py"),
    ("plugins/connection", "nested.py"),
    ("plugins/module_utils", "superblock.py"),
    ("plugins/module_utils", "files.py"),
    ("plugins/plugin_utils", "progress.py"),
    ("molecule/default", "converge.yml"),
    ("tests/unit", "test_repository.py"),
    ("docs", "contributing.md"),
    (".", "test.sh"),
]
KERNEL = {
    "linux": "6.12.107-docker-1a2b3c4d5e6f",
    "source": "debian 6.12.107-1",
    "compiler": "gcc 14",
    "emulator": "QEMU 10",
    "date": "2026-11-29",
}


def report(cases: str = '<testcase name="proven"/>', profile: str = "docker") -> str:
    """Return the report of the verifier on one kernel."""
    about = json.dumps({profile: {name: value for name, value in KERNEL.items() if name != "date"}})
    return (
        '<testsuites><testsuite><properties><property name="kernel"'
        f" value='{about}'/></properties>{cases}</testsuite></testsuites>"
    )


def find(root: Path, below: str, name: str) -> Path:
    directory = root / below
    return directory / name if (directory / name).exists() else min(directory.rglob(name))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a copy of the files that are covered and of those that must not be, and its hash. Tests leave it as
    it is.
    """
    root = tmp_path_factory.mktemp("checkout")
    stays_out = [str(find(CHECKOUT, *where).relative_to(CHECKOUT)) for where in STAYS_OUT]
    for path in {*record.covered(CHECKOUT), *record.NOT_TAKEN, *stays_out}:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / path, root / path, follow_symlinks=False)
    return root, current(root)


@pytest.fixture
def checkout(original: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy that the test may change."""
    return shutil.copytree(original[0], tmp_path / "checkout", symlinks=True)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a file into the smallest tree that has all of START."""
    for start in record.START:
        (tmp_path / start).mkdir(parents=True)

    def write(name: str, content: str = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


def current(root: Path) -> str:
    return record.hash_of(root, record.covered(root))


def changed(root: Path, where: tuple[str, str]) -> str:
    """Return the hash with one more line end in one of the files."""
    path = find(root, *where)
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    try:
        return current(root)
    finally:
        path.write_bytes(content)


# --- which files ---


@pytest.mark.parametrize("where", GOES_IN, ids="/".join)
def test_a_change_of_a_file_that_goes_in_changes_the_hash(original: tuple[Path, str], where: tuple[str, str]) -> None:
    assert changed(original[0], where) != original[1]


@pytest.mark.parametrize("where", STAYS_OUT, ids="/".join)
def test_a_change_of_another_file_does_not(original: tuple[Path, str], where: tuple[str, str]) -> None:
    assert changed(original[0], where) == original[1]


@pytest.mark.parametrize("name", record.TAKEN_IN_PART)
def test_what_is_taken_in_part_is_still_a_role_or_plugin(name: str) -> None:
    assert (CHECKOUT / "roles" / name).is_dir() or list(CHECKOUT.glob(f"plugins/*/{name}.py"))


def test_what_is_not_taken_would_be_taken_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    names = record.NOT_TAKEN
    monkeypatch.setattr(record, "NOT_TAKEN", set())
    assert names <= set(record.covered(CHECKOUT))


@pytest.mark.parametrize(
    "name",
    [
        record.RECORD,
        record.UNFINISHED,
        "molecule/kernel/tests/__pycache__/test_kernel.cpython-311.pyc",
        "tests/guest/README.md",
    ],
)
def test_neither_the_record_nor_a_cache_nor_documentation_is_covered(checkout: Path, name: str) -> None:
    before, path = current(checkout), checkout / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    assert current(checkout) == before


def test_every_change_that_a_file_can_have_changes_the_hash(tree, tmp_path: Path) -> None:
    file = tree("tests/guest/root/program", "a\n")
    seen = {current(tmp_path)}
    file.write_bytes(b"a\r\n")
    seen.add(current(tmp_path))
    file.chmod(0o755)
    seen.add(current(tmp_path))
    file = file.rename(file.with_name("other"))
    seen.add(current(tmp_path))
    file.with_name("link").symlink_to("other")
    seen.add(current(tmp_path))
    file.with_name("link").unlink()
    file.with_name("link").symlink_to("/nowhere")
    seen.add(current(tmp_path))
    assert len(seen) == 6


def test_what_a_checkout_cannot_keep_does_not_change_the_hash(tree, tmp_path: Path) -> None:
    tree("tests/guest/b")
    file = tree("tests/guest/a")
    before = current(tmp_path)
    file.chmod(0o600)
    assert current(tmp_path) == before == record.hash_of(tmp_path, ["tests/guest/b", "tests/guest/a"])


@pytest.mark.parametrize(
    "statement",
    [
        "import qemu",
        "from qemu import boot",
        "import support.qemu",
        "import support.qemu as q",
        "from support import json, qemu",
        "from support.qemu import boot",
        "def f():\n    from support.qemu import boot",
        "from ansible_collections.nested.kata.tests.support import qemu",
        "from ansible_collections.nested.kata.tests.support.qemu import boot",
    ],
)
def test_imports_are_followed_also_into_packages(tree, tmp_path: Path, statement: str) -> None:
    tree("molecule/kernel/tests/test_kernel.py", f"import json\n{statement}\n")
    tree("tests/support/json.py")
    tree("tests/support/qemu.py", "from . import ext4\nfrom ..kept import kept\n")
    tree("tests/support/ext4.py")
    tree("tests/kept.py")
    tree("tests/support/sshd.py")
    assert set(record.covered(tmp_path)) - {"tests/support/json.py"} == {
        "molecule/kernel/tests/test_kernel.py",
        "tests/support/qemu.py",
        "tests/support/ext4.py",
        "tests/kept.py",
    }


def test_a_package_that_has_a_program_of_its_own_is_covered_with_it(tree, tmp_path: Path) -> None:
    tree("tests/guest/prove.py", "from ansible_collections.nested.kata.plugins.module_utils._kernel.make import run\n")
    tree("plugins/module_utils/_kernel/__init__.py")
    tree("plugins/module_utils/_kernel/make.py")
    assert record.covered(tmp_path)[:2] == [
        "plugins/module_utils/_kernel/__init__.py",
        "plugins/module_utils/_kernel/make.py",
    ]


def test_roles_and_plugins_are_found_by_name_and_labels_are_not_taken_for_them(tree, tmp_path: Path) -> None:
    tree(
        "roles/guest_kernel/tasks/main.yml",
        "nested.kata.kernel_entries nested.kata._common nested.kata.kernel-build=x nested.kata.nested\n",
    )
    tree("plugins/filter/kernel_entries.py")
    tree("plugins/filter/kernel_entries.yml")
    tree("plugins/module_utils/kernel_entries.py")
    tree("roles/_common/tasks/packages.yml")
    tree("roles/_common/README.md")
    assert record.covered(tmp_path) == [
        "plugins/filter/kernel_entries.py",
        "plugins/filter/kernel_entries.yml",
        "roles/_common/tasks/packages.yml",
        "roles/guest_kernel/tasks/main.yml",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "tests/guest/prove.py",
            "from . import gone",
            "tests/guest/prove.py imports gone, which is not a file of the repository",
        ),
        (
            "tests/guest/prove.py",
            "from ansible_collections.nested.kata.plugins.module_utils import gone",
            "imports plugins.module_utils.gone, which is not",
        ),
        ("tests/guest/prove.py", "def", "tests/guest/prove.py cannot be read: "),
        (
            "roles/guest_kernel/tasks/main.yml",
            "nested.kata.gone:",
            "names nested.kata.gone, which is neither a role nor the file of a plugin",
        ),
        (
            "roles/guest_kernel/tasks/main.yml",
            "name: nested.kata.machine_image",
            "there is no roles/machine_image/defaults/main.yml",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_and_not_left_out(
    tree, tmp_path: Path, name: str, content: str, reason: str
) -> None:
    tree(name, content)
    with pytest.raises(record.Refused, match=reason):
        record.covered(tmp_path)


# --- when it counts ---

FILES = "f" * 64
KERNELS = {"docker": KERNEL, "stock": {**KERNEL, "date": "2026-11-28"}}


@pytest.mark.parametrize("profiles", [["docker"], ["stock", "docker"], []])
def test_a_record_counts_for_the_profiles_that_it_covers(profiles: list[str]) -> None:
    assert record.proven(record.recorded(FILES, KERNELS), FILES, profiles) == KERNELS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there is no molecule/kernel/proven.json"),
        ("", "is not valid JSON"),
        ('{"files": ', "is not valid JSON"),
        ("<<<<<<< ours\n" + record.recorded(FILES, KERNELS), "is not valid JSON"),
        ("[]", "is not a record"),
        ("null", "is not a record"),
        ("{}", "is not a record"),
        (json.dumps({"files": FILES, "kernels": {}}), "is not a record"),
        (json.dumps({"files": FILES, "kernels": 1, "hash": 1}), "was changed by hand"),
    ],
)
def test_a_missing_or_garbled_record_does_not_count(text: str | None, reason: str) -> None:
    with pytest.raises(record.Refused, match=reason):
        record.proven(text, FILES, ["docker"])


@pytest.mark.parametrize(
    "path",
    [
        ["about"],
        ["files"],
        ["hash"],
        ["more"],
        ["kernels"],
        ["kernels", "netsim"],
        *(["kernels", "docker", name] for name in KERNEL),
    ],
    ids=".".join,
)
def test_a_field_that_was_changed_by_hand_makes_it_invalid(path: list[str]) -> None:
    changed = json.loads(record.recorded("e" * 64, KERNELS))
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = KERNELS["docker"] if path == ["kernels", "netsim"] else {} if path == ["kernels"] else FILES
    with pytest.raises(record.Refused, match="was changed by hand or by a merge"):
        record.proven(json.dumps(changed), FILES, ["docker"])


def test_other_files_and_other_profiles_are_told_apart() -> None:
    text = record.recorded(FILES, KERNELS)
    with pytest.raises(record.Refused, match="have changed since 2026-11-29"):
        record.proven(text, "e" * 64, ["docker"])
    with pytest.raises(record.Refused, match="does not cover the profile netsim, nested"):
        record.proven(text, FILES, ["docker", "netsim", "nested"])


# --- when it is written ---


def test_a_report_in_which_all_passed_says_what_was_proven() -> None:
    assert record.reported(report(), "2026-11-29") == {"docker": KERNEL}


@pytest.mark.parametrize(
    ("junit", "reason"),
    [
        ("", "is not valid"),
        ("<testsuites/>", "is about no kernel"),
        ('<testsuites><testsuite><testcase name="proven"/></testsuite></testsuites>', "is about no kernel"),
        *(
            (
                report(f'<testcase name="proven"/><testcase name="{how}-one"><{how}/></testcase>'),
                f"{how}-one did not pass",
            )
            for how in ("failure", "error", "skipped")
        ),
    ],
)
def test_no_record_without_all_proofs(checkout: Path, junit: str, reason: str) -> None:
    (checkout / "junit.xml").write_text(junit)
    with pytest.raises(record.Refused, match=reason):
        record.write(checkout, current(checkout), checkout / "junit.xml")
    assert not (checkout / record.RECORD).exists()


def test_no_record_where_the_verifier_wrote_no_report(checkout: Path) -> None:
    with pytest.raises(record.Refused, match="there is no report of the verifier"):
        record.write(checkout, current(checkout), checkout / "junit.xml")


def test_a_run_of_other_profiles_keeps_what_was_proven_of_the_same_files_only(checkout: Path) -> None:
    junit = checkout / "junit.xml"
    for profile in ("docker", "netsim"):
        junit.write_text(report(profile=profile))
        record.write(checkout, current(checkout), junit)
    assert "netsim was proven on" in record.check(checkout, ["docker", "netsim"])
    (checkout / "files/kernel/docker.config").write_text("")
    record.write(checkout, current(checkout), junit)
    assert record.check(checkout, ["netsim"])
    with pytest.raises(record.Refused, match="does not cover the profile docker"):
        record.check(checkout, ["docker"])


def test_the_commands_as_test_sh_calls_them(checkout: Path) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(checkout / "molecule/kernel/record.py"), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    (checkout / "junit.xml").write_text(report())
    assert call("check", "docker") == (1, "there is no molecule/kernel/proven.json")
    assert call("write", "0" * 64, str(checkout / "junit.xml")) == (
        1,
        "files that go into the kernel or its proof were changed while it ran",
    )
    before = call("hash")[1]
    status, said = call("write", before, str(checkout / "junit.xml"))
    assert status == 0 and said.startswith("molecule/kernel/proven.json written: docker was proven on 20"), said
    assert not (checkout / record.UNFINISHED).exists()
    assert call("check", "docker") == (0, said.split(": ", 1)[1].removesuffix("; commit it"))
    assert call("check", "docker,nested") == (1, "molecule/kernel/proven.json does not cover the profile nested")
    assert call("hash") == (0, before)
    assert "files/kernel/docker.config" in call("files")[1].splitlines()
    (checkout / "files/kernel/docker.config").write_text("")
    assert call("check", "docker")[0] == 1
