/* SPDX-License-Identifier: Apache-2.0 */
/* The plain way: what almost every packet is. An untagged frame from outside, TCP or UDP without options, to a slot
 * that is settled and a node that is reachable: to its pod or to its owner, with every value in a register. Whatever
 * is anything else (all that is dropped, asks memory, or is counted under a reason) is NOT_PLAIN, and begins again
 * from the first byte on the general way. So each rule of docs/datapath.md stands once; here stands only what makes
 * sure that none of them applies. */
#pragma once
#include "bypass.h"
#include "choose.h"

enum { NOT_PLAIN = -1 };

/* Made up by the daemon, to see where it would go: a mark stands before the frame. */
INLINE int is_question(const struct xdp_md *ctx)
{
	u32 *mark = (void *)(long)ctx->data_meta;
	return (void *)(mark + 1) <= (void *)(long)ctx->data && *mark == QUESTION;
}

/* What is left of a packet once its addresses are read. */
struct plain {
	struct tuple t; /* without the VIP's address */
	u16 length;	/* of the IP packet */
	u16 room;	/* of that, from the L4 header on */
	u8 tos, v6;
};

/* The entry behind the first tag that matches; a second one is the general way's. Each way has a branch of its
 * own, so that the entry is loaded where the predicted branch says rather than after the tag was compared. */
#define TRY_WAY(n)                                              \
	if (b->tag[n] == tag) {                                 \
		const u16 *entry = &b->entry[n];                \
		asm volatile("" : "+r"(entry) : "i"(n));        \
		return *entry; /* not merged with other ways */ \
	}
INLINE int entry_of(const struct bucket *b, u64 tag)
{
	TRY_WAY(0) TRY_WAY(1) TRY_WAY(2) TRY_WAY(3) TRY_WAY(4) TRY_WAY(5) TRY_WAY(6) TRY_WAY(7)
	return NOT_PLAIN;
}
_Static_assert(WAYS == 8, "entry_of tries each way");

INLINE const struct service *plain_service(const struct bank *bank, u64 hash, u64 key)
{
	int at = entry_of(service_bucket(bank, hash), tag_of(hash));
	const struct service *s = &bank->service[at & (SERVICES - 1)];

	return at >= 0 && s->key == key && !(s->flags & SERVICE_PASS) ? s : NULL;
}

INLINE int whole_l4(const void *l4, const struct plain *p)
{
	const struct tcp *tcp = l4;
	const struct udp *udp = l4;

	if (likely(p->t.protocol == IP_TCP))
		return p->room >= sizeof(*tcp) && tcp->offset >= 5 << 4;
	return p->t.protocol == IP_UDP && p->room >= sizeof(*udp) && ntohs(udp->length) >= sizeof(*udp);
}

INLINE int plain_forward(struct xdp_md *ctx, const struct tables *t, const struct service *s, const struct backend *b,
			 const struct plain *p, u32 hash)
{
	const struct node *n = &bank_of(t)->node[b->node & (NODES - 1)];
	u32 over = n->family == 4 ? OVER_V4 : OVER_V6;

	if (unlikely(!n->family || p->length + over > n->mtu))
		return NOT_PLAIN;
	struct service_counters *counters = counters_of(s);
	if (counters) {
		counters->encapsulated++;
		counters->bytes += p->length;
	}
	struct outside o = {
		.onward = {.node = b->node},
		.hash = hash,
		.length = p->length,
		.tos = p->tos,
	};
	return send_encapsulated(ctx, sizeof(struct ethernet), n, &o);
}

/* A connection begins, by a plain frame to this pod: it is written down. 1: it must not begin. The frame is read anew,
 * so that what the plain way has in registers need not stand in memory. */
GLOBAL int begins_in_vain(struct xdp_md *ctx, int shares, const struct ip *pod, u16 port)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data;
	struct ipv4 *four = (void *)(eth + 1);
	struct ipv6 *six = (void *)(eth + 1);
	struct tcp *tcp = (void *)(four + 1);
	struct tuple t = {.protocol = IP_TCP};

	if (!pod || (void *)(tcp + 1) > end)
		return 0;
	if (eth->protocol == htons(ETH_IPV4)) {
		t.client = mapped(four->from);
		t.vip = mapped(four->to);
	} else {
		tcp = (void *)(six + 1);
		if ((void *)(tcp + 1) > end)
			return 0;
		copy(&t.client, six->from, sizeof(t.client));
		copy(&t.vip, six->to, sizeof(t.vip));
	}
	t.client_port = tcp->from;
	t.vip_port = tcp->to;
	return remember_handshake(&t, shares, pod, port);
}

INLINE int plain_deliver(struct xdp_md *ctx, const struct tables *t, void *l3, struct tcp *tcp, const struct service *s,
			 const struct backend *b, const struct plain *p)
{
	u8 ends = tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST);

	/* UDP and ends are written down on the general way. */
	if (p->t.protocol != IP_TCP || (ends && (ends != TCP_SYN || tcp->flags & TCP_ACK || is_question(ctx))))
		return NOT_PLAIN;
	struct service_counters *counters = counters_of(s);
	if (counters) {
		counters->delivered++;
		counters->bytes += p->length;
	}
	if (unlikely(ends) && begins_in_vain(ctx, s->flags & SERVICE_SHARES, &b->ip, b->port))
		return drop(R_DROP_COLLISION);
	if (p->v6) {
		struct ipv6 *ip = l3;
		copy(ip->to, b->ip.word, sizeof(ip->to));
	} else {
		struct ipv4 *ip = l3;
		ip->check = adjusted_by(ip->check, s->less_ip, b->more_ip);
		ip->to = b->ip.word[3];
	}
	tcp->check = adjusted_by(tcp->check, s->less, b->more);
	tcp->to = b->port;
	return pass_marked(ctx, t);
}

