/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the kernel's interface that the programs use: stable UAPI layouts and helper numbers only, so
 * that nothing has to be relocated and no kernel header is needed to build. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;
typedef u16 be16;
typedef u32 be32;

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the flow hash is defined on little-endian loads; all nodes of a cluster must agree on it"
#endif

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Verified once, for any arguments, not for each caller and state. Pointers may be NULL as far as the verifier
 * knows, and anything may be returned. */
#define GLOBAL __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
#define ntohl(x) __builtin_bswap32(x)
#define copy(to, from, n) __builtin_memcpy((to), (from), (n))
#define zero(to, n) __builtin_memset((to), 0, (n))
#define SAME_SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
/* An offset into the packet with a bound that the verifier can see; it loses what it knew at a spill. */
#define bounded(offset) ({ u32 o_ = (offset); asm volatile("" : "+r"(o_)); o_ & 0x7ff; })

#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, value) typeof(value) *name

enum map_type {
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LRU_HASH = 9,
};
enum { MAP_MMAPABLE = 1 << 10 };
enum update { UPDATE_ANY = 0, UPDATE_NOEXIST = 1 };

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
enum tcx_action { TCX_NEXT = -1, TCX_PASS = 0, TCX_DROP = 2 };

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end, napi_id;
	u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port;
	u32 data_meta;
	u64 flow_keys, tstamp;
	u32 wire_len, gso_segs;
	u64 sk;
	u32 gso_size;
	u8 tstamp_type, pad[3];
	u64 hwtstamp;
};
SAME_SIZE(struct __sk_buff, 192);

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const nanoseconds)(void) = (void *)5;
static long (*const skb_store)(struct __sk_buff *skb, u32 at, const void *from, u32 len, u64 flags) = (void *)9;
static long (*const l3_csum)(struct __sk_buff *skb, u32 at, u64 from, u64 to, u64 flags) = (void *)10;
static long (*const l4_csum)(struct __sk_buff *skb, u32 at, u64 from, u64 to, u64 flags) = (void *)11;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static s64 (*const csum_diff)(be32 *from, u32 from_size, be32 *to, u32 to_size, u32 seed) = (void *)28;
static long (*const skb_pull)(struct __sk_buff *skb, u32 len) = (void *)39;
static long (*const xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static long (*const xdp_adjust_meta)(struct xdp_md *ctx, int delta) = (void *)54;
static long (*const redirect_neigh)(u32 ifindex, void *hop, int length, u64 flags) = (void *)152;
static long (*const redirect_peer)(u32 ifindex, u64 flags) = (void *)155;
static u64 (*const xdp_length)(struct xdp_md *ctx) = (void *)188;
/* For the same path at tcx ingress. */
static s64 (*const csum_update)(struct __sk_buff *skb, u32 change) = (void *)40;
static long (*const skb_change_tail)(struct __sk_buff *skb, u32 length, u64 flags) = (void *)38;
static long (*const skb_adjust_room)(struct __sk_buff *skb, int change, u32 mode, u64 flags) = (void *)50;
enum { ROOM_MAC = 1 };
enum { ROOM_ENCAP_V4 = 2, ROOM_ENCAP_V6 = 4, ROOM_ENCAP_UDP = 16, ROOM_DECAP_V4 = 128, ROOM_DECAP_V6 = 256 };
enum { CSUM_MANGLED_0 = 0x20, CSUM_PSEUDO = 0x10 };

struct ethernet {
	u8 to[6], from[6];
	be16 protocol;
};
struct vlan {
	be16 tci, protocol;
};
struct ipv4 {
	u8 version_ihl, tos;
	be16 length, id, fragment;
	u8 ttl, protocol;
	u16 check;
	be32 from, to;
};
struct ipv6 {
	be32 version_class_label;
	be16 payload;
	u8 next, hop_limit;
	be32 from[4], to[4];
};
struct tcp {
	be16 from, to;
	be32 sequence, acknowledged;
	u8 offset, flags;
	be16 window;
	u16 check;
	be16 urgent;
};
struct udp {
	be16 from, to, length;
	u16 check;
};
struct icmp {
	u8 type, code;
	u16 check;
	be32 rest;
};
SAME_SIZE(struct ethernet, 14);
SAME_SIZE(struct ipv4, 20);
SAME_SIZE(struct ipv6, 40);
SAME_SIZE(struct tcp, 20);

enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd, ETH_VLAN = 0x8100, ETH_QINQ = 0x88a8 };
enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, IP_ICMPV6 = 58, IP_SCTP = 132 };
enum { V6_HOP = 0, V6_ROUTING = 43, V6_FRAGMENT = 44, V6_OPTIONS = 60 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };
enum { FRAGMENT_MORE = 0x2000, FRAGMENT_OFFSET = 0x1fff, FRAGMENT_NEVER = 0x4000 };
