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
  - Downloads a file into C(PATH.part), verifies checksum and signature there, and only then gives it its name. So what lies at
    O(path) is the file before or the right one, whatever happens.
  - A download that was interrupted goes on where it ended, also from another mirror.
  - A file that is there with the right checksum is left alone, and no request is sent.
  - While it runs, a person who watches sees every few seconds how far it is.
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    support: full
    description: Says what would be downloaded, and sends no request but one for a O(signature) that is a URL, where there is no O(checksum).
  diff_mode:
    support: full
    description: Shows the checksum before and after. What a download without O(checksum) will have is not known in check mode.
  idempotent:
    support: full
    description: A file that is right is not downloaded again.
  platform:
    support: full
    platforms: posix
    description: Target machines that the module runs on.
options:
  urls:
    description:
      - Where the file can be had, best first. C(http), C(https) and C(file).
      - When one fails, or gives another file than was asked for, the next is tried. The certificates of C(https) are always checked.
      - Proxies are taken from the environment, as M(ansible.builtin.get_url) does.
    type: list
    elements: str
    required: true
  path:
    description:
      - The file, with its name. Its directory must exist. Where it is a link, what it leads to is written.
    type: path
    required: true
    aliases: [dest]
  checksum:
    description:
      - What the content is to be, V(sha256:HEX) or V(sha512:HEX).
      - Required, unless O(signature) is given. With both, a new file must satisfy both. A file that is there is judged by the checksum alone.
    type: str
  signature:
    description:
      - URLs of a detached PGP signature, best first, or files with one on the target. The first that gives a signature by one of the
        keys is taken.
      - Without O(checksum) it is fetched at every run, and the file that is there is verified with it.
    type: list
    elements: str
    default: []
  keyring:
    description:
      - File on the target with the public keys whose signatures are good, binary or armored. Required with O(signature).
      - Whoever has one of these keys can sign, so give no more of them than needed. Expired and revoked keys are refused.
    type: path
  signed:
    description:
      - What the signature is of, the file as it is (V(file)), or what comes out when it is uncompressed (V(uncompressed)), as kernel.org
        signs its C(.tar.xz) files. xz, gzip and bzip2 are known. The uncompressed data are never stored.
    type: str
    choices: [file, uncompressed]
    default: file
  timeout:
    description:
      - Seconds without a byte from a server, after which it has failed.
    type: int
    default: 30
  retries:
    description:
      - How many times all O(urls) are tried again when none of them gives anything more of the file. Answers that will not change, such as
        404, are not tried again.
    type: int
    default: 2
requirements:
  - C(gpgv) (Debian package gpgv), with O(signature)
notes:
  - How often progress is shown is up to the variable C(nested_kata_progress_seconds), 5 by default; 0 shows none.
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
  description: The URL that gave the last byte of the file, V(null) where nothing was downloaded.
  returned: success
  type: str
  sample: https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz
checksum:
  description:
    - Checksum of the file, by the algorithm of O(checksum), or else SHA-256.
    - V(null) in check mode where the file is not there and O(checksum) does not say it.
  returned: success
  type: str
  sample: sha256:b1a2562be56e42afb3f8489d4c2a7ac472ac23098f1ef1c1e40da601f54625eb
size:
  description: Bytes of the file, V(null) in check mode where it is not there.
  returned: success
  type: int
  sample: 147906904
bytes_received:
  description: Bytes of the file that came over the line in this run.
  returned: success
  type: int
  sample: 147906904
resumed_from:
  description: Bytes that an interrupted run had left and that were kept.
  returned: success
  type: int
  sample: 0
signed_by:
  description: Fingerprint of the key that signed the file. V(null) where no signature was looked at.
  returned: success
  type: str
  sample: 647F28654894E3BD457199BE38DBBDC86092693E
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["get /tmp/linux-6.12.tar.xz from https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz"]
diff:
  description: The checksum before and after.
  returned: success
  type: dict
msg:
  description: Why, in one line.
  returned: always
  type: str
  sample: there is no /var/cache/nested-kata/linux-6.12.tar.xz yet
