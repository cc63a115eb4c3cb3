# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fragments of the guest kernel and its profiles, as files: no kernel tree is needed."""

from __future__ import annotations

import fnmatch
import re

import pytest
from guest.moby import ABSENT, CHECKED
from kernel_profiles import ALLOW_MISSING, DIRECTORY, PROFILES, names_of

FRAGMENTS = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(DIRECTORY.iterdir())}
ARCHES = ("x86_64", "arm64")

# What scripts/kconfig/merge_config.sh takes; numbers only where a base has no other way to say it.
ON = re.compile(r"CONFIG_([A-Z0-9_]+)=y$")
NUMBER = re.compile(r"CONFIG_(NR_CPUS)=([0-9]+)$")
OFF = re.compile(r"# CONFIG_([A-Z0-9_]+) is not set$")
COMMENT = re.compile(r"#($| (?!CONFIG_)\S?)")

# Of what moby checks: what has no switch of its own and is selected by the symbol beside it.
MOBY_SELECTED = {"XFRM": "XFRM_USER", "XFRM_ALGO": "XFRM_USER"}

# What the profiles have to have beyond that, by the purposes that they are for.
PURPOSES = {
    "stock": (
        "VIRTIO_PCI VIRTIO_BLK SCSI_VIRTIO VIRTIO_NET VIRTIO_CONSOLE VIRTIO_BALLOON VIRTIO_MEM VIRTIO_PMEM BLK_DEV_PMEM"
        " VIRTIO_FS VIRTIO_VSOCKETS EXT4_FS XFS_FS EROFS_FS DEVTMPFS_MOUNT TMPFS AUTOFS_FS FHANDLE IKCONFIG_PROC"
        " HUGETLBFS MEMORY_HOTPLUG HOTPLUG_PCI_PCIE IP_VS NFT_COMPAT NETFILTER_XTABLES_LEGACY IP_NF_IPTABLES_LEGACY"
        " IP6_NF_IPTABLES_LEGACY"
    ),
    "docker": "NFT_COMPAT NETFILTER_XTABLES_LEGACY IP_NF_IPTABLES_LEGACY IP6_NF_IPTABLES_LEGACY VLAN_8021Q",
    "netsim": (
        "NET_SCH_NETEM NET_VRF VLAN_8021Q WIREGUARD GENEVE IP_SCTP DUMMY BONDING IFB NET_IPGRE NET_IPIP IPV6_SIT"
        " NET_CLS_BPF NET_ACT_MIRRED"
    ),
    "nested": "KVM VHOST_NET VHOST_VSOCK TUN NET_SCH_INGRESS NET_CLS_ACT NET_CLS_U32 NET_CLS_FLOWER NET_ACT_MIRRED",
}
# 9p and modules are off wherever we have the say.
OFF_EVERYWHERE = ("MODULES", "NET_9P")


def requests(name: str) -> list[tuple[str, str]]:
    found = []
    for line in FRAGMENTS[name]:
        for pattern, value in ((ON, "y"), (OFF, "n")):
            if pattern.match(line):
                found.append((pattern.match(line)[1], value))
        if NUMBER.match(line):
            found.append((NUMBER.match(line)[1], NUMBER.match(line)[2]))
    return found


def merged(profile: str, arch: str) -> dict[str, str]:
    return {symbol: value for name in names_of(profile, arch) for symbol, value in requests(name)}


