# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount the disk of this machine's Docker and write what dockerd must know, before dockerd starts.

Runs as a oneshot unit that docker.service requires: where the disk is missing or another one,
dockerd does not start, so that it never fills the root file system or somebody else's disk.

Whoever uses this machine may have settings of their own in daemon.json. They are judged and edited by two files of the
collection, which the machine image has beside this one.

    grow BYTES    let the file system grow to this size while dockerd runs (`docker_prepare.py grow BYTES`)

That prints `grown` where it did so, and `restart` where more of it waits for the next start.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DISK = Path("/dev/docker-disk")
DISK_SIZE = Path("/etc/docker-disk-size")  # how much of the disk the file system takes, in bytes, or all of it
DATA = Path("/var/lib/docker")
DAEMON_JSON = Path("/etc/docker/daemon.json")
CLIENT_JSON = Path("/root/.docker/config.json")
ETH0_MTU = Path("/sys/class/net/eth0/mtu")
MTU = "com.docker.network.driver.mtu"  # the name of the option in networks of each driver
EXT4_64BIT = 0x80  # of its incompatible features: the number of blocks has a second half
LEAST_ROOM = 16 << 20  # bytes for which an ext4 grows: it leaves out a last group of blocks that is too small
MOUNT_OPTIONS = {"btrfs": "compress=zstd:1,discard=async"}


class NotReady(Exception):
    """Docker must not start: the reason, in one line."""


