# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of Kata, the pure part: what is done with one, what its members may be, what lies where."""
from __future__ import annotations

import lzma
from dataclasses import asdict, replace

import pytest
from ansible_collections.nested.kata.plugins.module_utils import release
from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils.release import (
    Clear, Found, Judge, MakeDirectory, MakeLink, MakeSymlink, MappedFile, Member, Record, Remove, Unpack, User, Wanted,
    WriteFile, contents_of, decide, kernel_release, mapped, mounted_below, parse, read_record, space_needed, xz_content,
    zstd_content,
)
from ansible_collections.nested.kata.plugins.module_utils.unpack import member_of
from hostile import GOOD, MEMBERS

DIGEST, OTHER = "ab" * 32, "cd" * 32
PATH = "/srv/kata/4.1.0"
WANTED = Wanted(PATH, True, "/srv/kata.tar.zst", DIGEST, "4.1.0")
ABSENT = Wanted(PATH, False)
RECORD = Record(DIGEST, "4.1.0", 5, 1, "6.18.35")
LEFT = (f"{PATH}.left",)
QEMU = User(7, "qemu-system-x86")

DECISIONS = {
    "nothing there": (Found(), WANTED, (Unpack("/srv/kata.tar.zst", PATH),), f"there is no {PATH} yet"),
    "the release": (Found(RECORD), WANTED, (), f"{PATH} holds this release"),
    "the release, of whatever version": (Found(RECORD), replace(WANTED, version=None), (), f"{PATH} holds this release"),
    "the release, and what was left": (
        Found(RECORD, leftovers=LEFT), WANTED, (Clear(LEFT),), f"{PATH} holds this release, and what an interrupted run left is beside it",
    ),
    "only what was left": (Found(leftovers=LEFT), WANTED, (Clear(LEFT), Unpack("/srv/kata.tar.zst", PATH)), f"there is no {PATH} yet"),
    "to be removed": (Found(RECORD), ABSENT, (Remove(PATH),), f"{PATH} is there"),
    "removed": (Found(), ABSENT, (), f"there is no {PATH}"),
    "half removed": (Found(leftovers=LEFT), ABSENT, (Clear(LEFT),), f"there is no {PATH}, and what an interrupted run left is beside it"),
    "to be removed and in use, to be kept": (
        Found(RECORD, users=(QEMU,)), replace(ABSENT, keep_in_use=True), (),
        f"{PATH} is in use by 7 qemu-system-x86, and stays until nothing runs on it",
    ),
    "to be removed, and nobody uses it any more": (
        Found(RECORD), replace(ABSENT, keep_in_use=True), (Remove(PATH),), f"{PATH} is there, and nothing runs on it",
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_what_is_done_follows_from_what_is_there(case: str) -> None:
    found, wanted, steps, reason = DECISIONS[case]
    plan = decide(found, wanted)
    assert (plan.steps, plan.reason) == (steps, reason)


REFUSALS = {
    "a symlink": (Found(stranger="a symlink"), WANTED, f"path: {PATH} is a symlink, which this module did not make"),
    "a stranger's directory": (Found(stranger="a directory without it"), ABSENT, f"path: {PATH} is a directory without it, which this module did not make"),
    "another release": (Found(replace(RECORD, sha256=OTHER)), WANTED, f"path: {PATH} holds the release with the SHA-256 {OTHER}, not {DIGEST}: give this one"),
    "another version": (Found(replace(RECORD, version="4.0.0")), WANTED, f"version: what is in {PATH}, with this SHA-256, is version 4.0.0, not 4.1.0"),
    "in use": (
        Found(RECORD, users=(QEMU,) * 7), ABSENT,
        f"path: {PATH} is in use by 7 qemu-system-x86, 7 qemu-system-x86, 7 qemu-system-x86, 7 qemu-system-x86, 7 qemu-system-x86 and 2 more: stop",
    ),
    "mounted": (Found(RECORD, mounts=(f"{PATH}/share",)), ABSENT, f"path: something is mounted on {PATH}/share: unmount it first"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_others_made_or_use_is_refused_in_one_line(case: str) -> None:
    found, wanted, words = REFUSALS[case]
    with pytest.raises(Refused) as refused:
        decide(found, wanted)
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)


def test_steps_are_told_in_words() -> None:
    assert [str(step) for step in (Clear(LEFT), Unpack("/a", PATH), Remove(PATH))] == [
        f"remove what an interrupted run left: {PATH}.left", f"unpack /a into {PATH}", f"remove {PATH}",
    ]


BAD_OPTIONS = {
    "the root": ({"path": "/"}, "path: / is no directory for a release"),
    "a directory at the top": ({"path": "/opt"}, "path: /opt is no directory for a release"),
    "no digest": ({"sha256": None}, "sha256: None is not 64 hexadecimal digits"),
    "a short digest": ({"sha256": "abcd"}, "sha256: 'abcd' is not 64 hexadecimal digits"),
    "a digest with its kind": ({"sha256": f"sha256:{DIGEST}"}, f"sha256: 'sha256:{DIGEST}' is not 64 hexadecimal digits"),
    "a version with a path": ({"version": "../4.1.0"}, "version: '../4.1.0' is no version"),
    "an empty version": ({"version": ""}, "version: '' is no version"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(case: str) -> None:
    options, words = BAD_OPTIONS[case]
    with pytest.raises(Refused) as refused:
        parse(**{"path": PATH, "state": "present", "archive": "/a", "sha256": DIGEST, "version": None, "if_in_use": "fail", **options})
    assert str(refused.value).startswith(words)


def test_a_digest_may_be_in_capitals_and_is_not_needed_for_a_removal() -> None:
    assert parse(PATH, "present", "/a", DIGEST.upper(), "4.1.0", "keep") == Wanted(PATH, True, "/a", DIGEST, "4.1.0", True)
    assert parse(PATH, "absent", None, None, None, "fail") == ABSENT


def test_a_record_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    assert read_record(asdict(RECORD)) == RECORD
    for value in (None, [], {}, {"sha256": DIGEST}, {**asdict(RECORD), "sha256": "x"}, {**asdict(RECORD), "more": 1}):
        with pytest.raises(ValueError):
            read_record(value)


# --- members ---

@pytest.mark.parametrize("case", MEMBERS)
def test_a_hostile_member_is_refused_by_name_and_reason(case: str) -> None:
    entries, words = MEMBERS[case]
    judge = Judge()
    for info, dummy in (*GOOD, *entries[:-1]):
        judge.pieces(member_of(info))
    with pytest.raises(Refused) as refused:
        judge.pieces(member_of(entries[-1][0]))
    assert str(refused.value).startswith(f"member {entries[-1][0].name[:200]!r}: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def pieces(*members: Member) -> list:
    judge = Judge()
    return [piece for member in members for piece in judge.pieces(member)]


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name, "a directory", mode=mode)


def symlink(name: str, target: str) -> Member:
    return Member(name, "a symlink", target=target)


def test_the_prefix_is_stripped_and_parents_are_made_where_no_member_names_them() -> None:
    assert pieces(directory("./"), directory("./opt"), directory("opt/kata/"), directory("./opt/kata/bin"), Member("./opt/kata/bin/a", "a file", 3)) == [
        MakeDirectory(("bin",)), WriteFile(("bin", "a"), 3, 0o644, 0),
    ]
    assert pieces(Member("opt/kata/a/b/c", "a file"), Member("opt/kata/a/d", "a file"), directory("opt/kata/a", 0o750)) == [
        MakeDirectory(("a",)), MakeDirectory(("a", "b")), WriteFile(("a", "b", "c"), 0, 0o644, 0), WriteFile(("a", "d"), 0, 0o644, 0),
        MakeDirectory(("a",), 0o750),
    ]


MODES = {0o644: 0o644, 0o666: 0o644, 0o777: 0o755, 0o4755: 0o755, 0o2755: 0o755, 0o1777: 0o755, 0o600: 0o600, 0o000: 0o400, 0o555: 0o555}


@pytest.mark.parametrize("mode", MODES)
def test_nobody_but_the_owner_may_write_and_nobody_gets_the_owner_s_rights(mode: int) -> None:
    file, made = pieces(Member("opt/kata/a", "a file", mode=mode), directory("opt/kata/d", mode))
    assert file.mode == MODES[mode]
    assert made.mode == MODES[mode] | 0o700


@pytest.mark.parametrize("time", {-5: 0, 10 ** 12: 0, float("nan"): 0, float("inf"): 0, 1_700_000_000.5: 1_700_000_000.5}.items())
def test_a_time_is_kept_where_it_is_one(time: tuple) -> None:
    file, = pieces(Member("opt/kata/a", "a file", mtime=time[0]))
    assert file.mtime == time[1]


TARGETS = {
    ("opt/kata/bin/l", "a"): "a", ("opt/kata/bin/l", "./a"): "a", ("opt/kata/bin/l", "../share//x/"): "../share/x", ("opt/kata/bin/l", ".."): "..",
    ("opt/kata/bin/l", "/opt/kata/share/x"): "../share/x", ("opt/kata/l", "/opt/kata"): ".", ("opt/kata/l", "../kata/x"): "x",
    ("opt/kata/bin/l", "../../../opt/kata/x"): "../x", ("opt/kata/a/b/l", "c/../../d"): "../d", ("opt/kata/l", "/opt/./kata//x/../y"): "y",
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_symlink_becomes_relative_with_dots_at_its_beginning_only(case: tuple[str, str]) -> None:
    assert pieces(symlink(*case))[-1].target == TARGETS[case]


def test_a_hard_link_leads_to_a_file_that_was_written() -> None:
    made = pieces(Member("opt/kata/bin/a", "a file"), Member("opt/kata/b", "a hard link", target="./opt/kata/bin/a"),
                  Member("opt/kata/c", "a hard link", target="opt/kata/b"))
    assert made[2:] == [MakeLink(("b",), ("bin", "a")), MakeLink(("c",), ("b",))]


def test_symlinks_need_not_lead_to_anything() -> None:
    assert pieces(symlink("opt/kata/l", "l"), symlink("opt/kata/m", "none")) == [MakeSymlink(("l",), "l"), MakeSymlink(("m",), "none")]


def test_members_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "MOST_MEMBERS", 3)
    with pytest.raises(Refused, match="member 'opt/kata/3': there are more than 3 of them"):
        pieces(*(Member(f"opt/kata/{number}", "a file") for number in range(4)))
    half = release.MOST_BYTES // 2 + 1
    with pytest.raises(Refused, match="member 'opt/kata/1': the files before it and it are larger than 20 GiB"):
        pieces(*(Member(f"opt/kata/{number}", "a file", half) for number in range(2)))


# --- archives ---

# After the magic: a descriptor, with a window or as a single segment, a dictionary's id, a size of 1, 2, 4 or 8 bytes (RFC 8878, 3.1.1.1).
FRAMES = {
    "one byte": ("20 ff", 255), "two bytes, from 256 on": ("60 00 01", 512), "four bytes": ("a0 00 00 00 80", 2 << 30),
    "eight bytes after a window and a dictionary": ("c3 70 01 02 03 04 00 00 00 c0 00 00 00 00", 3 << 30), "none, as of a pipe": ("04 70", None),
}


@pytest.mark.parametrize("case", FRAMES)
def test_the_size_of_the_content_is_read_from_the_header_of_a_zstd_frame(case: str) -> None:
    fields, size = FRAMES[case]
    assert zstd_content(b"\x28\xb5\x2f\xfd" + bytes.fromhex(fields) + bytes(20)) == size


def test_a_zstd_frame_that_is_cut_off_tells_no_size() -> None:
    assert zstd_content(b"\x28\xb5\x2f\xfd\xa0") is None


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000, 20_000_000])
def test_the_size_of_the_content_is_read_from_the_index_of_an_xz_file(size: int) -> None:
    assert xz_content(lzma.compress(bytes(size), preset=0)[-1000:]) == size


NO_SIZES = {"nothing": b"", "no xz file": bytes(100), "an index that is longer than what is there": lzma.compress(b"x")[-14:], "only the footer's magic": b"YZ"}


@pytest.mark.parametrize("case", NO_SIZES)
def test_an_xz_file_whose_index_cannot_be_read_tells_no_size(case: str) -> None:
    assert xz_content(NO_SIZES[case]) is None


def test_an_archive_that_tells_no_size_is_taken_for_a_usual_one() -> None:
    stream = b"\x28\xb5\x2f\xfd\x04\x70" + bytes(20)
    assert space_needed(1000, stream, b"") == 3000
    xz = lzma.compress(bytes(5000))
    assert space_needed(len(xz), xz[:18], xz) == 5000


# --- a release that is there ---

RUST = {
    "runtime-rs/bin/containerd-shim-kata-v2", "bin/containerd-shim-kata-v2", "bin/qemu-system-x86_64", "libexec/virtiofsd", "bin/cloud-hypervisor",
    "share/kata-containers/vmlinux.container", "share/kata-containers/kata-containers.img", "share/kata-containers/kata-containers-initrd.img",
    "share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml", "share/defaults/kata-containers/configuration-qemu.toml",
}
GO = {name for name in RUST if "runtime-rs" not in name} - {"bin/qemu-system-x86_64", "bin/cloud-hypervisor"} | {"bin/qemu-system-aarch64"}


def contents(names: set[str]) -> dict:
    return contents_of(lambda name: f"/r/{name}" if name in names else None, "6.18.35")


def test_the_rust_shim_comes_before_the_go_shim() -> None:
    assert contents(RUST) == {
        "shim": "/r/runtime-rs/bin/containerd-shim-kata-v2", "shim_kind": "rust", "qemu": "/r/bin/qemu-system-x86_64", "virtiofsd": "/r/libexec/virtiofsd",
        "cloud_hypervisor": "/r/bin/cloud-hypervisor", "kernel": "/r/share/kata-containers/vmlinux.container", "kernel_release": "6.18.35",
        "image": "/r/share/kata-containers/kata-containers.img", "initrd": "/r/share/kata-containers/kata-containers-initrd.img",
        "configuration": "/r/share/defaults/kata-containers/runtime-rs/configuration-qemu-runtime-rs.toml",
    }
    go = contents(GO)
    assert (go["shim"], go["shim_kind"], go["qemu"]) == ("/r/bin/containerd-shim-kata-v2", "go", "/r/bin/qemu-system-aarch64")
    assert (go["configuration"], go["cloud_hypervisor"]) == ("/r/share/defaults/kata-containers/configuration-qemu.toml", None)


def test_what_is_not_there_is_null() -> None:
    nothing = contents_of(lambda dummy: None, None)
    assert set(nothing) == set(contents(RUST))
    assert set(nothing.values()) == {None}


def bz_image(text: bytes) -> bytes:
    image = bytearray(4096)
    image[0x202:0x206], image[0x20E:0x210] = b"HdrS", (0x300).to_bytes(2, "little")
    image[0x500:0x500 + len(text)] = text
    return bytes(image)


KERNELS = {
    "a vmlinux": (b"\x7fELF" + bytes(900) + b"%s version %s (x)\0Linux version %s (\0Linux version 6.18.35 (root@x) (gcc) #1 SMP\0", "6.18.35"),
    "a vmlinux of ours": (b"\x7fELF" + bytes(900) + b"Linux version 6.12.107-nested+ (a@b) ", "6.12.107-nested+"),
    "a bzImage": (bz_image(b"6.18.35-dragonball (root@x) #1 SMP\0"), "6.18.35-dragonball"),
    "a bzImage that is cut off": (bz_image(b"")[:0x300], None),
    "something else": (b"no kernel at all", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("case", KERNELS)
def test_the_release_of_a_kernel_is_read_from_its_file(case: str) -> None:
    image, said = KERNELS[case]
    assert kernel_release(image) == said


def test_the_files_in_a_process_s_memory_are_read() -> None:
    maps = (
        "55d0c0a00000-55d0c0a02000 r--p 00000000 fd:01 12345                      /srv/kata/4.1.0/bin/qemu system\n"
        "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
        "7f0000001000-7f0000002000 rw-p 00000000 00:00 0                          [heap]\n"
        "7f0000002000-7f0000003000 rw-s 00000000 00:1b 99                         /dev/shm/x (deleted)\n"
    )
    assert list(mapped(maps)) == [MappedFile((0xFD, 1), 12345, "/srv/kata/4.1.0/bin/qemu system"), MappedFile((0, 0x1B), 99, "/dev/shm/x (deleted)")]


def test_what_is_mounted_below_is_read_with_its_spaces() -> None:
    mountinfo = (
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "30 22 0:40 / /srv/kata/4.1.0/my\\040share rw - tmpfs tmpfs rw\n"
        "31 22 0:41 / /srv/kata/4.1.0-old rw - tmpfs tmpfs rw\n"
        "32 22 0:42 / /srv/kata/4.1.0 rw - tmpfs tmpfs rw\n"
    )
    assert mounted_below(PATH, mountinfo) == (f"{PATH}/my share", PATH)
