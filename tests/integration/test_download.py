# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads from real servers: one that resumes, one that cuts the line, some that lie; with real keys and
signatures.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import lzma
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_runner import CHECKOUT, HEEDING_SIGNALS, ansible_environment, run_module, wait_until

CONTENT = random.Random(5).randbytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
CUT = 1_100_000


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves the content in the manner that the first part of the path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        manner, _dummy, name = self.path[1:].partition("/")
        content = self.server.files.get(name, CONTENT)
        asked = self.headers.get("Range")
        self.server.requests.append((manner, asked))
        offset = int(asked[len("bytes=") : -1]) if asked else 0
        getattr(self, manner)(content, offset)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def part(self, content: bytes, offset: int, count: int | None = None) -> None:
        if offset >= len(content):
            self.answer(416, b"", Content_Range=f"bytes */{len(content)}")
            return
        place = {"Content_Range": f"bytes {offset}-{len(content) - 1}/{len(content)}"} if offset else {}
        rest = content[offset:]
        self.answer(206 if offset else 200, rest[:count], None if count is None else len(rest), **place)

    def good(self, content: bytes, offset: int) -> None:
        self.part(content, offset)

    def cuts(self, content: bytes, offset: int) -> None:
        """Cut the line after a while, each time."""
        self.part(content, offset, CUT)

    def cuts_at_once(self, content: bytes, offset: int) -> None:
        self.part(content, offset, 0)

    def no_ranges(self, content: bytes, dummy: int) -> None:
        self.answer(200, content)

    def lies_about_the_part(self, content: bytes, offset: int) -> None:
        """Say 206 and give all of it."""
        if offset:
            self.answer(206, content, Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}")
        else:
            self.answer(200, content)

    def lies_without_a_word(self, content: bytes, offset: int) -> None:
        """Say that it is the part, and give the beginning instead."""
        place = {"Content_Range": f"bytes {offset}-{len(content) - 1}/{len(content)}"} if offset else {}
        self.answer(206 if offset else 200, content[: len(content) - offset], **place)

    def wrong(self, content: bytes, offset: int) -> None:
        self.part(content[:-1] + b"!", offset)

    def login(self, dummy: bytes, offset: int) -> None:
        """Give a page that says something else, as a hotel's network does."""
        self.answer(200, b"<html>please log in</html>")

    def missing(self, dummy: bytes, offset: int) -> None:
        self.answer(404, b"no")

    def broken(self, dummy: bytes, offset: int) -> None:
        self.answer(503, b"no")

    def stalls(self, content: bytes, offset: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000])
        self.wfile.flush()
        self.server.stopped.wait(30)
        self.close_connection = True

    def slow(self, content: bytes, offset: int) -> None:
        rest = content[offset:]
        self.send_response(206 if offset else 200)
        self.send_header("Content-Length", str(len(rest)))
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        try:
            for begin in range(0, len(rest), 100_000):
                self.wfile.write(rest[begin : begin + 100_000])
                if self.server.stopped.wait(0.15):
                    return
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Be silent."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Mirror)
        self.requests: list[tuple[str, str | None]] = []
        self.files: dict[str, bytes] = {}
        self.stopped = threading.Event()

    def url(self, manner: str, name: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}/{name}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        yield serving
        serving.stopped.set()
        serving.shutdown()
        thread.join()


def given(path: Path, urls: tuple[str, ...], options: dict) -> dict:
    return {"urls": list(urls), "path": str(path), "checksum": SHA256, "timeout": 5, "retries": 0, **options}


def get(path: Path, *urls: str, check: bool = False, **options: object) -> dict:
    """Run the module as a person does."""
    return run_module("download", given(path, urls, options), check=check)


SCRIPT = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.nested.kata.plugins.modules import download
with patch_module_args(json.loads(sys.argv[1])):
    download.main()
