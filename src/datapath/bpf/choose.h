/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets a packet. docs/datapath.md has the table that this file is; reference.rs says it again. */
#pragma once
#include "encap.h"
#include "flow.h"
#include "icmp.h"

enum step { DELIVER, FORWARD, REFUSE, LOOK_FOR_HANDSHAKE };

/* What was chosen. DELIVER: pod, port; remember says that the flow must be written down. */
struct choice {
	struct flow pod;
	u8 remember;
	u8 stale; /* memory has an older connection of the same ports, which is over */
	struct onward onward;
};

/* How a packet came: hops and asked are those of its header, 0 at the first node. */
struct arrival {
	u8 first, hops, final, ring;
	u64 asked;
};

INLINE void deliver_to(struct choice *c, const struct backend *b, int remember)
{
	c->pod = flow_to(&b->ip, b->port);
	c->remember = remember;
}

INLINE int candidate(u64 slot, int n)
{
	return slot >> (16 * n) & 0xffff;
}

/* What the slow way must know; a copy, so that what the fast way holds in registers never stands in memory. */
struct question {
	u64 slot;
	u32 backends, id;
	u8 fresh;
	u8 no_handshake; /* there is none here */
	u8 deep;	 /* its table has a history, and more nodes than a slot names */
	u16 ring;	 /* a backend of the next node of the ring */
	struct arrival a;
};

INLINE int was_asked(u64 asked, u16 id)
{
	return (u16)asked == id || (u16)(asked >> 16) == id || (u16)(asked >> 32) == id;
}

/* To another node, by one that was asked, unless that would be one hop too many. */
INLINE int send_to(struct choice *c, const struct backend *b, const struct question *q, int final)
{
	c->onward.node = b->node;
	c->onward.hops = q->a.first ? 0 : q->a.hops + 1;
	c->onward.final = final;
	c->onward.asked = (q->a.asked << 16 | q->id) & 0xffffffffffff;
	return c->onward.hops > HOPS_MAX ? REFUSE : FORWARD;
}

/* The first candidate on another node that was not asked. One hop is kept for the way back. */
INLINE const struct backend *next_to_ask(const struct backend *const *b, const struct question *q)
{
	if (q->a.hops + 1 >= HOPS_MAX)
		return NULL;
#pragma unroll
	for (int i = 0; i < 3; i++)
		if (b[i] && b[i]->node && !(b[i]->id && was_asked(q->a.asked, b[i]->id)))
			return b[i];
	return NULL;
}

INLINE const struct backend *any_own(const struct backend *const *b)
{
#pragma unroll
	for (int i = 0; i < 3; i++)
		if (b[i] && !b[i]->node)
			return b[i];
	return NULL;
}

