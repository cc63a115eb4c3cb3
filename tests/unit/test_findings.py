# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from ansible_collections.nested.kata.plugins.module_utils.findings import (
    CHECKS, Device, Docker, Facts, Kvm, Question, UnknownFinding, cpu_flags, decide, holds_module, known, sentence, summary, table,
)
from ansible_collections.nested.kata.plugins.modules.host_check import DOCUMENTATION

PATHS = {"vhost_vsock": "/dev/vhost-vsock", "vhost_net": "/dev/vhost-net", "tun": "/dev/net/tun"}


def device(name: str, *, present: bool = True, character: bool = True, loadable: bool = True) -> Device:
    return Device(path=PATHS[name], module=name, present=present, character=character, loadable=loadable)


CAPABLE = Facts(
    arch="x86_64",
    kernel="6.12.48-amd64",
    cpu_flags=frozenset({"fpu", "vmx"}),
    kvm=Kvm(present=True, api_version=12),
    devices={name: device(name) for name in PATHS},
    docker=Docker(version="26.1.5+dfsg1", runtimes=("runc", "kata")),
)


def with_device(name: str, **state: bool) -> Facts:
    return replace(CAPABLE, devices={**CAPABLE.devices, name: device(name, **state)})


# what is wrong with the machine, the finding that says so, what it says was found, and a word of its remedy
BROKEN = [
    (replace(CAPABLE, cpu_flags=frozenset({"fpu"})), "cpu_virtualization", "neither flag in /proc/cpuinfo", "firmware"),
    (replace(CAPABLE, cpu_flags=frozenset({"fpu", "hypervisor"})), "cpu_virtualization", "neither flag in /proc/cpuinfo", "nested virtualization"),
    (replace(CAPABLE, kvm=Kvm(present=False)), "kvm", "no /dev/kvm", "modprobe kvm_intel;"),
    (replace(CAPABLE, kvm=Kvm(present=False), cpu_flags=frozenset({"svm"})), "kvm", "no /dev/kvm", "modprobe kvm_amd;"),
    (replace(CAPABLE, kvm=Kvm(present=True, error="Permission denied")), "kvm", "/dev/kvm does not answer: Permission denied", "group kvm"),
    (replace(CAPABLE, kvm=Kvm(present=True, api_version=11)), "kvm", "/dev/kvm with API version 11", "kernel"),
    (with_device("vhost_vsock", present=False, character=False), "vhost_vsock", "no /dev/vhost-vsock", "modprobe vhost_vsock"),
    (with_device("vhost_net", present=False, character=False), "vhost_net", "no /dev/vhost-net", "modprobe vhost_net"),
    (with_device("tun", present=False, character=False), "tun", "no /dev/net/tun", "modprobe tun"),
    (with_device("tun", present=False, character=False, loadable=False), "tun", "no /dev/net/tun", "kernel 6.12.48-amd64 has no module tun"),
    (with_device("tun", character=False), "tun", "/dev/net/tun, which is no character device", "remove it"),
    (replace(CAPABLE, docker=Docker(version="20.10.24+dfsg1", runtimes=("kata",))), "docker_version", "20.10.24+dfsg1", "nested_kata_target: proxy"),
    (replace(CAPABLE, docker=Docker(version="25.0.5", runtimes=("kata",))), "docker_version", "25.0.5", "install Docker 26"),
    (replace(CAPABLE, docker=Docker(version="dev", runtimes=("kata",))), "docker_version", "dev", "install Docker 26"),
    (replace(CAPABLE, docker=Docker(version="28.0.0", runtimes=("runc", "crun"))), "docker_runtime", "runtimes crun, runc", "daemon.json"),
    (replace(CAPABLE, docker=Docker(error="no command docker")), "docker_runtime", "Docker does not answer: no command docker", "start Docker"),
]


def test_a_capable_machine_has_every_finding_as_needed_and_nothing_to_mend() -> None:
    findings = decide(CAPABLE, Question(runtime="kata"))
    assert [finding.id for finding in findings] == list(CHECKS)
    assert all(finding.ok and finding.remedy == "" for finding in findings)
    assert summary(findings) == "nothing found that keeps this machine from running Kata (7 findings)"


@pytest.mark.parametrize("facts, name, found, remedy", BROKEN, ids=[f"{case[1]}-{case[2]}" for case in BROKEN])
def test_one_broken_thing_is_one_finding_with_its_remedy(facts: Facts, name: str, found: str, remedy: str) -> None:
    failing = [finding for finding in decide(facts, Question(runtime="kata")) if not finding.ok]
    assert [(finding.id, finding.found, finding.severity, finding.stops) for finding in failing] == [(name, found, "error", True)]
    assert remedy in failing[0].remedy


def test_every_check_has_a_case_in_which_it_fails() -> None:
    assert {case[1] for case in BROKEN} == set(CHECKS)


def test_every_id_is_in_the_documentation_of_the_option_that_takes_ids() -> None:
    described = yaml.safe_load(DOCUMENTATION)["options"]["ignore"]["description"]
    assert re.findall(r"V\((\w+)\)", described[-1]) == list(CHECKS)