"""


def started(path: Path, *urls: str, **options: object) -> subprocess.Popen:
    """Start the module without Ansible around it, which is quicker, and can be killed."""
    command = [*HEEDING_SIGNALS, sys.executable, "-c", SCRIPT, json.dumps(given(path, urls, options))]
    environment = ansible_environment(PYTHONPATH=str(CHECKOUT / ".collections"))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    )


def alone(path: Path, *urls: str, **options: object) -> dict:
    """Run the module so to its end."""
    with started(path, *urls, **options) as running:
        output, errors = running.communicate(timeout=120)
    assert output, errors
    return {"failed": False, **json.loads(output)}


def test_a_file_arrives_in_four_runs(server: Server, tmp_path: Path) -> None:
    path, url = tmp_path / "file", server.url("good")
    shown = {"before": {"checksum": None}, "after": {"checksum": SHA256}}

    checked = get(path, url, check=True, mode="0640")
    assert (checked["failed"], checked["changed"], checked["steps"]) == (False, True, [f"get {path} from {url}"])
    assert {key: checked["diff"][key] for key in shown} == shown
    assert (server.requests, os.listdir(tmp_path)) == ([], [])

    real = get(path, url, mode="0640")
    assert (real["failed"], real["changed"], real["url"], real["checksum"], real["size"]) == (
        False,
        True,
        url,
        SHA256,
        len(CONTENT),
    )
    assert (real["bytes_received"], real["resumed_from"], real["signed_by"]) == (len(CONTENT), 0, None)
    assert {key: real["diff"][key] for key in shown} == shown
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o7777 == 0o640
    assert (server.requests, os.listdir(tmp_path)) == ([("good", None)], ["file"])

    for check in (False, True):
        again = get(path, url, check=check, mode="0640")
        assert (again["failed"], again["changed"], again["bytes_received"], again["url"]) == (False, False, 0, None)
    assert get(path, url, mode="0600")["changed"]
    assert path.stat().st_mode & 0o7777 == 0o600
    assert len(server.requests) == 1


# What each row of mirrors gives when a part of this length lies there: the mirror that gave it, bytes over the line,
# kept, ranges asked for.
MIRRORS = {
    "a part is continued": (CUT, ["good"], "good", len(CONTENT) - CUT, CUT, [("good", f"bytes={CUT}-")]),
    "a line that is cut again and again": (
        0,
        ["cuts"],
        "cuts",
        len(CONTENT),
        0,
        [("cuts", None), ("cuts", f"bytes={CUT}-"), ("cuts", f"bytes={2 * CUT}-")],
    ),
    "the next mirror continues": (
        0,
        ["cuts", "good"],
        "good",
        len(CONTENT),
        0,
        [("cuts", None), ("good", f"bytes={CUT}-")],
    ),
    "a mirror that cannot continue": (
        CUT,
        ["no_ranges"],
        "no_ranges",
        len(CONTENT),
        0,
        [("no_ranges", f"bytes={CUT}-")],
    ),
    "a mirror that says what it does not give": (
        CUT,
        ["lies_about_the_part"],
        "lies_about_the_part",
        len(CONTENT),
        0,
        [("lies_about_the_part", f"bytes={CUT}-"), ("lies_about_the_part", None)],
    ),
    "a mirror that lies and is found out by the checksum": (
        CUT,
        ["lies_without_a_word"],
        "lies_without_a_word",
        2 * len(CONTENT) - CUT,
        0,
        [("lies_without_a_word", f"bytes={CUT}-"), ("lies_without_a_word", None)],
    ),
    "a part that is longer than the file": (
        len(CONTENT) + 5,
        ["good"],
        "good",
        len(CONTENT),
        0,
        [("good", f"bytes={len(CONTENT) + 5}-"), ("good", None)],
    ),
    "mirrors that fail": (0, ["missing", "broken", "wrong", "login", "good"], "good", None, 0, None),
    "a mirror that stalls": (0, ["stalls", "good"], "good", None, 0, None),
}


@pytest.mark.parametrize("case", MIRRORS)
def test_the_file_comes_whole_from_whoever_gives_it(server: Server, tmp_path: Path, case: str) -> None:
    part, manners, giver, received, kept, requests = MIRRORS[case]
    path = tmp_path / "file"
    if part:
        path.with_name("file.part").write_bytes((CONTENT + bytes(100))[:part])
    result = alone(path, *(server.url(manner) for manner in manners), timeout=2)
    assert not result["failed"], result["msg"]
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file"]
    assert (result["url"], result["resumed_from"]) == (server.url(giver), kept)
    assert received in (None, result["bytes_received"])
    assert requests in (None, server.requests)


def test_a_part_that_is_complete_is_verified_and_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    result = alone(tmp_path / "file", server.url("good"))
    assert (result["failed"], result["bytes_received"], result["resumed_from"]) == (False, 0, len(CONTENT))
    assert os.listdir(tmp_path) == ["file"]


def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(bytes(CUT))
    result = alone(tmp_path / "file", server.url("good"))
    assert (result["failed"], result["resumed_from"]) == (False, 0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_url_is_a_mirror_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    result = alone(tmp_path / "file", f"file://{tmp_path}/none", f"file://{tmp_path}/source")
    assert (result["failed"], result["url"]) == (False, f"file://{tmp_path}/source")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_old_file_is_replaced_and_keeps_its_permissions(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o604)
    (tmp_path / "link").symlink_to("file")
    result = alone(tmp_path / "link", server.url("good"))
    assert (result["changed"], result["path"]) == (True, str(path))
    assert "another checksum" in result["msg"]
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "link").is_symlink()


FAILURES = {
    "missing": "HTTP 404 Not Found",
    "broken": "HTTP 503 Service Unavailable",
    "wrong": f"it has the checksum sha256:{hashlib.sha256(CONTENT[:-1] + b'!').hexdigest()}, expected {SHA256}",
    "login": f", expected {SHA256}",
    "cuts_at_once": f"the connection was cut after 0 of {len(CONTENT)} bytes",
    "stalls": "timed out",
}


@pytest.mark.parametrize("manner", FAILURES)
def test_a_mirror_that_does_not_give_the_file_is_one_error_and_the_old_file_stays(
    server: Server, tmp_path: Path, manner: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    result = alone(path, server.url(manner), timeout=1)
    assert result["failed"]
    assert f"{server.url(manner)}: " in result["msg"]
    assert FAILURES[manner] in result["msg"]
    assert "\n" not in result["msg"]
    assert path.read_bytes() == b"old"
    if manner != "stalls":
        assert os.listdir(tmp_path) == ["file"]


def test_what_changes_is_tried_again_and_what_does_not_is_not(server: Server, tmp_path: Path) -> None:
    result = alone(tmp_path / "file", server.url("missing"), server.url("broken"), retries=1)
    assert "404" in result["msg"]
    assert "503" in result["msg"]
    assert [manner for manner, dummy in server.requests] == ["missing", "broken", "broken"]


def test_a_password_in_a_url_is_not_told(tmp_path: Path) -> None:
    result = alone(tmp_path / "file", "http://me:secret@127.0.0.1:1/file")
    assert "http://127.0.0.1:1/file: Connection refused" in result["msg"]
    assert "secret" not in result["msg"]


def test_a_certificate_that_nobody_vouches_for_is_refused(server: Server, tmp_path: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "cert",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    result = alone(tmp_path / "file", server.url("good").replace("http://127.0.0.1", "https://localhost"))
    assert result["failed"]
    assert "certificate" in result["msg"].lower()
    assert server.requests == []


def test_a_place_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    assert "there is no directory" in alone(tmp_path / "none" / "file", server.url("good"))["msg"]
    assert "is not a regular file" in alone(tmp_path / "directory", server.url("good"))["msg"]
    assert server.requests == []


@pytest.mark.root
def test_a_disk_that_is_too_small_is_told_before_it_is_full(server: Server, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        result = alone(small / "file", server.url("good"))
        left = os.listdir(small)
    finally:
        subprocess.run(["umount", small], check=True)
    assert result["failed"]
    assert f"has 2 MiB, and {small} has " in result["msg"]
    assert left == []


# --- interrupted ---


def wait_for_part(path: Path, size: int) -> None:
    wait_until(lambda: path.exists() and path.stat().st_size >= size, f"{size} bytes in {path}", pause=0.02)


def test_a_download_that_is_killed_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    path, part = tmp_path / "file", tmp_path / "file.part"
    path.write_bytes(b"old")
    with started(path, server.url("slow")) as running:
        wait_for_part(part, 500_000)
        running.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    result = alone(path, server.url("good"))
    assert (result["failed"], path.read_bytes() == CONTENT) == (False, True)
    assert result["resumed_from"] >= 500_000
    assert result["bytes_received"] == len(CONTENT) - result["resumed_from"]


def test_a_second_download_of_the_same_file_waits_and_finds_it_there(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with started(path, server.url("slow")) as running:
        wait_for_part(tmp_path / "file.part", 300_000)
        result = alone(path, server.url("good"))
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors + output
    assert (result["failed"], result["bytes_received"]) == (False, 0)
    assert path.read_bytes() == CONTENT
    assert (os.listdir(tmp_path), server.requests) == (["file"], [("slow", None)])


# --- signatures ---


class Keys:
    """Keys of a person who signs, and a keyring with one of them."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "gnupg"
        self.home.mkdir(mode=0o700)
        self.fingerprints = {name: self._make(name) for name in ("maintainer", "stranger")}
        self.armored = directory / "maintainer.asc"
        self.armored.write_bytes(self.gpg("--armor", "--export", "maintainer"))
        self.binary = directory / "maintainer.gpg"
        self.binary.write_bytes(self.gpg("--export", "maintainer"))

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            *arguments,
        ]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def _make(self, name: str) -> str:
        self.gpg("--quick-gen-key", name, "ed25519", "sign", "never")
        lines = self.gpg("--with-colons", "--list-keys", name).decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr"))

    def sign(self, data: bytes, name: str = "maintainer", *flags: str) -> bytes:
        return self.gpg("--local-user", name, *flags, "--detach-sign", data=data)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    directory = tmp_path_factory.mktemp("keys")
    made = Keys(directory)
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "all"], check=False)


