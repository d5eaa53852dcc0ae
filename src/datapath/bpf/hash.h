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
};

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

INLINE u64 hash_v4(be32 ip, u64 seed)
{
	u64 h = ip * seed;
	h ^= h >> 32;
	return h * GOLDEN;
}

INLINE u64 hash_v6(const be32 *ip, u64 seed)
{
	u64 h = ((u64)ip[1] << 32 | ip[0]) * seed;
	h ^= h >> 32;
	h = (h + ((u64)ip[3] << 32 | ip[2])) * seed;
	h ^= h >> 32;
	return h * GOLDEN;
}

INLINE u64 hash_service(u64 key, u64 seed)
{
	u64 h = key * seed;
	h ^= h >> 32;
	return h * GOLDEN;
}
