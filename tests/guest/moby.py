# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moby's contrib/check-config.sh looks for on a kernel of 6.1 or newer.

The union of its versions from 26.1 to the branch of 2026-08 (commit b985e2313a), by the headings that it prints.
"""

from __future__ import annotations

CHECKED = {
    heading: tuple(symbols.split())
    for heading, symbols in {
        "generally necessary": """
        NAMESPACES NET_NS PID_NS IPC_NS UTS_NS
        CGROUPS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER CGROUP_SCHED CPUSETS MEMCG CGROUP_BPF
        KEYS POSIX_MQUEUE
        VETH BRIDGE BRIDGE_NETFILTER
        IP_NF_FILTER IP_NF_MANGLE IP_NF_RAW IP_NF_NAT IP_NF_TARGET_MASQUERADE
        IP6_NF_FILTER IP6_NF_MANGLE IP6_NF_RAW IP6_NF_NAT IP6_NF_TARGET_MASQUERADE
        NF_NAT NETFILTER_XT_MARK NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_IPVS""",
        "optional features": """
        USER_NS SECCOMP SECCOMP_FILTER CGROUP_PIDS MEMCG_SWAP
        BLK_CGROUP BLK_DEV_THROTTLING CGROUP_PERF CGROUP_HUGETLB NET_CLS_CGROUP CGROUP_NET_PRIO
        CFS_BANDWIDTH FAIR_GROUP_SCHED
        IP_NF_TARGET_REDIRECT IP_SCTP IP_VS IP_VS_NFCT IP_VS_PROTO_TCP IP_VS_PROTO_UDP IP_VS_RR
        SECURITY_SELINUX SECURITY_APPARMOR
        NF_TABLES NFT_CT NFT_FIB NFT_FIB_IPV4 NFT_FIB_IPV6 NFT_MASQ NFT_NAT
        EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY EXT4_USE_FOR_EXT2""",
        "network drivers": """
        VXLAN BRIDGE_VLAN_FILTERING
        CRYPTO CRYPTO_AEAD CRYPTO_GCM CRYPTO_SEQIV CRYPTO_GHASH XFRM XFRM_USER XFRM_ALGO INET_ESP NETFILTER_XT_MATCH_BPF
        IPVLAN MACVLAN DUMMY
        NF_NAT_FTP NF_CONNTRACK_FTP NF_NAT_TFTP NF_CONNTRACK_TFTP""",
        "storage drivers": "BTRFS_FS BTRFS_FS_POSIX_ACL OVERLAY_FS",
    }.items()
}

# Newer versions of the script do not ask for it either.
ABSENT = {
    "MEMCG_SWAP": "is no symbol any more from 6.1 on, where swap is always accounted for",
}
