/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes to a tuple. Lengths come from the IP header: frames may be padded, and are not always to 60 bytes. */
#pragma once
#include "hash.h"
#include "stats.h"

/* A packet to a VIP, ours or inside an encapsulation. Offsets count from the start of the frame. */
struct packet {
	u32 l3, l4;
	u32 length; /* of the IP packet */
	u32 outer;  /* offset of the outer IP header; 0: the packet came as it is */
	u8 tos;
	u8 flags;   /* of TCP */
	u8 icmp;    /* an ICMP error: the tuple is that of the embedded packet */
	u8 v6;
	u8 whole;   /* IPv4 with DF, or IPv6: may not be fragmented */
	u32 embedded, embedded_l4;
	struct tuple t;
};

enum { PARSED = -1, PROBED = -2 }; /* otherwise the parsers return an enum xdp_action */
enum { EXTENSIONS_MAX = 4 };

/* The offset behind Ethernet and up to two VLAN tags; 0 when the frame is too short. */
INLINE u32 parse_ethernet(void *data, void *end, be16 *protocol)
{
	struct ethernet *eth = data;
	struct vlan *tag = (void *)(eth + 1);

	if ((void *)(eth + 1) > end)
		return 0;
	*protocol = eth->protocol;
	if (likely(*protocol != htons(ETH_VLAN) && *protocol != htons(ETH_QINQ)))
		return sizeof(*eth);
	if ((void *)(tag + 1) > end)
		return 0;
	*protocol = tag->protocol;
	if (*protocol != htons(ETH_VLAN))
		return sizeof(*eth) + sizeof(*tag);
	if ((void *)(tag + 2) > end)
		return 0;
	*protocol = tag[1].protocol;
	return sizeof(*eth) + 2 * sizeof(*tag);
}

INLINE int is_error_v4(u8 type)
{
	return type == 3 || type == 11 || type == 12;
}

INLINE int is_error_v6(u8 type)
{
	return type >= 1 && type <= 4;
}

/* Ports, and the flags of TCP. */
INLINE int parse_l4(void *data, void *end, struct packet *p)
{
	struct tcp *tcp = data + bounded(p->l4);
	struct udp *udp = data + bounded(p->l4);

	if (p->t.protocol == IP_TCP) {
		if ((void *)(tcp + 1) > end || p->l4 - p->l3 + sizeof(*tcp) > p->length || tcp->offset >> 4 < 5)
			return drop(R_DROP_MALFORMED);
		p->flags = tcp->flags;
		p->t.client_port = tcp->from;
		p->t.vip_port = tcp->to;
		return PARSED;
	}
	if ((void *)(udp + 1) > end || p->l4 - p->l3 + sizeof(*udp) > p->length || ntohs(udp->length) < sizeof(*udp))
		return drop(R_DROP_MALFORMED);
	p->t.client_port = udp->from;
	p->t.vip_port = udp->to;
	return PARSED;
}

/* The tuple of the packet that an ICMP error is about: our reply, so its source is the VIP. */
INLINE int embedded_ports(void *data, void *end, struct packet *p)
{
	be16 *ports = data + bounded(p->embedded_l4);

	if ((void *)(ports + 4) > end)
		return drop(R_DROP_MALFORMED);
	if (p->t.protocol != IP_TCP && p->t.protocol != IP_UDP)
		return drop(R_DROP_ICMP);
	p->t.vip_port = ports[0];
	p->t.client_port = ports[1];
	p->icmp = 1;
	return PARSED;
}

INLINE int parse_embedded_v4(void *data, void *end, struct packet *p)
{
	struct ipv4 *ip = data + bounded(p->l4) + sizeof(struct icmp);

	if ((void *)(ip + 1) > end)
		return drop(R_DROP_MALFORMED);
	u32 header = (ip->version_ihl & 15) * 4;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return drop(R_DROP_MALFORMED);
	if (ip->from != p->t.vip.word[3] || ip->fragment & htons(FRAGMENT_OFFSET))
		return drop(R_DROP_ICMP);
	p->embedded = p->l4 + sizeof(struct icmp);
	p->embedded_l4 = p->embedded + header;
	p->t.client = mapped(ip->to);
	p->t.protocol = ip->protocol;
	return embedded_ports(data, end, p);
}

