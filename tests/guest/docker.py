# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile docker: a daemon on btrfs with the legacy iptables, then one on ext4 with iptables on nftables, and what
containers do there.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from functools import partial
from pathlib import Path

from .proof import Proof, attempt, expect, inside, named, namespaces, refused, run, wait_for

DISK = "/dev/disk/by-id/virtio-docker"
BACKENDS = ("legacy", "nft")
IMAGE = "t-busybox"
RUN = f"docker run --rm {IMAGE}"
ALONE = "docker run --rm --network none"  # where the network is not what is to be proven: it takes the most time
HERE = "192.0.2.1"  # this machine's address on a network whose other end knows no way to the containers
OUTSIDE = "192.0.2.2"  # so that it answers only what comes from the address of this machine


def a_daemon_on_btrfs_with_iptables_legacy() -> str:
    run(
        f"mkfs.btrfs --quiet {DISK} && mkdir -p /var/lib/docker && mount -o compress=zstd:1,discard=async {DISK}"
        " /var/lib/docker"
    )
    seen = daemon("btrfs", "/var/lib/docker", "legacy")
    expect("gen" in run("btrfs subvolume list /var/lib/docker"), "the image has no subvolume")
    return seen


def a_daemon_with_overlay2_on_ext4_with_iptables_nft() -> str:
    expect(run("stat --file-system --format %T /var/lib") == "ext2/ext3", "/var/lib is not on ext4")
    seen = daemon("overlay2", "/var/lib/docker-on-ext4", "nft")
    expect("overlay" in run(f"{ALONE} {IMAGE} grep ' / ' /proc/mounts"), "the container's root is no overlay")
    return seen


def daemon(driver: str, data: str, backend: str) -> str:
    """Start dockerd with that storage driver and those iptables, whose rules must be the only ones, and bring it an
    image.
    """
    run("systemctl stop docker.service docker.socket")
    for kind in BACKENDS:
        for command in (f"iptables-{kind}", f"ip6tables-{kind}"):
            for table in ("filter", "nat", "mangle", "raw"):
                run(f"{command} --wait --table {table} --flush && {command} --table {table} --delete-chain")
        run(f"iptables-{kind} --policy FORWARD ACCEPT")
    for command in ("iptables", "ip6tables"):
        run(f"update-alternatives --quiet --set {command} /usr/sbin/{command}-{backend}")
    # Without the proxy a published port is answered by the rules of iptables or not at all.
    settings = {"storage-driver": driver, "data-root": data, "userland-proxy": False}
    Path("/etc/docker").mkdir(exist_ok=True)
    Path("/etc/docker/daemon.json").write_text(json.dumps(settings))
    status, output = attempt("systemctl start docker.service", 180)
    expect(status == 0, f"{output}: {attempt('journalctl --unit docker --output cat --lines 20')[1]}")
    info = json.loads(run("docker info --format '{{json .}}'"))
    expect(
        (info["Driver"], info["CgroupVersion"]) == (driver, "2"),
        f"{info['Driver']}, cgroup version {info['CgroupVersion']}",
    )
    other = BACKENDS[1 - BACKENDS.index(backend)]
    for table in ("nat", "filter"):
        expect(
            ":DOCKER " in run(f"iptables-{backend}-save --table {table}"),
            f"iptables-{backend}-save has no chain DOCKER in {table}",
        )
        expect(
            ":DOCKER " not in run(f"iptables-{other}-save --table {table}"),
            f"iptables-{other}-save has a chain DOCKER in {table} too",
        )
    import_image()
    return (
        f"Docker {info['ServerVersion']}, driver {driver} ({dict(info['DriverStatus'])}), warnings:"
        f" {info['Warnings'] or 'none'}"
    )


def import_image() -> None:
    """Make the smallest image that has a shell, ping, wget and httpd."""
    with tempfile.TemporaryDirectory() as root:
        run(
            f"cd {root} && mkdir bin tmp && cp /usr/bin/busybox bin && chroot . /bin/busybox --install -s /bin "
            f"&& tar --create . | docker import --change 'CMD [\"sh\"]' - {IMAGE}"
        )


def the_outside() -> None:
    """Make a network namespace that stands for the world: it answers, but has no route to the containers."""
    if attempt("ip netns exec outside true")[0] != 0:
        run(f"""ip netns add outside
            ip link add lan type veth peer name v netns outside
            ip address add {HERE}/24 dev lan && ip link set lan up""")
        inside(f"outside ip address add {OUTSIDE}/24 dev v\noutside ip link set v up\noutside ip link set lo up")
    wait_for(f"ping -c 1 -W 1 {OUTSIDE}", 10)


