# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a container is left as it is, and what is said of how it differs from the wanted one."""

from __future__ import annotations

import copy

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.nested.kata.plugins.filter.container_plan import FilterModule as PlanFilters
from ansible_collections.nested.kata.plugins.filter.containers_found import FilterModule as FoundFilters
from ansible_collections.nested.kata.plugins.plugin_utils.containers import digest

container_plan = PlanFilters().filters()["container_plan"]
containers_found = FoundFilters().filters()["containers_found"]

IMAGE = {
    "Id": "sha256:" + "1" * 64,
    "RootFS": {"Layers": ["sha256:a", "sha256:b"]},
    "Config": {"Env": ["PATH=/bin"], "Image": "sha256:parent", "Hostname": "build"},
}
# The same, built at another time; and one with a layer more.
REBUILT = {**IMAGE, "Id": "sha256:" + "2" * 64, "Config": {**IMAGE["Config"], "Image": "other", "Hostname": ""}}
OTHER = {**IMAGE, "Id": "sha256:" + "3" * 64, "RootFS": {"Layers": ["sha256:a", "sha256:b", "sha256:c"]}}

WANTED = {
    "name": "web",
    "image": "machine:1",
    "arguments": [
        *("--label", "nested.kata.instance=web", "--label", "nested.kata.address_pool=10.1.0.0/18"),
        *("--runtime", "kata", "--cpus", "2", "--memory", "4g", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"),
        *("--security-opt", "seccomp=unconfined", "--device", "/run/disks/web:/dev/docker-disk"),
        *("--mount", "type=bind,source=/etc/resolv.conf,target=/usr/lib/resolv.conf,readonly"),
        *("--network", "nested-kata-web", "--env", "NESTED_KATA_RESOLVERS=", "--publish", "8080:80", "--init"),
    ],
    "stop_timeout": 120,
}


def wanted(*more: str, **changes: object) -> dict:
    """Return the wanted container with more arguments, and with others where `FROM` is replaced by `TO`."""
    changed = {**WANTED, **{key: value for key, value in changes.items() if key != "replace"}}
    replace = changes.get("replace", {})
    return {**changed, "arguments": [replace.get(one, one) for one in WANTED["arguments"]] + list(more)}


def container(label: str, name: str = "web", running: bool = True, **host: object) -> dict:
    """Return what Docker reports of a container that was made as wanted, but for its label."""
    return {
        "Name": f"/{name}",
        "Image": IMAGE["Id"],
        "State": {"Running": running},
        "Config": {
            "Image": "machine:1",
            "Hostname": "web",
            "StopTimeout": 120,
            "Env": ["NESTED_KATA_RESOLVERS=", "PATH=/bin"],
            "Labels": {
                "nested.kata.instance": "web",
                "nested.kata.address_pool": "10.1.0.0/18",
                "nested.kata.image": "machine",
                **({"nested.kata.arguments": label} if label else {}),
            },
        },
        "HostConfig": {
            "Runtime": "kata",
            "NanoCpus": 2_000_000_000,
            "Memory": 4 << 30,
            "ShmSize": 64 << 20,
            "CapAdd": ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"],
            "Devices": [
                {
                    "PathOnHost": "/run/disks/web",
                    "PathInContainer": "/dev/docker-disk",
                    "CgroupPermissions": "rwm",
                }
            ],
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/etc/resolv.conf",
                    "Target": "/usr/lib/resolv.conf",
                    "ReadOnly": True,
                }
            ],
            "Binds": None,
            "NetworkMode": "nested-kata-web",
            **host,
        },
    }


def label(made: dict | None = None, image: dict | None = None) -> str:
    """Return the label that this release gives a container."""
    return planned(want=made, image=image)["label"].partition("=")[2]


def hashed(made: dict | None = None, image: dict | None = None) -> str:
    """Return the label that an earlier release gave a container."""
    return digest([made or WANTED, [(image or IMAGE)["Id"]]])


def planned(*containers: dict, want: dict | None = None, image: dict | None = None, recreate: str = "stopped") -> dict:
    """Return what becomes of a container among others, by default of one that is wanted as it was made."""
    there = containers_found(containers, ["web"])["web"]
    return container_plan(
        WANTED if want is None else want, there=there, image=IMAGE if image is None else image, recreate=recreate
    )