PACKED = lzma.compress(CONTENT, preset=0)
PACKED_SHA256 = f"sha256:{hashlib.sha256(PACKED).hexdigest()}"


def signed(
    path: Path,
    server: Server,
    keys: Keys,
    content: bytes,
    by: bytes,
    run: Callable[..., dict] = alone,
    **options: object,
) -> dict:
    server.files.update({"file": content, "file.sign": by})
    options = {"checksum": None, "signature": server.url("good", "file.sign"), "keyring": str(keys.armored), **options}
    return run(path, server.url("good"), **options)


@pytest.mark.parametrize("keyring", ["armored", "binary"])
def test_what_a_known_key_signed_arrives_in_four_runs(server: Server, keys: Keys, tmp_path: Path, keyring: str) -> None:
    path, options = tmp_path / "file", {"keyring": str(getattr(keys, keyring))}
    signature = keys.sign(CONTENT, "maintainer", "--armor")
    assert signed(path, server, keys, CONTENT, signature, get, check=True, **options)["changed"]
    assert (os.listdir(tmp_path), server.requests) == ([], [])
    real = signed(path, server, keys, CONTENT, signature, get, **options)
    assert not real["failed"], real["msg"]
    assert (real["changed"], real["signed_by"], real["checksum"]) == (True, keys.fingerprints["maintainer"], SHA256)
    for check in (False, True):
        again = signed(path, server, keys, CONTENT, signature, get, check=check, **options)
        assert (again["failed"], again["changed"], again["signed_by"]) == (
            False,
            False,
            keys.fingerprints["maintainer"],
        )
    # The file once; its signature each time but the first, in check mode.
    assert len(server.requests) == 4


