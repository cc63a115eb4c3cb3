# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a boot's lines are read as, and what the tables of proofs owe the tests that name them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import qemu_kernel
from guest.prove import PROFILES
from qemu_kernel import Proof, Report, follow, parse

ABOUT = json.dumps({"release": "6.12.1-docker", "config": "c0ffee", "init": 1.5, "started": 9.0})
PROVEN = json.dumps({"id": "it holds", "ok": True, "detail": "seen", "seconds": 0.5})
DISPROVED = json.dumps({"id": "it does not", "ok": False, "detail": "why", "seconds": 1.0})
END = json.dumps({"end": 2})

INCOMPLETE = {
    "nothing": [],
    "no end": [ABOUT, PROVEN, DISPROVED],
    "a line cut off": [ABOUT, PROVEN, DISPROVED[:-4]],
    "an end that counts more proofs": [ABOUT, PROVEN, END],
}


def test_a_report_has_what_the_guest_said() -> None:
    report = parse([ABOUT, PROVEN, DISPROVED, END])
    assert (report.release, report.config, report.init, report.started, report.complete) == (
        "6.12.1-docker",
        "c0ffee",
        1.5,
        9.0,
        True,
    )
    assert report.proofs == {"it holds": Proof(True, "seen", 0.5), "it does not": Proof(False, "why", 1.0)}
    assert report.failed() == {"it does not": "why"}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_a_guest_that_did_not_come_to_its_end_is_incomplete(case: str) -> None:
    assert not parse(INCOMPLETE[case]).complete


def test_the_last_lines_of_the_console_are_told(tmp_path) -> None:
    console = tmp_path / "console.log"
    console.write_text("\n".join(f"line {number}" for number in range(100)))
    lines = parse([], console=console).last_lines().splitlines()
    assert (len(lines), lines[-1]) == (qemu_kernel.LAST_LINES + 1, "line 99")


def test_why_a_guest_was_ended_comes_before_the_console() -> None:
    assert Report(ended="exit status 1", console=Path("/nowhere")).last_lines().splitlines()[0] == "exit status 1"


@pytest.mark.parametrize(
    ("script", "limits", "ended"),
    [
        ("echo booted >$0", {}, ""),
        ("echo booted >$0; exec sleep 60", {"silence": 2}, "killed: it said nothing for 2 s"),
        (
            "while sleep 0.2; do echo booting >>$0; done",
            {"silence": 3, "seconds": 4},
            "killed: it took longer than 4 s",
        ),
    ],
    ids=["ends", "falls silent", "takes too long"],
)
def test_a_guest_that_falls_silent_is_told_from_one_that_takes_too_long(
    tmp_path: Path, script: str, limits: dict[str, float], ended: str
) -> None:
    console = tmp_path / "console.log"
    with subprocess.Popen(["sh", "-c", script, str(console)]) as process:
        assert follow(process, (console, tmp_path / "proofs.jsonl"), **limits) == ended
    assert console.read_text().startswith("boot")
    assert process.returncode == (-9 if ended else 0)


def test_every_profile_is_booted_and_proves_something_of_its_own() -> None:
    own = {
        profile: {
            name for name in proofs if all(name not in others for other, others in PROFILES.items() if other != profile)
        }
        for profile, proofs in PROFILES.items()
    }
    assert "systemd says running" in set.intersection(*(set(proofs) for proofs in PROFILES.values()))
    assert {profile: len(names) > 3 for profile, names in own.items()} == {
        "stock": False,
        "docker": True,
        "netsim": True,
        "nested": True,
    }


def test_a_changed_recipe_makes_another_root_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    before = qemu_kernel.recipe()
    assert qemu_kernel.recipe() == before
    monkeypatch.setattr(qemu_kernel, "PACKAGES", (*qemu_kernel.PACKAGES, "hello"))
    assert qemu_kernel.recipe() != before
