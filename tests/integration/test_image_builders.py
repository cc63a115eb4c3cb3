# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builders and tools that people have write archives, which image_transfer reads; it writes one, which they read.

The tools are those of Debian and of the Go module proxy, in one container, with a registry for those that want one.
BuildKit is that of the newest Docker.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_runner import MARK, answer, started
from docker_in_docker import (
    CONTAINER_IMAGE,
    CONTAINERD,
    MOBY_IMAGE,
    build_images,
    docker,
    go_program,
    nested_daemon,
    within,
)
from host_state import output
from image_builder import legacy, made, tar
from kept import kept

# Tools are compiled, and a BuildKit is started.
pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.thorough]

TOOLS, BUILDKIT = f"t-builders-{MARK}", f"t-buildkit-{MARK}"
PACKAGES = ["buildah", "podman", "skopeo", "umoci", "oras", "docker-registry", "golang-go"]
GO_TOOLS = {
    "crane": "github.com/google/go-containerregistry/cmd/crane@v0.20.6",
    "regctl": "github.com/regclient/regclient/cmd/regctl@v0.8.3",
    "ko": "github.com/google/ko@v0.18.0",
}
FILES = {f"file{number}": bytes([number]) * 5000 for number in range(3)}
SEED = made([tar({name: content}) for name, content in FILES.items()])
NAME = "shop/web:1"
REGISTRY = "127.0.0.1:5000"
THERE = f"{REGISTRY}/{NAME}"

PODMAN, BUILDAH = "podman --storage-driver vfs", "buildah --storage-driver vfs"
LOADED = f"{PODMAN} load -q -i seed.tar; {PODMAN} tag localhost/{NAME} docker.io/{NAME}; {PODMAN} save -q"
ADDED = f"made=$({BUILDAH} from scratch); {BUILDAH} add -q $made seed /; {BUILDAH} commit -q"
INSERTED = "for file in seed/*; do umoci insert --image layout:1 $file /${file##*/}; done"
# Each writes an archive to $out, or a layout to the directory layout.
WRITERS = {
    "skopeo docker-archive": f"skopeo copy -q docker-archive:seed.tar docker-archive:$out:{NAME}",
    "skopeo oci-archive": f"skopeo copy -q docker-archive:seed.tar oci-archive:$out:{NAME}",
    "skopeo zstd": f"skopeo copy -q --dest-compress-format zstd docker-archive:seed.tar oci-archive:$out:{NAME}",
    "podman docker-archive": f"{LOADED} -o $out docker.io/{NAME}",
    "podman oci-archive": f"{LOADED} --format oci-archive -o $out docker.io/{NAME}",
    "buildah docker-archive": f"{ADDED} --format docker $made docker-archive:$out:{NAME}",
    "buildah oci-archive": f"{ADDED} --format oci $made oci-archive:$out:{NAME}",
    "umoci": f"umoci init --layout layout; umoci new --image layout:1; {INSERTED}",
    "oras": f"oras copy --from-plain-http --to-oci-layout {THERE} layout:1",
    "crane append": f"crane append -f layer.tar -t {NAME} -o $out",
    "crane pull": f"crane pull {THERE} $out",
    "crane pull legacy": f"crane pull --format legacy {THERE} $out",
    "crane pull oci": f"crane pull --format oci --annotate-ref {THERE} layout",
    "regctl": f"regctl image export {THERE} $out",
    "regctl compressed": f"regctl image export --compress {THERE} $out",
    "ko": "cd program; ko build --push=false --tarball $out --tags 1 --bare . >&2",
}
# What these are given they write as it is.
PULLED = ("crane pull", "regctl")  # under the name in the registry
COPIES = ("skopeo", "podman", "oras", *PULLED)

