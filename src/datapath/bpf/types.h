/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the maps. src/datapath/types.rs mirrors every struct and number here, and asserts the sizes. */
#pragma once
#include "kernel.h"

enum {
	WAYS = 8,
	ADDRESS_BITS_LOG2 = 17,
	ADDRESS_BUCKETS_LOG2 = 14,
	SERVICE_BUCKETS_LOG2 = 15,
	ADDRESSES = 1 << 16,
	SERVICES = 1 << 15,
	NODES = 1 << 13,
	SLOTS = 1 << 21, /* defaults; user space may set other sizes before loading */
	BACKENDS = 1 << 17,
	FLOWS = 1 << 18,
	HANDSHAKE_BUCKETS = 1 << 13,
	FRAGMENTS = 1 << 12,
	PORT = 6085,
	VERSION = 2,
	QUESTION = 0x3f6e6369,
	HOPS_MAX = 5, /* the ring not counted */
	RING_MAX = 32, /* nodes that are asked on it, at most */
	RINGS_MAX = 4096, /* begun by a CPU in a second, at most */
};

/* An address; IPv4 is mapped (::ffff:a.b.c.d), so that both families share the tables. */
struct ip {
	be32 word[4];
};
#define MAPPED htonl(0xffff)

/* What an address is to us. */
enum kind { KIND_VIP = 1, KIND_SELF = 2, KIND_NODE = 4, KIND_POD = 8 };

/* One bucket of a look-up table: fingerprints (0 is empty, others odd) and where the entries stand. */
struct bucket {
	u16 tag[WAYS];
	u16 entry[WAYS];
};
SAME_SIZE(struct bucket, 32);

struct address {
	struct ip ip;
	u32 kind;
	u32 index; /* of this entry: what a VIP's ports are found by */
	u32 interface; /* `bypass`: this node's end of the pod's veth; 0: the stack delivers */
	u32 reserved;
};
SAME_SIZE(struct address, 32);

enum service_flag { SERVICE_AFFINITY = 1, SERVICE_PASS = 2, SERVICE_DEEP = 4, SERVICE_SHARES = 8 };

/* A port of a VIP. */
struct service {
	u64 key;      /* see service_key() */
	u32 slots;    /* index of the first word of its slots */
	u32 backends; /* its backend n stands at backends + n - 1 */
	u32 counters; /* index into service_counters */
	be32 last;    /* word of the VIP: all of it, for IPv4 */
	u16 less_ip, less; /* what its address, and its port too, take from a sum; see nat.h */
	u8 shift;     /* slot = hash >> shift */
	u8 flags;
	u16 ring; /* a backend of the next node on the ring of its nodes; 0: none */
};
SAME_SIZE(struct service, 32);

/* A slot has four values of 16 bits, each in a plane of its own: all slots of a table by plane, four to a word.
 * The first is `cur` where the slot is settled and 0 where it is not: what a packet on the plain way reads, in a
 * quarter of the cache. Then cur, prev1, prev2. Indices from 1 on, 0 is nobody. */
enum plane { SETTLED, CUR };
/* As choose.h has it: { cur, prev1, prev2, flags }, lowest first. */
enum slot_flag { SLOT_CHECK = 1 };

/* A pod's port. node 0 is this node. */
struct backend {
	struct ip ip;
	be16 port;
	u16 node;
	u32 id; /* of its node, in the header; 16 bits, 0 is none */
	u16 more_ip, more; /* what its address, and its port too, add to a sum */
	u32 reserved;
};
SAME_SIZE(struct backend, 32);

/* Another node of the cluster, as the underlay reaches it. */
struct node {
	u8 to[6], from[6]; /* Ethernet: next hop, our interface */
	u16 vlan;          /* tag, 0 is none */
	u16 family;        /* 4 or 6; 0: not reachable */
	struct ip ip, source;
	u32 ifindex;
	u16 mtu;
	u16 sum; /* IPv4: sum over the constant part of the outer header */
};
SAME_SIZE(struct node, 56);

enum config_flag { CONFIG_BYPASS = 1 };
enum { WAYS_BACK = 4 };

struct config {
	u64 seed; /* of both tables of the bank that holds, which is the lowest bit: one load says all of it */
	u64 flow_key[6];
	u32 id;	/* of this node, as in struct backend */
	u16 mss4, mss6; /* clamp of SYN-ACKs; 0 is none */
	u32 flags;
	u32 vips[2]; /* per bank: addresses before this entry are VIPs, the others are not */
	u32 way_back[WAYS_BACK]; /* `bypass`: interfaces with a default route, in turns; 0: none */
	u32 handshake_buckets;
	u32 nothing; /* 0 */
	u32 reserved;
};
SAME_SIZE(struct config, 104);

