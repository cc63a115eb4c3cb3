# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kata host whose only way out is a proxy server, with a mirror of Docker Hub behind an authority of its own: all
that site.yml does there, and what the tenant of an instance does then.

The Kata host is a container on a network that leads nowhere. The proxy server (tinyproxy) and the mirror (Debian's
docker-registry) are in another one, which is on a second network too.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from ansible_runner import CHECKOUT, MARK, play
from authorities import make_authority
from docker_in_docker import CONTAINER_IMAGE, build_images, docker, within
from host_state import output
from kept import MACHINE_IMAGE, locked

# The base image and the machine image are made once more, through the proxy server.
pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.loop, pytest.mark.thorough]

NETWORK, GATE, MACHINE = (f"t-web-{MARK}-{name}" for name in ("network", "gate", "machine"))
BASE = "debian:trixie-slim"
TENANT = ("kata-in-docker", "kata")
BUILD = " ".join(f"docker exec -i {hop}" for hop in (MACHINE, *TENANT)) + " docker build --tag made -"
# As the role kata_proxy makes a container that stands in for a machine.
CAPABILITIES = yaml.safe_load((CHECKOUT / "roles/kata_proxy/defaults/main.yml").read_text())["kata_proxy_capabilities"]
MACHINE_OPTIONS = [
    *("--cap-drop", "ALL", *(word for name in CAPABILITIES for word in ("--cap-add", name))),
    *(word for one in ("seccomp", "systempaths", "apparmor") for word in ("--security-opt", f"{one}=unconfined")),
    *("--cgroupns", "private", "--tmpfs", "/run", "--tmpfs", "/tmp"),
    *("--device", "/dev/loop-control", "--device-cgroup-rule", "b 7:* rmw"),
    *("--volume", "/var/lib/docker", "--volume", "/var/lib/nested-kata"),
]
GATE_PACKAGES = "tinyproxy docker-registry skopeo openssl"
GATE_SETUP = r"""
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $1 >/dev/null
cd /ca
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout mirror.key -out mirror.csr
echo "subjectAltName=IP:$2" >names
openssl x509 -req -in mirror.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -out mirror.crt
printf 'Port 3128\nListen 0.0.0.0\nLogFile "/var/log/gate.log"\nLogLevel Connect\nMaxClients 100\n' >/ca/tinyproxy.conf
cat >/ca/registry.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: /srv/registry}}
http: {addr: 0.0.0.0:5000, tls: {certificate: /ca/mirror.crt, key: /ca/mirror.key}}
END
touch /var/log/gate.log && chmod a+rw /var/log/gate.log
"""


