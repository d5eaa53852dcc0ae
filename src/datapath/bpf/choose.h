/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets a packet. docs/datapath.md has the table that this file is; reference.rs says it again. */
#pragma once
#include "encap.h"
#include "flow.h"
#include "icmp.h"

enum step { DELIVER, FORWARD, REFUSE };

/* What was chosen. DELIVER: pod, port; remember says that the flow must be written down. */
struct choice {
	struct ip pod;
	be16 port;
	u8 remember;
	struct onward onward;
};

/* How a packet came: hops is that of its header, meaningless at the first node. */
struct arrival {
	u8 first, hops, final;
};

INLINE void deliver_to(struct choice *c, const struct backend *b, int remember)
{
	c->pod = b->ip;
	c->port = b->port;
	c->remember = remember;
}

INLINE int candidate(u64 slot, int n)
{
	return slot >> (16 * n) & 0xffff;
}

/* To another node, unless that would be one hop too many. The first node only counts as a hop where it was
 * itself asked, as the node of `cur`. */
INLINE int send_to(struct choice *c, const struct backend *b, const struct arrival *a, int asked, int final)
{
	c->onward.node = b->node;
	c->onward.hops = a->first && !asked ? 0 : a->hops + 1;
	c->onward.final = final;
	return c->onward.hops > HOPS_MAX ? REFUSE : FORWARD;
}

/* The next node to ask, seen from here: the candidates in order without this node; the hop count says how many
 * of them have been asked. */
INLINE const struct backend *next_to_ask(const struct backend *const *b, u32 asked)
{
#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (!b[i] || !b[i]->node)
			continue;
		if (!asked--)
			return b[i];
	}
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

/* A new connection: to `cur`. Where the nodes disagree for a moment, the third one takes it if it can. */
INLINE int choose_for_new(const struct backend *const *b, const struct arrival *a, struct choice *c)
{
	const struct backend *own = b[0]->node ? NULL : b[0];

	if (!own && a->hops >= HOPS_MAX - 1)
		own = any_own(b);
	if (own)
		return deliver_to(c, own, 0), DELIVER;
	return send_to(c, b[0], a, 0, 0);
}

/* Nobody knows the flow: `cur` takes it. */
INLINE int choose_finally(const struct backend *const *b, const struct arrival *a, struct choice *c)
{
	const struct backend *own = b[0]->node ? NULL : b[0];

	if (!own && a->final)
		own = any_own(b);
	if (own)
		return deliver_to(c, own, 1), DELIVER;
	return send_to(c, b[0], a, 1, 1);
}

INLINE int in_handshake(const struct backend *const *b, const struct tuple *t, struct choice *c)
{
#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (b[i] && !b[i]->node && handshake_with(t, b[i])) {
			deliver_to(c, b[i], 0);
			return 1;
		}
	}
	return 0;
}

/* What the slow way must know; a copy, so that what the fast way holds in registers never stands in memory. */
struct question {
	u64 slot;
	u32 backends;
	u8 fresh;
	struct arrival a;
	struct tuple t;
};

/* A slot in transition, UDP, or a packet that another node believes to be ours: memory is asked first. */
GLOBAL int choose_with_memory(const struct question *q, struct choice *c)
{
	const struct backend *b[3], *next;
	const struct arrival *a;
	const struct flow *known;

	if (!q || !c)
		return REFUSE;
	a = &q->a;
	b[0] = backend_at(q->backends, candidate(q->slot, 0));
	b[1] = backend_at(q->backends, candidate(q->slot, 1));
	b[2] = backend_at(q->backends, candidate(q->slot, 2));
	if (!b[0])
		return REFUSE;
	if (a->first && !any_own(b))
		return send_to(c, b[0], a, 0, 0);
	known = known_flow(&q->t);
	if (known && !(q->fresh && known->closing)) {
		c->pod = known->ip;
		c->port = known->port;
		return DELIVER;
	}
	if (q->fresh)
		return choose_for_new(b, a, c);
	if (q->t.protocol == IP_TCP && in_handshake(b, &q->t, c))
		return DELIVER;
	if (a->first && b[0]->node)
		return send_to(c, b[0], a, 0, 0);
	if (a->final)
		return choose_finally(b, a, c);
	next = next_to_ask(b, a->hops);
	if (next)
		return send_to(c, next, a, 1, 0);
	return choose_finally(b, a, c);
}

/* What becomes of a packet, as the fast way holds it: the pod's address stays where it stands. */
struct verdict {
	const struct ip *pod;
	be16 port;
	u8 remember;
	struct onward onward;
};

INLINE int choose(const struct service *s, u64 slot, const struct packet *p, const struct arrival *a,
		  struct choice *answer, struct verdict *v)
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
	struct question q = {.slot = slot, .backends = s->backends, .fresh = is_fresh(p), .a = *a, .t = p->t};
	*answer = (struct choice){};
	int step = choose_with_memory(&q, answer);
	v->pod = &answer->pod;
	v->port = answer->port;
	v->remember = answer->remember;
	v->onward = answer->onward;
	return step;
}