def a_container_reaches_out_by_nat() -> str:
    the_outside()
    refused("ip netns exec outside ip route get 172.17.0.2")
    gateway = run("docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}'")
    return run(f"{RUN} sh -c 'ping -c 1 -W 5 {gateway} && ping -c 1 -W 5 {OUTSIDE}'").splitlines()[-2]


def a_published_port_is_answered() -> str:
    the_outside()
    refused(f"ip netns exec outside busybox wget -T 2 -q -O - http://{HERE}:8080/")
    try:
        run(
            f"docker run --detach --name web --publish 8080:80 {IMAGE} sh -c 'echo from the container >index.html; exec"
            " httpd -f -h /'"
        )
        within = wait_for("busybox wget -T 5 -q -O - http://127.0.0.1:8080/", 15)
        without = run(f"ip netns exec outside busybox wget -T 5 -q -O - http://{HERE}:8080/")
    finally:
        attempt("docker rm --force web")
    expect((within, without) == ("from the container",) * 2, f"{within}, {without}")
    return f"{within}, asked here and from outside"


def containers_find_each_other_by_name() -> str:
    try:
        run("docker network create named")
        run(
            f"docker run --detach --name web --network named {IMAGE} sh -c 'echo found by name >index.html; exec httpd"
            " -f -h /'"
        )
        seen = run(
            f"docker run --rm --network named {IMAGE} sh -c 'for i in 1 2 3 4 5; do wget -T 5 -q -O - http://web/ &&"
            " exit; sleep 1; done; exit 1'"
        )
    finally:
        attempt("docker rm --force web; docker network rm named")
    expect(seen.endswith("found by name"), seen)
    return "found by name"


def docker_build_runs_a_command() -> str:
    with tempfile.TemporaryDirectory() as context:
        Path(context, "sent").write_text("sent along\n")
        Path(context, "Dockerfile").write_text(
            f"FROM {IMAGE}\nCOPY sent /sent\nRUN cat /sent /proc/sys/kernel/ostype >/built && rm /sent\n"
        )
        run(f"DOCKER_BUILDKIT=0 docker build --tag t-built {context}")
    seen = run(f"{ALONE} t-built sh -c 'cat /built; ls /sent 2>&1'; true")
    expect(seen.splitlines()[:2] == ["sent along", "Linux"] and "No such file" in seen, seen)
    return seen.replace("\n", ", ")


def the_controllers_of_cgroup_v2_are_there() -> str:
    there = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    expect({"cpu", "cpuset", "io", "memory", "pids"} <= set(there), " ".join(there))
    return " ".join(there)


def a_limit_of_memory_is_in_force() -> str:
    allocate = f"{IMAGE} dd if=/dev/zero of=/dev/null bs=48M count=1"
    run(f"{ALONE} --memory 96m {allocate}")
    status, output = attempt(f"{ALONE} --memory 32m --memory-swap 32m {allocate}")
    expect(status == 137, f"exit status {status}: {output}")
    return "48 MiB in 32 are killed, in 96 are not"


def a_limit_of_cpu_is_in_force() -> str:
    seen = run(
        f'{ALONE} --cpus 0.2 {IMAGE} sh -c \'timeout 4 sh -c "while :; do :; done" 2>/dev/null; cat'
        " /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu.stat'"
    )
    used, throttled = (
        int(re.search(rf"^{name} (\d+)$", seen, re.MULTILINE)[1]) for name in ("usage_usec", "nr_throttled")
    )
    expect("20000 100000" in seen and used < 1_500_000 and throttled > 5, seen)
    return f"{used / 1e6:.2f} s of CPU in 4 s with --cpus 0.2, throttled {throttled} times"


def a_limit_of_processes_is_in_force() -> str:
    fork = f"{IMAGE} sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 2 & done'"
    run(f"{ALONE} --pids-limit 20 {fork}")
    status, output = attempt(f"{ALONE} --pids-limit 5 {fork}")
    expect(status != 0 and "fork" in output, f"exit status {status}: {output}")
    return output.splitlines()[-1]


def a_limit_of_disk_reads_is_in_force() -> str:
    group = Path("/sys/fs/cgroup/t-reads")
    run(f"echo +io >/sys/fs/cgroup/cgroup.subtree_control; mkdir {group}")

    def seconds(limit: str) -> float:
        Path(group, "io.max").write_text(
            f"{run(f'lsblk --nodeps --noheadings --output MAJ:MIN {DISK}').strip()} rbps={limit}"
        )
        began = time.monotonic()
        run(f"echo $$ >{group}/cgroup.procs && exec dd if={DISK} of=/dev/null bs=1M count=4 iflag=direct")
        return time.monotonic() - began

    free, limited = seconds("max"), seconds("1048576")
    expect(free < 1.5 < 3 < limited, f"4 MiB in {free:.2f} s, with 1 MiB/s in {limited:.2f} s")
    return f"4 MiB in {free:.2f} s, with 1 MiB/s in {limited:.2f} s"