"""

import bz2
import contextlib
import gzip
import http.client
import lzma
import os
import shutil
import tempfile
import time
import zlib
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import SSLValidationError, open_url
from ansible_collections.nested.kata.plugins.module_utils import download
from ansible_collections.nested.kata.plugins.module_utils._common.compression import compression_of
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.files import digest_of, take_turn
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.sizes import amount
from ansible_collections.nested.kata.plugins.module_utils._common.urls import shown

PIECE = 1 << 18
LARGEST_SIGNATURE = 1 << 20
TRANSIENT = (408, 425, 429)  # answers of the 400s that may be others in a moment
UNCOMPRESS = {"xz": lzma.open, "gzip": gzip.open, "bzip2": bz2.open}


class Failed(Exception):
    """A URL did not give the file. `final`: it never will."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class Wrong(Exception):
    """What was downloaded is another file than was asked for."""


# --- look ---

class Signature:
    """A detached signature with the keys that may have made it, for gpgv."""

    def __init__(self, params: dict, scratch: str) -> None:
        self._keyring = params["keyring"]
        self._uncompressed = params["signed"] == "uncompressed"
        if not shutil.which("gpgv"):
            raise Refused("signature: there is no gpgv on this machine: install it (Debian package gpgv)")
        try:
            with open(self._keyring, "rb") as file:
                keys = download.dearmored(file.read())
        except OSError as error:
            raise Refused(f"keyring: {self._keyring}: {error.strerror}") from error
        with open(os.path.join(scratch, "keys"), "wb") as file:
            file.write(keys)
        stored = os.path.join(scratch, "signature")
        self._gpgv = ["gpgv", "--homedir", scratch, "--status-fd", "1", "--keyring", os.path.join(scratch, "keys"), stored, "-"]
        failures = []
        for self._origin in params["signature"]:
            try:
                with open(stored, "wb") as file:
                    file.write(self._content(params["timeout"]))
                # A signature that no file could satisfy is found before a long download.
                verdict = download.ask_gpgv(self._gpgv, ())
                if verdict.forged or verdict.signed_by:
                    return
                failures.append(self._bad(verdict))
            except Failed as error:
                failures.append(f"{self._origin}: {error}")
        raise Refused(f"signature: {'; '.join(failures)}")

    def _content(self, timeout: int) -> bytes:
        try:
            if "://" in self._origin:
                with open_url(self._origin, timeout=timeout, decompress=False) as answer:
                    return answer.read(LARGEST_SIGNATURE)
            with open(self._origin, "rb") as file:
                return file.read(LARGEST_SIGNATURE)
        except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
            raise Failed(said(error)) from error

    def _bad(self, verdict: download.Verdict) -> str:
        return f"{self._origin}, with the keys in {self._keyring}: {verdict.why}"

    def signer(self, path: str, progress: Progress) -> str:
        """Return the fingerprint of the key that signed the file, or raise Wrong."""
        verdict = download.ask_gpgv(self._gpgv, self._pieces(path, progress))
        if verdict.forged:
            raise Wrong(f"signature: {self._bad(verdict)}")
        if not verdict.signed_by:
            raise Refused(f"signature: {self._bad(verdict)}")
        return verdict.signed_by

    def _pieces(self, path: str, progress: Progress):
        with open(path, "rb") as file:
            kind = compression_of(file.read(8), UNCOMPRESS)
            if self._uncompressed and not kind:
                raise Wrong("it is not compressed by xz, gzip or bzip2, though signed is uncompressed")
            size = os.path.getsize(path)
            file.seek(0)
            with UNCOMPRESS[kind](file) if self._uncompressed else contextlib.nullcontext(file) as content:
                try:
                    for piece in iter(lambda: content.read(PIECE), b""):
                        yield piece
                        progress.say(f"{named(path)}: verifying the signature, {amount(file.tell(), size)}")
                except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise Wrong(f"it cannot be uncompressed: {error}") from error
                except OSError as error:
                    if error.errno is None:  # so bz2 says that the data are no such data
                        raise Wrong(f"it cannot be uncompressed: {error}") from error
                    raise


def named(path: str) -> str:
    name = os.path.basename(path)
    return name[:-len(download.PART)] if name.endswith(download.PART) else name


def checksum_of(path: str, algorithm: str) -> download.Checksum:
    return download.Checksum(algorithm, digest_of(path, algorithm))