/* What is looked up by hash or by number. */
struct bank {
	u64 address_bit[1 << (ADDRESS_BITS_LOG2 - 6)]; /* of hashes: what most packets stop at */
	struct bucket address_bucket[1 << ADDRESS_BUCKETS_LOG2];
	struct address address[ADDRESSES];
	struct bucket service_bucket[1 << SERVICE_BUCKETS_LOG2];
	struct service service[SERVICES];
	struct node node[NODES];
};

/* The one value of the map `tables`. Its address is asked for once a packet; the rest is arithmetic that the
 * verifier bounds: no key on the stack, no test, no spilled register for each look-up. */
struct tables {
	struct config config;
	u8 rest_of_page[4096 - sizeof(struct config)];
	struct bank bank[2];
};
SAME_SIZE(struct tables, 4096 + 2 * 5193728);

struct flow_key {
	struct ip client, other; /* other: the VIP in flows, the pod in replies */
	be16 client_port, other_port;
	u8 protocol;
	u8 pad[3];
};
SAME_SIZE(struct flow_key, 40);

struct flow {
	struct ip ip; /* flows: the pod; replies: the VIP */
	be16 port;
	u16 closing; /* the pod has sent FIN or RST: a SYN with these ports is a new connection */
	u32 reserved;
};
SAME_SIZE(struct flow, 24);

/* A SYN that was let through to a pod: one entry, found from both sides by the client. */
struct handshake {
	struct ip client, vip, pod;
	be16 client_port, vip_port, pod_port;
	u16 reserved;
	u32 order; /* the younger of two has the larger one */
	u32 reserved_too;
};
SAME_SIZE(struct handshake, 64);

/* Those of the clients with one hash; the oldest gives way. */
enum { HANDSHAKE_WAYS = 7 };
struct handshakes {
	u16 tag[HANDSHAKE_WAYS]; /* of the hash, odd; 0 is a free place */
	u16 reserved;
	u32 next;
	u32 version[HANDSHAKE_WAYS]; /* odd while the place is written */
	u32 rest_of_line[4];
	struct handshake of[HANDSHAKE_WAYS];
};
SAME_SIZE(struct handshakes, 512);

/* A fragmented reply under way: the address of its first fragment. */
struct fragment_key {
	struct ip from, to;
	u32 id;
	u32 protocol;
};
SAME_SIZE(struct fragment_key, 40);

/* Our header between UDP and the client's packet, as one little-endian number: version, hops (4 bits), flags (4),
 * then the ids of three nodes that were asked, the last one first; on the ring, where it began and how many more may be
 * asked. */
struct tunnel {
	u64 head;
};
SAME_SIZE(struct tunnel, 8);
#define TUNNEL(hops, flags, asked) (VERSION | (u64)((hops) | (flags) << 4) << 8 | (asked) << 16)
/* A probe asks whether a node takes encapsulated packets; it and its answer stand alone, without a packet. */
enum tunnel_flag { TUNNEL_FINAL = 1, TUNNEL_PROBE = 2, TUNNEL_ANSWER = 4, TUNNEL_RING = 8 };

/* How many rings were begun in this second. */
struct rings {
	u64 second, begun;
};
SAME_SIZE(struct rings, 16);

struct service_counters {
	u64 delivered, encapsulated, chained, refused, bytes;
};
SAME_SIZE(struct service_counters, 40);

/* Why a packet was treated as it was; index into `counters`. */
enum reason {
	R_CHAINED,
	R_RETURNED,
	R_DECAPSULATED,
	R_ECHO,
	R_PROBE,
	R_TOO_BIG,
	R_REPLY,
	R_ESTABLISHED,
	R_CLAMPED,
	R_ICMP_IN,
	R_ICMP_OUT,
	R_PASS_FRAGMENT,
	R_PASS_OPTIONS,
	R_PASS_PROTOCOL,
	R_PASS_TOO_BIG,
	R_PASS_FOREIGN,
	R_PASS_UNREACHABLE,
	R_DROP_MALFORMED,
	R_DROP_UNKNOWN_PORT,
	R_DROP_PROTOCOL,
	R_DROP_ICMP,
	R_DROP_EXTENSIONS,
	R_DROP_NO_BACKEND,
	R_DROP_SPOOFED,
	R_DROP_HEADER,
	R_DROP_HOPS,
	R_DROP_UNREACHABLE,
	R_DROP_ADJUST,
	R_DROP_COLLISION,
	REASONS,
};
