/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed hashes; src/datapath/hash.rs computes the same. */
#pragma once
#include "maps.h"

#define GOLDEN 0x9e3779b97f4a7c15ULL

/* What a connection is recognised by, seen from the client. */
struct tuple {
	struct ip client, vip;
	be16 client_port, vip_port;
	u8 protocol;
} __attribute__((aligned(8)));

INLINE struct ip mapped(be32 v4)
{
	struct ip ip = {{0, 0, MAPPED, v4}};
	return ip;
}

INLINE int same(const struct ip *a, const struct ip *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/* Pair-multiply-shift (Thorup 2015, section 3.3): strongly universal before the finish; the finish breaks up
 * the arithmetic progressions that neighbouring ports would give. */
INLINE u32 flow_hash(const u64 *key, const struct tuple *t, int v6, int affinity)
{
	u64 ports = affinity ? 0 : t->client_port | (u32)t->vip_port << 16 | (u64)t->protocol << 32;
	u64 h;

	if (v6)
		h = (t->client.word[0] + key[0]) * (t->client.word[1] + key[1]) +
		    (t->client.word[2] + key[2]) * (t->client.word[3] + key[3]) + (ports + key[4]) * key[5];
	else
		h = (t->client.word[3] + key[3]) * (ports + key[4]);
	h ^= h >> 32;
	h *= GOLDEN;
	return h >> 32;
}

/* Of a client's address and port, which both sides of a connection know. */
INLINE u64 client_hash(const u64 *key, const struct ip *client, be16 port)
{
	u64 h = (client->word[0] + key[0]) * (client->word[1] + key[1]) +
		(client->word[2] + key[2]) * (client->word[3] + key[3]) + (port + key[4]) * key[5];
	h ^= h >> 32;
	return h * GOLDEN;
}

INLINE u64 load64(const void *at)
{
	return *(const u64 *)at;
}

/* Other multipliers of the same seed. */
INLINE u64 turned(u64 seed, u32 bits)
{
	return (seed << bits | seed >> (64 - bits)) | 1;
}

/* Spreads a sum of products over all bits. */
INLINE u64 finished(u64 h)
{
	h ^= h >> 32;
	return h * GOLDEN;
}

INLINE u64 seed_of(const struct tables *t)
{
	return t->config.seed | 1;
}

/* Of an address, or of a port of one: `ports` is 0, or protocol and port. The products do not wait for each
 * other, and that of a port does not wait for its address to be found. Both tables have one seed, so those of the address
 * are made once. */
INLINE u64 hash_v4(be32 ip, u64 ports, u64 seed)
{
	return finished(ip * seed + (ports * seed << 32));
}

INLINE u64 hash_v6(const be32 *ip, u64 ports, u64 seed)
{
	return finished(load64(ip) * seed + load64(ip + 2) * turned(seed, 21) + ports * turned(seed, 42));
}