def look(wanted: download.Wanted, signature, progress: Progress) -> download.Found:
    """Return what lies there. `signature` is called for one where it is needed."""
    directory = os.path.dirname(wanted.path)
    if not os.path.isdir(directory):
        raise Refused(f"path: there is no directory {directory}: make it, or correct the path")
    part = os.path.getsize(wanted.part) if os.path.isfile(wanted.part) else 0
    if not os.path.lexists(wanted.path):
        return download.Found(part=part)
    if not os.path.isfile(wanted.path):
        raise Refused(f"path: {wanted.path} is no regular file: name the file that is to be there")
    checksum = checksum_of(wanted.path, wanted.checksum.algorithm if wanted.checksum else "sha256")
    signed_by = None
    if not wanted.checksum:
        with contextlib.suppress(Wrong):
            signed_by = signature().signer(wanted.path, progress)
    return download.Found(True, checksum, signed_by, part)


# --- act ---

@contextlib.contextmanager
def alone_with(path: str, progress: Progress):
    """Open the file of a download that is under way, made where it is missing. Other runs with the same file wait."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            take_turn(descriptor, lambda: progress.say(f"{named(path)}: waiting for another download of it"))
            # Who had it may have finished, and the file have another name now.
            if not is_at(descriptor, path):
                continue
            try:
                with open(descriptor, "r+b", buffering=0, closefd=False) as file:
                    yield file
            finally:
                if is_at(descriptor, path) and os.path.getsize(path) == 0:
                    os.unlink(path)
            return
        finally:
            os.close(descriptor)


def is_at(descriptor: int, path: str) -> bool:
    return os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path))


def fetch(step: download.Fetch, file, params: dict, verify, progress: Progress) -> dict:
    """Get the file from the first URL that gives it, and verify it. Return what is to be told about that."""
    failures: dict[str, Failed] = {}
    told = {"path": step.path, "url": None, "bytes_received": 0, "resumed_from": file.seek(0, os.SEEK_END), "signed_by": None}
    farthest = told["resumed_from"]
    idle = 0
    while True:
        for url in step.urls:
            if url in failures and failures[url].final:
                continue
            try:
                receive(url, file, params["timeout"], told, progress)
                told["signed_by"] = verify_or_restart(url, file, params["timeout"], told, verify, progress)
                told["url"] = shown(url)
                return told
            except Wrong as wrong:
                restart(file, told)
                failures[url] = Failed(str(wrong), final=True)
            except Failed as failed:
                failures[url] = failed
        size = file.seek(0, os.SEEK_END)
        idle = 0 if size > farthest else idle + 1
        farthest = max(farthest, size)
        if idle > params["retries"] or all(failures[url].final for url in step.urls):
            raise Refused(f"urls: {step.path} could not be had: " + "; ".join(f"{shown(url)}: {failure}" for url, failure in failures.items()))
        time.sleep(min(2 ** idle, 10) if idle else 0)


def verify_or_restart(url: str, file, timeout: int, told: dict, verify, progress: Progress) -> str | None:
    """Verify the file. What an earlier run had left may be of another file, so one that was resumed gets a second chance from the start."""
    try:
        return verify()
    except Wrong:
        if not told["resumed_from"]:
            raise
    restart(file, told)
    receive(url, file, timeout, told, progress)
    return verify()


def receive(url: str, file, timeout: int, told: dict, progress: Progress) -> None:
    """Get what is missing from one URL, or raise Failed."""
    offset = file.seek(0, os.SEEK_END)
    try:
        answer = request(url, offset, timeout)
    except HTTPError as error:
        if error.code == 416 and offset:
            if download.is_complete(headers_of(error), offset):
                return
            answer = None
        else:
            raise Failed(said(error), final=400 <= error.code < 500 and error.code not in TRANSIENT) from error
    except SSLValidationError as error:
        raise Failed(said(error), final=True) from error
    except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
        raise Failed(said(error)) from error
    if answer:
        with answer:
            begin = download.read_answer(getattr(answer, "status", None), headers_of(answer), offset)
            if begin:
                store(answer, begin, file, url, told, progress)
                return
        if not offset:
            raise Failed("it answers with a part of the file that nobody asked for", final=True)
    # It has no such part, or gave another one than was asked for: all of the file, then.
    restart(file, told)
    receive(url, file, timeout, told, progress)


def restart(file, told: dict) -> None:
    file.truncate(0)
    told["resumed_from"] = 0


def request(url: str, offset: int, timeout: int):
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
    return open_url(url, headers=headers, timeout=timeout, http_agent="nested.kata", decompress=False)


def headers_of(answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def store(answer, begin: download.Answer, file, url: str, told: dict, progress: Progress) -> None:
    """Write what comes to its place, or raise Failed where it ends too early."""
    if begin.offset == 0:
        told["resumed_from"] = 0
    file.truncate(begin.offset)
    size = file.seek(begin.offset)
    if begin.total is not None:
        disk = os.statvfs(file.fileno())
        free = disk.f_bavail * disk.f_frsize
        if begin.total - size > free:
            raise Refused(
                f"path: {shown(url)} has {amount(begin.total)}, and {os.path.dirname(told['path'])} has {amount(free)} free: "
                "make room there, or choose another path"
            )
    while True:
        try:
            piece = answer.read(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{said(error)} after {size} bytes") from error
        if not piece:
            break
        view = memoryview(piece)
        while view:
            view = view[file.write(view):]
        size += len(piece)
        told["bytes_received"] += len(piece)
        progress.say(f"{named(told['path'])} {amount(size, begin.total)}")
    if begin.total is not None and size < begin.total:
        raise Failed(f"the line was cut after {size} of {begin.total} bytes")


def said(error: BaseException) -> str:
    """Return what an error of a connection says, in one line."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(getattr(reason, "strerror", None) or reason or type(error).__name__).split())


