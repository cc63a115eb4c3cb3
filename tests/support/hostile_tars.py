# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that would do harm, each with the words that refuse it: as members, and as what only headers can do."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

BLOCK = 512
END = bytes(2 * BLOCK)
ABSOLUTE = "/tmp/nested-kata-hostile"  # where one of them would write
Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def file(name: str, data: bytes = b"data", **fields: object) -> Entry:
    return entry(name, data=data, **fields)


def directory(name: str, **fields: object) -> Entry:
    return entry(name, tarfile.DIRTYPE, mode=0o755, **fields)


def symlink(name: str, target: str, **fields: object) -> Entry:
    return entry(name, tarfile.SYMTYPE, linkname=target, **fields)


def link(name: str, target: str) -> Entry:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def members(*entries: Entry, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Return members of an archive. One that claims another size than its data have gets it."""
    return b"".join(
        info.tobuf(tar_format, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK) for info, data in entries
    )


def tar(*entries: Entry, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Return an archive of members."""
    return members(*entries, tar_format=tar_format) + END


GOOD = (directory("./"), directory("opt"), directory("opt/kata"), file("opt/kata/good"))

# Refused for what the last member is.
MEMBERS: dict[str, tuple[list[Entry], str]] = {
    "an absolute name": ([file(ABSOLUTE)], "its name is absolute"),
    "an absolute name in the right place": ([file("/opt/kata/x")], "its name is absolute"),
    "a name that begins with ..": ([file("../x")], "its name has .. in it"),
    "a name with .. in the middle": ([file("opt/kata/../../../x")], "its name has .. in it"),
    "a name with .. that stays inside": ([file("opt/kata/a/../x")], "its name has .. in it"),
    "a name that ends with ..": ([directory("opt/kata/..")], "its name has .. in it"),
    "a file outside": ([file("usr/bin/docker")], "it is outside of opt/kata"),
    "a file beside": ([file("opt/other/x")], "it is outside of opt/kata"),
    "a name that only begins alike": ([file("opt/katana/x")], "it is outside of opt/kata"),
    "a file at the top": ([file("x")], "it is outside of opt/kata"),
    "a directory outside": ([directory("etc")], "it is outside of opt/kata"),
    "a file in place of opt": ([file("opt")], "it is a file where a directory belongs"),
    "a symlink in place of opt/kata": ([symlink("opt/kata", "/etc")], "it is a symlink where a directory belongs"),
    "an empty name": ([file("")], "its name is empty"),
    "a name with a new line": ([file("opt/kata/a\nb")], "characters that cannot be printed"),
    "a name with an escape sequence": ([file("opt/kata/\x1b[2J")], "characters that cannot be printed"),
    "a name that is written backwards": ([file("opt/kata/\u202egpj.sh")], "characters that cannot be printed"),
    "a name that is no UTF-8": ([file("opt/kata/\udcff")], "characters that cannot be printed"),
    "a name with a part that is too long": ([file(f"opt/kata/{'x' * 256}")], "its name is too long"),
    "a name that is too long": ([file(f"opt/kata/{'x/' * 600}x")], "its name is too long"),
    "the name of the module's record": (
        [file("opt/kata/.nested-kata.json", b"{}")],
        "the name is reserved for this module's record",
    ),
    "a symlink to an absolute path": (
        [symlink("opt/kata/l", "/etc/passwd")],
        "it is a symlink to '/etc/passwd', outside of opt/kata",
    ),
    "a symlink that leads out": ([symlink("opt/kata/l", "../x")], "it is a symlink to '../x', outside of opt/kata"),
    "a symlink that goes down and out": ([symlink("opt/kata/l", "a/../../../etc")], "outside of opt/kata"),
    "a symlink above everything": ([symlink("opt/kata/l", "../../../../../opt/kata/x")], "above the root directory"),
    "a symlink that only begins well": ([symlink("opt/kata/l", "/opt/kata/../../etc")], "outside of opt/kata"),
    "a symlink to a name that only begins alike": ([symlink("opt/kata/l", "/opt/katana")], "outside of opt/kata"),
    "a symlink to nothing": ([symlink("opt/kata/l", "")], "its target is empty"),
    "a symlink to a new line": ([symlink("opt/kata/l", "a\nb")], "its target has characters that cannot be printed"),
    "a symlink to a target that is too long": ([symlink("opt/kata/l", f"{'x/' * 600}x")], "its target is too long"),
    "a hard link to an absolute path": (
        [link("opt/kata/h", "/etc/passwd")],
        "it is a hard link to '/etc/passwd': its name is absolute",
    ),
    "a hard link that leads out": ([link("opt/kata/h", "opt/kata/../../x")], "its name has .. in it"),
    "a hard link to the outside": ([link("opt/kata/h", "etc/passwd")], "it is outside of opt/kata"),
    "a hard link to what comes later": ([link("opt/kata/h", "opt/kata/later")], "which is not there"),
    "a hard link to a directory": ([directory("opt/kata/d"), link("opt/kata/h", "opt/kata/d")], "which is a directory"),
    "a hard link to a symlink": (
        [symlink("opt/kata/l", "good"), link("opt/kata/h", "opt/kata/l")],
        "which is a symlink",
    ),
    "a hard link through a symlink": (
        [directory("opt/kata/d"), file("opt/kata/d/f"), symlink("opt/kata/l", "d"), link("opt/kata/h", "opt/kata/l/f")],
        "which is not there",
    ),
    "a file below a symlink": (
        [symlink("opt/kata/l", "bin"), file("opt/kata/l/x")],
        "it is below l, which is a symlink",
    ),
    "a file deep below a symlink": (
        [symlink("opt/kata/d/l", "."), file("opt/kata/d/l/x/y")],
        "it is below d/l, which is a symlink",
    ),
    "a directory below a symlink": (
        [symlink("opt/kata/l", "."), directory("opt/kata/l/x")],
        "it is below l, which is a symlink",
    ),
    "a symlink below a symlink": (
        [symlink("opt/kata/l", "."), symlink("opt/kata/l/x", "y")],
        "it is below l, which is a symlink",
    ),
    "a file below a file": ([file("opt/kata/good/x")], "it is below good, which is a file"),
    "a file that replaces a file": ([file("opt/kata/good")], "there was a file of this name before it"),
    "a file that replaces one by another spelling": (
        [file("./opt//kata/./good")],
        "there was a file of this name before it",
    ),
    "a file that replaces a symlink": (
        [symlink("opt/kata/l", "x"), file("opt/kata/l")],
        "there was a symlink of this name before it",
    ),
    "a symlink that replaces a file": ([symlink("opt/kata/good", "x")], "there was a file of this name before it"),
    "a symlink that replaces a directory": (
        [directory("opt/kata/d"), symlink("opt/kata/d", ".")],
        "there was a directory of this name before it",
    ),
    "a directory that replaces a symlink": (
        [symlink("opt/kata/l", "."), directory("opt/kata/l")],
        "there was a symlink of this name before it",
    ),
    "a file in place of a directory that others are in": (
        [file("opt/kata/d/f"), file("opt/kata/d")],
        "there was a directory of this name before it",
    ),
    "a hard link that replaces a file": (
        [file("opt/kata/f"), link("opt/kata/good", "opt/kata/f")],
        "there was a file of this name before it",
    ),
    "a character device": (
        [entry("opt/kata/null", tarfile.CHRTYPE, devmajor=1, devminor=3)],
        "it is a character device",
    ),
    "a block device": ([entry("opt/kata/sda", tarfile.BLKTYPE, devmajor=8)], "it is a block device"),
    "a named pipe": ([entry("opt/kata/pipe", tarfile.FIFOTYPE)], "it is a named pipe"),
    "a contiguous file": ([entry("opt/kata/c", tarfile.CONTTYPE)], "it is of the unknown type b'7'"),
    "an unknown type": ([entry("opt/kata/z", b"Z")], "it is of the unknown type b'Z'"),
    "a file that claims to be larger than allowed": (
        [entry("opt/kata/large", size=30 << 30)],
        "it is a file with a size of 32212254720",
    ),
    "a directory with data": ([directory("opt/kata/d", size=5)], "it is a directory with a size of 5"),
    "a symlink with data": ([symlink("opt/kata/l", "good", size=5)], "it is a symlink with a size of 5"),
}


def pax(info: Entry, **headers: str) -> bytes:
    """Return an archive whose last member has headers that override what stands in its own."""
    info[0].pax_headers = {name.replace("__", "."): value for name, value in headers.items()}
    return tar(*GOOD, info, tar_format=tarfile.PAX_FORMAT)


def header(kind: bytes, data: bytes) -> bytes:
    """Return GNU's header for a long name or a long link of the member that follows."""
    return members(entry("././@LongLink", kind, data))


def damaged() -> bytes:
    """Return an archive with a header in the middle whose checksum is wrong; tarfile itself takes it for the end."""
    archive = bytearray(tar(*GOOD, file("opt/kata/b"), file("opt/kata/c")))
    archive[len(members(*GOOD)) + 100] ^= 1
    return bytes(archive)


EVIL = b"opt/kata/../../../x\0"

# Refused for how its headers are put together.
HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a pax path that leads out": (
        lambda: pax(file("opt/kata/x"), path="opt/kata/../../x"),
        "member 'opt/kata/../../x': its name has .. in it",
    ),
    "a pax path that is absolute": (lambda: pax(file("opt/kata/x"), path=ABSOLUTE), "its name is absolute"),
    "a pax path with a NUL": (
        lambda: pax(file("opt/kata/x"), path="opt/kata/x\0y"),
        "characters that cannot be printed",
    ),
    "a pax path of another member": (
        lambda: pax(file("opt/kata/x"), path="opt/kata/good"),
        "there was a file of this name before it",
    ),
    "a pax linkpath that leads out": (
        lambda: pax(symlink("opt/kata/l", "good"), linkpath="/etc/passwd"),
        "it is a symlink to '/etc/passwd'",
    ),
    "a pax linkpath of a hard link": (
        lambda: pax(link("opt/kata/h", "opt/kata/good"), linkpath="/etc/passwd"),
        "it is a hard link to '/etc/passwd'",
    ),
    "a pax size that is negative": (lambda: pax(file("opt/kata/x"), size="-1024"), "it is of size -1024"),
    "a pax size that is absurd": (lambda: pax(file("opt/kata/x"), size=str(1 << 70)), "it is a file with a size of "),
    "a global pax path": (
        lambda: tarfile.TarInfo.create_pax_global_header({"path": "../x"}) + tar(file("opt/kata/x")),
        "it has a pax header for all members",
    ),
    "a pax sparse file with a name of its own": (
        lambda: pax(file("opt/kata/x"), GNU__sparse__name="opt/kata/y", GNU__sparse__map="0,4", GNU__sparse__size="4"),
        "it is a sparse file",
    ),
    "a pax sparse file with a map without end": (
        lambda: pax(
            file("opt/kata/x", b"9999999\n" * 10_000),
            GNU__sparse__major="1",
            GNU__sparse__minor="0",
            GNU__sparse__realsize="4",
        ),
        "it is a sparse file",
    ),
    "a GNU sparse file": (
        lambda: members(*GOOD, entry("opt/kata/s", tarfile.GNUTYPE_SPARSE)) + END,
        "it is a sparse file",
    ),
    "a long name that leads out": (
        lambda: members(*GOOD) + header(b"L", EVIL) + members(file("opt/kata/x")) + END,
        "its name has .. in it",
    ),
    "a long link that leads out": (
        lambda: members(*GOOD) + header(b"K", b"/etc/passwd\0") + members(symlink("opt/kata/l", "good")) + END,
        "it is a symlink to '/etc/passwd'",
    ),
    "a long name that is too large": (
        lambda: members(*GOOD) + header(b"L", b"x" * (1 << 17)) + members(file("opt/kata/x")) + END,
        "the headers of a member are larger than 8 KiB",
    ),
    "long names without end": (
        lambda: members(*GOOD) + header(b"L", b"opt/kata/x\0") * 1000 + members(file("opt/kata/x")) + END,
        "the headers of a member are larger than 8 KiB",
    ),
    "a pax header that is too large": (lambda: pax(file("opt/kata/x"), comment="x" * (1 << 13)), "larger than 8 KiB"),
    "a pax header without an end of its records": (
        lambda: members(*GOOD, entry("x", b"x", b"5 a\n\n" * 1000)) + END,
        "a member has a pax header that is not valid",
    ),
    "a pax header with a length that leads nowhere": (
        lambda: members(*GOOD, entry("x", b"x", b"99999 a=b\n")) + END,
        "a member has a pax header that is not valid",
    ),
    "a pax header that is one long number": (
        lambda: pax(file("opt/kata/x"), comment="1" * 7000),
        "a member has a pax header with a number that is too long",
    ),
    "pax headers before pax headers": (
        lambda: members(*GOOD) + members(entry("x", b"x", b"6 a=b\n")) * 1000 + END,
        "the headers of a member are larger than 8 KiB",
    ),
    "a pax sparse file whose size is not a number": (
        lambda: members(*GOOD, entry("x", b"x", b"23 GNU.sparse.size=one\n"), file("opt/kata/x")) + END,
        "it is a sparse file",
    ),
    "a negative size": (lambda: tar(*GOOD, entry("opt/kata/n", size=-512)), "it is of size -512"),
    "a damaged header in the middle": (damaged, "it is not a tar archive, or ends too early (bad checksum)"),
    "an archive that ends in a member": (
        lambda: tar(*GOOD, file("opt/kata/x", bytes(5000)))[: len(members(*GOOD)) + 1000],
        "it ends in the middle of a member",
    ),
    "an archive that ends after a member": (
        lambda: members(*GOOD),
        "it is not a tar archive, or ends too early (empty header)",
    ),
    "an archive that ends in a header": (
        lambda: tar(*GOOD)[:700],
        "it is not a tar archive, or ends too early (truncated header)",
    ),
    "more after the end": (lambda: tar(*GOOD) + members(file("opt/kata/x")) + END, "it has more data after its end"),
    "nothing without end after the end": (lambda: tar(*GOOD) + bytes(17 << 20), "it has more data after its end"),
    "an empty archive": (tar, "there are no files in it"),
    "only directories": (lambda: tar(*GOOD[:3]), "there are no files in it"),
    "no archive": (lambda: b"this is a text and no archive. " * 100, "it is not a tar archive, or ends too early"),
    "nothing at all": (lambda: b"", "it is not a tar archive, or ends too early (empty header)"),
}