def test_without_a_runtime_there_is_no_finding_about_it() -> None:
    assert "docker_runtime" not in [finding.id for finding in decide(CAPABLE, Question())]


def test_without_an_answer_from_docker_there_is_no_finding_about_its_version() -> None:
    silent = replace(CAPABLE, docker=Docker(error="Cannot connect"))
    assert "docker_version" not in [finding.id for finding in decide(silent, Question())]


def test_the_machine_s_docker_may_be_of_any_version_where_a_proxy_runs_kata() -> None:
    old = replace(CAPABLE, docker=Docker(version="20.10.24"))
    assert [finding.id for finding in decide(old, Question(target="host")) if not finding.ok] == ["docker_version"]
    assert [finding.id for finding in decide(old, Question(target="proxy")) if not finding.ok] == []


def test_another_architecture_passes_and_says_that_nothing_was_checked() -> None:
    arm = replace(CAPABLE, arch="aarch64", cpu_flags=frozenset())
    finding = decide(arm, Question())[0]
    assert (finding.id, finding.ok, finding.found) == ("cpu_virtualization", True, "not checked on aarch64")


def test_an_ignored_finding_is_a_warning_that_stops_nothing() -> None:
    facts = replace(with_device("tun", present=False, character=False), kvm=Kvm(present=False))
    findings = decide(facts, Question(), known(["tun"]))
    assert {finding.id: finding.severity for finding in findings if not finding.ok} == {"kvm": "error", "tun": "warning"}
    assert [finding.id for finding in findings if finding.stops] == ["kvm"]
    assert summary(findings) == "this machine cannot run Kata: kvm; ignored: tun"


@pytest.mark.parametrize("name, hint", [
    ("vhost-net", "did you mean vhost_net?"), ("kmv", "did you mean kvm?"), ("colour", "there are cpu_virtualization, kvm,"),
])
def test_an_unknown_id_is_refused_with_what_may_have_been_meant(name: str, hint: str) -> None:
    with pytest.raises(UnknownFinding) as caught:
        known(["kvm", name])
    assert repr(name) in str(caught.value) and hint in str(caught.value)


def test_a_sentence_names_what_was_found_and_needed_and_what_to_do() -> None:
    finding = next(finding for finding in decide(with_device("tun", present=False, character=False), Question()) if not finding.ok)
    assert sentence(finding) == (
        "tun: found no /dev/net/tun, needed /dev/net/tun, a character device: "
        "modprobe tun, and name it in /etc/modules-load.d/nested-kata.conf to have it after a reboot"
    )


def test_the_table_has_a_row_for_each_finding_in_columns_and_the_remedy_below() -> None:
    error = "a reason so long that it does not fit into its column at all"
    facts = replace(with_device("tun", present=False, character=False), kvm=Kvm(present=True, error=error))
    lines = table(decide(facts, Question(), known(["tun"]))).splitlines()
    assert lines[0].split() == ["finding", "state", "found", "needed"]
    columns = [lines[0].index(word) for word in ("state", "found", "needed")]
    rows = {line.split()[0]: line for line in lines[1:] if not line.startswith(" ")}
    assert list(rows) == ["cpu_virtualization", "kvm", "vhost_vsock", "vhost_net", "tun", "docker_version"]
    assert all(line[column - 1] == " " and line[column] != " " for line in rows.values() for column in columns)
    assert [rows[name].split()[1] for name in ("kvm", "vhost_net", "tun")] == ["ERROR", "ok", "WARNING"]
    assert "does not fit into its column" in " ".join(" ".join(lines).split())
    assert lines[lines.index(rows["tun"]) + 1].strip().startswith("-> modprobe tun")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("text, flags", [
    ("processor\t: 0\nflags\t\t: fpu vmx sse\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n", {"fpu", "vmx", "sse"}),
    ("processor\t: 0\nvmx flags\t: vnmi ept\nflags\t\t: fpu svm\n", {"fpu", "svm"}),
    ("processor\t: 0\nFeatures\t: fp asimd\n", set()),
    ("", set()),
])
def test_flags_are_those_of_the_first_processor(text: str, flags: set[str]) -> None:
    assert cpu_flags(text) == flags


MODULES_DEP = """\
kernel/drivers/vhost/vhost_net.ko.xz: kernel/drivers/net/tun.ko.xz kernel/drivers/vhost/vhost.ko.xz
kernel/drivers/vhost/vhost.ko.xz:
kernel/drivers/net/tun.ko.zst:
kernel/net/snd-pcm.ko:
"""


@pytest.mark.parametrize("name, held", [
    ("vhost_net", True), ("vhost-net", True), ("vhost", True), ("tun", True), ("snd_pcm", True), ("vhost_vsock", False), ("net", False), ("xz", False),
])
def test_a_module_is_found_by_its_whole_name(name: str, held: bool) -> None:
    assert holds_module(MODULES_DEP, name) is held