def groups(name: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in FRAGMENTS[name]:
        if line:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [group for group in found if group]


every_fragment = pytest.mark.parametrize("name", FRAGMENTS)
every_profile = pytest.mark.parametrize(
    ("profile", "arch"), [(profile, arch) for profile in PROFILES for arch in ARCHES]
)


def test_all_that_lies_in_the_directory_is_a_fragment() -> None:
    assert {path.suffix for path in DIRECTORY.iterdir()} == {".config"}
    assert {"base-x86_64", "base-arm64", "docker", "btrfs", "netsim", "nested", "no-xfs"} <= set(FRAGMENTS)


@every_fragment
def test_every_line_is_one_that_merge_config_understands(name: str) -> None:
    allowed = [ON, OFF, COMMENT] + ([NUMBER] if name.startswith("base-") else [])
    wrong = [
        f"{name}.config:{number}: {line}"
        for number, line in enumerate(FRAGMENTS[name], 1)
        if line and not any(pattern.match(line) for pattern in allowed)
    ]
    assert wrong == []


@every_fragment
def test_no_fragment_asks_for_a_module(name: str) -> None:
    assert [line for line in FRAGMENTS[name] if line.endswith("=m")] == []


@every_fragment
def test_a_symbol_is_asked_for_once_in_a_fragment(name: str) -> None:
    symbols = [symbol for symbol, _value in requests(name)]
    assert symbols
    assert {symbol for symbol in symbols if symbols.count(symbol) > 1} == set()


@every_fragment
def test_every_group_says_what_it_is_for(name: str) -> None:
    def is_comment(line: str) -> bool:
        return bool(COMMENT.match(line))

    assert all(is_comment(line) for line in groups(name)[0]), "the first lines say what the fragment is for"
    for group in groups(name):
        assert is_comment(group[0]), group
        # Above the requests, not between or below them.
        comments = [is_comment(line) for line in group]
        assert comments == sorted(comments, reverse=True), group


def test_fragments_that_meet_in_a_profile_agree() -> None:
    for profile in PROFILES:
        for arch in ARCHES:
            seen: dict[str, str] = {}
            for name in names_of(profile, arch):
                for symbol, value in requests(name):
                    assert seen.setdefault(symbol, value) == value, (
                        f"{profile} on {arch}: {name}.config contradicts another on {symbol}"
                    )


def test_no_xfs_takes_back_all_that_others_ask_of_xfs() -> None:
    asked = {
        symbol
        for name in FRAGMENTS
        if name != "no-xfs"
        for symbol, value in requests(name)
        if symbol.startswith("XFS_") and value != "n"
    }
    assert {"XFS_FS", "XFS_QUOTA"} <= asked
    assert set(requests("no-xfs")) == {(symbol, "n") for symbol in asked}


@every_profile
def test_profiles_name_fragments_that_exist(profile: str, arch: str) -> None:
    names = names_of(profile, arch)
    assert [name for name in names if name not in FRAGMENTS] == []
    assert names[0] == f"base-{arch}"
    assert len(names) == len(set(names))


@every_profile
def test_profiles_build_on_one_another_and_hold_what_they_are_for(profile: str, arch: str) -> None:
    result = merged(profile, arch)
    below = merged("docker" if profile in ("netsim", "nested") else "stock", arch)
    assert below.items() <= result.items()
    assert [symbol for symbol in PURPOSES[profile].split() if result.get(symbol) != "y"] == []
    assert [symbol for symbol in OFF_EVERYWHERE if result.get(symbol) != "n"] == []


def test_on_x86_a_nested_kata_has_kvm_of_both_makers_and_arm_is_asked_for_none_of_them() -> None:
    assert {"KVM_INTEL", "KVM_AMD"} <= set(merged("nested", "x86_64"))
    of_x86 = re.compile(r"(X86_|KVM_INTEL|KVM_AMD|SERIAL_8250|CRYPTO_.*_INTEL$|MITIGATION_)")
    assert [symbol for profile in PROFILES for symbol in merged(profile, "arm64") if of_x86.match(symbol)] == []


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("heading", CHECKED)
def test_profile_docker_has_all_that_mobys_check_looks_for(heading: str, arch: str) -> None:
    result = merged("docker", arch)
    lacking = {symbol for symbol in CHECKED[heading] if result.get(MOBY_SELECTED.get(symbol, symbol)) != "y"}
    assert lacking == set(CHECKED[heading]) & set(ABSENT)


@pytest.mark.parametrize("heading", ["generally necessary", "optional features", "network drivers"])
def test_docker_config_holds_that_by_itself(heading: str) -> None:
    result = dict(requests("docker"))
    assert {symbol for symbol in CHECKED[heading] if result.get(MOBY_SELECTED.get(symbol, symbol)) != "y"} <= set(
        ABSENT
    )


def test_what_is_left_out_of_mobys_list_is_stated() -> None:
    head = " ".join(groups("docker")[0])
    assert [symbol for symbol in ABSENT if symbol not in head] == []


def test_what_may_be_missing_is_asked_for_somewhere_and_has_its_reason_with_versions() -> None:
    asked = {symbol for name in FRAGMENTS for symbol, value in requests(name) if value != "n"}
    for pattern, reason in ALLOW_MISSING.items():
        assert fnmatch.filter(asked, pattern), f"{pattern} is allowed to be missing, and no fragment asks for it"
        assert re.search(r"\b[67]\.[0-9]+\b.+", reason), f"{pattern}: {reason}"


def test_what_docker_cannot_do_without_is_never_allowed_to_be_missing() -> None:
    necessary = (
        list(CHECKED["generally necessary"])
        + PURPOSES["netsim"].split()
        + PURPOSES["nested"].split()
        + ["BTRFS_FS", "OVERLAY_FS", "VIRTIO_FS"]
    )
    assert [symbol for symbol in necessary for pattern in ALLOW_MISSING if fnmatch.fnmatchcase(symbol, pattern)] == []
