#!/usr/bin/python
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: download
short_description: Get a large file from the first mirror that gives it, verified before it gets its name
version_added: 0.1.0
description:
  - Downloads a file into C(PATH.part), verifies checksum and signature there, and only then gives it its name. So the
    file at O(path) is the old one or the right one, whatever happens.
  - A download that was interrupted is resumed where it ended, also from another mirror.
  - A file that is there with the right checksum is left alone, and no request is sent.
  - While it runs, its progress is shown every few seconds.
extends_documentation_fragment:
  - ansible.builtin.files
  - nested.kata.attributes
attributes:
  check_mode:
    details:
      - Sends only a request for a O(signature) that is a URL, where there is no O(checksum).
  diff_mode:
    details:
      - Shows the checksum before and after. That of a download without O(checksum) is not known in check mode.
  platform:
    platforms: posix
options:
  urls:
    description:
      - URLs of the file, best first. C(http), C(https) and C(file).
      - When one fails, or serves another file than the wanted one, the next is tried. The certificates of C(https) are
        always checked.
      - Proxies are taken from the environment, as M(ansible.builtin.get_url) does.
    type: list
    elements: str
    required: true
  path:
    description:
      - The file, with its name. Its directory must exist. Where it is a link, its target is written.
    type: path
    required: true
    aliases: [dest]
  checksum:
    description:
      - Checksum of the wanted content, V(sha256:HEX) or V(sha512:HEX).
      - Required, unless O(signature) is given. With both, a new file must satisfy both. An existing file is verified by
        the checksum alone.
    type: str
  signature:
    description:
      - URLs of a detached PGP signature, best first, or files with one on the target. The first that gives a signature
        by one of the keys is taken.
      - Without O(checksum) it is fetched at every run, and the existing file is verified with it.
    type: list
    elements: str
    default: []
  keyring:
    description:
      - File on the target with the public keys whose signatures are good, binary or armored. Required with
        O(signature).
      - Whoever has one of these keys can sign, so give no more of them than needed. Expired and revoked keys are
        refused.
    type: path
  signed:
    description:
      - The signed data, either the file as it is (V(file)), or its uncompressed content (V(uncompressed)), as
        kernel.org signs its C(.tar.xz) files. xz, gzip and bzip2 are supported. The uncompressed data are never stored.
    type: str
    choices: [file, uncompressed]
    default: file
  timeout:
    description:
      - Give up on a server that has sent nothing for this many seconds.
    type: int
    default: 30
  retries:
    description:
      - How many times all O(urls) are tried again when none of them serves more of the file. URLs with a final answer,
        such as 404, are not tried again.
    type: int
    default: 2
requirements:
  - C(gpgv) (Debian package gpgv), with O(signature)
notes:
  - The variable C(nested_kata_progress_seconds) sets how often progress is shown, 5 by default; 0 shows none.
seealso:
  - module: ansible.builtin.get_url
author:
  - The nested.kata founders (@nested-kata)
"""

EXAMPLES = r"""
- name: Get a kernel's source from kernel.org, and make sure that it is what its maintainers signed
  nested.kata.download:
    urls:
      - https://mirrors.edge.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz
      - https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz
    path: /var/cache/nested-kata/linux-6.12.tar.xz
    checksum: sha256:b1a2562be56e42afb3f8489d4c2a7ac472ac23098f1ef1c1e40da601f54625eb
    signature:
      - https://mirrors.edge.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.sign
      - https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.sign
    keyring: /etc/nested-kata/kernel.org.asc
    signed: uncompressed

- name: Get a release by its checksum
  nested.kata.download:
    urls: ["https://mirror.example.org/kata-static-4.1.0-amd64.tar.zst"]
    path: /var/lib/nested-kata/kata-static-4.1.0-amd64.tar.zst
    checksum: sha256:3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96
    mode: "0644"
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /var/cache/nested-kata/linux-6.12.tar.xz
url:
  description: The URL that the last byte of the file came from, V(null) where nothing was downloaded.
  returned: success
  type: str
  sample: https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz
checksum:
  description:
    - Checksum of the file, by the algorithm of O(checksum), or else SHA-256.
    - V(null) in check mode where the file does not exist and O(checksum) is not set.
  returned: success
  type: str
  sample: sha256:b1a2562be56e42afb3f8489d4c2a7ac472ac23098f1ef1c1e40da601f54625eb
size:
  description: Bytes of the file, V(null) in check mode where it does not exist.
  returned: success
  type: int
  sample: 147906904
bytes_received:
  description: Bytes of the file that were received in this run.
  returned: success
  type: int
  sample: 147906904
resumed_from:
  description: Bytes that an interrupted run had left and that were kept.
  returned: success
  type: int
  sample: 0
signed_by:
  description: Fingerprint of the key that signed the file. V(null) where no signature was verified.
  returned: success
  type: str
  sample: 647F28654894E3BD457199BE38DBBDC86092693E
steps:
  description: The steps that were done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["get /tmp/linux-6.12.tar.xz from https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz"]
diff:
  description: The checksum before and after.
  returned: success
  type: dict
msg:
  description: The reason, in one line.
  returned: always
  type: str
  sample: there is no /var/cache/nested-kata/linux-6.12.tar.xz yet
"""

import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nested.kata.plugins.module_utils._common.main import finish
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._download.machine import apply
from ansible_collections.nested.kata.plugins.module_utils._download.options import parse
from ansible_collections.nested.kata.plugins.module_utils._download.result import result_of


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "path": {"type": "path", "required": True, "aliases": ["dest"]},
            "checksum": {"type": "str"},
            "signature": {"type": "list", "elements": "str", "default": []},
            "keyring": {"type": "path", "no_log": False},
            "signed": {"type": "str", "choices": ["file", "uncompressed"], "default": "file"},
            "timeout": {"type": "int", "default": 30},
            "retries": {"type": "int", "default": 2},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )

    def set_attributes(path: str, changed: bool) -> bool:
        wanted = module.load_file_common_arguments(module.params, path=path)
        is_changed: bool = module.set_fs_attributes_if_different(wanted, changed)
        return is_changed

    def work() -> dict[str, Any]:
        wanted = parse(module.params)
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch, Progress() as progress:
            return result_of(
                wanted, module.check_mode, *apply(wanted, scratch, set_attributes, module.check_mode, progress)
            )

    finish(module, work, module.params["path"], option="path")


if __name__ == "__main__":
    main()