INLINE int plain_serve(struct xdp_md *ctx, const struct tables *t, const struct service *s, void *l3, void *l4,
		       const struct plain *p)
{
	u32 hash = flow_hash(t->config.flow_key, &p->t, p->v6, s->flags & SERVICE_AFFINITY);
	const struct backend *b = backend_at(s->backends, in_plane(s, hash >> (s->shift & 31), SETTLED));

	if (unlikely(!b || !whole_l4(l4, p)))
		return NOT_PLAIN;
	return b->node ? plain_forward(ctx, t, s, b, p, hash) : plain_deliver(ctx, t, l3, l4, s, b, p);
}

/* To an address that is known and no VIP: only what other nodes send to this one is ours. */
INLINE int not_to_vip(const struct address *a, int same, u8 protocol)
{
	return same && !(a->kind & KIND_SELF && protocol == IP_UDP) ? XDP_PASS : NOT_PLAIN;
}

INLINE int plain_v4(struct xdp_md *ctx, const struct tables *t, void *data, void *end)
{
	struct ipv4 *ip = data + sizeof(struct ethernet);
	struct tcp *tcp = (void *)(ip + 1);
	const struct bank *bank = bank_of(t);
	u64 seed = seed_of(t);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	be32 to = ip->to;
	u64 hash = hash_v4(to, 0, seed);
	if (likely(!may_be_known(bank, hash)))
		return XDP_PASS;
	int at = entry_of(address_bucket(bank, hash), tag_of(hash));
	if (at < 0)
		return XDP_PASS;
	if (unlikely(at >= t->config.vips[t->config.seed & 1])) {
		const struct address *a = &bank->address[at & (ADDRESSES - 1)];
		return not_to_vip(a, a->ip.word[3] == to && a->ip.word[2] == MAPPED, ip->protocol);
	}
	if ((void *)(tcp + 1) > end)
		return NOT_PLAIN;
	u64 ports = ports_of(ip->protocol, tcp->to);
	const struct service *s =
		plain_service(bank, hash_v4(to, ports, seed), service_key(at, 0, ports));
	struct plain p = {
		.t = {.client = mapped(ip->from),
		      .client_port = tcp->from,
		      .vip_port = tcp->to,
		      .protocol = ip->protocol},
		.length = ntohs(ip->length),
		.room = ntohs(ip->length) - sizeof(*ip),
		.tos = ip->tos,
	};
	if (!s || s->last != to || ip->version_ihl != 0x45 ||
	    ip->fragment & htons(FRAGMENT_MORE | FRAGMENT_OFFSET) || p.length < sizeof(*ip) || ip->from == to)
		return NOT_PLAIN;
	return plain_serve(ctx, t, s, ip, tcp, &p);
}

INLINE int same_words(const void *a, const void *b)
{
	return load64(a) == load64(b) && load64(a + 8) == load64(b + 8);
}

INLINE int plain_v6(struct xdp_md *ctx, const struct tables *t, void *data, void *end)
{
	struct ipv6 *ip = data + sizeof(struct ethernet);
	struct tcp *tcp = (void *)(ip + 1);
	const struct bank *bank = bank_of(t);
	u64 seed = seed_of(t);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	u64 hash = hash_v6(ip->to, 0, seed);
	if (likely(!may_be_known(bank, hash)))
		return XDP_PASS;
	int at = entry_of(address_bucket(bank, hash), tag_of(hash));
	if (at < 0)
		return XDP_PASS;
	const struct address *a = &bank->address[at & (ADDRESSES - 1)];
	int exact = same_words(ip->to, a->ip.word);
	if (unlikely(at >= t->config.vips[t->config.seed & 1]))
		return not_to_vip(a, exact, ip->next);
	if (!exact || (void *)(tcp + 1) > end)
		return NOT_PLAIN;
	u64 ports = ports_of(ip->next, tcp->to);
	const struct service *s = plain_service(bank, hash_v6(ip->to, ports, seed),
						service_key(at, 1, ports));
	struct plain p = {
		.t = {.client_port = tcp->from, .vip_port = tcp->to, .protocol = ip->next},
		.length = ntohs(ip->payload) + sizeof(*ip),
		.room = ntohs(ip->payload),
		.tos = ntohl(ip->version_class_label) >> 20,
		.v6 = 1,
	};
	copy(&p.t.client, ip->from, sizeof(p.t.client));
	if (!s || (ip->version_class_label & 0xf0) != 0x60 || ntohs(ip->payload) > 0xffff - sizeof(*ip) ||
	    same_words(ip->from, ip->to))
		return NOT_PLAIN;
	return plain_serve(ctx, t, s, ip, tcp, &p);
}