# Each reads the archive ours.tar, and leaves what it found in the directory $out, or at this name in the registry.
FROM = f"{REGISTRY}/read"
READERS = {
    "skopeo docker-archive": "skopeo copy -q docker-archive:ours.tar dir:$out",
    "skopeo oci-archive": "skopeo copy -q oci-archive:ours.tar:1 dir:$out",
    "podman": f"{PODMAN} load -q -i ours.tar; {PODMAN} save -q --format docker-dir -o $out docker.io/{NAME}",
    "buildah docker-archive": f"{BUILDAH} push -q $({BUILDAH} pull -q docker-archive:ours.tar) dir:$out",
    "buildah oci-archive": f"{BUILDAH} push -q $({BUILDAH} pull -q oci-archive:ours.tar) dir:$out",
    "umoci": "umoci raw unpack --image ours:1 $out",
    "oras": f"oras copy --from-oci-layout --to-plain-http ours:1 {FROM}:oras",
    "crane": f"crane push ours.tar {FROM}:crane",
    "regctl": f"regctl image import {FROM}:regctl ours.tar",
}
SETUP = f"""
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends {" ".join(PACKAGES)} >/dev/null
printf 'version: 0.1\\nstorage: {{inmemory: {{}}}}\\nhttp: {{addr: "{REGISTRY}"}}\\n' >/registry.yml
setsid --fork docker-registry serve /registry.yml >/registry.log 2>&1
push='skopeo copy -q --dest-tls-verify=false docker-archive:seed.tar docker://{THERE}'
for _ in $(seq 100); do if $push; then break; fi; sleep 0.1; done
regctl registry set --tls disabled {REGISTRY}
"""
PROGRAM = 'package main\n\nfunc main() { println("of ko") }\n'


