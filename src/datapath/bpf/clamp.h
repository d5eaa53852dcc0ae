/* SPDX-License-Identifier: Apache-2.0 */
/* MSS clamp on SYN-ACKs: what the client may send must fit the way from the first node to the owner. */
#pragma once
#include "egress.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2 };

/* Offset of the MSS value from the start of the TCP header; 0: there is none. It stands first where anybody sends it;
 * that others come before it is borne to a degree. */
enum { OPTIONS_BEFORE_MSS = 12 };
INLINE u32 find_mss(const u8 *tcp, const void *end, u32 header)
{
	u32 at = sizeof(struct tcp);

	for (int i = 0; i < OPTIONS_BEFORE_MSS; i++) {
		if (at + 4 > header || at > 56)
			return 0;
		const u8 *option = tcp + at;
		if ((const void *)(option + 4) > end)
			return 0;
		if (option[0] == OPTION_END)
			return 0;
		if (option[0] == OPTION_NOP) {
			at++;
			continue;
		}
		if (option[0] == OPTION_MSS)
			return option[1] == 4 ? at + 2 : 0;
		if (option[1] < 2)
			return 0;
		at += option[1];
	}
	return 0;
}

GLOBAL int clamp_mss(struct __sk_buff *skb, u32 l4, u32 limit)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tcp *tcp;
	be16 from, to = htons(limit);
	u32 at;

	if (l4 > 256)
		return 0;
	tcp = data + l4;
	if ((void *)(tcp + 1) > end)
		return 0;
	at = find_mss((u8 *)tcp, end, (tcp->offset >> 4) * 4);
	if (!at || at > 64)
		return 0;
	be16 *value = (void *)tcp + at;
	if ((void *)(value + 1) > end)
		return 0;
	from = *value;
	if (ntohs(from) <= limit)
		return 0;
	/* An option may stand at an odd offset; its bytes then count swapped. */
	u64 a = at & 1 ? __builtin_bswap16(from) : from, b = at & 1 ? __builtin_bswap16(to) : to;
	if (l4_csum(skb, l4 + __builtin_offsetof(struct tcp, check), a, b, 2))
		return 0;
	if (skb_store(skb, l4 + at, &to, sizeof(to), 0))
		return 0;
	count(R_CLAMPED);
	return 1;
}

/* Reads the IP header of a frame that leaves; whose address its source is, NULL where we do not know it. */
INLINE const struct address *source_of(struct __sk_buff *skb, const struct tables *t, struct reply *r)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	be16 protocol = 0;

	r->l3 = parse_ethernet(data, end, &protocol);
	if (!r->l3 || (protocol != htons(ETH_IPV4) && protocol != htons(ETH_IPV6)))
		return NULL;
	r->v6 = protocol == htons(ETH_IPV6);
	if (!parse_reply_ip(r, data, end))
		return NULL;
	return r->v6 ? find_v6(t, r->pod.word) : find_v4(t, r->pod.word[3]);
}

/* Of a frame that a pod sends: a reply to a client that came through a VIP, and the VIP that it leaves with. */
INLINE int reply_of(struct __sk_buff *skb, struct reply *r, struct flow *f)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	return parse_reply_fragment(r, data, end) && parse_reply_l4(r, data, end) && translation_of(r, f);
}

/* Makes it leave with the VIP, and clamps the MSS of a SYN-ACK. */
INLINE int translate(struct __sk_buff *skb, const struct tables *t, const struct reply *r, const struct flow *f)
{
	u32 limit = r->v6 ? t->config.mss6 : t->config.mss4;

	if (!rewrite_source(skb, r, f))
		return 0;
	count(R_REPLY);
	if ((r->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) && limit)
		clamp_mss(skb, r->l4, limit);
	return 1;
}
