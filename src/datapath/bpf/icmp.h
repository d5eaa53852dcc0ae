/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP to a VIP: echo is answered, errors go to the owner of the flow that they are about, and packets that do
 * not fit the way to the owner are answered with the size that does. */
#pragma once
#include "encap.h"

INLINE void swap_ethernet(struct ethernet *eth)
{
	u8 mac[6];

	copy(mac, eth->to, 6);
	copy(eth->to, eth->from, 6);
	copy(eth->from, mac, 6);
}

/* Answers an echo request. The payload may lie in later buffers: only the header is touched. */
GLOBAL int answer_echo(struct xdp_md *ctx, u32 l3, u32 l4, int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp *icmp;

	l3 = bounded(l3);
	icmp = data + bounded(l4);
	if ((void *)(icmp + 1) > end || data + sizeof(struct ethernet) > end)
		return drop(R_DROP_MALFORMED);
	icmp->check = adjusted(icmp->check, change16(icmp->type, v6 ? 129 : 0));
	icmp->type = v6 ? 129 : 0;
	if (v6) {
		struct ipv6 *ip = data + l3;
		be32 from[4];
		if ((void *)(ip + 1) > end)
			return drop(R_DROP_MALFORMED);
		copy(from, ip->from, sizeof(from));
		copy(ip->from, ip->to, sizeof(from));
		copy(ip->to, from, sizeof(from));
		ip->hop_limit = 64;
	} else {
		struct ipv4 *ip = data + l3;
		if ((void *)(ip + 1) > end)
			return drop(R_DROP_MALFORMED);
		be32 from = ip->from;
		ip->from = ip->to;
		ip->to = from;
		ip->check = adjusted(ip->check, change16(ip->ttl, 64));
		ip->ttl = 64;
	}
	swap_ethernet(data);
	count(R_ECHO);
	return XDP_TX;
}

/* Answers another node's probe. Its UDP checksum is computed whole: it may have been left to a card. */
GLOBAL int answer_probe(struct xdp_md *ctx, u32 l3, int v6)
{
	enum { LENGTH = sizeof(struct udp) + sizeof(struct tunnel) };
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udp *udp;
	be32 from[4];

	l3 = bounded(l3);
	struct ipv4 *four = data + l3;
	struct ipv6 *six = data + l3;
	udp = v6 ? (void *)(six + 1) : (void *)(four + 1);
	struct tunnel *tunnel = (void *)(udp + 1);
	if ((void *)(six + 1) > end && v6)
		return drop(R_DROP_MALFORMED);
	if ((void *)(four + 1) > end || (void *)(tunnel + 1) > end || data + sizeof(struct ethernet) > end ||
	    udp->length != htons(LENGTH))
		return drop(R_DROP_MALFORMED);
	be16 port = udp->from;
	udp->from = udp->to;
	udp->to = port;
	udp->check = 0;
	tunnel->head = TUNNEL(0, TUNNEL_ANSWER, 0ULL);
	if (v6) {
		copy(from, six->from, sizeof(from));
		copy(six->from, six->to, sizeof(from));
		copy(six->to, from, sizeof(from));
		six->hop_limit = 64;
		u32 sum = csum_diff(NULL, 0, six->from, 2 * sizeof(from), htonl(LENGTH + IP_UDP));
		udp->check = ~fold(csum_diff(NULL, 0, (be32 *)udp, LENGTH, sum));
		if (!udp->check)
			udp->check = 0xffff;
	} else {
		from[0] = four->from;
		four->from = four->to;
		four->to = from[0];
		four->check = adjusted(four->check, change16(four->ttl, 64));
		four->ttl = 64;
	}
	swap_ethernet(data);
	count(R_PROBE);
	return XDP_TX;
}

INLINE int parse_icmp(void *data, void *end, struct packet *p, int *echo)
{
	struct icmp *icmp = data + bounded(p->l4);

	if ((void *)(icmp + 1) > end)
		return drop(R_DROP_MALFORMED);
	if (icmp->type == (p->v6 ? 128 : 8)) {
		*echo = 1;
		return PARSED;
	}
	if (!p->v6 && is_error_v4(icmp->type))
		return parse_embedded_v4(data, end, p);
	if (p->v6 && is_error_v6(icmp->type))
		return parse_embedded_v6(data, end, p);
	return drop(R_DROP_ICMP);
}

