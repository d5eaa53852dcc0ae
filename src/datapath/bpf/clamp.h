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