def test_the_signature_may_be_of_what_is_in_the_compressed_file(server: Server, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "file.sign").write_bytes(keys.sign(CONTENT))
    options = {"signed": "uncompressed", "checksum": PACKED_SHA256, "signature": str(tmp_path / "file.sign")}
    result = signed(tmp_path / "file", server, keys, PACKED, b"", **options)
    assert (result["failed"], result.get("signed_by")) == (False, keys.fingerprints["maintainer"]), result["msg"]
    assert (tmp_path / "file").read_bytes() == PACKED
    assert len(server.requests) == 1


FORGERIES = {
    "another file": (CONTENT[:-1] + b"!", "maintainer", {}, "it is not the signature of this file (key "),
    "the compressed file as it is": (PACKED, "maintainer", {}, "it is not the signature of this file (key "),
    "a file that is not compressed": (
        CONTENT,
        "maintainer",
        {"signed": "uncompressed"},
        "it is not compressed by xz, gzip or bzip2",
    ),
    "half of a compressed file": (
        PACKED[:100_000],
        "maintainer",
        {"signed": "uncompressed"},
        "it cannot be uncompressed",
    ),
    "a damaged compressed file": (
        PACKED[:1000] + bytes(99) + PACKED[1099:],
        "maintainer",
        {"signed": "uncompressed"},
        "it cannot be uncompressed",
    ),
    "a stranger's signature": (CONTENT, "stranger", {}, "keyring lacks the key (key "),
    "no keyring": (CONTENT, "maintainer", {"keyring": "/none"}, "keyring: /none: No such file or directory"),
    "no signature": (CONTENT, "maintainer", {"signature": "/none"}, "signature: /none: No such file or directory"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_signature_that_is_not_good_is_one_error_and_nothing_stays(
    server: Server, keys: Keys, tmp_path: Path, case: str
) -> None:
    content, signer, options, words = FORGERIES[case]
    (tmp_path / "file").write_bytes(b"old")
    result = signed(tmp_path / "file", server, keys, content, keys.sign(CONTENT, signer), **options)
    assert result["failed"]
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    if words.startswith("it "):
        assert f"{server.url('good')}: " in result["msg"]
    else:
        assert [request for request in server.requests if request[1]] == []


def test_a_stranger_is_refused_before_the_long_download(server: Server, keys: Keys, tmp_path: Path) -> None:
    result = signed(tmp_path / "file", server, keys, CONTENT, keys.sign(CONTENT, "stranger"))
    assert result["failed"]
    assert server.requests == [("good", None)]  # the signature


def test_an_error_page_is_no_signature(server: Server, keys: Keys, tmp_path: Path) -> None:
    assert "there is no signature in it" in signed(tmp_path / "file", server, keys, CONTENT, b"<html>no</html>")["msg"]
    missing = signed(tmp_path / "file", server, keys, CONTENT, b"", signature=server.url("missing"))
    assert missing["msg"] == f"signature: {server.url('missing')}: HTTP 404 Not Found"


def test_of_several_places_the_first_that_gives_a_signature_by_a_known_key_counts(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    server.files["page"] = b"<html>no</html>"
    places = [
        server.url("missing"),
        server.url("good", "page"),
        str(tmp_path / "none"),
        server.url("good", "file.sign"),
    ]
    result = signed(tmp_path / "file", server, keys, CONTENT, keys.sign(CONTENT), signature=places)
    assert (result["changed"], (tmp_path / "file").read_bytes()) == (True, CONTENT)
    refused = signed(tmp_path / "other", server, keys, CONTENT, keys.sign(CONTENT), signature=places[:3])
    assert refused["failed"]
    assert refused["msg"].startswith(f"signature: {places[0]}: HTTP 404 Not Found; {places[1]}, with the keys in ")
    assert refused["msg"].endswith(f"there is no signature in it; {places[2]}: No such file or directory")


def test_a_right_checksum_does_not_make_up_for_a_bad_signature(server: Server, keys: Keys, tmp_path: Path) -> None:
    result = signed(tmp_path / "file", server, keys, CONTENT, keys.sign(b"something else"), checksum=SHA256)
    assert result["failed"]
    assert os.listdir(tmp_path) == []
