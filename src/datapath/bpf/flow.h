/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's memory. Only connections of this node's own pods stand here. */
#pragma once
#include "hash.h"
#include "stats.h"

INLINE struct flow_key key_of(const struct tuple *t, const struct ip *other, be16 other_port)
{
	struct flow_key k = {
		.client = t->client,
		.other = *other,
		.client_port = t->client_port,
		.other_port = other_port,
		.protocol = t->protocol,
	};
	return k;
}

INLINE struct flow flow_to(const struct ip *ip, be16 port)
{
	struct flow f = {.ip = *ip, .port = port};
	return f;
}

/* An established flow: the pod that has it. */
INLINE struct flow *known_flow(const struct tuple *t)
{
	struct flow_key k = key_of(t, &t->vip, t->vip_port);
	return map_lookup(&flows, &k);
}

/* A flow, or a TCP handshake under way: the pod that has it. A SYN asks for flows that go on. */
INLINE struct flow *owner_of(const struct tuple *t, int fresh)
{
	struct flow_key k = key_of(t, &t->vip, t->vip_port);
	struct flow *known = map_lookup(&flows, &k);

	if (known)
		return fresh && known->closing ? NULL : known;
	if (fresh || t->protocol != IP_TCP)
		return NULL;
	k.by_vip = 1;
	return map_lookup(&syns, &k);
}

/* A SYN was let through to the pod. Should the pod still have a connection with this client through another
 * VIP or from an earlier life, its translation is forgotten: the pod answers the new one. */
GLOBAL int remember_syn(const struct tuple *t, const struct ip *pod, u16 port)
{
	if (!t || !pod)
		return 0;
	struct flow_key k = key_of(t, pod, port);
	struct flow f = flow_to(&t->vip, t->vip_port), *old = map_lookup(&replies, &k);

	if (old && (old->port != f.port || !same(&old->ip, &f.ip)))
		map_delete(&replies, &k);
	map_update(&syns, &k, &f, UPDATE_ANY);
	k.other = t->vip;
	k.other_port = t->vip_port;
	k.by_vip = 1;
	f.ip = *pod;
	f.port = port;
	map_update(&syns, &k, &f, UPDATE_ANY);
	return 0;
}

GLOBAL int remember_flow(const struct tuple *t, const struct ip *pod, u16 port)
{
	if (!t || !pod)
		return 0;
	struct flow_key k = key_of(t, pod, port);
	struct flow f = flow_to(&t->vip, t->vip_port);

	map_update(&replies, &k, &f, UPDATE_ANY);
	k.other = t->vip;
	k.other_port = t->vip_port;
	f.ip = *pod;
	f.port = port;
	map_update(&flows, &k, &f, UPDATE_ANY);
	return 0;
}
