# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking: what is written stays below one directory, whatever the archive and even the judge say."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import unpack_hostile_tars
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Damaged, Refused
from ansible_collections.nested.kata.plugins.module_utils._common.tar import Content
from ansible_collections.nested.kata.plugins.module_utils._kata.members import (
    Judge,
    MakeDirectory,
    MakeLink,
    MakeSymlink,
    WriteFile,
)
from ansible_collections.nested.kata.plugins.module_utils._kata.unpack import unpack, write
from ansible_runner import CHECKOUT
from hostile_tars import ABSOLUTE, GOOD, HEADERS, MEMBERS, directory, file, link, symlink, tar
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    descriptor = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def unpacked(archive: bytes, root: int) -> Judge:
    judge = Judge()
    unpack(io.BytesIO(archive), judge, root)
    return judge


def everything(path: Path) -> dict[str, object]:
    return {
        str(each.relative_to(path)): os.readlink(each)
        if each.is_symlink()
        else each.read_bytes()
        if each.is_file()
        else None
        for each in path.rglob("*")
    }


def test_an_archive_becomes_files_directories_and_links(root: int, tmp_path: Path) -> None:
    judge = unpacked(
        tar(
            *GOOD,
            file("opt/kata/bin/qemu", b"x" * 3_000_000, mode=0o4777, mtime=1_700_000_000),
            directory("opt/kata/empty"),
            symlink("opt/kata/bin/q", "/opt/kata/bin/qemu"),
            link("opt/kata/q", "opt/kata/bin/qemu"),
            file("opt/kata/" + "long/" * 60 + "name", b""),
        ),
        root,
    )
    found = everything(tmp_path / "root")
    assert {name: content for name, content in found.items() if not name.startswith("long")} == {
        "good": b"data",
        "bin": None,
        "bin/qemu": b"x" * 3_000_000,
        "empty": None,
        "bin/q": "qemu",
        "q": b"x" * 3_000_000,
    }
    assert found["long/" * 60 + "name"] == b""
    state = (tmp_path / "root" / "bin" / "qemu").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_mtime, state.st_nlink) == (0o755, 1_700_000_000, 2)
    assert (judge.bytes, judge.files) == (3_000_004, 4)


@pytest.mark.parametrize("case", [*MEMBERS, *HEADERS])
def test_a_hostile_archive_writes_nothing_outside(root: int, tmp_path: Path, case: str) -> None:
    if case in MEMBERS:
        entries, words = MEMBERS[case]
        archive = tar(*GOOD, *entries)
    else:
        make, words = HEADERS[case]
        archive = make()
    (tmp_path / "canary").write_bytes(b"alive")
    try:
        judge = unpacked(archive, root)
    except (Refused, Damaged) as error:
        assert words in str(error)
        assert "\n" not in str(error)
    else:
        assert words == "there are no files in it"
        assert judge.files == 0
    outside = {name: content for name, content in everything(tmp_path).items() if not name.startswith("root/")}
    assert outside == {"canary": b"alive", "root": None}
    assert not os.path.lexists(ABSOLUTE)


SUPPORT = Path(unpack_hostile_tars.__file__).parent


def python_of(name: str) -> str:
    """Return the path of a Python that runs, nothing where there is none."""
    here = [shutil.which(name), *map(str, Path.home().glob(f".pyenv/versions/*/bin/{name}"))]
    does = [path for path in here if path and subprocess.run([path, "-c", ""], check=False).returncode == 0]
    return "".join(does[:1])


# Those that targets may have, as far as they are here.
PYTHONS = {f"python3.{minor}": python_of(f"python3.{minor}") for minor in range(9, 15)}


@pytest.mark.parametrize("python", [name for name, path in PYTHONS.items() if path])
def test_every_python_refuses_them_in_the_same_words(python: str) -> None:
    done = subprocess.run(
        [PYTHONS[python], SUPPORT / "unpack_hostile_tars.py"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    number = len(MEMBERS) + len(HEADERS)
    assert (done.stdout, done.stderr) == (f"{number} archives on {python.replace('python', 'Python ')}\n", "")


PARTS = st.lists(st.sampled_from(["opt", "kata", "opt/kata", "..", ".", "", "a", "b"]), max_size=6)
NAMES = st.builds(
    lambda start, parts: start + "/".join(parts), st.sampled_from(["", "/", "./", "opt/kata/", "/opt/kata/"]), PARTS
)
ENTRIES = st.lists(
    st.one_of(
        st.builds(file, NAMES),
        st.builds(directory, NAMES),
        st.builds(symlink, NAMES, NAMES),
        st.builds(link, NAMES, NAMES),
    ),
    max_size=8,
)


@given(ENTRIES)
def test_no_order_of_members_leads_out(entries: list) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        inside = base / "opt" / "kata"
        inside.mkdir(parents=True)
        descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
        judge = Judge()
        for entry in entries:
            with contextlib.suppress(Refused):
                unpack(io.BytesIO(tar(entry)), judge, descriptor)
        os.close(descriptor)
        assert {path.name for path in base.iterdir()} == {"opt"}
        assert {path.name for path in (base / "opt").iterdir()} == {"kata"}
        for path in inside.rglob("*"):
            if path.is_symlink():
                target = os.path.realpath(path)
                assert target == str(inside) or target.startswith(f"{inside}/"), (path, os.readlink(path))


# --- below the judge: each of these steps is one that it would never let through ---

WRONG = {
    "a file through a symlink": WriteFile(("out", "x"), 1, 0o644, 0),
    "a file deep through a symlink": WriteFile(("out", "d", "x"), 1, 0o644, 0),
    "a file over a symlink": WriteFile(("loose",), 1, 0o644, 0),
    "a file over a file": WriteFile(("file",), 1, 0o644, 0),
    "a file above": WriteFile(("..", "x"), 1, 0o644, 0),
    "a file with a path as its name": WriteFile(("../x",), 1, 0o644, 0),
    "a file in an absolute path": WriteFile((ABSOLUTE,), 1, 0o644, 0),
    "a directory through a symlink": MakeDirectory(("out", "x")),
    "a directory's mode through a symlink": MakeDirectory(("out",), 0o700),
    "a directory above": MakeDirectory(("..", "x")),
    "a symlink through a symlink": MakeSymlink(("out", "x"), "y"),
    "a symlink over a file": MakeSymlink(("file",), "y"),
    "a hard link through a symlink": MakeLink(("h",), ("out", "canary")),
    "a hard link into a symlink": MakeLink(("out", "h"), ("file",)),
    "a hard link to what is above": MakeLink(("h",), ("..", "outside", "canary")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_step_that_leads_out_fails_also_when_nobody_judged_it(root: int, tmp_path: Path, case: str) -> None:
    (tmp_path / "outside" / "d").mkdir(parents=True)
    (tmp_path / "outside").chmod(0o751)
    (tmp_path / "outside" / "canary").write_bytes(b"alive")
    (tmp_path / "root" / "file").write_bytes(b"first")
    (tmp_path / "root" / "out").symlink_to("../outside")
    (tmp_path / "root" / "loose").symlink_to("../outside/new")
    before = everything(tmp_path)
    with pytest.raises((OSError, ValueError)):
        write(WRONG[case], Content(io.BytesIO(b"x")), root)
    assert everything(tmp_path) == before
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o751
