#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_transfer
short_description: Copy images between Docker daemons at any depth of nesting, and archive files
version_added: 0.1.0
description:
  - Copies images from one Docker daemon to others, without a registry.
  - An image that a destination already has is left alone, and not a byte of it is sent. Where the destination's store
    allows it, the lowest layers that it already has are left out. A destination that refuses this is sent all layers,
    once.
  - The archive streams from the source through this module to the destinations. It is never held in memory as a whole,
    and the module writes no temporary file.
  - Layers are read from the source's store, one by one, where it has one of the classic graph drivers (C(overlay2),
    C(btrfs), C(vfs) or C(fuse-overlayfs)) and its files can be read by the user of the module, or by Python 3.7 or
    newer as the user that C(docker exec) has in the innermost hop. Below the directory of a layer no link is followed,
    and nothing but regular files of the recorded sizes is read. Otherwise, as on another machine, behind another
    O(source.socket) than the default one, or where a layer's record leads elsewhere, C(docker save) provides them,
    which writes all of an image into a temporary directory of the source before the first byte is sent.
  - Each layer is compared with its digest, and no destination gets the last bytes of one that differs. A classic store
    and an archive discard what they got of it. Containerd's store removes it after a day, and no image can have it.
  - All images are looked up at all locations before the first byte is sent. After each image the module verifies that
    the destination has the same image. Where ids differ by the kind of store, configuration and layers are compared.
  - When a transfer fails or is killed, each name at the destination leads to the same image as before. The next run
    starts from the beginning. (In containerd's store an image comes as C(nested-kata.invalid/incoming) until it is
    complete.)
  - While it runs, it shows its progress every few seconds.
  - Never contacts a registry.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - All locations are checked for every image, and nothing is sent.
  diff_mode:
    details:
      - Shows the id of each name at the destination before and after, and the names that are removed.
  platform:
    details:
      - The machine that the module runs on must be able to reach all locations.
    platforms: posix
