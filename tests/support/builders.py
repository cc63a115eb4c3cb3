# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images by hand, each in the form that a builder or a tool writes."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Sequence

from hostile_tars import Entry, directory, file, symlink, tar
from image_builder import Made, digest

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
EMPTY_CONFIG = ("application/vnd.oci.empty.v1+json", b"{}")


def by_command(*command: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(command, input=data, capture_output=True, check=True).stdout


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": by_command("zstd", "-q", "-c"),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
PRETTY = functools.partial(json.dumps, indent=2)
COMPACT = functools.partial(json.dumps, separators=(",", ":"))


def hexadecimal(data: bytes) -> str:
    return digest(data)[7:]


def config_of(image: Made, **fields: object) -> Made:
    """Return an image with other fields in its configuration."""
    return Made(json.dumps({**json.loads(image.config), **fields}).encode(), image.layers)


# Docker's list of images


def listing(*images: tuple[str, Sequence[str] | None, Sequence[str] | None], dumps: Callable = COMPACT) -> bytes:
    """Return a manifest.json: of configuration, names and layers of each image."""
    return dumps([{"Config": config, "RepoTags": names, "Layers": layers} for config, names, layers in images]).encode()


def crane(image: Made, *names: str, kind: str = "gzip") -> bytes:
    """As go-containerregistry writes it, for crane, ko, kaniko and minikube: what was asked for by a digest has no
    names.
    """
    blobs = {f"{hexadecimal(blob)}.tar.gz": blob for blob in map(COMPRESS[kind], image.layers)}
    layers = [f"{hexadecimal(COMPRESS[kind](one))}.tar.gz" for one in image.layers]
    return tar(
        file(image.id, image.config),
        *(file(name, blob) for name, blob in blobs.items()),
        file("manifest.json", listing((image.id, names or None, layers))),
    )


def jib(image: Made, *names: str) -> bytes:
    """A layer that comes again is written again."""
    blobs = [COMPRESS["gzip"](one) for one in image.layers]
    layers = [f"{hexadecimal(blob)}.tar.gz" for blob in blobs]
    return tar(
        *(file(name, blob) for name, blob in zip(layers, blobs)),
        file("config.json", image.config),
        file("manifest.json", listing(("config.json", names, layers))),
    )


def rules_oci(image: Made, *names: str) -> bytes:
    """The list comes first, a file of names that ends with a new line makes one more name, and tar adds directories."""
    blobs = [COMPRESS["gzip"](one) for one in image.layers]
    layers = [f"blobs/sha256/{hexadecimal(blob)}.tar.gz" for blob in blobs]
    config = f"blobs/sha256/{image.id[7:]}"
    return tar(
        file("manifest.json", listing((config, [*names, ""], layers), dumps=PRETTY) + b"\n"),
        directory("blobs/"),
        directory("blobs/sha256/"),
        file(config, image.config),
        *(file(name, blob) for name, blob in dict(zip(layers, blobs)).items()),
    )


def skopeo(image: Made, *names: str, kind: str = "") -> bytes:
    """As containers/image writes it, for skopeo, podman and buildah: beside each layer the directory of a format before
    this one. Releases before it uncompressed them wrote layers as they came.
    """
    entries: list[Entry] = []
    for number, one in enumerate(dict.fromkeys(image.layers)):
        blob = COMPRESS[kind](one)
        legacy = f"{number}" * 64
        entries += [
            file(f"{hexadecimal(one)}.tar", blob),
            symlink(f"{legacy}/layer.tar", f"../{hexadecimal(one)}.tar"),
            file(f"{legacy}/VERSION", b"1.0"),
            file(f"{legacy}/json", COMPACT({"id": legacy}).encode()),
        ]
    layers = [f"{one[7:]}.tar" for one in image.diff_ids]
    return tar(
        *entries,
        file(f"{image.id[7:]}.json", image.config),
        file("manifest.json", listing((f"{image.id[7:]}.json", names, layers))),
        file("repositories", b"{}"),
    )


def pack(image: Made, *names: str, base: int, blank: bool = False) -> bytes:
    """The lowest layers are left out, for a daemon that has them: as names that are empty, or as empty files."""
    entries: list[Entry] = [file(f"{image.id[7:]}.json", image.config)]
    layers = []
    for number, one in enumerate(image.layers):
        name = f"/{digest(one)}.tar" if number >= base else f"blank_{number}" if blank else ""
        if name:
            entries.append(file(name, one if number >= base else b"", mode=0o644))
        layers.append(name)
    return tar(*entries, file("manifest.json", listing((f"{image.id[7:]}.json", names, layers))))


def nix(image: Made, *names: str) -> bytes:
    """As dockerTools.streamLayeredImage writes it, by Python's tarfile."""
    config = json.dumps({**json.loads(image.config), "created": "1970-01-01T00:00:01+00:00"}, indent=4).encode()
    layers = [f"{one[7:]}/layer.tar" for one in image.diff_ids]
    return tar(
        *(file(name, one, mtime=1) for name, one in zip(layers, image.layers)),
        file(f"{hexadecimal(config)}.json", config, mtime=1),
        file("manifest.json", listing((f"{hexadecimal(config)}.json", names, layers), dumps=PRETTY), mtime=1),
        tar_format=tarfile.PAX_FORMAT,
    )


def nix_build(image: Made, *names: str) -> bytes:
    """As dockerTools.buildImage writes it, by shell scripts: directories that no layer's digest names, jq's JSON, and
    all of it compressed.
    """
    entries: list[Entry] = [directory("./")]
    layers = []
    for one in image.layers:
        name = hexadecimal(b"json of " + one)
        entries += [
            directory(f"./{name}/"),
            file(f"./{name}/VERSION", b"1.0"),
            file(f"./{name}/json", PRETTY({"id": name}).encode() + b"\n"),
            file(f"./{name}/layer.tar", one),
        ]
        layers.append(f"{name}/layer.tar")
    config = b"\n" + image.config + b"\n"
    return gzip.compress(
        tar(
            *entries,
            file(f"./{hexadecimal(config)}.json", config),
            file(
                "./manifest.json",
                b"\n" + listing((f"{hexadecimal(config)}.json", names, layers), dumps=PRETTY) + b"\n",
            ),
        ),
        mtime=0,
    )


# OCI's index


class Layout:
    """A layout of OCI, to be written as an archive."""

    def __init__(self, dumps: Callable = COMPACT) -> None:
        self._dumps = dumps
        self._blobs: dict[str, bytes] = {}

    def blob(self, data: bytes) -> dict:
        """Add a blob, and return the part of its descriptor that says which."""
        self._blobs[f"blobs/sha256/{hexadecimal(data)}"] = data
        return {"digest": digest(data), "size": len(data)}

    def document(self, kind: str, data: dict) -> dict:
        """Add a document, and return its descriptor."""
        return {
            "mediaType": kind,
            **self.blob(self._dumps({"schemaVersion": 2, "mediaType": kind, **data}).encode()),
        }

    def image(self, image: Made, kind: str = "gzip", docker: bool = False, **more: object) -> dict:
        """Add an image, and return the descriptor of its manifest."""
        layer = f"{DOCKER}.image.rootfs.diff.tar" if docker else f"{OCI}.layer.v1.tar"
        suffix = f"{'.' if docker else '+'}{kind}" if kind else ""
        return self.document(
            f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json",
            {
                "config": {
                    "mediaType": f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json",
                    **self.blob(image.config),
                },
                "layers": [{"mediaType": f"{layer}{suffix}", **self.blob(COMPRESS[kind](one))} for one in image.layers],
                **more,
            },
        )

    def artifact(self, config: tuple[str, bytes], *layers: tuple[str, bytes], **more: object) -> dict:
        """Add something else than an image, and return the descriptor of its manifest."""
        return self.document(
            f"{OCI}.manifest.v1+json",
            {
                "config": {"mediaType": config[0], **self.blob(config[1])},
                "layers": [{"mediaType": kind, **self.blob(data)} for kind, data in layers],
                **more,
            },
        )

    def index(self, *manifests: dict, docker: bool = False) -> dict:
        """Add an index, and return its descriptor."""
        kind = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
        return self.document(kind, {"manifests": list(manifests)})

    def archive(self, *manifests: dict, docker: bytes = b"", below: str = "", more: Sequence[Entry] = ()) -> bytes:
        """Return the archive, with Docker's list where it is given."""
        index = self._dumps({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": list(manifests)})
        files = {**self._blobs, "index.json": index.encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        if docker:
            files["manifest.json"] = docker
        return tar(*more, *(file(below + name, data) for name, data in files.items()))


def called(descriptor: dict, name: str = "", ref_name: str = "", **more: object) -> dict:
    """Return the descriptor with names."""
    annotations = {NAME: name, REF_NAME: ref_name}
    return {**descriptor, "annotations": {key: text for key, text in annotations.items() if text}, **more}


def for_platform(descriptor: dict, architecture: str, variant: str = "", system: str = "linux") -> dict:
    platform = {"architecture": architecture, "os": system, **({"variant": variant} if variant else {})}
    return {**descriptor, "platform": platform}


def umoci(image: Made, tag: str, kind: str = "gzip") -> bytes:
    """A directory that tar was given with its dot: of umoci, or skopeo's oci: and oci-archive:."""
    layout = Layout()
    return layout.archive(
        called(layout.image(image, kind), ref_name=tag),
        below="./",
        more=[directory("./"), directory("./blobs/"), directory("./blobs/sha256/")],
    )


def podman_oci(image: Made, name: str, kind: str = "gzip") -> bytes:
    layout = Layout()
    return layout.archive(called(layout.image(image, kind), ref_name=name))


def attestation(layout: Layout, image: dict) -> dict:
    """Add what buildx says about an image, and return its descriptor."""
    statement = COMPACT({"_type": "https://in-toto.io/Statement/v0.1", "predicate": {"config": {}}}).encode()
    config = COMPACT(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(statement)]},
        }
    ).encode()
    described = layout.artifact((f"{OCI}.config.v1+json", config), ("application/vnd.in-toto+json", statement))
    annotations = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    return {**for_platform(described, "unknown", system="unknown"), "annotations": annotations}


def buildx(*images: tuple[Made, str], name: str, ref_name: str, kind: str = "gzip") -> bytes:
    """`buildx build --output type=oci` for several platforms, each with an attestation."""
    layout = Layout(PRETTY)
    entries = [for_platform(layout.image(image, kind), architecture) for image, architecture in images]
    entries += [attestation(layout, entry) for entry in list(entries)]
    return layout.archive(called(layout.index(*entries), name, ref_name))


def buildkit_docker(image: Made, name: str, ref_name: str, kind: str = "gzip") -> bytes:
    """`--output type=docker`, as containerd exports it: both lists, and layers as they are."""
    layout = Layout()
    descriptor = called(layout.image(image, kind, docker=True), f"docker.io/library/{name}", ref_name)
    layers = [f"blobs/sha256/{hexadecimal(COMPRESS[kind](one))}" for one in image.layers]
    return layout.archive(descriptor, docker=listing((f"blobs/sha256/{image.id[7:]}", [name], layers)))


def docker_save(here: tuple[Made, str], name: str, *others: tuple[Made, str]) -> bytes:
    """`docker save` of a daemon with containerd's store: of an index it has what was pulled, and not the others."""
    layout, away = Layout(), Layout()
    image = for_platform(layout.image(here[0]), here[1])
    index = layout.index(
        image,
        *(for_platform(away.image(other), architecture) for other, architecture in others),
        attestation(away, image),
    )
    layers = [f"blobs/sha256/{hexadecimal(COMPRESS['gzip'](one))}" for one in here[0].layers]
    return layout.archive(
        called(index, f"docker.io/library/{name}", name.rpartition(":")[2]),
        docker=listing((f"blobs/sha256/{here[0].id[7:]}", [name], layers)),
    )


def regctl(image: Made, name: str, *referrers: Callable[[Layout], dict]) -> bytes:
    """`regctl image export --referrers`: both lists, layers as they are, and what refers to the image."""
    layout = Layout()
    descriptor = called(layout.image(image), name, name.rpartition(":")[2])
    layers = [f"blobs/sha256/{hexadecimal(COMPRESS['gzip'](one))}" for one in image.layers]
    return layout.archive(
        descriptor,
        *(referrer(layout) for referrer in referrers),
        docker=listing((f"blobs/sha256/{image.id[7:]}", [name], layers)),
    )


# What such an index has beside images.
ARTIFACTS: dict[str, tuple[Callable[[Layout], dict], str]] = {
    "an SBOM of oras": (
        lambda layout: layout.artifact(
            EMPTY_CONFIG, ("application/spdx+json", b'{"spdxVersion":"SPDX-2.3"}'), artifactType="application/spdx+json"
        ),
        "it is an SBOM (application/spdx+json)",
    ),
    "an SBOM of syft, with the configuration of an image": (
        lambda layout: layout.artifact(
            (f"{OCI}.config.v1+json", b"{}"), ("application/vnd.syft+json", b'{"artifacts":[]}')
        ),
        "it is an SBOM (application/vnd.syft+json)",
    ),
    "a signature of cosign": (
        lambda layout: layout.artifact(
            (
                f"{OCI}.config.v1+json",
                b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:' + b"0" * 64 + b'"]}}',
            ),
            ("application/vnd.dev.cosign.simplesigning.v1+json", b'{"critical":{}}'),
        ),
        "it is a signature (application/vnd.dev.cosign.simplesigning.v1+json)",
    ),
    "a bundle of cosign": (
        lambda layout: layout.artifact(
            EMPTY_CONFIG,
            ("application/vnd.dev.sigstore.bundle.v0.3+json", b"{}"),
            artifactType="application/vnd.dev.sigstore.bundle.v0.3+json",
        ),
        "it is a signature (application/vnd.dev.sigstore.bundle.v0.3+json)",
    ),
    "an attestation of cosign": (
        lambda layout: layout.artifact(
            (f"{OCI}.config.v1+json", b'{"rootfs":{}}'), ("application/vnd.dsse.envelope.v1+json", b'{"payload":""}')
        ),
        "it is an attestation (application/vnd.dsse.envelope.v1+json)",
    ),
    "a Helm chart": (
        lambda layout: layout.artifact(
            ("application/vnd.cncf.helm.config.v1+json", b'{"name":"shop","version":"0.1.0"}'),
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", gzip.compress(b"chart", mtime=0)),
        ),
        "it is a Helm chart (application/vnd.cncf.helm.config.v1+json",
    ),
    "an empty configuration": (
        lambda layout: layout.artifact(EMPTY_CONFIG, (f"{OCI}.layer.v1.tar", b"tar")),
        "it is not an image (application/vnd.oci.empty.v1+json)",
    ),
    "a type of artifact beside an image's configuration": (
        lambda layout: layout.artifact(
            (f"{OCI}.config.v1+json", b"{}"), (f"{OCI}.layer.v1.tar", b"tar"), artifactType="application/vnd.x.y"
        ),
        "it is not an image (application/vnd.x.y)",
    ),
    "a plugin of Docker": (
        lambda layout: layout.artifact(
            ("application/vnd.docker.plugin.v1+json", b"{}"), (f"{DOCKER}.image.rootfs.diff.tar.gzip", b"tar")
        ),
        "it is a Docker plugin (application/vnd.docker.plugin.v1+json)",
    ),
    "a WebAssembly module": (
        lambda layout: layout.artifact(
            ("application/vnd.wasm.config.v0+json", b"{}"), ("application/wasm", b"\0asm\1\0\0\0")
        ),
        "it is a WebAssembly module (application/vnd.wasm.config.v0+json, application/wasm)",
    ),
    "a model": (
        lambda layout: layout.artifact(
            ("application/vnd.docker.ai.model.config.v0.1+json", b"{}"),
            ("application/vnd.docker.ai.gguf.v3", b"GGUF"),
        ),
        "it is a model (application/vnd.docker.ai.model.config.v0.1+json, application/vnd.docker.ai.gguf.v3)",
    ),
    "layers of squashfs": (
        lambda layout: layout.artifact(
            (f"{OCI}.config.v1+json", b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'"]}}'),
            ("application/vnd.stacker.image.layer.squashfs", b"hsqs"),
        ),
        "it is not an image (application/vnd.stacker.image.layer.squashfs)",
    ),
    "a manifest of the first schema": (
        lambda layout: layout.document(
            f"{DOCKER}.distribution.manifest.v1+prettyjws", {"schemaVersion": 1, "fsLayers": []}
        ),
        "it is not an image (application/vnd.docker.distribution.manifest.v1+prettyjws)",
    ),
    "a blob": (
        lambda layout: {"mediaType": "application/zip", **layout.blob(b"PK\3\4\0")},
        "it is not an image (application/zip)",
    ),
    "a document": (
        lambda layout: {"mediaType": "application/spdx+json", **layout.blob(b'[{"spdxVersion":"SPDX-2.3"}]')},
        "it is an SBOM (application/spdx+json)",
    ),
    "a document that is no JSON": (
        lambda layout: {"mediaType": "application/json5", **layout.blob(b"{spdxVersion: 'SPDX-2.3'}")},
        "in it is not valid JSON",
    ),
    "an attestation of buildx": (
        lambda layout: attestation(layout, {"digest": "sha256:0"}),
        "it is an attestation",
    ),
    "nothing, since its manifest is not there": (
        lambda layout: {"mediaType": f"{OCI}.manifest.v1+json", "digest": f"sha256:{'0' * 64}", "size": 1},
        f"its manifest blobs/sha256/{'0' * 64} is missing in it",
    ),
    "a manifest that is named by another digest": (
        lambda layout: {"mediaType": f"{OCI}.manifest.v1+json", "digest": f"sha512:{'0' * 128}", "size": 1},
        "is a sha512 digest: only sha256 is supported",
    ),
}
