# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy under its seccomp profile: what is denied fails because of it, and all that a proxy is for still works."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_runner import CHECKOUT, MARK, play
from host_state import output
from kept import MACHINE_IMAGE, locked

pytestmark = [pytest.mark.root, pytest.mark.docker]

ROLE = CHECKOUT / "roles" / "kata_proxy"
FILE = ROLE / "files" / "seccomp.json"
PROFILE = json.loads(FILE.read_text())
CAPABILITIES = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())["kata_proxy_capabilities"]
PROXY = f"t-seccomp-{MARK}"
ON_CGROUP_2 = f"t-seccomp-{MARK}-cgroup2"
BASE = "debian:trixie-slim"

# Without these the kernel itself says EPERM to some of what the profile denies, and nothing would be seen of the
# profile.
FOR_THE_PROBE = ["DAC_READ_SEARCH", "SYSLOG", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT", "SYS_RAWIO", "SYS_TIME"]

# A 32-bit program's calls are others to seccomp. A 64-bit one makes them by int 0x80, which is a known way around a
# filter without them.
DOORS = {"x86_64": ["syscall", "int 0x80"]}.get(platform.machine(), ["syscall"])

# Makes each call with -1 in every argument, which no kernel takes for good, and prints what the kernel said to it,
# where it has the call.
PROBE = r"""
import ctypes, errno, json, mmap, sys

libc, libseccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
door, names = sys.argv[1], sys.argv[2:]


def by_syscall(number):
    return -ctypes.get_errno() if libc.syscall(*[ctypes.c_long(value) for value in [number] + 6 * [-1]]) == -1 else 0


# push rbx; mov eax, edi; mov ebx, -1; mov ecx, -1; mov edx, -1; mov esi, -1; mov edi, -1; int 0x80; pop rbx; ret
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53 89f8 bbffffffff b9ffffffff baffffffff beffffffff bfffffffff cd80 5b c3"))
by_int_0x80 = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

native, x86 = libseccomp.seccomp_arch_native(), 0x40000003
call, architecture = (by_syscall, native) if door == "syscall" else (by_int_0x80, x86)
number_of = libseccomp.seccomp_syscall_resolve_name_arch
numbers = {name: number_of(ctypes.c_uint32(architecture), name.encode()) for name in names}
print(json.dumps({name: errno.errorcode[-call(number)] for name, number in numbers.items() if number >= 0}))
"""

PROBE_BPF = r"""
import ctypes, errno, json, sys

libc, libseccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
number = libseccomp.seccomp_syscall_resolve_name(b"bpf")
said = {}
for command in map(int, sys.argv[1:]):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), ctypes.c_long(command), None, ctypes.c_long(0))
    said[command] = errno.errorcode.get(ctypes.get_errno(), "works")
print(json.dumps(said))
"""

# What the proxy is for, each with what Docker's default profile makes of it or the caller that needs it: command, and a
# word of the answer.
CALL = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall.restype = ctypes.c_long; "
NUMBER = CALL + "number = ctypes.CDLL('libseccomp.so.2').seccomp_syscall_resolve_name; "
WORKS = {
    "pivot_root, for virtiofsd's sandbox": [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        "mount -t tmpfs none /mnt; mkdir /mnt/old; cd /mnt; pivot_root . old; echo /*",
    ],
    "mount namespaces of every kind, for dockerd and runc": [
        "unshare",
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--cgroup",
        "--fork",
        "--mount-proc",
        "sh",
        "-ec",
        "echo /old $$",
    ],
    "user namespaces": ["unshare", "--user", "--map-root-user", "echo", "/old"],
    "setns": ["nsenter", "--target", "1", "--mount", "--net", "--uts", "--ipc", "echo", "/old"],
    "keyctl, for runc": [
        "python3",
        "-c",
        NUMBER + "print('/old' if libc.syscall(number(b'keyctl'), 1, None) > 0 else ctypes.get_errno())",
    ],
    "io_uring, for QEMU": [
        "python3",
        "-c",
        NUMBER + "print('/old' if libc.syscall(number(b'io_uring_setup'), 8, ctypes.create_string_buffer(256)) > 0 else"
        " ctypes.get_errno())",
    ],
    "reading how the clock is kept": [
        "python3",
        "-c",
        CALL + "print('/old' if libc.adjtimex(ctypes.create_string_buffer(512)) >= 0 else ctypes.get_errno())",
    ],
}

# As Kata starts them: virtiofsd with its sandbox, QEMU with its own and with guest memory on /dev/shm that virtiofsd
# shares.
VM = r"""
set -e
mkdir --parents /srv/shared
truncate --size 16M /var/lib/nested-kata/t-disk
/usr/libexec/virtiofsd --socket-path=/run/t-virtiofsd --shared-dir=/srv/shared --sandbox=namespace \
  2>/run/t-virtiofsd.log &
for _ in $(seq 100); do if grep -q Waiting /run/t-virtiofsd.log; then break; fi; sleep 0.1; done
{ printf 'info status\nqemu-io disk "write 0 4096"\n'; sleep 3; printf 'quit\n'; } \
  | qemu-system-x86_64 -accel tcg -machine q35,memory-backend=ram \
  -m 128 -object memory-backend-file,id=ram,size=128M,mem-path=/dev/shm,share=on \
  -nodefaults -display none -monitor stdio \
  -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
  -blockdev driver=file,node-name=disk,filename=/var/lib/nested-kata/t-disk,aio=io_uring,cache.direct=on \
  -device virtio-blk-pci,drive=disk,share-rw=on \
  -chardev socket,id=fs,path=/run/t-virtiofsd -device vhost-user-fs-pci,chardev=fs,tag=shared
wait
cat /run/t-virtiofsd.log
"""


def role(
    directory: Path, *arguments: str, hosts: str = "localhost", **variables: object
) -> subprocess.CompletedProcess[str]:
    """Let the role make the proxy, or change or remove it, on this machine; where no image is named, after the role
    that builds one.
    """
    playbook = directory / "proxy.yml"
    playbook.write_text(
        json.dumps(
            [
                {
                    "name": "A proxy",
                    "hosts": hosts,
                    "gather_facts": True,
                    "vars": {
                        "machine_image_directory": str(directory),
                        "machine_image_packages_extra": ["qemu-system-x86", "virtiofsd", "libseccomp2"],
                        "kata_proxy_name": PROXY,
                        "kata_proxy_images": [BASE],
                        "kata_proxy_shm_size": "1G",
                        **variables,
                    },
                    "roles": [
                        *([] if "kata_proxy_image" in variables else ["nested.kata.machine_image"]),
                        "nested.kata.kata_proxy",
                    ],
                }
            ]
        ),
        encoding="utf-8",
    )
    return play(playbook, *arguments, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")


def made(directory: Path, *arguments: str, **variables: object) -> str:
    done = role(directory, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def proxy(directory: Path) -> Iterator[str]:
    """A proxy as the role makes it, whose image has QEMU and virtiofsd too. Its value is the image."""
    with locked(MACHINE_IMAGE):
        try:
            made(directory)
            yield output("docker", "inspect", "--format", "{{.Config.Image}}", PROXY)
        finally:
            made(directory, kata_proxy_image="", kata_proxy_state="absent", kata_proxy_purge=True)


def inside(*command: str, container: str = PROXY) -> str:
    return output("docker", "exec", container, *command)


def running() -> str:
    """Return what changes when the container is made anew or started again."""
    return output("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", PROXY)


def filters() -> str:
    """Return how the kernel filters the calls of the proxy's systemd: 2 is a filter, 0 is none."""
    return re.search(r"^Seccomp:\s*(\d)", inside("cat", "/proc/1/status"), re.MULTILINE).group(1)


def flags(*more_capabilities: str, profile: str = str(FILE)) -> list[str]:
    granted = [argument for capability in [*CAPABILITIES, *more_capabilities] for argument in ("--cap-add", capability)]
    return [
        "--cap-drop",
        "ALL",
        *granted,
        "--security-opt",
        f"seccomp={profile}",
        "--security-opt",
        "systempaths=unconfined",
        "--security-opt",
        "apparmor=unconfined",
        "--cgroupns",
        "private",
    ]


def probe(image: str, script: str, *arguments: str, profile: str) -> dict[str, str]:
    """Return what the kernel says to each call in a container that has a proxy's capabilities, and more."""
    started = flags(*FOR_THE_PROBE, profile=profile)
    return json.loads(
        output(
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            *started,
            "--entrypoint",
            "python3",
            image,
            "-c",
            script,
            *arguments,
        )
    )


@pytest.mark.parametrize("door", DOORS)
def test_each_denied_call_fails_with_eperm_and_with_something_else_where_there_is_no_profile(
    proxy: str, door: str
) -> None:
    names = [name for rule in PROFILE["syscalls"] if "args" not in rule for name in rule["names"]]
    free = probe(proxy, PROBE, door, *names, profile="unconfined")
    assert len(free) > 20
    assert "EPERM" not in free.values(), free
    assert probe(proxy, PROBE, door, *names, profile=str(FILE)) == dict.fromkeys(free, "EPERM")


def test_of_bpf_only_the_commands_that_runc_and_systemd_give_come_through(proxy: str) -> None:
    works = {0, 1, 2, 3, 4, 5, 8, 9, 13, 15, 16, 18}
    commands = [*range(45), *(command | 1 << 32 for command in range(45)), -1]
    free = probe(proxy, PROBE_BPF, *map(str, commands), profile="unconfined")
    assert "EPERM" not in free.values(), free
    said = probe(proxy, PROBE_BPF, *map(str, commands), profile=str(FILE))
    assert {int(command) for command, answer in said.items() if answer != "EPERM"} == works


def test_the_role_hands_over_the_profile_and_nothing_of_it_lies_on_the_machine(proxy: str) -> None:
    options = json.loads(output("docker", "inspect", "--format", "{{json .HostConfig.SecurityOpt}}", PROXY))
    (given,) = [option.removeprefix("seccomp=") for option in options if option.startswith("seccomp=")]
    assert json.loads(given) == PROFILE
    assert filters() == "2"


def test_systemd_runs_without_a_failed_unit_and_docker_answers(proxy: str) -> None:
    assert inside("systemctl", "is-system-running") == "running"
    assert inside("docker", "version", "--format", "{{.Server.Version}}")


def test_containers_in_the_proxy_run_with_limits_and_are_built(proxy: str) -> None:
    limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert inside(
        "docker", "run", "--rm", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", BASE, "sh", "-c", limit
    ) == str(64 * 1024**2)
    inside("sh", "-ec", f"printf 'FROM {BASE}\\nRUN echo built >/made\\n' | docker build --quiet --tag t-built -")
    assert inside("docker", "run", "--rm", "t-built", "cat", "/made") == "built"


def test_a_container_in_the_proxy_is_held_by_the_profile_whatever_its_own_is(proxy: str) -> None:
    status = inside("docker", "run", "--rm", "--security-opt", "seccomp=unconfined", BASE, "cat", "/proc/self/status")
    assert re.search(r"^Seccomp:\s*2$", status, re.MULTILINE)


@pytest.mark.parametrize("what", WORKS)
def test_what_a_proxy_is_for_works(proxy: str, what: str) -> None:
    assert "/old" in inside(*WORKS[what])


def test_qemu_runs_on_io_uring_with_virtiofsd_in_its_sandbox(proxy: str) -> None:
    said = inside("sh", "-c", VM)
    assert "VM status: running" in said
    assert "wrote 4096/4096 bytes" in said
    assert "Client connected, servicing requests" in said


def test_on_cgroup_2_systemd_and_runc_load_their_bpf_programs(proxy: str) -> None:
    """A tree of cgroup 2 can be mounted where Docker uses version 1 too. It has no controllers there, but rules for
    devices and addresses.
    """
    onto = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec /usr/lib/nested-kata/entry"
    try:
        output(
            "docker",
            "run",
            "--detach",
            "--name",
            ON_CGROUP_2,
            *flags(),
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/tmp",
            "--volume",
            "/var/lib/docker",
            "--device",
            "/dev/loop-control",
            "--env",
            "NESTED_KATA_RESOLVERS=192.0.2.1",
            "--entrypoint",
            "sh",
            proxy,
            "-c",
            onto,
        )
        end = time.monotonic() + 60
        while (
            subprocess.run(
                ["docker", "exec", ON_CGROUP_2, "docker", "version"], capture_output=True, check=False
            ).returncode
            != 0
        ):
            assert time.monotonic() < end, output("docker", "logs", "--tail", "20", ON_CGROUP_2)
            time.sleep(0.5)
        assert inside("docker", "info", "--format", "{{.CgroupVersion}}", container=ON_CGROUP_2) == "2"

        def under(*properties: str) -> int:
            command = ["docker", "exec", ON_CGROUP_2, "systemd-run", "--quiet", "--wait", *properties]
            return subprocess.run(command, capture_output=True, check=False).returncode

        read = ["dd", "if=/dev/loop-control", "of=/dev/null", "count=0"]
        assert (under(*read), under("--property", "DevicePolicy=closed", *read)) == (0, 1)
        ping = ["ping", "-c", "1", "-W", "1", "127.0.0.1"]
        assert (under(*ping), under("--property", "IPAddressDeny=any", *ping)) == (0, 1)

        with subprocess.Popen(["docker", "save", BASE], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "exec", "-i", ON_CGROUP_2, "docker", "load", "--quiet"],
                stdin=saving.stdout,
                capture_output=True,
                check=True,
            )
        tries = "mknod /loop c 10 237; if (: </loop) 2>/dev/null; then echo opened; else echo refused; fi"
        run = ["docker", "run", "--rm", "--network", "none"]
        assert inside(*run, BASE, "sh", "-c", tries, container=ON_CGROUP_2) == "refused"
        assert inside(*run, "--device", "/dev/loop-control", BASE, "sh", "-c", tries, container=ON_CGROUP_2) == "opened"
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", ON_CGROUP_2], capture_output=True, check=False)


def test_a_restart_keeps_the_profile(proxy: str) -> None:
    output("docker", "restart", PROXY)
    assert filters() == "2"


# In every run the scenario default of molecule converges twice.
@pytest.mark.thorough
def test_the_same_profile_changes_nothing(proxy: str, directory: Path) -> None:
    assert re.search(r"localhost +: ok=\d+ +changed=0 ", made(directory, kata_proxy_image=proxy))


# Profiles that are none, and what the one error has to say of it beside the variable's name.
NO_PROFILE = {
    "missing": (None, "Could not find or access"),
    "no-json": ('{"defaultAction": ', "parsing failed"),
    "list": ("[]", "must be stored as a dictionary"),
    "something-else": ('{"syscalls": []}', "defaultAction is missing"),
    "no-action": ('{"defaultAction": "allow"}', "defaultAction is allow"),
}


def test_what_is_no_profile_is_one_error_and_changes_nothing(proxy: str, directory: Path, tmp_path: Path) -> None:
    """All at once, as hosts of a play, since nothing may come of any."""
    hosts = {}
    for case, (content, _words) in NO_PROFILE.items():
        hosts[case] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "kata_proxy_seccomp_profile": str(tmp_path / f"{case}.json"),
        }
        if content is not None:
            (tmp_path / f"{case}.json").write_text(content, encoding="utf-8")
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    before = running()
    done = role(directory, "-i", str(inventory), hosts="all", kata_proxy_image=proxy)
    assert done.returncode != 0
    failed = re.split(r"^fatal: \[([\w-]+)\]: ", done.stdout + done.stderr, flags=re.MULTILINE)
    said = dict(zip(failed[1::2], failed[2::2], strict=True))
    assert (len(failed) // 2, said.keys()) == (len(NO_PROFILE), NO_PROFILE.keys()), done.stdout + done.stderr
    for case, (_content, words) in NO_PROFILE.items():
        assert f"kata_proxy_seccomp_profile is '{tmp_path / case}.json'" in said[case]
        assert words in said[case]
    assert running() == before


# In every run the scenario default of molecule makes containers again, and unit tests compare profiles.
@pytest.mark.thorough
def test_another_profile_makes_the_container_anew_but_not_in_check_mode(
    proxy: str, directory: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}
        ),
        encoding="utf-8",
    )
    before = running()
    again = {"kata_proxy_image": proxy, "kata_proxy_recreate": "always"}

    shown = made(directory, "--check", **again, kata_proxy_seccomp_profile=str(own))
    assert not re.search(r"changed=0 ", shown)
    assert running() == before

    made(directory, **again, kata_proxy_seccomp_profile=str(own))
    assert '"names":["swapon"]' in output(
        "docker", "inspect", "--format", "{{.HostConfig.SecurityOpt}}", PROXY
    ).replace(" ", "")
    assert filters() == "2"

    made(directory, **again, kata_proxy_seccomp_profile="unconfined")
    assert filters() == "0"
