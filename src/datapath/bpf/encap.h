/* SPDX-License-Identifier: Apache-2.0 */
/* On to another node, and off again: outer IP, UDP, our header. */
#pragma once
#include "lookup.h"
#include "nat.h"

enum {
	OVER_V4 = sizeof(struct ipv4) + sizeof(struct udp) + sizeof(struct tunnel),
	OVER_V6 = sizeof(struct ipv6) + sizeof(struct udp) + sizeof(struct tunnel),
};

/* Where a packet goes next, and what the header says. */
struct onward {
	u16 node;
	u8 hops, final;
	u8 ring;
	u64 asked;
};

/* Ports above 49151: entropy for ECMP in the fabric and for the owner's receive queues. */
INLINE be16 entropy_port(u32 hash)
{
	return htons(0xc000 | (hash & 0x3fff));
}

/* What the outer headers are made of. */
struct outside {
	struct onward onward;
	u32 hash;
	u16 length;
	u8 tos;
};

INLINE void put_tunnel(struct udp *udp, const struct outside *o)
{
	struct tunnel *tunnel = (void *)(udp + 1);

	udp->from = entropy_port(o->hash);
	udp->to = htons(PORT);
	udp->length = htons(o->length + sizeof(*udp) + sizeof(*tunnel));
	udp->check = 0; /* IPv6: RFC 6935, the inner packet has its own */
	tunnel->head = TUNNEL(o->onward.hops, o->onward.final ? TUNNEL_FINAL : o->onward.ring ? TUNNEL_RING : 0, o->onward.asked);
}

/* Explicit congestion bits are not copied: without ECN outside, RFC 6040 needs nothing at the other end. */
INLINE void put_v4(struct ipv4 *ip, const struct node *n, const struct outside *o)
{
	u8 tos = o->tos & 0xfc;
	u16 total = htons(o->length + OVER_V4), first = 0x45 | (u16)tos << 8;

	ip->version_ihl = 0x45;
	ip->tos = tos;
	ip->length = total;
	ip->id = 0;
	ip->fragment = htons(FRAGMENT_NEVER);
	ip->ttl = 64;
	ip->protocol = IP_UDP;
	ip->check = ~fold((u64)n->sum + first + total);
	ip->from = n->source.word[3];
	ip->to = n->ip.word[3];
	put_tunnel((void *)(ip + 1), o);
}

INLINE void put_v6(struct ipv6 *ip, const struct node *n, const struct outside *o)
{
	ip->version_class_label = htonl(6u << 28 | (u32)(o->tos & 0xfc) << 20);
	ip->payload = htons(o->length + OVER_V6 - sizeof(*ip));
	ip->next = IP_UDP;
	ip->hop_limit = 64;
	copy(ip->from, n->source.word, sizeof(ip->from));
	copy(ip->to, n->ip.word, sizeof(ip->to));
	put_tunnel((void *)(ip + 1), o);
}

/* Writes Ethernet and returns where the IP header begins. */
INLINE void *put_ethernet(void *data, const struct node *n)
{
	struct ethernet *eth = data;
	struct vlan *tag = (void *)(eth + 1);
	be16 protocol = n->family == 4 ? htons(ETH_IPV4) : htons(ETH_IPV6);

	copy(eth->to, n->to, 6);
	copy(eth->from, n->from, 6);
	if (likely(!n->vlan)) {
		eth->protocol = protocol;
		return eth + 1;
	}
	eth->protocol = htons(ETH_VLAN);
	tag->tci = htons(n->vlan);
	tag->protocol = protocol;
	return tag + 1;
}

/* Replaces the first `l3` bytes of the frame by headers that take the packet there. */
INLINE int send_encapsulated(struct xdp_md *ctx, u32 l3, const struct node *n, const struct outside *o)
{
	u32 over = sizeof(struct ethernet) + (n->vlan ? sizeof(struct vlan) : 0) + (n->family == 4 ? OVER_V4 : OVER_V6);
	if (xdp_adjust_head(ctx, (int)l3 - (int)over))
		return drop(R_DROP_ADJUST);

	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethernet) + sizeof(struct vlan) + OVER_V6 > end)
		return drop(R_DROP_ADJUST);
	void *ip = put_ethernet(data, n);
	if (n->family == 4)
		put_v4(ip, n, o);
	else
		put_v6(ip, n, o);
	return n->ifindex == ctx->ingress_ifindex ? XDP_TX : redirect(n->ifindex, 0);
}

/* Takes the outer headers away: the frame begins as it did, VLAN tags included, and goes on with the inner
 * packet. */
INLINE int take_outer_off(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u32 gone = p->l3 - p->outer;
	be16 protocol = p->v6 ? htons(ETH_IPV6) : htons(ETH_IPV4);
	struct {
		struct ethernet eth;
		struct vlan tag[2];
	} __attribute__((packed)) head;

	if (data + sizeof(head) > end)
		return drop(R_DROP_ADJUST);
	copy(&head, data, sizeof(head));
	if (xdp_adjust_head(ctx, gone))
		return drop(R_DROP_ADJUST);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(head) > end)
		return drop(R_DROP_ADJUST);
	if (likely(p->outer == sizeof(head.eth))) {
		head.eth.protocol = protocol;
		copy(data, &head, sizeof(head.eth));
	} else if (p->outer == sizeof(head.eth) + sizeof(head.tag[0])) {
		head.tag[0].protocol = protocol;
		copy(data, &head, sizeof(head.eth) + sizeof(head.tag[0]));
	} else {
		head.tag[1].protocol = protocol;
		copy(data, &head, sizeof(head));
	}
	p->l3 = p->outer;
	p->l4 -= gone;
	p->embedded -= gone;
	p->embedded_l4 -= gone;
	p->outer = 0;
	return PARSED;
}
