# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile nested: this machine is itself a host of Kata VMs, with all that Kata opens there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import struct
import time
from collections.abc import Iterator
from functools import partial

from ansible_collections.nested.kata.plugins.module_utils._host.kvm import KvmError, run_guest

from .proof import Disproved, cable, expect, inside, named, namespaces, run

VHOST_SET_OWNER = 0xAF01
VHOST_GET_FEATURES = 0x8008AF00
VHOST_VSOCK_SET_GUEST_CID = 0x4008AF60
TUNSETIFF = 0x400454CA
IFF_TAP = 2
IFF_NO_PI = 0x1000
ECHO_REQUEST = (
    b"\x08\x00",
    12,
    23,
    34,
)  # the type IPv4, and where an Ethernet frame has it, the protocol, and the type of ICMP


def a_guest_runs_on_kvm() -> str:
    try:
        ran = run_guest()
    except KvmError as error:
        raise Disproved(str(error)) from None
    return f"it answered {ran.answer} in {ran.seconds * 1000:.0f} ms, API version {ran.api_version}"


def vhost_takes_an_owner(path: str) -> str:
    expect(os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode), f"{path} is no character device")
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, VHOST_SET_OWNER, 0)
        features = struct.unpack("=Q", fcntl.ioctl(descriptor, VHOST_GET_FEATURES, bytes(8)))[0]
        if path.endswith("vsock"):
            fcntl.ioctl(descriptor, VHOST_VSOCK_SET_GUEST_CID, struct.pack("=Q", 42))
    finally:
        os.close(descriptor)
    return f"{path} is owned, features {features:#x}"


def mirred_joins_a_tap_to_a_container() -> str:
    """As Kata connects a VM: what comes in on the container's link is redirected to a tap, and the other way around."""
    with namespaces("a", "b"):
        cable("a", "b")
        inside(
            "b ip address add 10.7.0.2/24 dev v\nb ip neighbour add 10.7.0.1 lladdr 02:00:00:00:00:01 dev v nud"
            " permanent"
        )
        with tap("b", "t") as frames:
            run("ip -n b link set dev t netns a")
            inside("a ip link set dev t up")
            for own, other in (("v", "t"), ("t", "v")):
                inside(
                    f"a tc qdisc add dev {own} ingress\na tc filter add dev {own} parent ffff: protocol all u32 match"
                    f" u8 0 0 action mirred egress redirect dev {other}"
                )
            run("ip netns exec b ping -c 1 -W 1 10.7.0.1 & true")
            request = receive(frames)
            # The answer of a VM: addresses exchanged, type 0 in place of 8, the checksum 8 << 8 greater.
            reply = bytearray(request)
            reply[0:12] = request[6:12] + request[0:6]
            reply[26:34] = request[30:34] + request[26:30]
            reply[34] = 0
            checksum = int.from_bytes(request[36:38], "big") + 0x0800
            reply[36:38] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
            received = int(inside("b cat /sys/class/net/v/statistics/rx_packets"))
            os.write(frames, reply)
            deadline = time.monotonic() + 5
            while int(inside("b cat /sys/class/net/v/statistics/rx_packets")) == received:
                expect(
                    time.monotonic() < deadline, "the reply written to the tap did not come out of the container's link"
                )
    return f"an echo request of {len(request)} bytes came out of the tap, and its reply went back"


@contextlib.contextmanager
def tap(namespace: str, name: str) -> Iterator[int]:
    """Open a tap in this namespace, and move it to the other; what is handed over reads and writes its frames."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        run(f"ip link set dev {name} netns {namespace}")
        yield descriptor
    finally:
        os.close(descriptor)


def receive(frames: int) -> bytes:
    """Return the first echo request that comes out of the tap."""
    ethertype, at, protocol, kind = ECHO_REQUEST
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if select.select([frames], [], [], 1)[0]:
            frame = os.read(frames, 2048)
            if frame[at : at + 2] == ethertype and frame[protocol] == 1 and frame[kind] == 8:
                return frame
    raise Disproved("no echo request came out of the tap")


PROOFS = {
    **named(a_guest_runs_on_kvm),
    "vhost-net takes an owner": partial(vhost_takes_an_owner, "/dev/vhost-net"),
    "vhost-vsock takes an owner": partial(vhost_takes_an_owner, "/dev/vhost-vsock"),
    **named(mirred_joins_a_tap_to_a_container),
}