def go_tool(name: str) -> Path:
    """Return a tool of the Go module proxy."""
    script = (
        f"exec 3>&1 >&2; CGO_ENABLED=0 GOBIN=/out GOFLAGS=-ldflags=-s go install {GO_TOOLS[name]}; cat /out/{name} >&3"
    )
    recipe = hashlib.sha256(script.encode()).hexdigest()[:12]
    return kept(f"builder-{name}", recipe, "", lambda program: go_program(program, script))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that the container with the tools has at /work."""
    work = tmp_path_factory.mktemp("work")
    (work / "seed.tar").write_bytes(legacy(SEED, [NAME]))
    (work / "layer.tar").write_bytes(tar(FILES))
    for name, content in FILES.items():
        (work / "seed").mkdir(exist_ok=True)
        (work / "seed" / name).write_bytes(content)
    (work / "program").mkdir()
    (work / "program" / "main.go").write_text(PROGRAM)
    (work / "program" / "go.mod").write_text("module example.org/web\n\ngo 1.21\n")
    sent = transfer(work / "seed.tar", work / "ours.tar", NAME)
    assert sent["id"] == SEED.id
    (work / "ours").mkdir()
    output("tar", "-C", f"{work}/ours", "-xf", f"{work}/ours.tar")
    build_images(CONTAINER_IMAGE)
    tools = [f"--volume={go_tool(name)}:/usr/local/bin/{name}:ro" for name in GO_TOOLS]
    rights = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    docker("rm", "-fv", TOOLS, check=False)
    docker(
        "run", "-d", "--init", "--name", TOOLS, *rights, *tools, f"--volume={work}:/work", "-w/work", CONTAINER_IMAGE
    )
    try:
        within(TOOLS, "sh", "-ec", SETUP)
        yield work
    finally:
        docker("rm", "-fv", TOOLS)


def run(script: str, out: str) -> None:
    """Run a script of a tool."""
    told = [f"out=/work/{out}", f"KO_DEFAULTBASEIMAGE={THERE}", "KO_DOCKER_REPO=shop/web", "HOME=/root"]
    within(TOOLS, "env", *told, "sh", "-ec", f"rm -rf $out layout; {script}")


def transfer(source: Path, destination: Path, name: str) -> dict:
    """Copy an image from an archive to another one, and return what became of it."""
    options = {"images": [name], "source": {"archive": str(source)}, "destination": {"archive": str(destination)}}
    result = answer(started("image_transfer", {**options, "tags": {name: NAME}}), 60)
    assert result["failed"] is False, result["msg"]
    (image,) = result["images"]
    return dict(image)


def contents(archive: Path) -> tuple[list[str], dict[str, bytes]]:
    """Return the digests of the layers in an archive, and the files in them."""
    files, digests = {}, []
    with tarfile.open(archive) as members:

        def read(name: str) -> bytes:
            found = members.extractfile(name)
            assert found
            return found.read()

        (listed,) = json.loads(read("manifest.json"))
        for name in listed["Layers"]:
            data = read(name)
            digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
            # umoci leaves out what fills the last block.
            with tarfile.open(fileobj=io.BytesIO(data + bytes(tarfile.RECORDSIZE))) as layer:
                for member in layer:
                    if member.isfile():
                        content = layer.extractfile(member)
                        assert content
                        files[os.path.normpath(member.name).lstrip("/")] = content.read()
    return digests, files


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_builder_writes_is_read(work: Path, tmp_path: Path, writer: str) -> None:
    run(WRITERS[writer], "theirs.tar")
    if not (work / "theirs.tar").exists():
        with tarfile.open(work / "theirs.tar", "w") as archive:
            archive.add(work / "layout", ".")
    transfer(work / "theirs.tar", tmp_path / "read.tar", THERE if writer.startswith(PULLED) else NAME)
    layers, files = contents(tmp_path / "read.tar")
    assert {name: files.get(name) for name in FILES} == FILES
    if writer.startswith(COPIES):
        assert layers == list(SEED.diff_ids)
    assert "ko" not in writer.split() or "ko-app/web" in files


@pytest.mark.parametrize("reader", READERS)
def test_what_is_written_a_tool_reads(work: Path, reader: str) -> None:
    run(READERS[reader], "found")
    if FROM in READERS[reader]:
        run(f"skopeo copy -q --src-tls-verify=false docker://{FROM}:{reader} dir:$out", "found")
    found = {path.name: path.read_bytes() for path in (work / "found").iterdir()}
    if reader == "umoci":
        assert {name: found[name] for name in FILES} == FILES
    else:
        assert found[SEED.id[7:]] == SEED.config


@pytest.mark.parametrize(
    "form", ["docker", "oci", "oci,compression=zstd", "oci,compression=uncompressed", "oci,tar=false"]
)
@pytest.mark.usefixtures("buildkit")
def test_what_buildkit_writes_is_read(tmp_path: Path, form: str) -> None:
    """With an attestation, as BuildKit makes it unless it is told otherwise."""
    out = "/out" if "tar=false" in form else "/out.tar"
    script = f"rm -rf /out*; docker buildx build -q --output type={form},dest={out},name={NAME} /work"
    within(BUILDKIT, "sh", "-ec", f"{script}; [ -e /out.tar ] || tar -C /out -cf /out.tar .")
    docker("cp", f"{BUILDKIT}:/out.tar", str(tmp_path / "theirs.tar"))
    transfer(tmp_path / "theirs.tar", tmp_path / "read.tar", NAME)
    _layers, files = contents(tmp_path / "read.tar")
    assert {name: files.get(name) for name in FILES} == FILES


@pytest.fixture(scope="module")
def buildkit() -> Iterator[None]:
    """A Docker whose builder exports archives."""
    with nested_daemon(BUILDKIT, image=MOBY_IMAGE, **CONTAINERD):
        install = (
            "apt-get -o Acquire::Check-Valid-Until=false update -qq; apt-get install -qq -y docker-buildx >/dev/null"
        )
        within(BUILDKIT, "sh", "-ec", f"{install}; mkdir /work")
        for name in FILES:
            within(BUILDKIT, "python3", "-c", f"open('/work/{name}', 'wb').write(bytes([{name[4:]}]) * 5000)")
        within(BUILDKIT, "tee", "/work/Dockerfile", data="FROM scratch\nCOPY file* /\n")
        yield