def seccomp_and_apparmor_confine_containers() -> str:
    show = f"{IMAGE} sh -c 'grep Seccomp: /proc/self/status; cat /proc/self/attr/current'"
    confined = run(f"{ALONE} {show}").split(maxsplit=2)
    expect(confined[1:] == ["2", "docker-default (enforce)"], " ".join(confined))
    free = run(f"{ALONE} --security-opt seccomp=unconfined --security-opt apparmor=unconfined {show}").split(maxsplit=2)
    expect(free[1:] == ["0", "unconfined"], " ".join(free))
    return f"{' '.join(confined)}, told otherwise {' '.join(free)}"


def users_get_namespaces() -> str:
    seen = run(
        "setpriv --reuid 1000 --clear-groups unshare --user --map-root-user --net sh -c 'id -u; ls /sys/class/net; cat"
        " /proc/self/uid_map'"
    )
    expect(seen.split()[0] == "0", seen)
    return " ".join(seen.split())


def containers_get_their_own_place_in_a_network(driver: str) -> str:
    """Networks of the drivers macvlan and ipvlan join a container to the link itself, without a bridge or NAT."""
    the_outside()
    address = "192.0.2.10"
    try:
        run(f"docker network create --driver {driver} --opt parent=lan --subnet 192.0.2.0/24 {driver}")
        seen = run(
            f"docker run --rm --network {driver} --ip {address} {IMAGE} sh -c 'ip address show dev eth0; ping -c 1 -W 5"
            f" {OUTSIDE}'"
        )
        neighbour = inside(f"outside ip neighbour show {address}")
    finally:
        attempt(f"docker network rm {driver}; ip -n outside neighbour flush all")
    expect(f"inet {address}/24" in seen and "lladdr" in neighbour, f"{seen}: {neighbour}")
    return neighbour


def a_bridge_keeps_vlans_apart() -> str:
    with namespaces("a", "b"):
        try:
            run("ip link add vlans type bridge vlan_filtering 1 && ip link set vlans up")
            for name, address, vlan in (("a", "10.8.0.1", 10), ("b", "10.8.0.2", 20)):
                run(
                    f"ip link add port-{name} type veth peer name v netns {name} && ip link set port-{name} master"
                    " vlans up"
                )
                run(
                    f"bridge vlan del vid 1 dev port-{name} && bridge vlan add vid {vlan} pvid untagged dev port-{name}"
                )
                inside(f"{name} ip address add {address}/24 dev v\n{name} ip link set v up")
            refused("ip netns exec a ping -c 1 -W 1 10.8.0.2")
            run("bridge vlan del vid 20 dev port-b && bridge vlan add vid 10 pvid untagged dev port-b")
            wait_for("ip netns exec a ping -c 1 -W 1 10.8.0.2", 10)
        finally:
            attempt("ip link del vlans")
    return "no answer from VLAN 20 to VLAN 10, an answer within VLAN 10"


def with_backend(backend: str, *proofs: Proof) -> dict[str, Proof]:
    return {f"{name} with iptables {backend}": proof for name, proof in named(*proofs).items()}


NETWORK = (a_container_reaches_out_by_nat, a_published_port_is_answered, containers_find_each_other_by_name)
PROOFS = {
    # Before the first daemon, which drops what bridges forward.
    **named(a_bridge_keeps_vlans_apart, the_controllers_of_cgroup_v2_are_there, a_daemon_on_btrfs_with_iptables_legacy),
    **with_backend("legacy", *NETWORK),
    "docker build runs a command on btrfs": docker_build_runs_a_command,
    **named(
        a_limit_of_memory_is_in_force,
        a_limit_of_cpu_is_in_force,
        a_limit_of_processes_is_in_force,
        a_limit_of_disk_reads_is_in_force,
        seccomp_and_apparmor_confine_containers,
        users_get_namespaces,
    ),
    **{
        f"containers get their own place in a network with {driver}": partial(
            containers_get_their_own_place_in_a_network, driver
        )
        for driver in ("macvlan", "ipvlan")
    },
    **named(a_daemon_with_overlay2_on_ext4_with_iptables_nft),
    **with_backend("nft", *NETWORK),
    "docker build runs a command on overlay2": docker_build_runs_a_command,
}
