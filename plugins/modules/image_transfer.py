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
  - Makes the images of one Docker daemon known to others, without a registry.
  - An image that a destination has already is left alone, and not a byte of it is sent. Where the destination's store
    allows it, the lowest layers that it has already are left out. One that refuses this is sent everything, once.
  - The archive streams from the source through this module to the destinations. It is never held in memory as a whole,
    and the module writes no temporary file.
  - Layers are read from the source's store, one by one, where it has one of the classic graph drivers (C(overlay2),
    C(btrfs), C(vfs) or C(fuse-overlayfs)) and its files can be read by the user of the module, or by the one who
    C(docker exec) gives in the innermost hop. Each of them is compared with its digest. Otherwise, as on another
    machine, C(docker save) gives them, which writes all of an image into a temporary directory of the source before the
    first byte is sent.
  - All images are looked up at all locations before the first byte is sent. After each the destination is asked whether
    it now has the same image. Where ids differ by the kind of store, configuration and layers are compared.
  - When a transfer fails or is killed, the destination has what it had under each name before. The next run starts from
    the beginning. (In containerd's store an image comes as C(nested-kata.invalid/incoming) until it is complete.)
  - While it runs, a person who watches sees every few seconds how far it is.
  - Never contacts a registry.
extends_documentation_fragment:
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - All locations are asked about every image, and nothing is sent.
  diff_mode:
    details:
      - Shows the id that each name has at the destination, before and after, and names that are removed.
  platform:
    details:
      - The machine that the module runs on must be able to reach all locations.
    platforms: posix
options:
  images:
    description:
      - Names of images as C(docker pull) takes them, V(name), V(name:tag) or V(registry:5000/path/name:tag).
        A name without a tag means V(latest).
      - Ids and digests are refused. An image is loaded under a name, and one without a name would be lost there.
    type: list
    elements: str
    required: true
  source:
    description:
      - What has the images. Without it, the machine's own daemon.
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
            context ls) shows it. E(DOCKER_CONFIG) says where contexts are, if not in C(~/.docker).
          - V(default) is the daemon at V(/var/run/docker.sock), whatever E(DOCKER_HOST) says.
          - The daemon may be at a unix socket, at V(ssh://), or at V(tcp://) with TLS. TCP without TLS, or without
            verifying the daemon's certificate, is refused.
          - Over V(ssh://) the module uses C(ssh), with the keys, the known machines and the settings of its user.
            Nobody can answer a question there, so keys with a password need an agent.
          - It cannot be combined with C(hops), which begin at the machine's own daemon.
        type: str
      hops:
        description:
          - Names of containers, outermost first. The daemon is the one that the Docker client in the innermost
            container speaks to.
          - The first one is a container of the daemon at V(/var/run/docker.sock) of the machine that the module runs
            on. Environment variables such as E(DOCKER_HOST) and the Docker context in use make no difference.
          - An empty list is the machine's own daemon.
        type: list
        elements: str
      transport:
        description:
          - How archives get over the last of the C(hops). Into a virtual machine C(docker exec) is slow, some forty
            times slower than TCP. Questions, which are few bytes, always go by C(docker exec).
          - V(tunnel) is a TCP connection to the innermost container. A program of the machine image is started there,
            listens on the container's own address for one connection that begins with a one-time token, and ends with
            it, or after 10 seconds without it. The container one level above dials, and needs the same program; where
            there is none above, the module does. The module fails where there can be no tunnel.
          - V(exec) is C(docker exec -i), which needs nothing but Docker's client.
          - V(auto) is V(tunnel) where there can be one, and V(exec) otherwise, and where an archive is known to have
            less than 4 MiB. RV(transport) and RV(destinations[].transport) say which it was, and why.
          - Without C(hops) there is nothing to choose, and with C(socket) and C(context) it is refused.
        type: str
        choices: [auto, exec, tunnel]
        default: auto
      archive:
        description:
          - Path of an archive file instead of a daemon, on the machine that the module runs on.
          - As a source it may be what C(docker save) wrote, or an OCI archive (of podman, skopeo or buildx for
            example), plain or compressed by C(gzip) or C(zstd). One that ends too early or has a layer with a wrong
            digest is refused.
          - As a destination it becomes one that C(docker load) and the tools of OCI read. The suffixes C(.gz) and
            C(.tgz) have it compressed by C(gzip), C(.zst) and C(.tzst) by C(zstd). It holds the images of the task and
            no others, and is replaced as a whole when one of them differs. A file that holds other images, or something
            else, is refused.
          - A new one can be read by its owner only, since an image may hold secrets.
        type: path
  destination:
    description:
      - What is to have the images. Without it and O(destinations), the machine's own daemon.
    type: dict
    suboptions: *location
  destinations:
    description:
      - Several of them. The source is read once for all, and they are sent at the same time, each what it lacks.
      - When one fails, the others go on, and the module fails at the end and says for each what happened. One that
        takes nothing holds up the others until O(timeout).
    type: list
    elements: dict
    suboptions: *location
  tags:
    description:
      - Other names that images get at the destination, by their names in O(images). One name, or a list of names.
      - An image that is named here gets these names only. To keep its own, too, repeat it here.
      - A destination with a classic store that has the same image under another name is asked to name it, and nothing
        is sent.
    type: dict
    default: {}
  platform:
    description:
      - Fail unless an image is for this platform, V(os/architecture) or V(os/architecture/variant), for example
        V(linux/arm64).
      - Of an archive that has an image for several platforms this one is taken. Daemons with API 1.48 or newer (Docker
        28) are asked for this one.
    type: str
  prune_other_tags:
    description:
      - When all images of the task are at a destination, remove the other tags of the same repositories there. Images
        that lose their last name by it are removed, too.
      - A tag that a container still needs is kept, with a warning. Not for archives.
    type: bool
    default: false
  timeout:
    description:
      - Seconds without a byte from a daemon, or without one that it takes, after which a transfer is given up.
      - A daemon says nothing while it prepares the archive of a large image.
    type: int
    default: 600
requirements:
  - Docker SDK for Python, 5.0.3 or newer (package python3-docker of Debian, docker of PyPI), unless all locations are
    archives
  - for C(hops), Docker's command line client, on the machine and in each container on the way
  - for a C(context) with V(ssh://), OpenSSH's client on the machine, and Docker's command line client on the one that
    it leads to
  - for compressed archives, C(gzip) or C(zstd)
notes:
  - How often progress is shown is up to the variable C(nested_kata_progress_seconds), 5 by default; 0 shows none.
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

- name: Bring what was built in one instance into two others, under the name that is used there
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

- name: Bring an image that was built here to the machine that the Docker context production leads to
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
    - When a destination fails, those that were done there until then.
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
      description: Id of the image at the destination. In check mode the one at the source.
      type: str
      sample: sha256:7f8ff97938a4e2f2a4e5fd1b9a6bd1cd1fbb1c8eb9c8cd2b3b9e77b2c0fb9d11
    changed:
      description: Whether the image was sent or named, or would be in check mode.
      type: bool
    bytes_sent:
      description: Bytes of the archive that the destination was sent. Those of a compressed file are counted before it
        is compressed.
      type: int
      sample: 1085440
    layers_sent:
      description: How many layers were in it.
      type: int
      sample: 1
    layers_skipped:
      description: How many layers were not.
      type: int
      sample: 4
    seconds:
      description: How long that took.
      type: float
      sample: 0.41
    reason:
      description: Why the image was sent or left alone, what was left out, and how it was read.
      type: str
      sample: >-
        the destination has another image of this name (0d84cac79282): 4 of 5 layers left out, since the destination has
        them; read from its store
destinations:
  description: How each destination fared.
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
      description: Which way archives took to this daemon, and why.
      returned: when it is a daemon and was reached
      type: dict
      sample: {name: tunnel, reason: "TCP to port 40123 of 172.18.0.2, the address of kata"}
    msg:
      description: What was done there, or what was wrong, in one line.
      type: str
      sample: "kata-in-docker > kata: sent 1 image (1.1 MB in 0.4 s), 0 were there"
bytes_sent:
  description: Bytes sent for all images and destinations together.
  returned: always
  type: int
  sample: 1085440
transport:
  description: Which way archives took from the source, and why. Of a destination, see RV(destinations[].transport).
  returned: when the source is a daemon and was reached
  type: dict
  sample: {name: socket, reason: a unix socket of this machine leads to it}
msg:
  description: What was done, or what was wrong, in one line.
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