def address_of(container: str, network: str) -> str:
    settings = json.loads(output("docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
    return str(settings[network]["IPAddress"])


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the proxy server and the mirror, and return their address on the network that leads nowhere."""
    build_images(CONTAINER_IMAGE)
    docker("rm", "-fv", GATE, MACHINE, check=False)
    docker("network", "rm", NETWORK, check=False)
    docker("network", "create", "--internal", NETWORK)
    try:
        docker("run", "-d", "--init", "--name", GATE, CONTAINER_IMAGE)
        docker("network", "connect", NETWORK, GATE)
        address = address_of(GATE, NETWORK)
        authority = tmp_path_factory.mktemp("authority")
        make_authority(authority)
        docker("cp", str(authority), f"{GATE}:/ca")
        within(GATE, "sh", "-ec", GATE_SETUP, "sh", GATE_PACKAGES, address)
        docker("exec", "-d", GATE, "tinyproxy", "-d", "-c", "/ca/tinyproxy.conf")
        docker("exec", "-d", GATE, "docker-registry", "serve", "/ca/registry.yml")
        output("sh", "-c", f"docker save {BASE} | docker exec -i {GATE} sh -c 'cat >/base.tar'")
        copy = f"skopeo copy --quiet --dest-tls-verify=false docker-archive:/base.tar docker://{address}:5000/library/{BASE}"
        within(GATE, "sh", "-ec", f"for _ in 1 2 3 4 5 6 7 8 9; do {copy} && exit; sleep 1; done; exit 1")
        yield address
    finally:
        docker("rm", "-fv", GATE, MACHINE, check=False)
        docker("network", "rm", NETWORK)


class Site:
    """The Kata host, and runs of site.yml for it."""

    def __init__(self, directory: Path, gate: str) -> None:
        self.directory, self.gate = directory, gate
        self.proxies = {"http_proxy": f"http://{gate}:3128", "https_proxy": f"http://{gate}:3128", "no_proxy": gate}
        (directory / "ca.crt").write_text(within(GATE, "cat", "/ca/ca.crt"))

    def start(self) -> None:
        """Start the Kata host from the machine image, which this machine makes as usual."""
        note = {"dest": f"{self.directory}/image", "content": "{{ machine_image_reference }}", "mode": "0644"}
        image = {
            "name": "The machine image",
            "hosts": "localhost",
            "gather_facts": True,
            "roles": [{"role": "nested.kata.machine_image", "machine_image_directory": f"{self.directory}/images"}],
            "post_tasks": [{"name": "Note its name", "ansible.builtin.copy": note}],
        }
        self.play([image], "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
        authority = base64.b64encode((self.directory / "ca.crt").read_bytes()).decode()
        environment = {**self.proxies, "NESTED_KATA_CA_CERTIFICATES": authority}
        given = [f"--env={name}={value}" for name, value in environment.items()]
        name = (self.directory / "image").read_text()
        docker("run", "-d", "--name", MACHINE, "--network", NETWORK, *MACHINE_OPTIONS, *given, name)

    def play(self, plays: list[dict], *options: str) -> str:
        (self.directory / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
        done = play(self.directory / "play.yml", *options, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def set_up(self) -> str:
        """Run site.yml with the least that a site like this has to say: its proxy servers are in the environment."""
        host = {
            "ansible_connection": "nested.kata.nested",
            "ansible_nested_hops": [MACHINE],
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        variables = {
            "machine_image_pull": False,  # so that mmdebstrap makes the base image
            "kata_instance_runtime": "runc",
            "kata_instance_cpus": 1,
            "kata_instance_memory": "1g",
            "kata_instance_disk_size": "3G",
            "kata_instance_images": [],
            "kata_instance_private_networks": False,
            "nested_kata_ca_certificates": [f"{self.directory}/ca.crt"],
            "nested_kata_registry_mirrors": [f"https://{self.gate}:5000"],
        }
        inventory = {"kata_hosts": {"hosts": {"machine": host}, "vars": variables}}
        inventory["kata_proxies"] = {"vars": {name: variables[name] for name in variables if name.startswith("kata_")}}
        (self.directory / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        whole = [{"import_playbook": str(CHECKOUT / "playbooks" / "site.yml")}]
        return self.play(whole, "-i", f"{self.directory}/hosts.yml")


@pytest.fixture(scope="module")
def site(gate: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("web"), gate)
    with locked(MACHINE_IMAGE):
        site.start()
        try:
            site.set_up()
            yield site
        finally:
            # It detaches the disk, whose loop device is this machine's.
            stop = "systemctl stop nested-kata-instance@kata.service"
            docker("exec", MACHINE, "docker", "exec", "kata-in-docker", "sh", "-c", f"{stop} || true", check=False)


def inner(*command: str) -> str:
    """Run a command in the instance."""
    words = [word for hop in (MACHINE, *TENANT) for word in ("docker", "exec", "-i", hop)]
    return output(*words, *command)


def used(since: int) -> list[str]:
    """Return what the proxy server was asked for since then."""
    lines = within(GATE, "cat", "/var/log/gate.log").splitlines()[since:]
    return re.findall(r"Request \(file descriptor \d+\): (\S+ \S+)", "\n".join(lines))


def asked_so_far() -> int:
    return len(within(GATE, "cat", "/var/log/gate.log").splitlines())


@pytest.mark.usefixtures("site")
def test_there_is_no_other_way_out() -> None:
    for command in (["docker", "exec", MACHINE], ["docker", "exec", MACHINE, "docker", "exec", "kata-in-docker"]):
        attempt = [*command, "timeout", "3", "bash", "-c", "</dev/tcp/1.1.1.1/80"]
        assert subprocess.run(attempt, check=False, capture_output=True).returncode != 0


def test_a_second_run_changes_nothing(site: Site) -> None:
    said = site.set_up()
    assert re.findall(r"changed=(\d+)", said) == ["0"] * said.count("changed=")


def test_each_level_names_the_proxy_server_and_what_is_reached_directly(site: Site) -> None:
    shown = inner("sh", "-c", "echo $http_proxy $HTTPS_PROXY $no_proxy").split()
    assert shown[:2] == [site.proxies["http_proxy"]] * 2
    direct = shown[2].split(",")
    assert {site.gate, "localhost", "127.0.0.1"} <= set(direct)
    # What the machine gives to the proxy, and of that the part where instances are and the part that is this one's.
    whole, *parts = sorted((ip_network(one) for one in direct if "/" in one), key=lambda one: one.prefixlen)
    assert len(parts) == 2
    assert all(part.subnet_of(whole) for part in parts)
    assert not parts[0].overlaps(parts[1])
    information = json.loads(inner("docker", "info", "--format", "{{json .}}"))
    assert information["HttpProxy"] == information["HttpsProxy"] == site.proxies["http_proxy"]
    assert information["RegistryConfig"]["Mirrors"] == [f"https://{site.gate}:5000/"]


@pytest.mark.usefixtures("site")
def test_a_tenant_pulls_from_the_mirror_and_builds_through_the_proxy_server() -> None:
    assert "Status: Downloaded newer image for debian:trixie-slim" in inner("docker", "pull", BASE)
    before = asked_so_far()
    dockerfile = f"FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends bc\n"
    output("sh", "-c", f"printf '{dockerfile}' | {BUILD}")
    assert [one for one in used(before) if re.search(r"GET http://\S+/bc_\S+\.deb", one)]
    assert inner("docker", "run", "--rm", "made", "sh", "-c", "echo $http_proxy; echo 6*7 | bc").split()[1] == "42"
    history = inner("docker", "history", "--no-trunc", "made")
    assert "http_proxy" not in history


@pytest.mark.usefixtures("site")
def test_programs_of_the_tenant_go_through_the_proxy_server_and_trust_the_authority(gate: str) -> None:
    before = asked_so_far()
    inner("apt-get", "update")
    assert [one for one in used(before) if "InRelease" in one]
    # By a name that is no exception, so that it is asked for by the proxy server.
    fetch = "import urllib.request; print(urllib.request.urlopen('https://%s:5000/v2/').status)"
    assert inner("python3", "-c", fetch % gate) == "200"
    assert "CONNECT" not in "".join(used(before))
    inner("env", "no_proxy=", "NO_PROXY=", "python3", "-c", fetch % gate)
    assert f"CONNECT {gate}:5000" in used(before)


@pytest.mark.usefixtures("site")
def test_no_password_and_no_certificate_is_in_what_was_noted() -> None:
    look = ("docker", "inspect", "--format", "{{json .Config.Labels}}", "kata-in-docker")
    label = output("docker", "exec", MACHINE, *look)
    assert "nested.kata.arguments" in label
    assert "LS0tLS1CRUdJTi" not in label
