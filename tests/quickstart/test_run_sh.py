# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""run.sh from an untouched machine to an untouched machine. The tests build on each other, in the order of this
file.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.nested.kata.plugins.module_utils._host.checks import CHECKS
from ansible_runner import CHECKOUT, HEEDING_SIGNALS, play, wait_until
from host_state import FOREIGN, INSTANCE, PROXY, all_levels_hold, foreign, listed, machine_holds, output
from kept import MACHINE_IMAGE, locked
from samples import sampled

pytestmark = pytest.mark.docker

# A name that no registry has: the base image is made by mmdebstrap, as on a machine that reaches only a mirror.
BASE = "nested-kata-test/base:trixie"
IMPORTED = "nested-kata/base:imported"  # its name until it is noted that the role made it
RUN = [str(CHECKOUT / "run.sh"), "-e", f"machine_image_base={BASE}"]


def run_sh(*arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
    )


def runs(pattern: str) -> bool:
    """Whether a process of this machine or of a container in it has such a command line."""
    return subprocess.run(["pgrep", "--full", pattern], capture_output=True, check=False).returncode == 0


def there_is(*command: str) -> bool:
    """Whether a listing has a line. What cannot be asked yet has none."""
    return bool(subprocess.run(command, capture_output=True, check=False).stdout.strip())


def interrupt(step: str, begun: Callable[[], bool]) -> str:
    """Start run.sh, press Ctrl-C when the work of a step has begun, or has proved to be done already, and return what
    was said.
    """
    command = [*HEEDING_SIGNALS, *RUN]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        said: list[str] = []
        reader = threading.Thread(target=said.extend, args=[process.stdout])
        reader.start()

        def due() -> bool:
            at_it = [line.strip().startswith(step) for line in list(said) if line.startswith(("==> ", "  - "))]
            return process.poll() is not None or (any(at_it) and (not at_it[-1] or begun()))

        wait_until(
            due,
            f"the work of {step!r}",
            seconds=600,
            log=lambda: "".join(said),
        )
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        reader.join()
    assert process.returncode == 130, "".join(said)
    return "".join(said)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """What the machine held before run.sh made anything."""
    with locked(MACHINE_IMAGE):
        if (CHECKOUT / ".run").exists():
            subprocess.run([str(CHECKOUT / "run.sh"), "--remove"], capture_output=True, check=True)
        with foreign(tmp_path_factory.mktemp("foreign")):
            yield machine_holds()


