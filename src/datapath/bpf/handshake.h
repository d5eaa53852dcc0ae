/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes under way: a table of our own, since every SYN is written into it. It costs one bucket, found by the
 * client alone, where a hash map of the kernel costs two entries (one for each side), and an eviction for each.
 *
 * Nobody waits here. A place is written by whoever makes its version odd first, and read between two looks at its
 * version; the atomic operations order what stands between them. Versions stand beside the tags, in the line that is
 * read anyway: what is written to the place itself need not have arrived before the packet goes on. */
#pragma once
#include "hash.h"

INLINE struct flow flow_to(const struct ip *ip, be16 port)
{
	struct flow f = {.ip = *ip, .port = port};
	return f;
}

INLINE struct handshakes *handshakes_of(const struct tables *t, const struct ip *client, be16 port, u16 *tag)
{
	u64 hash = client_hash(t->config.flow_key, client, port);
	u32 bucket = (hash >> 32) * t->config.handshake_buckets >> 32;

	*tag = (hash >> 16 & 0xffff) | 1;
	return map_lookup(&handshakes, &bucket);
}

/* A look at a version that nothing is moved across. */
INLINE u32 look_at(u32 *version)
{
	return __sync_fetch_and_or(version, 0);
}

/* Whatever was written before can be seen by who sees this. An exchange would wait until it can. */
INLINE void publish(u32 *version, u32 value)
{
#ifdef STORES_IN_ORDER
	asm volatile("" : : : "memory");
	*(volatile u32 *)version = value;
#else
	__sync_lock_test_and_set(version, value);
#endif
}

INLINE int is_clients(const struct handshake *h, const struct ip *client, be16 port)
{
	return h->client_port == port && same(&h->client, client);
}

/* The youngest handshake of a client: with this VIP, and the pod is told; or with the pod that stands in the VIP's
 * place, and the VIP is told. */
GLOBAL int find_handshake(const struct tuple *t, int by_vip, struct flow *told)
{
	const struct tables *tables = the_tables();
	u32 youngest = 0;
	int found = 0;
	u16 tag;

	if (!tables || !t || !told)
		return 0;
	struct handshakes *bucket = handshakes_of(tables, &t->client, t->client_port, &tag);
	if (!bucket)
		return 0;
	for (int way = 0; way < HANDSHAKE_WAYS; way++) {
		struct handshake *h = &bucket->of[way];
		if (bucket->tag[way] != tag)
			continue;
		u32 version = look_at(&bucket->version[way]);
		const struct ip *from = by_vip ? &h->vip : &h->pod, *to = by_vip ? &h->pod : &h->vip;
		be16 from_port = by_vip ? h->vip_port : h->pod_port, to_port = by_vip ? h->pod_port : h->vip_port;
		if (version & 1 || from_port != t->vip_port || !same(from, &t->vip) ||
		    !is_clients(h, &t->client, t->client_port) || (found && h->order < youngest))
			continue;
		struct flow f = flow_to(to, to_port);
		u32 order = h->order;
		if (look_at(&bucket->version[way]) != version)
			continue;
		*told = f;
		youngest = order;
		found = 1;
	}
	return found;
}

/* A handshake with the pod of a key; the VIP is told. */
INLINE int begun(const struct flow_key *k, struct flow *vip)
{
	struct tuple at_pod = {
		.client = k->client,
		.vip = k->other,
		.client_port = k->client_port,
		.vip_port = k->other_port,
		.protocol = k->protocol,
	};
	return k->protocol == IP_TCP && find_handshake(&at_pod, 0, vip);
}

INLINE int is_handshake_of(const struct handshake *h, const struct tuple *t)
{
	return h->vip_port == t->vip_port && is_clients(h, &t->client, t->client_port) && same(&h->vip, &t->vip);
}

/* Where a handshake is to be written: over the same one, to a free place, or over the oldest. */
INLINE u32 place_for(const struct handshakes *bucket, const struct tuple *t, u16 tag)
{
	u32 place = HANDSHAKE_WAYS;

	for (int way = 0; way < HANDSHAKE_WAYS; way++) {
		if (bucket->tag[way] == tag && is_handshake_of(&bucket->of[way], t))
			return way;
		if (!bucket->tag[way])
			place = way;
	}
	return place < HANDSHAKE_WAYS ? place : bucket->next % HANDSHAKE_WAYS;
}

/* A SYN goes to the pod. Of two that are to be written to one place in the same moment the second is not kept: its
 * client tries again. */
GLOBAL int keep_handshake(const struct tuple *syn, const struct ip *pod, u16 port)
{
	const struct tables *t = the_tables();
	u16 tag;

	if (!t || !syn || !pod)
		return 0;
	struct handshakes *bucket = handshakes_of(t, &syn->client, syn->client_port, &tag);
	if (!bucket)
		return 0;
	u32 place = place_for(bucket, syn, tag);
	asm volatile("" : "+r"(place)); /* the bound is tested on the register that is used */
	if (place >= HANDSHAKE_WAYS)
		return 0;
	struct handshake *h = &bucket->of[place];
	u32 version = bucket->version[place] & ~1u;
	if (__sync_val_compare_and_swap(&bucket->version[place], version, version + 1) != version)
		return 0;
	bucket->tag[place] = tag;
	h->client = syn->client;
	h->vip = syn->vip;
	h->pod = *pod;
	h->client_port = syn->client_port;
	h->vip_port = syn->vip_port;
	h->pod_port = port;
	h->order = bucket->next++;
	publish(&bucket->version[place], version + 2);
	return 1;
}

/* It is complete. */
GLOBAL int forget_handshake(const struct tuple *done)
{
	const struct tables *t = the_tables();
	u16 tag;

	if (!t || !done)
		return 0;
	struct handshakes *bucket = handshakes_of(t, &done->client, done->client_port, &tag);
	if (!bucket)
		return 0;
	for (int way = 0; way < HANDSHAKE_WAYS; way++)
		if (bucket->tag[way] == tag && is_handshake_of(&bucket->of[way], done))
			bucket->tag[way] = 0;
	return 0;
}
