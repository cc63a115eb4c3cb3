# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible_collections.nested.kata.plugins.filter.kata_config import DOCUMENTATION, FilterModule
from ansible_collections.nested.kata.plugins.plugin_utils.kata_config import (
    drop_in,
    merged,
    moved,
    read,
    render,
    with_kernel_params,
)
from hypothesis import example, given
from hypothesis import strategies as st

HOME = "/var/lib/nested-kata/kata/4.1.0"

# Of the same form as Kata's own, with some of its keys.
SHIPPED = """
# What a hypervisor needs.
[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel = "/opt/kata/share/kata-containers/vmlinux.container"
image = "/opt/kata/share/kata-containers/kata-containers.img"
# initrd = "/opt/kata/share/kata-containers/kata-containers-initrd.img"
machine_type = "q35"
# Say kernel_params = "quiet" for less.
kernel_params = ""
enable_annotations = ["enable_iommu", "kernel_params"]
valid_hypervisor_paths = ["/opt/kata/bin/qemu-system-x86_64", "/usr/bin/qemu"]
default_vcpus = 1
default_memory = 2048
disable_block_device_use = false
virtio_fs_daemon = "/opt/kata/libexec/virtiofsd"
#enable_debug = true

[agent.kata]
kernel_modules = []
dial_timeout_ms = 10

[runtime]
#enable_debug = true
sandbox_cgroup_only = true
"""
OURS = {
    "hypervisor": {"kernel": "/var/lib/nested-kata/kernels/k/vmlinux", "enable_annotations": []},
    "agent": {"kata": {"create_container_timeout": 60}},
}


def result(theirs: dict | None = None, ours: dict | None = None, text: str = SHIPPED) -> dict:
    return FilterModule().filters()["kata_config"](text, HOME, ours=OURS if ours is None else ours, theirs=theirs or {})


def test_every_path_of_the_release_is_where_the_release_lies_and_nothing_else_is_repeated() -> None:
    assert tomllib.loads(result(ours={})["text"]) == {
        "hypervisor": {
            "qemu": {
                "path": f"{HOME}/bin/qemu-system-x86_64",
                "kernel": f"{HOME}/share/kata-containers/vmlinux.container",
                "image": f"{HOME}/share/kata-containers/kata-containers.img",
                "valid_hypervisor_paths": [f"{HOME}/bin/qemu-system-x86_64", "/usr/bin/qemu"],
                "virtio_fs_daemon": f"{HOME}/libexec/virtiofsd",
                "kernel_params": "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
            }
        }
    }


def test_ours_is_over_the_release_and_the_users_over_ours() -> None:
    theirs = {
        "hypervisor": {"qemu": {"default_vcpus": 4, "enable_annotations": ["kernel_params"], "enable_debug": True}}
    }
    settings = tomllib.loads(result(theirs)["text"])
    qemu = settings["hypervisor"]["qemu"]
    assert (qemu["kernel"], qemu["enable_annotations"], qemu["default_vcpus"], qemu["enable_debug"]) == (
        "/var/lib/nested-kata/kernels/k/vmlinux",
        ["kernel_params"],
        4,
        True,
    )
    assert settings["agent"] == {"kata": {"create_container_timeout": 60}}


def test_the_files_that_must_be_there_are_named() -> None:
    assert result()["files"] == [
        f"{HOME}/bin/qemu-system-x86_64",
        "/var/lib/nested-kata/kernels/k/vmlinux",
        f"{HOME}/share/kata-containers/kata-containers.img",
        f"{HOME}/libexec/virtiofsd",
    ]


def test_the_hypervisor_is_whichever_the_release_is_for() -> None:
    text = '[hypervisor.clh]\npath = "/opt/kata/bin/cloud-hypervisor"\nimage = "/opt/kata/i"\n'
    assert (
        tomllib.loads(result(text=text)["text"])["hypervisor"]["clh"]["kernel"]
        == "/var/lib/nested-kata/kernels/k/vmlinux"
    )


PARAMS = [
    ("", "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"),
    ("quiet", "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 quiet"),
    ("quiet systemd.unified_cgroup_hierarchy=1 a=b", "cgroup_no_v1=all quiet systemd.unified_cgroup_hierarchy=1 a=b"),
    ("cgroup_no_v1=net_cls", "systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=net_cls"),
]


@pytest.mark.parametrize(("given_", "line"), PARAMS)
def test_the_two_kernel_parameters_are_always_there(given_: str, line: str) -> None:
    assert with_kernel_params(given_) == line
    assert (
        tomllib.loads(result({"hypervisor": {"qemu": {"kernel_params": given_}}})["text"])["hypervisor"]["qemu"][
            "kernel_params"
        ]
        == line
    )


