/* SPDX-License-Identifier: Apache-2.0 */
/* Incremental checksums (RFC 1624) and the rewrite of the destination at the owner. */
#pragma once
#include "parse.h"

INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* HC' = ~(~HC + ~m + m'); `change` is the sum of ~m + m'. */
INLINE u16 adjusted(u16 check, u64 change)
{
	return ~fold((u16)~check + change);
}

/* The same where the change is two sums of 16 bits that were made beforehand: `less` is ~m, `more` is m'. */
INLINE u16 adjusted_by(u16 check, u16 less, u16 more)
{
	u32 sum = (u16)~check + (u32)less + more;
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

INLINE u64 change32(be32 from, be32 to)
{
	return (u64)(u32)~from + to;
}

INLINE u64 change16(be16 from, be16 to)
{
	return (u64)(u16)~from + to;
}

INLINE u64 change_ip(const be32 *from, const be32 *to)
{
	return change32(from[0], to[0]) + change32(from[1], to[1]) + change32(from[2], to[2]) +
	       change32(from[3], to[3]);
}

INLINE void adjust_udp(struct udp *udp, u64 change, int v6)
{
	if (!udp->check && !v6)
		return; /* the sender computed none */
	udp->check = adjusted(udp->check, change);
	if (!udp->check)
		udp->check = 0xffff;
}

/* These write the new destination, and say what that changes in a sum. */
INLINE u64 rewrite_v4(struct ipv4 *ip, const struct ip *pod)
{
	u64 change = change32(ip->to, pod->word[3]);

	ip->check = adjusted(ip->check, change);
	ip->to = pod->word[3];
	return change;
}

INLINE u64 rewrite_v6(struct ipv6 *ip, const struct ip *pod)
{
	u64 change = change_ip(ip->to, pod->word);

	copy(ip->to, pod->word, sizeof(ip->to));
	return change;
}

/* Sends the packet at p to the pod. All offsets are those of the frame as it is now. */
INLINE int rewrite_destination(struct xdp_md *ctx, struct packet *p, const struct ip *pod, be16 port)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcp *tcp = data + bounded(p->l4);
	struct udp *udp = data + bounded(p->l4);
	u64 change;

	if (p->v6) {
		struct ipv6 *ip = data + bounded(p->l3);
		if ((void *)(ip + 1) > end)
			return drop(R_DROP_ADJUST);
		change = rewrite_v6(ip, pod);
	} else {
		struct ipv4 *ip = data + bounded(p->l3);
		if ((void *)(ip + 1) > end)
			return drop(R_DROP_ADJUST);
		change = rewrite_v4(ip, pod);
	}
	if (p->t.protocol == IP_TCP) {
		if ((void *)(tcp + 1) > end)
			return drop(R_DROP_ADJUST);
		tcp->check = adjusted(tcp->check, change + change16(tcp->to, port));
		tcp->to = port;
		return XDP_PASS;
	}
	if ((void *)(udp + 1) > end)
		return drop(R_DROP_ADJUST);
	adjust_udp(udp, change + change16(udp->to, port), p->v6);
	udp->to = port;
	return XDP_PASS;
}