/* Hands an ICMP error to the pod: to its address, and about a packet that came from its address and port. */
GLOBAL int rewrite_error(struct xdp_md *ctx, struct packet *p, const struct ip *pod, u16 port)
{
	if (!p || !pod)
		return XDP_ABORTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u32 at = bounded(p->l4), inner = bounded(p->embedded), inner_l4 = bounded(p->embedded_l4);
	u64 change = change16(p->t.vip_port, port);

	struct icmp *icmp = data + at;
	be16 *ports = data + inner_l4;
	if ((void *)(icmp + 1) > end || (void *)(ports + 1) > end)
		return drop(R_DROP_ADJUST);
	ports[0] = port;
	if (p->v6) {
		struct ipv6 *ip = data + bounded(p->l3), *about = data + inner;
		if ((void *)(ip + 1) > end || (void *)(about + 1) > end)
			return drop(R_DROP_ADJUST);
		/* Once for the pseudo header, once for the embedded source. */
		change += 2 * change_ip(p->t.vip.word, pod->word);
		copy(ip->to, pod->word, sizeof(ip->to));
		copy(about->from, pod->word, sizeof(about->from));
	} else {
		struct ipv4 *ip = data + bounded(p->l3), *about = data + inner;
		u64 of_ip = change32(p->t.vip.word[3], pod->word[3]);
		if ((void *)(ip + 1) > end || (void *)(about + 1) > end)
			return drop(R_DROP_ADJUST);
		ip->check = adjusted(ip->check, of_ip);
		ip->to = pod->word[3];
		/* The embedded header's checksum takes up what its source changes: the ICMP sum sees neither. */
		about->check = adjusted(about->check, of_ip);
		about->from = pod->word[3];
	}
	icmp->check = adjusted(icmp->check, change);
	count(R_ICMP_IN);
	return XDP_PASS;
}

/* Bytes of the packet that an error of ours quotes: its IP header and 8 more. */
enum { QUOTE_V4 = sizeof(struct ipv4) + 8, QUOTE_V6 = sizeof(struct ipv6) + 8 };

/* ICMPv4 "fragmentation needed" to the sender. The frame becomes Ethernet, IP, ICMP, quote. */
GLOBAL int answer_too_big_v4(struct xdp_md *ctx, u32 l3, u32 mtu)
{
	enum { GROW = sizeof(struct ipv4) + sizeof(struct icmp) };
	struct ethernet eth;

	if (xdp_adjust_tail(ctx, -(int)(xdp_length(ctx) - l3 - QUOTE_V4)))
		return drop(R_DROP_ADJUST);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + sizeof(eth) > end)
		return drop(R_DROP_ADJUST);
	copy(&eth, data, sizeof(eth));
	if (xdp_adjust_head(ctx, (int)(l3 - sizeof(eth)) - (int)GROW))
		return drop(R_DROP_ADJUST);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	struct ipv4 *ip = data + sizeof(eth), *about = data + sizeof(eth) + GROW;
	struct icmp *icmp = (void *)(ip + 1);
	if ((void *)about + QUOTE_V4 > end)
		return drop(R_DROP_ADJUST);
	swap_ethernet(&eth);
	eth.protocol = htons(ETH_IPV4);
	copy(data, &eth, sizeof(eth));
	zero(ip, GROW);
	ip->version_ihl = 0x45;
	ip->length = htons(GROW + QUOTE_V4);
	ip->ttl = 64;
	ip->protocol = IP_ICMP;
	ip->from = about->to;
	ip->to = about->from;
	ip->check = ~fold(csum_diff(NULL, 0, (be32 *)ip, sizeof(*ip), 0));
	icmp->type = 3;
	icmp->code = 4;
	icmp->rest = htonl(mtu);
	icmp->check = ~fold(csum_diff(NULL, 0, (be32 *)icmp, sizeof(*icmp) + QUOTE_V4, 0));
	count(R_TOO_BIG);
	return XDP_TX;
}

/* ICMPv6 "packet too big". */
GLOBAL int answer_too_big_v6(struct xdp_md *ctx, u32 l3, u32 mtu)
{
	enum { GROW = sizeof(struct ipv6) + sizeof(struct icmp), BODY = sizeof(struct icmp) + QUOTE_V6 };
	struct ethernet eth;

	if (xdp_adjust_tail(ctx, -(int)(xdp_length(ctx) - l3 - QUOTE_V6)))
		return drop(R_DROP_ADJUST);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + sizeof(eth) > end)
		return drop(R_DROP_ADJUST);
	copy(&eth, data, sizeof(eth));
	if (xdp_adjust_head(ctx, (int)(l3 - sizeof(eth)) - (int)GROW))
		return drop(R_DROP_ADJUST);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	struct ipv6 *ip = data + sizeof(eth), *about = data + sizeof(eth) + GROW;
	struct icmp *icmp = (void *)(ip + 1);
	if ((void *)about + QUOTE_V6 > end)
		return drop(R_DROP_ADJUST);
	swap_ethernet(&eth);
	eth.protocol = htons(ETH_IPV6);
	copy(data, &eth, sizeof(eth));
	zero(ip, GROW);
	ip->version_class_label = htonl(6u << 28);
	ip->payload = htons(BODY);
	ip->next = IP_ICMPV6;
	ip->hop_limit = 64;
	copy(ip->from, about->to, sizeof(ip->from));
	copy(ip->to, about->from, sizeof(ip->to));
	icmp->type = 2;
	icmp->rest = htonl(mtu);
	u32 sum = csum_diff(NULL, 0, ip->from, 2 * sizeof(ip->from), htonl(BODY + IP_ICMPV6));
	icmp->check = ~fold(csum_diff(NULL, 0, (be32 *)icmp, BODY, sum));
	count(R_TOO_BIG);
	return XDP_TX;
}