def get(step: download.Fetch, wanted: download.Wanted, module: AnsibleModule, signature, progress: Progress) -> dict:
    """Download, verify, and give the file its name, unless another run did so meanwhile."""
    with alone_with(wanted.part, progress) as file:
        found = look(wanted, signature, progress)
        if not download.decide(found, wanted).steps:
            file.truncate(0)
            return {"url": None, "bytes_received": 0, "resumed_from": 0, "signed_by": found.signed_by}

        def verify() -> str | None:
            progress.say(f"{named(wanted.path)}: verifying")
            if wanted.checksum:
                checksum = checksum_of(wanted.part, wanted.checksum.algorithm)
                if checksum != wanted.checksum:
                    raise Wrong(f"it has the checksum {checksum}, expected was {wanted.checksum}")
            return signature().signer(wanted.part, progress) if wanted.signatures else None

        if wanted.signatures:
            signature()  # a bad one is told before the download
        told = fetch(step, file, module.params, verify, progress)
        dress(wanted, module)
        os.fsync(file.fileno())
        os.replace(wanted.part, wanted.path)
        return told


def dress(wanted: download.Wanted, module: AnsibleModule) -> None:
    """Give the file owner and permissions while it has no name yet: those of the file that it replaces, or a new one's, and those that were asked for."""
    if os.path.exists(wanted.path):
        state = os.stat(wanted.path)
        os.chown(wanted.part, state.st_uid, state.st_gid)
        os.chmod(wanted.part, state.st_mode & 0o7777)
    else:
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(wanted.part, 0o666 & ~mask)
    module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params, path=wanted.part), False)


def look_decide_act(module: AnsibleModule, wanted: download.Wanted, scratch: str, progress: Progress) -> dict:
    made: list[Signature] = []

    def signature() -> Signature:
        if not made:
            made.append(Signature(module.params, scratch))
        return made[0]

    found = look(wanted, signature, progress)
    plan = download.decide(found, wanted)
    answer = {"url": None, "bytes_received": 0, "resumed_from": 0, "signed_by": found.signed_by}
    after = found.checksum
    if plan.steps:
        after = wanted.checksum
        if not module.check_mode:
            for step in plan.steps:
                answer = get(step, wanted, module, signature, progress)
            after = wanted.checksum or checksum_of(wanted.path, "sha256")
    changed = bool(plan.steps)
    if os.path.exists(wanted.path):
        changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params, path=wanted.path), changed)
    return {
        **answer, "changed": changed, "path": wanted.path, "checksum": str(after) if after else None,
        "size": os.path.getsize(wanted.path) if os.path.exists(wanted.path) and not (plan.steps and module.check_mode) else None,
        "steps": [str(step) for step in plan.steps], "msg": plan.reason,
        "diff": {
            "before_header": wanted.path, "after_header": wanted.path,
            "before": {"checksum": str(found.checksum) if found.checksum else None}, "after": {"checksum": str(after) if after else None},
        },
    }


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
    params = module.params
    if params["timeout"] < 1 or params["retries"] < 0:
        module.fail_json(msg=f"timeout is 1 at least and retries 0, found {params['timeout']} and {params['retries']}")
    try:
        wanted = download.parse(params["urls"], os.path.realpath(params["path"]), params["checksum"], params["signature"], params["keyring"])
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch, Progress() as progress:
            answer = look_decide_act(module, wanted, scratch, progress)
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"path: {error.filename or params['path']}: {error.strerror or error}")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
