/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors that leave: of a pod, or of this node about a packet to a pod. The client must find in them the address
 * and the port that it sent to. */
#pragma once
#include "egress.h"

/* What an error quotes: the client's packet as it was on its way to the pod. */
struct quote {
	struct flow_key flow;
	u32 l3, l4; /* offsets of the quoted headers */
	u8 by_pod;  /* the pod itself sends the error */
};

INLINE int read_quote_v4(struct quote *q, void *data, void *end, u32 l3)
{
	struct ipv4 *ip = data + bounded(l3), *about = data + bounded(q->l3);

	if ((void *)(ip + 1) > end || (void *)(about + 1) > end || about->version_ihl < 0x45 ||
	    about->fragment & htons(FRAGMENT_OFFSET) || ip->to != about->from)
		return 0;
	q->flow.client = mapped(about->from);
	q->flow.other = mapped(about->to);
	q->flow.protocol = about->protocol;
	q->by_pod = ip->from == about->to;
	q->l4 = q->l3 + (about->version_ihl & 15) * 4;
	return 1;
}

INLINE int read_quote_v6(struct quote *q, void *data, void *end, u32 l3)
{
	struct ipv6 *ip = data + bounded(l3), *about = data + bounded(q->l3);

	if ((void *)(ip + 1) > end || (void *)(about + 1) > end || !same((struct ip *)ip->to, (struct ip *)about->from))
		return 0;
	copy(&q->flow.client, about->from, sizeof(q->flow.client));
	copy(&q->flow.other, about->to, sizeof(q->flow.other));
	q->flow.protocol = about->next;
	q->by_pod = same((struct ip *)ip->from, (struct ip *)about->to);
	q->l4 = q->l3 + sizeof(*about);
	return 1;
}

INLINE int read_quote(struct quote *q, void *data, void *end, u32 l3, int v6)
{
	if (!(v6 ? read_quote_v6(q, data, end, l3) : read_quote_v4(q, data, end, l3)))
		return 0;
	be16 *ports = data + bounded(q->l4);
	if ((void *)(ports + 2) > end)
		return 0;
	q->flow.client_port = ports[0];
	q->flow.other_port = ports[1];
	return 1;
}

/* The quoted port, and the sum of the error over it. */
INLINE int rewrite_quoted_port(struct __sk_buff *skb, const struct quote *q, u32 check, be16 port)
{
	return !l4_csum(skb, check, q->flow.other_port, port, 2) && !skb_store(skb, q->l4 + 2, &port, sizeof(port), 0);
}

/* The quoted header's checksum takes up what its address changes: the sum of the error sees neither. */
INLINE int rewrite_quote_v4(struct __sk_buff *skb, const struct quote *q, u32 l3, const struct flow *f)
{
	enum { TO = __builtin_offsetof(struct ipv4, to), FROM = __builtin_offsetof(struct ipv4, from) };
	enum { CHECK = __builtin_offsetof(struct ipv4, check) };
	be32 pod = q->flow.other.word[3], vip = f->ip.word[3];

	if (l3_csum(skb, q->l3 + CHECK, pod, vip, 4) || skb_store(skb, q->l3 + TO, &vip, 4, 0))
		return 0;
	if (!q->by_pod)
		return 1;
	return !l3_csum(skb, l3 + CHECK, pod, vip, 4) && !skb_store(skb, l3 + FROM, &vip, 4, 0);
}

INLINE int rewrite_quote_v6(struct __sk_buff *skb, const struct quote *q, u32 l3, u32 check, const struct flow *f)
{
	enum { TO = __builtin_offsetof(struct ipv6, to), FROM = __builtin_offsetof(struct ipv6, from) };
	s64 change = csum_diff((be32 *)q->flow.other.word, 16, (be32 *)f->ip.word, 16, 0);

	if (l4_csum(skb, check, 0, change, 0) || skb_store(skb, q->l3 + TO, f->ip.word, 16, 0))
		return 0;
	if (!q->by_pod)
		return 1;
	return !l4_csum(skb, check, 0, change, CSUM_PSEUDO) && !skb_store(skb, l3 + FROM, f->ip.word, 16, 0);
}

/* An ICMP packet that leaves. */
GLOBAL int translate_error(struct __sk_buff *skb, u32 l3, u32 l4, int v6)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct quote q = {.l3 = l4 + sizeof(struct icmp)};
	struct icmp *icmp = data + bounded(l4);
	struct flow *known, f = {};

	if ((void *)(icmp + 1) > end || !(v6 ? is_error_v6(icmp->type) : is_error_v4(icmp->type)))
		return TCX_NEXT;
	if (!read_quote(&q, data, end, l3, v6))
		return TCX_NEXT;
	known = find_reply(&q.flow);
	if (known)
		f = *known;
	else if (!begun(&q.flow, &f))
		return TCX_NEXT;
	u32 check = l4 + __builtin_offsetof(struct icmp, check);
	if (!rewrite_quoted_port(skb, &q, check, f.port))
		return TCX_DROP;
	if (!(v6 ? rewrite_quote_v6(skb, &q, l3, check, &f) : rewrite_quote_v4(skb, &q, l3, &f)))
		return TCX_DROP;
	count(R_ICMP_OUT);
	return TCX_NEXT;
}