options:
  images:
    description:
      - Names of images as C(docker pull) takes them, V(name), V(name:tag) or V(registry:5000/path/name:tag). A name
        without a tag means V(latest).
      - An image may also be named by its id, V(sha256:...), or by a digest, V(name@sha256:...). It then needs a name in
        O(tags), since an image is loaded under a name.
      - In an archive file an image may have no name, or only a tag. Any name leads to the only image of such an
        archive, and with more than one image any name that has its tag.
    type: list
    elements: str
    required: true
  source:
    description:
      - Location that has the images. The default is the machine's own daemon.
    type: dict
    suboptions: &location
      socket:
        description:
          - Path of the unix socket that the daemon listens on.
          - V(/var/run/docker.sock) when neither this nor another one of these options is given.
        type: path
      context:
        description:
          - Name of a Docker context of the user that the module runs as, on the machine that it runs on, as C(docker
            context ls) shows it. Contexts are in E(DOCKER_CONFIG), by default C(~/.docker).
          - V(default) is the daemon at V(/var/run/docker.sock), even if E(DOCKER_HOST) is set.
          - The daemon may be at a unix socket, at V(ssh://), or at V(tcp://) with TLS. TCP without TLS, or without
            verifying the daemon's certificate, is refused.
          - Over V(ssh://) the module uses C(ssh), with the keys, the known hosts and the settings of its user. It
            cannot ask for passwords, so keys with a password need an agent.
          - It cannot be combined with C(hops), which begin at the machine's own daemon.
        type: str
      hops:
        description:
          - Names of containers, outermost first. The daemon is the one that the Docker client in the innermost
            container uses.
          - The first one is a container of the daemon at V(/var/run/docker.sock) of the machine that the module runs
            on. Environment variables such as E(DOCKER_HOST) and the Docker context in use make no difference.
          - An empty list means the machine's own daemon.
        type: list
        elements: str
      transport:
        description:
          - How archives are sent over the last of the C(hops). Into a virtual machine C(docker exec) is about forty
            times slower than TCP. Requests, which are small, always use C(docker exec).
          - V(tunnel) is a TCP connection to the innermost container. A program of the machine image is started there,
            listens on the container's own address until a connection begins with a one-time token, or for 10 seconds,
            and ends with the module. The module connects to it, from the network of the
            container one level above where there is one. For that it must be root, and that container one of its own
            machine; otherwise the same program connects, started in that container. The module fails where no tunnel is
            possible.
          - V(exec) is C(docker exec -i), which needs nothing but Docker's client.
          - V(auto) is V(tunnel) where a tunnel is possible, and V(exec) otherwise, and where an archive is known to
            have less than 4 MiB. RV(transport) and RV(destinations[].transport) report the choice and its reason.
          - Without C(hops) it has no effect, and with C(socket) and C(context) it is refused.
        type: str
        choices: [auto, exec, tunnel]
        default: auto
      archive:
        description:
          - Path of an archive file instead of a daemon, on the machine that the module runs on.
          - As a source it may be an archive that C(docker load) takes (of C(docker save), podman, crane, ko, kaniko,
            jib, rules_oci, pack or nix for example), or an OCI archive (of buildx, podman, skopeo, umoci or oras for
            example), plain or compressed by C(gzip), C(zstd), C(xz) or C(bzip2). An archive that ends too early or has
            a layer with a wrong digest is refused.
          - Its layers may be compressed by the same. They are sent uncompressed, since not every Docker reads every
            compression, and compared with the digests in the image's configuration. They are uncompressed twice, since
            an archive has the size of a layer before the layer.
          - What is no image (such as a Helm chart, a signature, an SBOM or an attestation), and images that are not
            complete, are passed over, see RV(passed_over). An image whose lowest layers were left out can be sent to
            daemons that have them.
          - As a destination it becomes an archive that C(docker load) and OCI tools can read. With the suffixes C(.gz)
            and C(.tgz) it is compressed by C(gzip), with C(.zst) and C(.tzst) by C(zstd), with C(.xz) and C(.txz) by
            C(xz), with C(.bz2), C(.tbz2) and C(.tbz) by C(bzip2). It holds the images of the task and no others, and is
            replaced as a whole when one of them differs. A file that holds other images, or something else, is refused.
          - A new archive can be read by its owner only, since an image may hold secrets.
        type: path
  destination:
    description:
      - Location that gets the images. The default, without O(destinations), is the machine's own daemon.
    type: dict
    suboptions: *location
  destinations:
    description:
      - Several destinations. The source is read once for all, and each is sent what it lacks, all at the same time.
      - When one fails, whatever the error is, the others go on, and the module fails at the end and reports the result
        of each.
      - A destination that the others wait for is dropped when it took less than 256 KiB a second in a minute of
        waiting.
    type: list
    elements: dict
    suboptions: *location
  tags:
    description:
      - Other names that images get at the destination, by their names in O(images). One name, or a list of names.
      - An image that is listed here gets only these names. To keep its own name too, repeat it here.
      - A destination with a classic store that has the same image under another name only gives it the new name, and
        nothing is sent.
    type: dict
    default: {}
  platform:
    description:
      - Fail unless an image is for this platform, V(os/architecture) or V(os/architecture/variant), for example
        V(linux/arm64). V(linux/arm64/v8) and V(linux/arm64) are the same, as are V(linux/amd64/v1), V(linux/x86_64) and
        V(linux/amd64).
      - From an archive that has an image for several platforms, the image for this platform is taken. Daemons with API
        1.48 or newer (Docker 28) are asked for it.
      - Without it, the image for the destinations' own platform is taken. The module fails and lists the platforms
        where that is not among them, and where a destination is an archive or several have different ones.
    type: str
  prune_other_tags:
    description:
      - When all images of the task are at a destination, remove the other tags of the same repositories there. Images
        that lose their last name are removed too.
      - A tag that a container still needs is kept, with a warning. Not for archives.
    type: bool
    default: false
  timeout:
    description:
      - Abort when a daemon has neither sent nor accepted data for this many seconds.
      - A daemon sends nothing while it prepares the archive of a large image.
    type: int
    default: 600
requirements:
  - Docker SDK for Python, 5.0.3 or newer (package python3-docker of Debian, docker of PyPI), unless all locations are
    archives
  - for C(hops), Docker's command line client, on the machine and in each container on the way
  - for a C(context) with V(ssh://), OpenSSH's client on the machine, and Docker's command line client on the machine
    that it leads to
  - for compressed archives and layers, the command that uncompresses them, C(gzip), C(zstd), C(xz) or C(bzip2)
notes:
  - What daemons say is not trusted. A destination fails when an answer takes longer than 60 seconds or has more than 32
    MiB, all answers of a task take longer than an hour, or a whole image is not complete after an hour. Whoever gives
    or takes less than 16 KiB of images a second in 10 minutes of waiting, or in O(timeout) where that is longer, fails
    too.
  - Nor are archive files. Memory stays the same whatever is in them, and a compressed layer may be uncompressed to 16
    GiB, or to 1100 times its size where that is more.
  - The variable C(nested_kata_progress_seconds) sets how often progress is shown, 5 by default; 0 shows none.
author:
  - The nested.kata founders (@nested-kata)
seealso:
  - module: community.docker.docker_image_export
  - module: community.docker.docker_image_load
"""

EXAMPLES = r"""
- name: Bring an image into the instance kata
  nested.kata.image_transfer:
    images:
      - debian:trixie-slim
    destination:
      hops: [kata-in-docker, kata]

- name: Bring images built in one instance into two others, under the names used there
  nested.kata.image_transfer:
    images:
      - shop/web:build
      - shop/worker:42
    tags:
      shop/web:build: [shop/web:42, shop/web:latest]
    source:
      hops: [kata-in-docker, build]
    destinations:
      - hops: [kata-in-docker, production]
      - hops: [kata-in-docker, staging]

- name: Bring an image built here to the machine of the Docker context production
  nested.kata.image_transfer:
    images: [shop/web:42]
    destination:
      context: production

- name: Keep the images in a file
  nested.kata.image_transfer:
    images: [shop/web:42, shop/worker:42]
    destination:
      archive: /srv/images/shop-42.tar.zst

- name: Load one of them where there is no network, and remove the versions before
  nested.kata.image_transfer:
    images: [shop/web:42]
    source:
      archive: /media/stick/shop-42.tar.zst
    destination:
      socket: /run/nested-kata/kata/docker.sock
    prune_other_tags: true
"""

RETURN = r"""
images:
  description:
    - What happened to each image, in the order of O(images), at one destination after the other.
    - When a destination fails, the images that were completed there until then.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name with its tag, at the source.
      type: str
      sample: debian:trixie-slim
    destination:
      description: Where it is now, as hops, path of a socket, name of a context or path of an archive.
      type: str
      sample: kata-in-docker > kata
    names:
      description: Its names there.
      type: list
      elements: str
      sample: [debian:trixie-slim]
    id:
      description: Id of the image at the destination. In check mode its id at the source.
      type: str
      sample: sha256:7f8ff97938a4e2f2a4e5fd1b9a6bd1cd1fbb1c8eb9c8cd2b3b9e77b2c0fb9d11
    changed:
      description: Whether the image was sent or named, or would be in check mode.
      type: bool
    bytes_sent:
      description: Bytes of the archive that was sent to the destination. For a compressed file they are counted before
        compression.
      type: int
      sample: 1085440
    layers_sent:
      description: Number of layers in that archive.
      type: int
      sample: 1
    layers_skipped:
      description: Number of layers left out.
      type: int
      sample: 4
    seconds:
      description: How long the transfer took.
      type: float
      sample: 0.41
    reason:
      description: Why the image was sent or left alone, what was left out, and how it was read.
      type: str
      sample: >-
        the destination has another image of this name (0d84cac79282): 4 of 5 layers left out, since the destination has
        them; read from its store
destinations:
  description: The result of each destination.
  returned: always
  type: list
  elements: dict
  contains:
    destination:
      description: As in RV(images[].destination).
      type: str
      sample: kata-in-docker > kata
    failed:
      description: Whether something went wrong there.
      type: bool
    changed:
      description: Whether anything was changed there.
      type: bool
    bytes_sent:
      description: Bytes sent there for all images together.
      type: int
      sample: 1085440
    pruned:
      description: The tags that were removed because of O(prune_other_tags), or would be.
      type: list
      elements: str
      sample: [shop/web:41]
    transport:
      description: The transport of archives to this daemon, and its reason.
      returned: when it is a daemon and was reached
      type: dict
      sample: {name: tunnel, reason: "TCP to port 40123 of 172.18.0.2, the address of kata"}
    msg:
      description: What was done there, or what failed, in one line.
      type: str
      sample: "kata-in-docker > kata: sent 1 image (1.1 MB in 0.4 s), 0 were there"
passed_over:
  description:
    - What an archive file has beside the images of the task that is no image, or no complete one, and why. Shown with
      C(-v).
    - The first 20.
  returned: when the source is an archive file that has such
  type: list
  elements: str
  sample:
    - "shop/chart:1: it is a Helm chart (application/vnd.cncf.helm.config.v1+json)"
    - "shop/web:42: it is an attestation"
bytes_sent:
  description: Bytes sent for all images and destinations together.
  returned: always
  type: int
  sample: 1085440
transport:
  description: The transport of archives from the source, and its reason. For destinations, see
    RV(destinations[].transport).
  returned: when the source is a daemon and was reached
  type: dict
  sample: {name: socket, reason: a unix socket of this machine leads to it}
msg:
  description: What was done, or what failed, in one line.
  returned: always
  type: str
  sample: "kata-in-docker > kata: sent 1 image (1.1 MB in 0.4 s), 1 was there"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._image.copy import carry_out
from ansible_collections.nested.kata.plugins.module_utils._image.options import parse
from ansible_collections.nested.kata.plugins.module_utils._image.result import result_of

LOCATION = {
    "socket": {"type": "path"},
    "context": {"type": "str"},
    "hops": {"type": "list", "elements": "str"},
    "transport": {"type": "str", "choices": ["auto", "exec", "tunnel"], "default": "auto"},
    "archive": {"type": "path"},
}
EITHER = [("socket", "context", "hops", "archive")]
OPTIONS = {
    "images": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "dict", "options": LOCATION, "mutually_exclusive": EITHER},
    "destination": {"type": "dict", "options": LOCATION, "mutually_exclusive": EITHER},
    "destinations": {"type": "list", "elements": "dict", "options": LOCATION, "mutually_exclusive": EITHER},
    "tags": {"type": "dict", "default": {}},
    "platform": {"type": "str"},
    "prune_other_tags": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 600},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=OPTIONS, mutually_exclusive=[("destination", "destinations")], supports_check_mode=True
    )
    nothing = result_of([], module.check_mode)
    finish(
        module, lambda: carry_out(parse(module.params), module.check_mode, module.warn), path="the transfer", **nothing
    )


if __name__ == "__main__":
    main()