# what the user sets, what the error says
REFUSED = [
    (
        {"hypervisor": {"qemu": {"default_vcpu": 2}}},
        r"hypervisor\.qemu\.default_vcpu is not a key .* did you mean default_vcpus",
    ),
    (
        {"runtime": {"sandbox_cgroups_only": True}},
        r"runtime\.sandbox_cgroups_only is not a key .* did you mean sandbox_cgroup_only\?",
    ),
    (
        {"runtime": {"zzz": True}},
        r"runtime\.zzz is not a key that this version of Kata knows in \[runtime\]: see the file",
    ),
    ({"hypervisor": {"qemv": {"default_vcpus": 2}}}, r"did you mean \[hypervisor\.qemu\]\?"),
    (
        {"hypervisor": {"qemu": {"default_vcpus": "2"}}},
        r"default_vcpus is a string \('2'\), and Kata has an integer there \(1\)",
    ),
    ({"hypervisor": {"qemu": {"disable_block_device_use": 1}}}, "is an integer .* Kata has a boolean"),
    ({"hypervisor": {"qemu": {"enable_annotations": "x"}}}, "is a string .* Kata has an array"),
    ({"hypervisor": {"qemu": {"default_vcpus": None}}}, "is null, which TOML does not have"),
    ({"default_vcpus": 2}, "default_vcpus is in no table"),
    ({"hypervisor": {"qemu": {"initrd": "/i"}}}, "both image and initrd"),
    ({"hypervisor": {"qemu": {"image": ""}}}, "neither image nor initrd"),
]


@pytest.mark.parametrize(("theirs", "reason"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_kata_would_stumble_over_is_refused_in_one_line(theirs: dict, reason: str) -> None:
    with pytest.raises(
        AnsibleFilterError, match=f"kata_runtime_config: .*{reason}|kata_runtime_config.*{reason}"
    ) as refused:
        result(theirs)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "theirs",
    [
        {"hypervisor": {"qemu": {"initrd": "/i", "image": ""}}},
        {"hypervisor": {"qemu": {"seccomp_sandbox": "on"}}},
        {"factory": {"enable_template": True}},
        {"hypervisor": {"qemu": {"enable_debug": True}}, "runtime": {"enable_debug": True}},
    ],
)
def test_what_kata_knows_passes_also_where_its_file_has_it_in_a_comment_or_not_at_all(theirs: dict) -> None:
    settings = tomllib.loads(result(theirs)["text"])
    assert merged(settings, theirs) == settings


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path = ", "is not valid TOML"),
        ("[runtime]\n", "0 tables hypervisor.NAME"),
        ("[hypervisor.a]\n[hypervisor.b]\n", "2 tables"),
    ],
)
def test_a_configuration_that_is_none_of_katas_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AnsibleFilterError, match=reason):
        result(text=text)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("/opt/kata", "/k"),
        ("/opt/kata/bin", "/k/bin"),
        ("/opt/katana/bin", None),
        ("/srv/opt/kata/bin", None),
        ("/opt/kata-old", None),
        ("--dir=/opt/kata/x", "--dir=/k/x"),
        ("", None),
    ],
)
def test_only_what_lies_in_katas_own_directory_is_moved(text: str, there: str | None) -> None:
    assert moved(text, "/k") == there


def test_keys_in_a_comment_count_and_words_of_a_sentence_do_not() -> None:
    known = read(SHIPPED).known
    assert {"enable_debug", "initrd", "default_vcpus"} <= known["hypervisor.qemu"]
    assert not {"Say", "kernel_params = "} & known["hypervisor.qemu"]


scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=("Cs",)))
)
tables = st.recursive(
    st.dictionaries(st.text(st.characters(blacklist_categories=("Cs",))), scalars | st.lists(scalars)),
    lambda below: st.dictionaries(st.text("abc", min_size=1), below),
    max_leaves=6,
)


@given(tables)
@example({"0\n": False})
def test_what_is_rendered_says_the_same_to_a_reader_of_toml(settings: dict) -> None:
    assert tomllib.loads(render(settings)) == settings


def test_the_filter_and_its_documentation_have_the_same_default() -> None:
    assert "default: kata_runtime_config" in DOCUMENTATION
    assert drop_in(read(SHIPPED), home="/opt/kata", ours={}, theirs={}, option="x")["hypervisor"]["qemu"].keys() == {
        "kernel_params"
    }
