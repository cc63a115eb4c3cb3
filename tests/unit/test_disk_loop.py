# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What loop.py says and refuses without a loop device, as a library and as the program that a unit runs at boot."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ansible_collections.nested.kata.plugins.module_utils._common.errors import CommandFailed, Refused
from ansible_collections.nested.kata.plugins.module_utils._disk import loop
from ansible_collections.nested.kata.plugins.module_utils._disk.loop import Content, Link

BLKID = {
    "btrfs with a label": (
        'DEVNAME=a\nLABEL=my\\ la\\"b\\\\el\\$x\nUUID=1-2\nTYPE=btrfs\nUSAGE=filesystem\n',
        Content("btrfs", "1-2", 'my la"b\\el$x'),
    ),
    "nothing": ("", Content()),
    "swap": ("TYPE=swap\nUSAGE=other\n", Content(alien="swap, which is not a file system")),
    "LUKS": ("TYPE=crypto_LUKS\nUSAGE=crypto\n", Content(alien="crypto_LUKS, which is not a file system")),
    "partitions": ("PTTYPE=gpt\n", Content(alien="a partition table (gpt)")),
    "a file system under a partition table": (
        "TYPE=ext4\nUSAGE=filesystem\nPTTYPE=dos\n",
        Content(alien="a partition table (dos)"),
    ),
}
BAD_CALLS = {
    "an image that is not there": (
        ["attach", "--image", "{dir}/none.img", "--link", "{dir}/link"],
        "{dir}/none.img does not exist",
    ),
    "an image that is a directory": (
        ["attach", "--image", "{dir}", "--link", "{dir}/link"],
        "{dir} is not a regular file",
    ),
    "a relative image": (
        ["attach", "--image", "a.img", "--link", "{dir}/link"],
        "--image a.img is not an absolute path",
    ),
    "a link that is a file": (
        ["attach", "--image", "{dir}/data", "--link", "{dir}/data"],
        "{dir}/data is not a symlink: it is left as it is",
    ),
    "no file system": (
        ["attach", "--image", "{dir}/data", "--link", "{dir}/link"],
        "{dir}/data holds no file system: nothing was attached",
    ),
}


@pytest.mark.parametrize("case", BLKID)
def test_what_blkid_says_is_understood(case, monkeypatch):
    output, content = BLKID[case]
    monkeypatch.setattr(loop, "run", lambda *command, accept: (0 if output else 2, output))
    assert loop.probe("/a") == content


def test_what_blkid_cannot_tell_apart_is_no_file_system(monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *command, accept: (8, "TYPE=ext4\n"))
    assert loop.probe("/a").fstype is None
    assert "several things" in (loop.probe("/a").alien or "")


def test_a_failed_command_is_told_with_its_status_and_the_lines_that_matter():
    with pytest.raises(CommandFailed) as failure:
        loop.run("blkid", "--no-such-option")
    assert str(failure.value).startswith("blkid --no-such-option failed with exit status ")
    assert failure.value.status != 0
    assert (
        loop.reason("NOTE: something\nERROR: too small\nERROR: minimum is 9\n\nhint\n")
        == "ERROR: too small; ERROR: minimum is 9"
    )
    assert loop.reason("first\nlast\n") == "last"
    assert loop.reason("") == "no message"


@pytest.mark.parametrize("command", loop.PACKAGES)
def test_a_missing_command_is_told_with_its_package(command, monkeypatch):
    monkeypatch.setattr(loop.shutil, "which", lambda name, path: None)
    with pytest.raises(Refused) as refusal:
        loop.run(command, "x")
    assert str(refusal.value) == f"the command {command} is missing: install the package {loop.PACKAGES[command]}"


def test_a_link_is_made_with_its_directory_and_replaced_in_one_step(tmp_path):
    link = tmp_path / "run" / "disks" / "kata"
    assert loop.link_at(str(link)) == Link()
    loop.set_link(str(link), "/dev/loop3")
    # An interrupted run leaves this.
    (link.parent / ".nested-kata-new-kata").symlink_to("/dev/loop1")
    loop.set_link(str(link), "/dev/loop4")
    assert loop.link_at(str(link)) == Link("/dev/loop4")
    assert [entry.name for entry in link.parent.iterdir()] == ["kata"]
    assert link.parent.stat().st_mode & 0o777 == 0o755


def test_only_a_link_to_a_loop_device_is_ours_to_change(tmp_path):
    (tmp_path / "other").symlink_to("/dev/vda")
    (tmp_path / "file").write_text("x")
    assert loop.link_at(str(tmp_path / "other")) == Link(obstacle="is a symlink to /dev/vda, not to a loop device")
    assert loop.link_at(str(tmp_path / "file")) == Link(obstacle="is not a symlink")
    assert loop.link_at(str(tmp_path / "file" / "link")).obstacle == "cannot be read (Not a directory)"


@pytest.mark.parametrize("case", BAD_CALLS)
def test_the_program_refuses_in_one_line_and_touches_nothing(case, tmp_path):
    arguments, message = BAD_CALLS[case]
    (tmp_path / "data").write_text("data")
    done = subprocess.run(
        [sys.executable, "-I", loop.__file__, *(argument.format(dir=tmp_path) for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"loop.py: {message.format(dir=tmp_path)}\n"
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("data", "data")]


def test_the_program_needs_nothing_but_the_standard_library():
    command = [sys.executable, "-I", "-S", loop.__file__, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "attach" in done.stdout
