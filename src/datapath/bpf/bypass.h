/* SPDX-License-Identifier: Apache-2.0 */
/* `bypass` delivery: between the uplink and the pod's interface the host's own stack is skipped, both ways. A packet
 * that XDP translated carries a mark in its metadata; at tcx ingress of the uplink the mark sends it to the other end
 * of the pod's veth. What the pod answers is translated as it leaves the veth, and goes out by the kernel's routes. */
#pragma once
#include "clamp.h"

/* In front of the frame, from XDP to tcx. */
struct mark {
	u32 magic;
};
enum { MARK = 0x49524342 };

/* After the destination was rewritten. A driver without metadata leaves the packet to the stack. */
INLINE int pass_marked(struct xdp_md *ctx, const struct tables *t)
{
	if (likely(!(t->config.flags & CONFIG_BYPASS)) || xdp_adjust_meta(ctx, -(int)sizeof(struct mark)))
		return XDP_PASS;
	struct mark *mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) <= (void *)(long)ctx->data)
		mark->magic = MARK;
	return XDP_PASS;
}

INLINE int is_marked(const struct __sk_buff *skb)
{
	const struct mark *mark = (void *)(long)skb->data_meta;
	return (void *)(mark + 1) <= (void *)(long)skb->data && mark->magic == MARK;
}

/* The pod that a frame is for, if it is one of this node's. */
INLINE const struct address *pod_of(const struct __sk_buff *skb, const struct tables *t)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *eth = data;
	struct ipv4 *four = (void *)(eth + 1);
	struct ipv6 *six = (void *)(eth + 1);
	const struct address *pod = NULL;

	if ((void *)(four + 1) > end)
		return NULL;
	if (eth->protocol == htons(ETH_IPV4))
		pod = find_v4(t, four->to);
	else if (eth->protocol == htons(ETH_IPV6) && (void *)(six + 1) <= end)
		pod = find_v6(t, six->to);
	return pod && pod->kind & KIND_POD ? pod : NULL;
}

/* At tcx ingress of an uplink. A tag that the card took off would go along to the pod: left to the stack. */
INLINE int hand_to_pod(struct __sk_buff *skb)
{
	const struct tables *t = the_tables();
	const struct address *pod;

	if (likely(!is_marked(skb)) || !t || skb->vlan_present)
		return TCX_NEXT;
	pod = pod_of(skb, t);
	return pod && pod->interface ? redirect_peer(pod->interface, 0) : TCX_NEXT;
}

/* At tcx ingress of a pod's interface: to the client by an interface with a default route; the kernel finds next hop
 * and neighbour. What is no reply takes the stack's way. */
INLINE int answer_for_pod(struct __sk_buff *skb)
{
	const struct tables *t = the_tables();
	const struct address *from;
	struct reply r = {};
	struct flow f;

	from = t ? source_of(skb, t, &r) : NULL;
	if (!from || !(from->kind & KIND_POD) || !reply_of(skb, &r, &f))
		return TCX_NEXT;
	u32 back = t->config.way_back[r.client_port >> 8 & (WAYS_BACK - 1)];
	if (!back)
		return TCX_NEXT;
	return translate(skb, t, &r, &f) ? redirect_neigh(back, NULL, 0, 0) : TCX_DROP;
}