# what is wanted beside an existing container that was made from WANTED, and the lines about it
CHANGES = {
    "nothing": ({}, []),
    "more memory": ({"replace": {"4g": "8g"}}, ["memory: 4 GiB -> 8 GiB"]),
    "the same memory in other words": ({"replace": {"4g": "4096m", "2": "2.0"}}, []),
    "a timeout": ({"stop_timeout": 60}, ["stop-timeout: 120 -> 60"]),
    "a capability less": (
        {"replace": {"NET_ADMIN": "SYS_ADMIN"}},
        ["cap-add: NET_ADMIN -> SYS_ADMIN"],
    ),
    "another order": ({"replace": {"SYS_ADMIN": "NET_ADMIN", "NET_ADMIN": "SYS_ADMIN"}}, []),
    "an environment": (
        {"replace": {"NESTED_KATA_RESOLVERS=": "NESTED_KATA_RESOLVERS=192.0.2.1"}},
        ["env NESTED_KATA_RESOLVERS: '' -> 192.0.2.1"],
    ),
    "addresses": (
        {"replace": {"nested.kata.address_pool=10.1.0.0/18": "nested.kata.address_pool=10.2.0.0/18"}},
        ["label nested.kata.address_pool: 10.1.0.0/18 -> 10.2.0.0/18"],
    ),
    "another mount": (
        {"replace": {WANTED["arguments"][19]: "type=bind,source=/x,target=/usr/lib/resolv.conf,readonly"}},
        [f"mount: {WANTED['arguments'][19]} -> type=bind,source=/x,target=/usr/lib/resolv.conf,readonly"],
    ),
    "a runtime": ({"replace": {"kata": "runc"}}, ["runtime: kata -> runc"]),
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("made", [label(), hashed()], ids=["of this release", "of an earlier release"])
def test_each_option_that_differs_is_reported_with_both_values_and_the_container_is_left(made: str, case: str) -> None:
    changes, lines = CHANGES[case]
    plan = planned(container(made), want=wanted(**changes))
    if made == hashed() and not lines and changes:
        lines = ["arguments: not known, noted by an earlier release -> other ones"]
    assert plan["lines"] == lines
    assert plan["action"] == ("leave" if lines else "keep")


# what only a label of this release knows
NOTED = {
    "a port": (["--publish", "8443:443"], "publish: nothing -> 8443:443"),
    "a flag": (["--privileged"], "privileged: nothing -> true"),
    "written as one": (["--memory-swap=-1"], "memory-swap: nothing -> -1"),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_docker_does_not_report_is_noted_and_of_an_earlier_release_reported_as_not_known(case: str) -> None:
    arguments, line = NOTED[case]
    assert planned(container(label()), want=wanted(*arguments))["lines"] == [line]
    assert planned(container(hashed()), want=wanted(*arguments))["lines"] == [
        "arguments: not known, noted by an earlier release -> other ones"
    ]


def test_the_input_of_docker_create_is_noted_as_a_hash() -> None:
    made = wanted(stdin="profile " * 1000)
    assert len(label(made)) < 2000
    assert planned(container(label(made)), want=made)["lines"] == []
    (line,) = planned(container(label(made)), want=wanted(stdin="another"))["lines"]
    assert line.startswith("standard input: sha256 ")


@pytest.mark.parametrize(
    ("image", "name", "lines"),
    [
        (REBUILT, "machine:1", []),
        (REBUILT, "machine:2", []),
        (OTHER, "machine:1", ["image: machine:1 (111111111111) -> machine:1 (333333333333)"]),
        (OTHER, "machine:2", ["image: machine:1 (111111111111) -> machine:2 (333333333333)"]),
        ({}, "machine:1", []),
        ({}, "machine:2", ["image: machine:1 (111111111111) -> machine:2"]),
    ],
)
def test_an_image_with_the_same_content_is_the_same_image(image: dict, name: str, lines: list[str]) -> None:
    assert planned(container(label()), want=wanted(image=name), image=image)["lines"] == lines


def test_of_a_container_of_an_earlier_release_the_image_counts_as_docker_names_it() -> None:
    assert planned(container(hashed()), image=REBUILT)["lines"] == [
        "image: machine:1 (111111111111) -> machine:1 (222222222222)"
    ]


def test_the_hash_of_earlier_releases_is_what_their_templates_made_of_a_container() -> None:
    made = wanted(stdin='{"a": "\u00e4"}', command=["sleep", "1"])
    template = "{{ (inputs | to_json(sort_keys=true) | hash('sha256'))[:16] }}"
    templar = Templar(loader=DataLoader(), variables={"inputs": [made, [IMAGE["Id"]]]})
    assert templar.template(trust_as_template(template)) == hashed(made)


def test_a_container_with_no_label_at_all_is_not_taken_for_the_wanted_one() -> None:
    assert planned(container(""))["action"] == "leave"


@pytest.mark.parametrize(
    ("recreate", "running", "action"),
    [
        ("never", True, "leave"),
        ("never", False, "leave"),
        ("stopped", True, "leave"),
        ("stopped", False, "recreate"),
        ("always", True, "recreate"),
        ("always", False, "recreate"),
    ],
)
def test_a_container_that_differs_is_made_again_only_where_that_was_asked_for(
    recreate: str, running: bool, action: str
) -> None:
    there = container(label(), running=running)
    assert planned(there, want=wanted("--privileged"), recreate=recreate)["action"] == action
    assert planned(there, recreate=recreate)["action"] == "keep"


@pytest.mark.parametrize("made", [label(), hashed()], ids=["of this release", "of an earlier release"])
def test_a_vm_becomes_a_container_of_runc_only_where_that_was_asked_for(made: str) -> None:
    stopped, without_kvm = container(made, running=False), wanted(replace={"kata": "runc"})
    assert planned(stopped, want=without_kvm)["action"] == "leave"
    assert planned(stopped, want=without_kvm, recreate="always")["action"] == "recreate"
    assert planned(stopped, want=wanted(replace={"kata": "kata-stock"}))["action"] == "recreate"


def test_where_there_is_none_it_is_made() -> None:
    plan = planned(recreate="never")
    assert (plan["action"], plan["differences"]) == ("create", [])


NEW, OLD = "web.nested-kata-new", "web.nested-kata-old"
# What an interrupted run left, and what is done about it.
INTERRUPTED = {
    "before they changed places": (["web", NEW], {"action": "recreate", "leftover": True}),
    "between the two names": ([NEW, OLD], {"action": "recreate", "leftover": True, "restore": True}),
    "while the new one was proven": (["web", OLD], {"action": "leave", "pending": True}),
    "and one was removed by hand": ([OLD], {"action": "recreate", "restore": True}),
}


@pytest.mark.parametrize("case", INTERRUPTED)
def test_a_run_that_was_interrupted_is_finished_and_loses_no_container(case: str) -> None:
    names, expected = INTERRUPTED[case]
    there = [container(label(), name=name, running=False) for name in names]
    plan = planned(*there, want=wanted("--privileged"))
    answered = {"leftover": False, "restore": False, "pending": False, **expected}
    assert {key: plan[key] for key in answered} == answered
    assert containers_found(there, ["web"])["web"]["names"] == names


def test_a_container_of_somebody_else_with_such_a_name_is_not_touched() -> None:
    theirs = container("", name=OLD)
    another = container(label(), name=NEW)
    another["Config"]["Hostname"] = NEW
    for there in ([theirs, another], [theirs, another, container(label())]):
        answer = containers_found(there, ["web"])["web"]
        assert sorted(answer["others"]) == [NEW, OLD]
        assert answer["names"] == ["web"] * (len(there) - 2)


# what today's facts of a machine make of a container must be what it had
@pytest.mark.parametrize("made", [label(), hashed()], ids=["of this release", "of an earlier release"])
def test_what_was_chosen_for_a_container_is_read_from_it_as_it_was_written(made: str) -> None:
    there = containers_found([container(made, ShmSize=7 << 30)], ["web", "other"])
    assert there["other"]["made_from"] == {}
    known = there["web"]["made_from"]
    assert known["cpus"] == ["2"]
    assert known["device"] == ["/run/disks/web:/dev/docker-disk"]
    assert known["label nested.kata.address_pool"] == ["10.1.0.0/18"]
    assert known["mount"] == ["type=bind,source=/etc/resolv.conf,target=/usr/lib/resolv.conf,readonly"]
    assert known.get("shm-size", ["7G"]) == ["7G"]


def test_what_was_inspected_is_not_changed() -> None:
    there = container(label())
    before = copy.deepcopy(there)
    planned(there, want=wanted("--privileged"))
    assert there == before


PROXY = "http://worker:secret@proxy:3128"


def test_a_variable_with_a_secret_is_compared_and_not_shown() -> None:
    """Nor is what is long, such as certificates."""
    environment = {"http_proxy": PROXY, "https_proxy": "worker:secret@proxy", "no_proxy": "localhost", "CA": "x" * 9000}
    first = wanted(environment=environment)
    assert "secret" not in label(first)
    assert len(label(first)) < 4000
    made = container(label(first))
    made["Config"]["Env"] += [f"{name}={value}" for name, value in environment.items()]
    assert containers_found([made], ["web"])["web"]["environment"] == environment
    assert planned(made, want=first)["action"] == "keep"
    changed = {**environment, "http_proxy": PROXY.replace("secret", "secret2"), "CA": "y" * 9000, "no_proxy": "other"}
    lines = planned(made, want=wanted(environment=changed))["lines"]
    assert "secret" not in str(lines)
    assert [line for line in lines if line.startswith("env http_proxy: http://proxy:3128 (sha256 ")]
    assert [line for line in lines if line.startswith("env CA: sha256 ")]
    assert "env no_proxy: localhost -> other" in lines
    assert len(lines) == 3
    assert "env no_proxy: localhost -> nothing" in planned(made)["lines"]


def test_a_variable_among_the_arguments_is_not_taken_for_what_it_was_given() -> None:
    """Nor is one that Docker's client added, or that the image has."""
    first = wanted("--env", "http_proxy=http://mine")
    made = container(label(first))
    made["Config"]["Env"] += ["http_proxy=http://mine", "https_proxy=http://the-client's"]
    assert containers_found([made], ["web"])["web"]["environment"] == {}
    assert containers_found([container(hashed())], ["web"])["web"]["environment"] == {}


def test_each_of_several_urls_is_shown_without_its_password() -> None:
    mirrors = {"MIRRORS": "https://one https://me:secret@two"}
    noted = label(wanted(environment=mirrors))
    assert "https://one https://two (sha256 " in noted
    assert "secret" not in noted


def test_an_environment_that_is_empty_is_none_to_a_container_of_an_earlier_release() -> None:
    assert planned(container(hashed()), want=wanted(environment={}))["lines"] == []