INLINE int is_fresh(const struct packet *p)
{
	return p->t.protocol == IP_TCP && !p->icmp && (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A new connection: to `cur`. Where the nodes disagree, the last that may takes it if it can. */
INLINE int choose_for_new(const struct backend *const *b, const struct question *q, struct choice *c)
{
	const struct backend *own = b[0]->node ? NULL : b[0];

	if (!own && q->a.hops + 1 >= HOPS_MAX)
		own = any_own(b);
	if (own)
		return deliver_to(c, own, 0), DELIVER;
	return send_to(c, b[0], q, 0);
}

/* Whoever may go round asks every node of a Service: so many do, and no more. */
INLINE int may_begin_a_ring(void)
{
	u32 zero_key = 0;
	struct rings *r = map_lookup(&rings, &zero_key);
	u64 second = nanoseconds() >> 30;

	if (!r)
		return 0;
	if (r->second != second) {
		r->second = second;
		r->begun = 0;
	}
	return r->begun++ < RINGS_MAX;
}

/* Nobody who is named knows the flow. Where there are more nodes, each of the Service's is asked, one after the other,
 * until the next one is that where it began. TCP alone: of UDP every new flow is one that nobody knows. */
INLINE int round_the_ring(const struct question *q, const struct tuple *t, struct choice *c)
{
	const struct backend *next = backend_at(q->backends, q->ring);
	u16 start = q->a.asked, left = q->a.asked >> 16;

	if (q->a.final || t->protocol != IP_TCP || !next || !next->node || !(q->a.ring || q->deep))
		return 0;
	if (!q->a.ring) {
		if (!may_begin_a_ring())
			return 0;
		start = next->id;
		left = RING_MAX;
	} else if (next->id == start) {
		return 0;
	}
	if (!left)
		return 0;
	c->onward.node = next->node;
	c->onward.hops = HOPS_MAX - 1;
	c->onward.ring = 1;
	c->onward.asked = start | (u32)(left - 1) << 16;
	return 1;
}

/* Nobody knows the flow: `cur` takes it. */
INLINE int choose_finally(const struct backend *const *b, const struct question *q, struct choice *c)
{
	const struct backend *own = b[0]->node ? NULL : b[0];

	if (!own && q->a.final)
		own = any_own(b);
	if (own)
		return deliver_to(c, own, 1), DELIVER;
	return send_to(c, b[0], q, 1);
}

/* A slot in transition, UDP, or a packet that another node believes to be ours: memory is asked first. The caller looks
 * for a handshake, and asks again if there is none: there would not be enough stack for it here. */
GLOBAL int choose_with_memory(const struct question *q, const struct tuple *t, struct choice *c)
{
	const struct backend *b[3], *next;

	if (!q || !t || !c)
		return REFUSE;
	b[0] = backend_at(q->backends, candidate(q->slot, 0));
	b[1] = backend_at(q->backends, candidate(q->slot, 1));
	b[2] = backend_at(q->backends, candidate(q->slot, 2));
	if (!b[0])
		return REFUSE;
	if (q->a.first && !any_own(b)) {
		c->onward.node = b[0]->node;
		return FORWARD;
	}
	if (!q->no_handshake) {
		const struct flow *known = known_flow(t);
		if (known && !(q->fresh && known->closing))
			return c->pod = *known, DELIVER;
		c->stale = !!known;
	}
	if (q->fresh)
		return choose_for_new(b, q, c);
	if (t->protocol == IP_TCP && !q->no_handshake)
		return LOOK_FOR_HANDSHAKE;
	if (q->a.first && b[0]->node)
		return send_to(c, b[0], q, 0);
	next = q->a.final || q->a.ring ? NULL : next_to_ask(b, q);
	if (next)
		return send_to(c, next, q, 0);
	return round_the_ring(q, t, c) ? FORWARD : choose_finally(b, q, c);
}

/* What becomes of a packet, as the fast way holds it: the pod's address stays where it stands. */
struct verdict {
	const struct ip *pod;
	be16 port;
	u8 remember;
	u8 stale;
	struct onward onward;
};

INLINE int choose(const struct config *conf, const struct service *s, u64 slot, const struct packet *p,
		  const struct arrival *a, struct choice *answer, struct verdict *v)
{
	struct backend *b = backend_at(s->backends, candidate(slot, 0));

	if (unlikely(!b))
		return REFUSE;
	if (likely(!(slot >> 48 & SLOT_CHECK))) {
		if (a->first && b->node) {
			v->onward = (struct onward){.node = b->node};
			return FORWARD;
		}
		if (!b->node && p->t.protocol == IP_TCP) {
			v->pod = &b->ip;
			v->port = b->port;
			v->remember = 0;
			return DELIVER;
		}
	}
	struct question q = {
		.slot = slot,
		.backends = s->backends,
		.id = conf->id,
		.fresh = is_fresh(p),
		.deep = !!(s->flags & SERVICE_DEEP),
		.ring = s->ring,
		.a = *a,
	};
	*answer = (struct choice){};
	int step = choose_with_memory(&q, &p->t, answer);
	if (step == LOOK_FOR_HANDSHAKE && find_handshake(&p->t, 1, &answer->pod)) {
		step = DELIVER;
	} else if (step == LOOK_FOR_HANDSHAKE) {
		q.no_handshake = 1;
		step = choose_with_memory(&q, &p->t, answer);
	}
	v->pod = &answer->pod.ip;
	v->port = answer->pod.port;
	v->remember = answer->remember;
	v->stale = answer->stale;
	v->onward = answer->onward;
	return step;
}