@pytest.fixture(scope="module")
def first(before: dict[str, list[str]], pytestconfig: pytest.Config) -> subprocess.CompletedProcess[str]:
    """The first run that was not interrupted, after one that was; after five with --all."""
    steps = [
        ("- The machine image", lambda: runs("mmdebstrap")),
        (
            "- The machine image",
            lambda: any(there_is("docker", "images", "--quiet", name) for name in (IMPORTED, BASE)),
        ),
        ("- The proxy", lambda: there_is("docker", "ps", "--quiet", "--filter", "name=^kata-in-docker$")),
        ("- The instance", lambda: there_is(*PROXY, "docker", "ps", "--quiet", "--filter", "name=^kata$")),
        ("==> The proof", lambda: runs("apt-get install --yes --no-install-recommends busybox")),
    ]
    for step, begun in sampled(pytestconfig, "interruptions", steps, 1):
        assert "Interrupted. Nothing is lost" in interrupt(step, begun)
    return run_sh()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unknown argument '--nonsense'"),
        (["-e", "novalue"], "-e takes VAR=VALUE, found 'novalue'"),
        (["--"], "-- takes a docker command"),
    ],
)
def test_wrong_arguments_are_one_line_that_leads_to_the_help(arguments: list[str], said: str) -> None:
    done = subprocess.run([str(CHECKOUT / "run.sh"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "--help" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_tells_every_way_to_call_it() -> None:
    done = subprocess.run([str(CHECKOUT / "run.sh"), "--help"], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("-- CMD", "--remove", "-e VAR=VALUE", "Needs:"))


def test_without_root_and_sudo_it_says_so() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        shutil.copy(CHECKOUT / "run.sh", directory)
        for tool in ("bash", "env", "cat", "id", "dirname"):
            os.symlink(shutil.which(tool), f"{directory}/{tool}")
        done = subprocess.run(
            [f"{directory}/run.sh"],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": directory},
            user=65534,
            group=65534,
            extra_groups=[],
        )
    assert (done.returncode, done.stderr) == (1, "run.sh: needs root, and there is no sudo: run it as root\n")


def test_after_interruptions_it_ends_with_the_table(first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    rows = {
        line.split()[1]: line.split()
        for line in first.stdout.splitlines()
        if line.startswith(("machine ", "proxy ", "instance "))
    }
    assert list(rows) == ["localhost", "kata-in-docker", "kata"]
    assert [row[2] for row in rows.values()] == ["running"] * 3
    assert rows["kata"][5] == "btrfs"
    assert rows["kata"][4] == output(*INSTANCE, "docker", "version", "--format", "{{.Server.Version}}")
    disk = next(line for line in first.stdout.splitlines() if " disks/kata.img " in line)
    assert re.match(r"kata-in-docker +disks/kata\.img +20\.00 GB +\d+\.\d+ [MG]B ", disk)


def test_it_says_what_it_is_doing_while_a_step_runs_long(first: subprocess.CompletedProcess[str]) -> None:
    assert "==> The instance" in first.stdout


def test_the_stand_in_is_in_a_box_that_says_that_it_isolates_nothing(first: subprocess.CompletedProcess[str]) -> None:
    box = [line for line in first.stdout.splitlines() if line.startswith("##")]
    assert "NO VIRTUAL MACHINE" in box[1]
    assert any("ISOLATES NOTHING" in line for line in box)
    missing = [
        line.strip("# ") for line in box[box.index(next(line for line in box if "Missing for Kata:" in line)) + 1 :]
    ]
    assert missing[0].split(":")[0] in CHECKS


@pytest.mark.parametrize(
    "proof",
    [
        r"docker build with apt-get update and install: \d+ s",
        "docker run of what was built: ok",
        "two containers on a network, one reached by its name: ok",
        "published port, reached from the instance: ok",
        "volume, the same after a restart of the instance: ok",
    ],
)
def test_the_docker_in_the_instance_does_real_work(first: subprocess.CompletedProcess[str], proof: str) -> None:
    assert re.search(proof, first.stdout)


def test_the_words_of_the_readme_reach_the_inner_docker(first: subprocess.CompletedProcess[str]) -> None:
    info = json.loads(
        output("docker", "exec", "kata-in-docker", "docker", "exec", "kata", "docker", "info", "--format", "{{json .}}")
    )
    assert (info["Driver"], info["DockerRootDir"], info["Name"]) == ("btrfs", "/var/lib/docker", "kata")


@pytest.mark.parametrize("level", [PROXY, INSTANCE])
def test_systemd_is_pid_1_and_says_running(first: subprocess.CompletedProcess[str], level: list[str]) -> None:
    assert output(*level, "cat", "/proc/1/comm") == "systemd"
    assert output(*level, "systemctl", "is-system-running") == "running"


def test_the_second_call_has_nothing_to_do_but_the_table(first: subprocess.CompletedProcess[str]) -> None:
    second = run_sh()
    assert second.returncode == 0
    assert [line for line in second.stdout.splitlines() if line.startswith("==>")] == [
        "==> Look at the machines, the proxies and what runs there",
        "==> Show what runs where",
    ]
    assert "ISOLATES NOTHING" in second.stdout


def test_a_command_runs_there_instead_with_its_own_output_and_exit_status(
    first: subprocess.CompletedProcess[str],
) -> None:
    done = run_sh("--", "run", "--rm", BASE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    piped = subprocess.run(
        [*RUN, "--", "docker", "run", "--rm", "--interactive", BASE, "cat"],
        input=b"\0\xff" * 100_000,
        capture_output=True,
        check=True,
    )
    assert piped.stdout == b"\0\xff" * 100_000


def test_at_a_terminal_it_ends_at_a_root_prompt_in_a_container(first: subprocess.CompletedProcess[str]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(RUN[0], RUN)
    said = b""
    end = time.monotonic() + 120
    typed = False
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            said += os.read(terminal, 65536)
        except OSError:
            break
        if not typed and re.search(rb"root@[0-9a-f]{12}:/# ", said):
            typed = True
            os.write(terminal, b"echo uid=$(id -u) one=$(cat /proc/1/comm)\nexit 3\n")
    assert b"uid=0 one=bash" in said, said.decode(errors="replace")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


@pytest.mark.parametrize("host", ["kata-in-docker.localhost", "kata.kata-in-docker.localhost"])
def test_proxy_and_instance_are_ordinary_hosts_of_the_inventory(
    first: subprocess.CompletedProcess[str], host: str, tmp_path: Path
) -> None:
    playbook = tmp_path / "ordinary.yml"
    playbook.write_text(
        json.dumps(
            [
                {
                    "name": "Ordinary tasks",
                    "hosts": host,
                    "gather_facts": True,
                    "tasks": [
                        {"ansible.builtin.ping": {}},
                        {
                            "ansible.builtin.copy": {
                                "content": "from the control node\n",
                                "dest": "/root/ordinary",
                                "mode": "0600",
                            }
                        },
                        {
                            "ansible.builtin.fetch": {
                                "src": "/root/ordinary",
                                "dest": f"{tmp_path}/fetched",
                                "flat": True,
                            }
                        },
                        {"ansible.builtin.apt": {"name": "hello", "update_cache": True}},
                        {"ansible.builtin.command": {"cmd": "hello"}, "register": "hello"},
                        {
                            "ansible.builtin.assert": {
                                "that": ["'Hello, world!' in hello.stdout", "ansible_facts['service_mgr'] == 'systemd'"]
                            }
                        },
                    ],
                }
            ]
        ),
        encoding="utf-8",
    )
    done = play(playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "fetched").read_text(encoding="utf-8") == "from the control node\n"


# In every run the scenario default of molecule runs site.yml twice.
@pytest.mark.thorough
def test_site_yml_changes_nothing_after_it(first: subprocess.CompletedProcess[str]) -> None:
    held = all_levels_hold()
    done = play("site.yml", "-e", "kata_instance_runtime=runc", "-e", f"machine_image_base={BASE}")
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0", done.stdout, re.MULTILINE)
    assert recap == [("kata-in-docker.localhost", "0"), ("localhost", "0")]
    assert all_levels_hold() == held


def test_a_proxy_killed_and_removed_comes_back_with_images_and_disks(first: subprocess.CompletedProcess[str]) -> None:
    def kept() -> list[str]:
        return [
            output(*INSTANCE, "docker", "image", "inspect", "--format", "{{.Id}}", "nested-kata/proof"),
            output(
                *INSTANCE,
                "docker",
                "run",
                "--rm",
                "--volume",
                "nested-kata-proof:/data",
                "nested-kata/proof",
                "cat",
                "/data/written",
            ),
            output(*INSTANCE, "findmnt", "--noheadings", "--output", "UUID", "/var/lib/docker"),
        ]

    before_the_kill = kept()
    output("docker", "kill", "kata-in-docker")
    output("docker", "rm", "kata-in-docker")
    again = run_sh()
    assert again.returncode == 0, again.stdout + again.stderr
    assert kept() == before_the_kill


def test_a_restart_of_the_proxy_brings_its_instance_back_without_ansible(
    first: subprocess.CompletedProcess[str],
) -> None:
    output("docker", "restart", "kata-in-docker")
    wait_until(
        lambda: subprocess.run([*INSTANCE, "docker", "version"], capture_output=True, check=False).returncode == 0,
        "the instance's Docker",
        90,
        1,
        log=lambda: output(*PROXY, "journalctl", "--no-pager", "--lines", "50"),
    )
    assert output(*INSTANCE, "docker", "info", "--format", "{{.Driver}}") == "btrfs"


# What is asked for, the role it is asked of, the host, and what the one error has to say.
BAD_INPUT = {
    "an unknown image": (
        "kata_instance",
        {"kata_instance_list": [{"name": "kata", "images": ["debian:t-none"]}]},
        ["debian:t-none"],
    ),
    "a size that is none": (
        "kata_instance",
        {"kata_instance_list": [{"name": "kata", "disk": {"size": "lots"}}]},
        ["size", "lots"],
    ),
    "a size smaller than what is there": (
        "kata_instance",
        {"kata_instance_list": [{"name": "kata", "disk": {"size": "1G"}}]},
        ["size", "kata.img", "smaller"],
    ),
    "a disk path that holds other data": (
        "kata_instance",
        {"kata_instance_list": [{"name": "t-other"}]},
        ["t-other.img", "nothing was changed"],
    ),
    "an instance name that Docker refuses": (
        "kata_instance",
        {"kata_instance_list": [{"name": "a/b"}]},
        ["kata_instance_list", "a/b"],
    ),
    "a network that is not there": (
        "kata_instance",
        {"kata_instance_list": [{"name": "kata", "network": "t-none"}]},
        ["t-none", "network"],
    ),
    "an instance name of somebody else's container": (
        "kata_instance",
        {"kata_instance_list": [{"name": FOREIGN}]},
        [FOREIGN, "not touched"],
    ),
    "the runtime kata where there is none": (
        "kata_instance",
        {"kata_instance_runtime": "kata"},
        ["no runtime 'kata'", "kata_instance_runtime"],
    ),
    "a proxy name that Docker refuses": ("kata_proxy", {"kata_proxy_name": "-x"}, ["kata_proxy_name", "-x"]),
    "a proxy name of somebody else's container": (
        "kata_proxy",
        {"kata_proxy_name": FOREIGN},
        [FOREIGN, "not touched"],
    ),
    "a mirror that cannot be reached": (
        "machine_image",
        {
            "machine_image_base": "debian:t-none",
            "machine_image_pull": False,
            "machine_image_mirror": "http://127.0.0.1:9/debian",
        },
        ["http://127.0.0.1:9/debian", "machine_image_mirror"],
    ),
}


@pytest.fixture(scope="module")
def others(first: subprocess.CompletedProcess[str]) -> None:
    """Somebody else's container in the proxy, and a disk image with somebody's data; they go with the proxy."""
    output(*PROXY, "docker", "create", "--name", FOREIGN, BASE)
    output(
        *PROXY,
        "sh",
        "-c",
        "truncate --size 20G /var/lib/nested-kata/disks/t-other.img && mkfs.ext4 -q"
        " /var/lib/nested-kata/disks/t-other.img",
    )


@pytest.fixture(scope="module")
def held(others: None) -> list[dict[str, list[str]]]:
    """What all levels hold before the bad inputs. If one of these changes something, the tests after it fail too."""
    return all_levels_hold()


# The module disk_image refuses these, and its own tests try that in every run.
OF_THE_DISK = {"a size that is none", "a size smaller than what is there", "a disk path that holds other data"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.thorough) if case in OF_THE_DISK else case for case in BAD_INPUT],
)
def test_bad_input_is_one_error_and_changes_nothing(
    held: list[dict[str, list[str]]], case: str, tmp_path: Path
) -> None:
    role, variables, words = BAD_INPUT[case]
    playbook = tmp_path / "bad.yml"
    standing = {
        "kata_instance_runtime": "runc",
        "kata_instance_base": BASE,
        "machine_image_base": BASE,
        "kata_instance_image": output("docker", "inspect", "--format", "{{.Config.Image}}", "kata-in-docker"),
        "machine_image_reference": output("docker", "inspect", "--format", "{{.Config.Image}}", "kata-in-docker"),
        "kata_instance_address_pool": "10.213.128.0/18",
    }
    host = "kata-in-docker.localhost" if role == "kata_instance" else "localhost"
    playbook.write_text(json.dumps([{"name": case, "hosts": host, "roles": [f"nested.kata.{role}"]}]), encoding="utf-8")
    done = play(playbook, "-e", json.dumps({**standing, **variables}), ANSIBLE_STDOUT_CALLBACK="nested.kata.steps")
    assert done.returncode != 0, done.stdout
    failures = [part for part in done.stderr.split("FAILED on ") if part.startswith(host)]
    assert len(failures) == 1, done.stdout + done.stderr
    assert all(word in failures[0] for word in words), failures[0]
    assert all_levels_hold() == held


def test_without_root_the_roles_say_so(first: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    playbook = tmp_path / "nobody.yml"
    playbook.write_text(
        json.dumps(
            [
                {
                    "name": "As nobody",
                    "hosts": "localhost",
                    "become": True,
                    "become_user": "nobody",
                    "roles": ["nested.kata.docker_engine"],
                    "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
                }
            ]
        ),
        encoding="utf-8",
    )
    done = play(playbook, ANSIBLE_STDOUT_CALLBACK="nested.kata.steps")
    assert done.returncode != 0, done.stdout
    assert "nobody may not use Docker on localhost" in done.stderr
    assert "become: true" in done.stderr


def test_site_yml_says_before_it_changes_anything_why_kata_cannot_run_here(
    first: subprocess.CompletedProcess[str],
) -> None:
    held = all_levels_hold()
    done = play("site.yml", ANSIBLE_STDOUT_CALLBACK="nested.kata.steps")
    assert done.returncode != 0
    assert "vhost_vsock" in done.stderr
    assert "kata_preflight_ignore" in done.stderr
    assert all_levels_hold() == held


def test_remove_leaves_the_machine_as_it_was(
    before: dict[str, list[str]], first: subprocess.CompletedProcess[str]
) -> None:
    template = '{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}'
    volumes = set(output("docker", "inspect", "--format", template, "kata-in-docker").split())
    done = run_sh("--remove")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine_holds() == before
    assert volumes.isdisjoint(name for name, *dummy in listed("volumes"))
    assert not (CHECKOUT / ".run").exists()