INLINE int parse_embedded_v6(void *data, void *end, struct packet *p)
{
	struct ipv6 *ip = data + bounded(p->l4) + sizeof(struct icmp);

	if ((void *)(ip + 1) > end || (ip->version_class_label & 0xf0) != 0x60)
		return drop(R_DROP_MALFORMED);
	if (!same((struct ip *)ip->from, &p->t.vip))
		return drop(R_DROP_ICMP);
	p->embedded = p->l4 + sizeof(struct icmp);
	p->embedded_l4 = p->embedded + sizeof(*ip);
	copy(&p->t.client, ip->to, sizeof(p->t.client));
	p->t.protocol = ip->next;
	return embedded_ports(data, end, p);
}

INLINE int parse_v4(void *data, void *end, struct packet *p)
{
	struct ipv4 *ip = data + bounded(p->l3);

	if ((void *)(ip + 1) > end || ip->version_ihl >> 4 != 4 || ip->version_ihl < 0x45)
		return drop(R_DROP_MALFORMED);
	p->length = ntohs(ip->length);
	if (p->length < sizeof(*ip) || ip->from == ip->to)
		return drop(R_DROP_MALFORMED);
	if (unlikely(ip->fragment & htons(FRAGMENT_MORE | FRAGMENT_OFFSET)))
		return pass(R_PASS_FRAGMENT);
	if (unlikely(ip->version_ihl != 0x45))
		return pass(R_PASS_OPTIONS);
	p->tos = ip->tos;
	p->whole = !!(ip->fragment & htons(FRAGMENT_NEVER));
	p->l4 = p->l3 + sizeof(*ip);
	p->t.client = mapped(ip->from);
	p->t.vip = mapped(ip->to);
	p->t.protocol = ip->protocol;
	return PARSED;
}

/* Skips extension headers. Stops at ours, or with an action. */
INLINE int skip_extensions(void *data, void *end, struct packet *p, u8 next)
{
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		if (next == V6_FRAGMENT)
			return pass(R_PASS_FRAGMENT);
		if (next != V6_HOP && next != V6_ROUTING && next != V6_OPTIONS) {
			p->t.protocol = next;
			return PARSED;
		}
		u8 *extension = data + bounded(p->l4);
		if ((void *)(extension + 8) > end)
			return drop(R_DROP_MALFORMED);
		next = extension[0];
		p->l4 += 8 + extension[1] * 8;
		if (p->l4 - p->l3 > 512)
			break;
	}
	return drop(R_DROP_EXTENSIONS);
}

INLINE int parse_v6(void *data, void *end, struct packet *p)
{
	struct ipv6 *ip = data + bounded(p->l3);

	if ((void *)(ip + 1) > end || (ip->version_class_label & 0xf0) != 0x60)
		return drop(R_DROP_MALFORMED);
	p->length = ntohs(ip->payload) + sizeof(*ip);
	p->tos = ntohl(ip->version_class_label) >> 20;
	p->whole = 1;
	p->v6 = 1;
	p->l4 = p->l3 + sizeof(*ip);
	copy(&p->t.client, ip->from, sizeof(struct ip));
	copy(&p->t.vip, ip->to, sizeof(struct ip));
	if (same(&p->t.client, &p->t.vip))
		return drop(R_DROP_MALFORMED);
	p->t.protocol = ip->next;
	if (likely(ip->next == IP_TCP || ip->next == IP_UDP || ip->next == IP_ICMPV6))
		return PARSED;
	return skip_extensions(data, end, p, ip->next);
}
