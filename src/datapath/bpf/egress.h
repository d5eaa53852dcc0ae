/* SPDX-License-Identifier: Apache-2.0 */
/* Replies: at tcx egress of the uplinks, pod:port becomes VIP:port again. By the flow, never by the pod's port
 * alone: a pod may serve two VIPs, and talk to the world for itself. */
#pragma once
#include "flow.h"
#include "lookup.h"
#include "nat.h"

struct reply {
	u32 l3, l4;
	u8 v6, protocol, flags, first_fragment, later_fragment;
	struct ip pod, client;
	be16 port, client_port;
	u32 id; /* of a fragmented packet */
};

INLINE int parse_reply_ip(struct reply *r, void *data, void *end)
{
	if (r->v6) {
		struct ipv6 *ip = data + bounded(r->l3);
		if ((void *)(ip + 1) > end)
			return 0;
		copy(&r->pod, ip->from, sizeof(r->pod));
		copy(&r->client, ip->to, sizeof(r->client));
		r->protocol = ip->next;
		r->l4 = r->l3 + sizeof(*ip);
		return 1;
	}
	struct ipv4 *ip = data + bounded(r->l3);
	if ((void *)(ip + 1) > end || ip->version_ihl < 0x45)
		return 0;
	r->pod = mapped(ip->from);
	r->client = mapped(ip->to);
	r->protocol = ip->protocol;
	r->id = ip->id;
	r->later_fragment = !!(ip->fragment & htons(FRAGMENT_OFFSET));
	r->first_fragment = !r->later_fragment && ip->fragment & htons(FRAGMENT_MORE);
	r->l4 = r->l3 + (ip->version_ihl & 15) * 4;
	return 1;
}

/* An IPv6 fragment: its header stands before the ports, in the first fragment only. */
INLINE int parse_reply_fragment(struct reply *r, void *data, void *end)
{
	struct {
		u8 next, reserved;
		be16 offset;
		be32 id;
	} *fragment = data + bounded(r->l4);

	if (!r->v6 || r->protocol != V6_FRAGMENT)
		return 1;
	if ((void *)(fragment + 1) > end)
		return 0;
	r->protocol = fragment->next;
	r->id = fragment->id;
	r->later_fragment = !!(fragment->offset & htons(0xfff8));
	r->first_fragment = !r->later_fragment;
	r->l4 += sizeof(*fragment);
	return 1;
}

INLINE int parse_reply_l4(struct reply *r, void *data, void *end)
{
	struct tcp *tcp = data + bounded(r->l4);
	struct udp *udp = data + bounded(r->l4);

	if (r->later_fragment)
		return 1;
	if (r->protocol == IP_TCP) {
		if ((void *)(tcp + 1) > end)
			return 0;
		r->flags = tcp->flags;
		r->port = tcp->from;
		r->client_port = tcp->to;
		return 1;
	}
	if (r->protocol != IP_UDP || (void *)(udp + 1) > end)
		return 0;
	r->port = udp->from;
	r->client_port = udp->to;
	return 1;
}

INLINE struct fragment_key fragment_of(const struct reply *r)
{
	struct fragment_key k = {.from = r->pod, .to = r->client, .id = r->id, .protocol = r->protocol};
	return k;
}

INLINE struct tuple tuple_of(const struct reply *r, const struct flow *f)
{
	struct tuple t = {
		.client = r->client,
		.vip = f->ip,
		.client_port = r->client_port,
		.vip_port = f->port,
		.protocol = r->protocol,
	};
	return t;
}

/* The pod's own kernel speaks without SYN: the handshake is complete, and the flow worth remembering. */
GLOBAL int establish(const struct reply *r, const struct flow *f)
{
	if (!r || !f)
		return 0;
	struct tuple t = tuple_of(r, f);

	remember_flow(&t, &r->pod, r->port);
	forget_handshake(&t);
	count(R_ESTABLISHED);
	return 0;
}

GLOBAL int mark_closing(const struct reply *r, struct flow *f)
{
	if (!r || !f)
		return 0;
	struct tuple t = tuple_of(r, f);
	struct flow *forward = known_flow(&t);

	f->closing = 1;
	if (forward)
		forward->closing = 1;
	return 0;
}

/* The VIP that this reply leaves with. */
INLINE int translation_of(const struct reply *r, struct flow *out)
{
	struct flow_key k = {
		.client = r->client,
		.other = r->pod,
		.client_port = r->client_port,
		.other_port = r->port,
		.protocol = r->protocol,
	};
	struct flow *f;

	if (r->later_fragment) {
		struct fragment_key fk = fragment_of(r);
		f = map_lookup(&fragments, &fk);
		if (f)
			*out = *f;
		return !!f;
	}
	f = find_reply(&k);
	if (f) {
		if (unlikely(r->flags & (TCP_FIN | TCP_RST)))
			mark_closing(r, f);
		*out = *f;
	} else {
		if (!begun(&k, out))
			return 0;
		if (!(r->flags & (TCP_SYN | TCP_RST)))
			establish(r, out);
	}
	if (r->first_fragment) {
		struct fragment_key fk = fragment_of(r);
		map_update(&fragments, &fk, out, UPDATE_ANY);
	}
	return 1;
}

/* Only helpers write: they know whether the checksum is complete or left to the card. */
INLINE int rewrite_source(struct __sk_buff *skb, const struct reply *r, const struct flow *f)
{
	u32 check = r->l4 + (r->protocol == IP_TCP ? __builtin_offsetof(struct tcp, check)
						   : __builtin_offsetof(struct udp, check));
	u64 mangled = r->protocol == IP_UDP ? CSUM_MANGLED_0 : 0;
	be16 port = f->port;

	if (!r->later_fragment) {
		if (r->v6) {
			s64 change = csum_diff((be32 *)r->pod.word, 16, (be32 *)f->ip.word, 16, 0);
			if (l4_csum(skb, check, 0, change, CSUM_PSEUDO | mangled))
				return 0;
		} else if (l4_csum(skb, check, r->pod.word[3], f->ip.word[3], CSUM_PSEUDO | mangled | 4)) {
			return 0;
		}
		if (l4_csum(skb, check, r->port, port, mangled | 2))
			return 0;
		if (skb_store(skb, r->l4, &port, sizeof(port), 0))
			return 0;
	}
	if (r->v6)
		return !skb_store(skb, r->l3 + __builtin_offsetof(struct ipv6, from), f->ip.word, 16, 0);
	if (l3_csum(skb, r->l3 + __builtin_offsetof(struct ipv4, check), r->pod.word[3], f->ip.word[3], 4))
		return 0;
	return !skb_store(skb, r->l3 + __builtin_offsetof(struct ipv4, from), &f->ip.word[3], 4, 0);
}
