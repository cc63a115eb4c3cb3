# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from playing import play, run_module

DEVICES = {"vhost_vsock": "/dev/vhost-vsock", "vhost_net": "/dev/vhost-net", "tun": "/dev/net/tun"}


def by_id(result: dict) -> dict[str, dict]:
    return {finding["id"]: finding for finding in result["findings"]}


def docker(template: str) -> str:
    return subprocess.run(["docker", "info", "--format", template], check=True, capture_output=True, text=True).stdout.strip()


def test_what_it_says_of_this_machine_is_what_this_machine_has() -> None:
    findings = by_id(run_module("host_check", {}))
    flags = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")][0].split()
    assert findings["cpu_virtualization"]["ok"] is bool({"vmx", "svm"} & set(flags))
    for name, path in DEVICES.items():
        assert findings[name]["ok"] is (os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode)), name
    assert findings["kvm"]["ok"] is os.access("/dev/kvm", os.R_OK | os.W_OK)


@pytest.mark.docker
def test_dockers_version_is_that_of_the_daemon_and_not_of_the_client() -> None:
    version = docker("{{.ServerVersion}}")
    finding = by_id(run_module("host_check", {}))["docker_version"]
    assert (finding["found"], finding["ok"]) == (version, int(version.split(".")[0]) >= 26)


@pytest.mark.docker
def test_a_runtime_is_found_by_its_name() -> None:
    registered = sorted(json.loads(docker("{{json .Runtimes}}")))
    assert by_id(run_module("host_check", {"runtime": "runc"}))["docker_runtime"]["ok"] is True
    finding = by_id(run_module("host_check", {"runtime": "t-no-such"}))["docker_runtime"]
    assert (finding["ok"], finding["found"], finding["needed"]) == (False, f"runtimes {', '.join(registered)}", "runtime t-no-such")


def test_a_docker_that_does_not_answer_is_named_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert not {"docker_version", "docker_runtime"} & set(by_id(run_module("host_check", {})))
    finding = by_id(run_module("host_check", {"runtime": "kata"}))["docker_runtime"]
    assert finding["ok"] is False
    assert finding["found"].startswith("Docker does not answer: ") and "unix:///nonexistent/docker.sock" in finding["found"]


@pytest.mark.docker
def test_four_runs_say_the_same_and_change_nothing() -> None:
    options = {"runtime": "t-no-such", "ignore": ["tun"]}
    check, real, again, again_in_check = (run_module("host_check", options, check=mode) for mode in (True, False, False, True))
    assert check["changed"] is real["changed"] is again["changed"] is again_in_check["changed"] is False
    assert check["findings"] == real["findings"] == again["findings"] == again_in_check["findings"]
    assert real["ok"] is False
    assert [line.split(":")[0] for line in real["problems"]] == [finding["id"] for finding in real["findings"] if not finding["ok"] and finding["id"] != "tun"]
    assert len(real["table"].splitlines()) > len(real["findings"])


@pytest.mark.docker
def test_ignored_findings_do_not_count() -> None:
    failing = [finding["id"] for finding in run_module("host_check", {"runtime": "t-no-such"})["findings"] if not finding["ok"]]
    assert "docker_runtime" in failing
    result = run_module("host_check", {"runtime": "t-no-such", "ignore": failing})
    assert (result["ok"], result["problems"]) == (True, [])
    assert {finding["id"]: finding["severity"] for finding in result["findings"] if not finding["ok"]} == dict.fromkeys(failing, "warning")


def test_an_unknown_id_is_refused_with_a_near_match() -> None:
    result = run_module("host_check", {"ignore": ["vhost-net"]})
    assert result["failed"] is True
    assert result["msg"] == "ignore: there is no finding 'vhost-net': did you mean vhost_net?"


def preflight(tmp_path: Path, variables: dict) -> subprocess.CompletedProcess[str]:
    playbook = tmp_path / "preflight.yml"
    variables = {"ansible_python_interpreter": sys.executable, **variables}
    one = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "roles": ["nested.kata.kata_preflight"]}
    playbook.write_text(json.dumps([one]))
    return play(playbook, "-i", "localhost,")


@pytest.mark.docker
def test_the_role_stops_with_the_remedies_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"kata_preflight_runtime": "t-no-such"})
    assert done.returncode != 0
    assert "docker_runtime: found runtimes" in done.stdout and "register it as t-no-such" in done.stdout
    assert "kata_preflight_ignore" in done.stdout and "kata_instance_runtime: runc, which isolates nothing" in done.stdout
    assert "finding" in done.stdout and "needed" in done.stdout


@pytest.mark.docker
def test_the_role_goes_on_where_what_fails_is_ignored_and_shows_it_as_a_warning(tmp_path: Path) -> None:
    failing = [finding["id"] for finding in run_module("host_check", {"runtime": "t-no-such"})["findings"] if not finding["ok"]]
    done = preflight(tmp_path, {"kata_preflight_runtime": "t-no-such", "kata_preflight_ignore": failing})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING  runtimes" in done.stdout and "changed=0" in done.stdout


def test_the_role_refuses_a_target_that_there_is_not(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"kata_preflight_target": "moon"})
    assert done.returncode != 0
    assert "kata_preflight_target" in done.stdout and "moon" in done.stdout
