/* SPDX-License-Identifier: Apache-2.0 */
/* From a destination to an address entry, from (VIP, protocol, port) to a service, from a slot to a backend. */
#pragma once
#include "hash.h"

#define LANES 0x0001000100010001ULL
#define TOPS 0x8000800080008000ULL

/* The lanes of four tags that equal `tag`, as their top bits (false ones only above a true one). */
INLINE u64 lanes(u64 tags, u64 tag)
{
	u64 x = tags ^ tag * LANES;
	return (x - LANES) & ~x & TOPS;
}

/* The tag of a hash: odd, so never that of an empty place. */
INLINE u64 tag_of(u64 hash)
{
	return (hash & 0xffff) | 1;
}

/* Whether any of the bucket's tags may match; what most packets stop at. */
INLINE int may_hold(const struct bucket *b, u64 tag)
{
	const u64 *tags = (const u64 *)b->tag;
	return (lanes(tags[0], tag) | lanes(tags[1], tag)) != 0;
}

INLINE struct address *address_in(const struct bucket *b, u64 tag, u32 bank, const struct ip *ip)
{
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		if (b->tag[way] != tag)
			continue;
		u32 at = bank * ADDRESSES + b->entry[way];
		struct address *a = map_lookup(&addresses, &at);
		if (a && same(&a->ip, ip))
			return a;
	}
	return NULL;
}

INLINE struct address *find_address(const struct config *c, u64 hash, const struct ip *ip)
{
	u32 bank = c->bank & 1;
	u32 at = (bank << ADDRESS_BUCKETS_LOG2) + (hash >> (64 - ADDRESS_BUCKETS_LOG2));
	struct bucket *b = map_lookup(&address_buckets, &at);
	u64 tag = tag_of(hash);

	if (!b || likely(!may_hold(b, tag)))
		return NULL;
	return address_in(b, tag, bank, ip);
}

INLINE struct address *find_v4(const struct config *c, be32 ip)
{
	struct ip full = mapped(ip);
	return find_address(c, hash_v4(ip, c->address_seed[c->bank & 1]), &full);
}

INLINE struct address *find_v6(const struct config *c, const be32 *ip)
{
	return find_address(c, hash_v6(ip, c->address_seed[c->bank & 1]), (const struct ip *)ip);
}

INLINE u64 service_key(u32 vip, u8 protocol, be16 port)
{
	return (u64)vip << 32 | (u32)protocol << 16 | port;
}

INLINE struct service *find_service(const struct config *c, u64 key)
{
	u32 bank = c->bank & 1;
	u64 hash = hash_service(key, c->service_seed[bank]), tag = tag_of(hash);
	u32 at = (bank << SERVICE_BUCKETS_LOG2) + (hash >> (64 - SERVICE_BUCKETS_LOG2));
	struct bucket *b = map_lookup(&service_buckets, &at);

	if (!b || !may_hold(b, tag))
		return NULL;
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		if (b->tag[way] != tag)
			continue;
		at = bank * SERVICES + b->entry[way];
		struct service *s = map_lookup(&services, &at);
		if (s && s->key == key)
			return s;
	}
	return NULL;
}

INLINE u64 find_slot(const struct service *s, u32 hash)
{
	u32 at = s->slots + (hash >> (s->shift & 31));
	u64 *slot = map_lookup(&slots, &at);
	return slot ? *(volatile u64 *)slot : 0;
}

/* Backend n of the table whose backends begin there, n from 1 on. */
INLINE struct backend *backend_at(u32 first, u16 n)
{
	u32 at = first + n - 1;
	return n ? map_lookup(&backends, &at) : NULL;
}

INLINE struct node *find_node(const struct config *c, u16 n)
{
	u32 at = (c->bank & 1) * NODES + n;
	struct node *node = map_lookup(&nodes, &at);
	return node && node->family ? node : NULL;
}