def output(*command: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run a command and return what it printed, without the end of line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotReady(f"{command[0]} is missing in this image") from None
    if done.returncode not in accept:
        raise NotReady(
            f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout.strip()


def check_uuid(found: str, wanted: str) -> None:
    """Raise NotReady unless the disk is the one this instance was created with."""
    if found != wanted:
        raise NotReady(
            f"{DISK} has the UUID {found or 'none'}, this instance was created with {wanted}: it is another disk and"
            " was not mounted"
        )


def mounted() -> bool:
    """Tell whether it is this disk that is mounted at Docker's data directory: so after a restart of the unit."""
    if not os.path.ismount(DATA):
        return False
    source = Path(output("findmnt", "--noheadings", "--first-only", "--output", "SOURCE", str(DATA)))
    return source.is_block_device() and source.stat().st_rdev == DISK.stat().st_rdev


def mount(uuid: str) -> str:
    """Mount the disk at Docker's data directory, let its file system grow, and return the file system."""
    if not DISK.exists():
        raise NotReady(f"there is no {DISK}: the instance was started without its disk {uuid}")
    found = dict(
        line.split("=", 1) for line in output("blkid", "--probe", "--output", "export", str(DISK)).splitlines()
    )
    check_uuid(found.get("UUID", ""), uuid)
    fstype = found.get("TYPE", "")
    size = min(wanted_size(), disk_size())
    DATA.mkdir(mode=0o710, parents=True, exist_ok=True)
    if not mounted():
        if fstype == "ext4" and room_for_ext4(size) >= LEAST_ROOM:
            output("e2fsck", "-f", "-p", str(DISK), accept=(0, 1))  # 1 says that it put something right
            output("resize2fs", str(DISK), f"{size // 1024}K")
        attach(fstype)
    if fstype == "btrfs":
        grow_btrfs(size)
    return fstype


def wanted_size() -> int:
    """Return the size of the file system that whoever started this machine wants; without one, it fills the disk."""
    try:
        return int(DISK_SIZE.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return sys.maxsize


def disk_size() -> int:
    """Return the size of the disk in bytes."""
    with DISK.open("rb") as disk:
        return disk.seek(0, os.SEEK_END)


def grow(size: int) -> list[str]:
    """Let the mounted file system grow, and return what there is to say of it."""
    if not mounted():
        raise NotReady(f"{DISK} is not mounted at {DATA}")
    there = min(size, disk_size())
    grown = False
    # A mounted ext4 grows for CAP_SYS_RESOURCE only (fs/ext4/resize.c, ext4_resize_begin), which an instance does not
    # have.
    if output("findmnt", "--noheadings", "--first-only", "--output", "FSTYPE", str(DATA)) == "ext4":
        waits = room_for_ext4(size) >= LEAST_ROOM
    else:
        grown, waits = grow_btrfs(there), there < size
    return ["grown"] * grown + ["restart"] * waits


def grow_btrfs(size: int) -> bool:
    """Let the mounted btrfs grow, which never shrinks, and return whether it did."""
    found = os.statvfs(DATA)
    size -= size % found.f_frsize
    if found.f_blocks * found.f_frsize >= size:
        return False
    output("btrfs", "filesystem", "resize", str(size), str(DATA))
    return True


def room_for_ext4(size: int) -> int:
    """Return the bytes by which the disk's ext4 is smaller than wanted (fs/ext4/ext4.h, struct ext4_super_block)."""
    with DISK.open("rb") as disk:
        disk.seek(1024)
        superblock = disk.read(1024)

    def field(offset: int) -> int:
        return int.from_bytes(superblock[offset : offset + 4], "little")

    blocks = field(0x04) + (field(0x150) << 32 if field(0x60) & EXT4_64BIT else 0)
    return size - blocks * (1024 << min(field(0x18), 6))


def attach(fstype: str) -> None:
    """Mount the disk at Docker's data directory."""
    options = MOUNT_OPTIONS.get(fstype)
    output("mount", "-t", fstype, *(["-o", options] if options else []), str(DISK), str(DATA))


def driver(fstype: str) -> str:
    """Return the storage driver for a file system, by name: dockerd's own choice on btrfs is overlay2."""
    return "btrfs" if fstype == "btrfs" else "overlay2"


def daemon_config(
    present: dict,
    *,
    fstype: str,
    mtu: int,
    pool: str | None,
    mirrors: list[str] | None = None,
    changes: list[str] | None = None,
) -> dict:
    """Return the configuration of dockerd: what is present, with what this machine must have on top. What that changes
    of what is present is added to `changes`, in words.

    The MTU never exceeds that of eth0, on the default bridge and on every network made later; `pool` is the
    range (CIDR) that networks of this level are taken from, a /24 each, unless there are other ranges. `mirrors` are
    those of Docker Hub, unless there are other ones.
    """
    changes = [] if changes is None else changes
    config = dict(present)
    config["storage-driver"] = driver(fstype)
    if present.get("storage-driver") not in (None, "", config["storage-driver"]):
        changes.append(f"storage-driver {present['storage-driver']} does not fit the file system {fstype} of the disk")
    config["mtu"] = present.get("mtu") or mtu
    options = {name: dict(each or {}) for name, each in (present.get("default-network-opts") or {}).items()}
    options.setdefault("bridge", {}).setdefault(MTU, str(mtu))
    config["default-network-opts"] = options
    for place, table, key in [
        ("", config, "mtu"),
        *((f"default-network-opts.{name}.", options[name], MTU) for name in options),
    ]:
        if key in table and not fits(table[key], mtu):
            changes.append(f"{place}{key} {table[key]} does not fit eth0, which has {mtu}")
            table[key] = type(table[key])(mtu)
    if pool:
        own = {"base": pool, "size": 24}
        kept = [each for each in present.get("default-address-pools") or [] if each != own]
        clear = [each for each in kept if not overlap(base_of(each), pool)]
        changes += [
            f"default-address-pools {base_of(each)} overlaps {pool}, this level's" for each in kept if each not in clear
        ]
        config["default-address-pools"] = [*clear, own]
    if mirrors:
        config.setdefault("registry-mirrors", mirrors)
    return config


def fits(found: int | str, most: int) -> bool:
    """Tell whether an MTU is not larger than another one; one that is not positive means Docker's default."""
    try:
        return 0 < int(found) <= most
    except ValueError:
        return True  # networks with it are refused by Docker


def base_of(pool: dict | None) -> str:
    """Return the range of an address pool; dockerd finds its name in any case."""
    return {name.lower(): value for name, value in (pool or {}).items()}.get("base") or ""


def overlap(one: str, other: str) -> bool:
    """Tell whether two ranges (CIDR) have an address in common."""
    from ipaddress import ip_network  # noqa: PLC0415 - few have such settings

    try:
        networks = ip_network(one, strict=False), ip_network(other, strict=False)
    except ValueError:
        return False  # dockerd does not take it either
    return networks[0].version == networks[1].version and networks[0].overlaps(networks[1])


def written(config: dict) -> str:
    """Return the text of a daemon.json that is all this program's."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def is_own(text: str, present: dict) -> bool:
    """Tell whether this program wrote all of a daemon.json, maybe for another eth0."""
    if written(present) != text:
        return False
    pool = ((present.get("default-address-pools") or [{}])[0] or {}).get("base")
    found = {"fstype": present.get("storage-driver"), "mtu": present.get("mtu"), "pool": pool}
    return present == daemon_config({}, **found, mirrors=present.get("registry-mirrors"))


def configure(*, fstype: str, mtu: int, pool: str | None, mirrors: list[str] | None = None) -> None:
    """Write daemon.json, with what others have in it."""
    wanted = functools.partial(daemon_config, fstype=fstype, mtu=mtu, pool=pool, mirrors=mirrors)
    if not os.path.lexists(DAEMON_JSON):
        write_if_changed(DAEMON_JSON, written(wanted({})))
        return
    if DAEMON_JSON.is_file() and DAEMON_JSON.read_bytes() == written(wanted({})).encode():
        return
    # Only where there are settings of others, so that no other start pays for it.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from daemon_json import NoSettings, content_of, read, render, replace, same  # noqa: PLC0415
    from daemon_json_types import listing, problems  # noqa: PLC0415

    try:
        text = content_of(str(DAEMON_JSON)) or ""
        present = read(text)
        wrong = problems(present)
        if wrong:
            raise NotReady(f"{DAEMON_JSON}: {listing(wrong)}: correct it, then run `systemctl start docker`")
        changes: list[str] = []
        config = wanted({} if is_own(text, present) else present, changes=changes)
        if not same(config, present):
            replace(str(DAEMON_JSON), render(config, text))
    except NoSettings as error:
        raise NotReady(f"{DAEMON_JSON}: {error}, then run `systemctl start docker`") from None
    except OSError as error:
        raise NotReady(f"{DAEMON_JSON}: {error.strerror}") from None
    for change in changes:
        print(f"{DAEMON_JSON}: {change}: changed")


def configure_client(environment: Mapping[str, str]) -> None:
    """Have Docker's client give the proxy servers to containers and builds, unless root has chosen what it gives."""
    names = {"httpProxy": "http_proxy", "httpsProxy": "https_proxy", "noProxy": "no_proxy"}
    proxies = {key: environment[name] for key, name in names.items() if environment.get(name)}
    if not proxies:
        return
    try:
        present = json.loads(CLIENT_JSON.read_text(encoding="utf-8")) if os.path.lexists(CLIENT_JSON) else {}
        if not isinstance(present, dict):
            raise ValueError("it is not an object")
        if "proxies" not in present:
            write_if_changed(CLIENT_JSON, written({**present, "proxies": {"default": proxies}}), mode=0o600)
    except (OSError, ValueError, RecursionError) as problem:
        print(f"{CLIENT_JSON}: {problem}: containers and builds do not get the proxy servers")


def write_if_changed(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically, and leave it alone when it says the same."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.touch(mode)
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    if not arguments:
        return prepare()
    try:
        command, size = arguments
        if command != "grow":
            raise ValueError(f"there is no command {command}")
        print(*grow(int(size)), sep="\n")
    except (NotReady, OSError, ValueError) as problem:
        print(f"the file system of Docker's disk does not grow: {problem}", file=sys.stderr)
        return 1
    return 0


def prepare() -> int:
    """Prepare Docker's disk and configuration; return the exit status."""
    uuid = os.environ.get("NESTED_KATA_DISK_UUID")
    fstype = ""
    try:
        if uuid:
            fstype = mount(uuid)
        elif not os.path.ismount(DATA):
            raise NotReady(
                f"nothing is mounted at {DATA} and no disk was given: Docker would fill the root file system"
            )
        configure(
            fstype=fstype or output("stat", "--file-system", "--format", "%T", str(DATA)),
            mtu=int(ETH0_MTU.read_text(encoding="ascii")),
            pool=os.environ.get("NESTED_KATA_ADDRESS_POOL"),
            mirrors=os.environ.get("NESTED_KATA_REGISTRY_MIRRORS", "").split(),
        )
        configure_client(os.environ)
    except (NotReady, OSError, ValueError) as problem:
        print(f"Docker is not started: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
