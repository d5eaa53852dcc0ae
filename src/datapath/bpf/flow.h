/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's memory. Only connections of this node's own pods stand here. */
#pragma once
#include "handshake.h"
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

/* The table of a key: `flows`, or `datagrams`. */
INLINE void *flows_for(const struct flow_key *k)
{
	return k->protocol == IP_UDP ? (void *)&datagrams : (void *)&flows;
}

/* Look-ups in one table are inlined; in either of two they are not. So the ways do not meet before they are over. */
INLINE struct flow *find_flow(const struct flow_key *k)
{
	struct flow *f;

	if (k->protocol != IP_UDP)
		return map_lookup(&flows, k);
	f = map_lookup(&datagrams, k);
	asm volatile("" : "+r"(f));
	return f;
}

INLINE struct flow *find_reply(const struct flow_key *k)
{
	struct flow *f;

	if (k->protocol != IP_UDP)
		return map_lookup(&replies, k);
	f = map_lookup(&answers, k);
	asm volatile("" : "+r"(f));
	return f;
}

/* `replies`, or `answers`. */
INLINE void *replies_for(const struct flow_key *k)
{
	return k->protocol == IP_UDP ? (void *)&answers : (void *)&replies;
}

/* An established flow: the pod that has it. */
INLINE struct flow *known_flow(const struct tuple *t)
{
	struct flow_key k = key_of(t, &t->vip, t->vip_port);
	return find_flow(&k);
}

/* Whether the pod has a connection with this client's port through another VIP. It cannot tell the two apart: they
 * have the same addresses and ports where it stands. */
INLINE int is_other(const struct flow *old, const struct tuple *t)
{
	return old && (old->port != t->vip_port || !same(&old->ip, &t->vip));
}

/* Whether a new connection cannot be told from one that the pod has. One that is closing gives way. */
GLOBAL int is_taken(const struct tuple *t, const struct ip *pod, u16 port)
{
	if (!t || !pod)
		return 0;
	struct flow_key k = key_of(t, pod, port);
	struct flow *old = map_lookup(&replies, &k);

	if (!is_other(old, t))
		return 0;
	if (!old->closing)
		return 1;
	map_delete(&replies, &k);
	return 0;
}

/* A SYN, or a segment that nobody knows, is to go to the pod; 1: it must not. Only pods that have clients by several
 * ways may have their ports taken. (Two calls one after the other: nested they would need more stack than there is.) */
INLINE int remember_handshake(const struct tuple *t, int shares, const struct ip *pod, be16 port)
{
	if (shares && is_taken(t, pod, port))
		return 1;
	keep_handshake(t, pod, port);
	return 0;
}

/* A flow is the pod's; 1: it must not be, as above. Datagrams have no end that could be seen, so the younger flow has
 * the answers until the older one says something. */
GLOBAL int remember_flow(const struct tuple *t, const struct ip *pod, u16 port)
{
	if (!t || !pod)
		return 0;
	struct flow_key k = key_of(t, pod, port);
	struct flow f = flow_to(&t->vip, t->vip_port), *old = find_reply(&k);

	if (is_other(old, t)) {
		if (t->protocol == IP_TCP && !old->closing)
			return 1;
		k.other = old->ip;
		k.other_port = old->port;
		map_delete(flows_for(&k), &k);
		k.other = *pod;
		k.other_port = port;
	}
	map_update(replies_for(&k), &k, &f, UPDATE_ANY);
	k.other = t->vip;
	k.other_port = t->vip_port;
	f.ip = *pod;
	f.port = port;
	map_update(flows_for(&k), &k, &f, UPDATE_ANY);
	return 0;
}

/* The client begins anew where an older connection of the same ports was closing: what follows belongs to the new one. */
GLOBAL int forget_flow(const struct tuple *t)
{
	if (!t)
		return 0;
	struct flow_key k = key_of(t, &t->vip, t->vip_port);
	map_delete(&flows, &k);
	forget_handshake(t);
	return 0;
}

/* The client ends the connection. */
GLOBAL int note_end(const struct tuple *t)
{
	if (!t)
		return 0;
	struct flow *known = known_flow(t);
	if (!known)
		return 0;
	known->closing = 1;
	struct flow_key k = key_of(t, &known->ip, known->port);
	struct flow *back = map_lookup(&replies, &k);
	if (back && !is_other(back, t))
		back->closing = 1;
	return 0;
}
