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

/* The tag of a hash: odd, so never that of an empty place; of other bits than the bucket's number. */
INLINE u64 tag_of(u64 hash)
{
	return (hash >> 32 & 0xffff) | 1;
}

/* Whether an address with this hash may be known. */
INLINE int may_be_known(const struct bank *bank, u64 hash)
{
	u64 word = bank->address_bit[hash >> (64 - ADDRESS_BITS_LOG2 + 6)];
	return word >> (hash >> (64 - ADDRESS_BITS_LOG2) & 63) & 1;
}

/* Whether any of the bucket's tags may match. */
INLINE int may_hold(const struct bucket *b, u64 tag)
{
	const u64 *tags = (const u64 *)b->tag;
	return (lanes(tags[0], tag) | lanes(tags[1], tag)) != 0;
}

INLINE const struct bucket *address_bucket(const struct bank *bank, u64 hash)
{
	return &bank->address_bucket[hash >> (64 - ADDRESS_BUCKETS_LOG2)];
}

INLINE const struct bucket *service_bucket(const struct bank *bank, u64 hash)
{
	return &bank->service_bucket[hash >> (64 - SERVICE_BUCKETS_LOG2)];
}

INLINE const struct address *address_at(const struct bank *bank, const struct bucket *b, int way)
{
	return &bank->address[b->entry[way] & (ADDRESSES - 1)];
}

INLINE const struct service *service_at(const struct bank *bank, const struct bucket *b, int way)
{
	return &bank->service[b->entry[way] & (SERVICES - 1)];
}

INLINE const struct address *find_address(const struct bank *bank, u64 hash, const struct ip *ip)
{
	const struct bucket *b = address_bucket(bank, hash);
	u64 tag = tag_of(hash);

	if (likely(!may_hold(b, tag)))
		return NULL;
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		const struct address *a = address_at(bank, b, way);
		if (b->tag[way] == tag && same(&a->ip, ip))
			return a;
	}
	return NULL;
}

INLINE const struct address *find_v4(const struct tables *t, be32 ip)
{
	struct ip full = mapped(ip);
	return find_address(bank_of(t), hash_v4(ip, 0, seed_of(t)), &full);
}

INLINE const struct address *find_v6(const struct tables *t, const be32 *ip)
{
	return find_address(bank_of(t), hash_v6(ip, 0, seed_of(t)),
			    (const struct ip *)ip);
}

INLINE u64 ports_of(u8 protocol, be16 port)
{
	return (u32)protocol << 16 | port;
}

INLINE u64 service_key(u32 vip, u64 v6, u64 ports)
{
	return (u64)vip << 32 | v6 << 24 | ports;
}

/* The port of a VIP that stands at this address. */
INLINE const struct service *find_service(const struct tables *t, const struct address *vip, u8 v6, u64 ports)
{
	const struct bank *bank = bank_of(t);
	u64 seed = seed_of(t), key = service_key(vip->index, v6, ports);
	u64 hash = v6 ? hash_v6(vip->ip.word, ports, seed) : hash_v4(vip->ip.word[3], ports, seed);
	const struct bucket *b = service_bucket(bank, hash);
	u64 tag = tag_of(hash);

	if (!may_hold(b, tag))
		return NULL;
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		const struct service *s = service_at(bank, b, way);
		if (b->tag[way] == tag && s->key == key)
			return s;
	}
	return NULL;
}

INLINE u16 in_plane(const struct service *s, u32 slot, u32 plane)
{
	u32 at = s->slots + (plane << (30 - s->shift & 31)) + (slot >> 2);
	const void *word = map_lookup(&slots, &at);
	return word ? *(const u16 *)(word + (slot & 3) * 2) : 0;
}

INLINE u64 find_slot(const struct service *s, u32 hash)
{
	u32 slot = hash >> (s->shift & 31);
	u64 cur = in_plane(s, slot, CUR), prev1 = in_plane(s, slot, CUR + 1), prev2 = in_plane(s, slot, CUR + 2);
	u64 flags = in_plane(s, slot, SETTLED) == cur ? 0 : SLOT_CHECK;
	return cur | prev1 << 16 | prev2 << 32 | flags << 48;
}

/* Backend n of the table whose backends begin there, n from 1 on. */
INLINE struct backend *backend_at(u32 first, u16 n)
{
	u32 at = first + n - 1;
	return n ? map_lookup(&backends, &at) : NULL;
}

INLINE const struct node *find_node(const struct tables *t, u16 n)
{
	const struct node *node = &bank_of(t)->node[n & (NODES - 1)];
	return node->family ? node : NULL;
}
