/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path at tcx ingress, for uplinks whose XDP hook is taken or refused: the same code, on the kernel's packet
 * buffers. What differs stands here: room is made with the helpers that keep a buffer's offsets and segments right,
 * sums that a card has computed are kept in step, and verdicts have other numbers.
 *
 * VLAN tags do not stand in these frames, and none are written: user space uses this on untagged uplinks alone. */
#include "parse.h"

#define AT_TCX
#define xdp_md __sk_buff
#define xdp_adjust_head(ctx, delta) room_in_front(ctx, delta)
#define xdp_adjust_tail(ctx, delta) skb_change_tail(ctx, (ctx)->len + (delta), 0)
#define xdp_length(ctx) ((ctx)->len)

/* The buffer's protocol follows its outermost header; which one that will be stands behind what is taken off. */
INLINE u64 decapsulation(struct __sk_buff *skb, int gone)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u8 *ip = data + sizeof(struct ethernet) + bounded(gone);

	if ((void *)(ip + 1) > end)
		return 0;
	if (*ip >> 4 == 6)
		return skb->protocol == htons(ETH_IPV4) ? ROOM_DECAP_V6 : 0;
	return skb->protocol == htons(ETH_IPV6) ? ROOM_DECAP_V4 : 0;
}

/* Grows in front of IP (behind Ethernet, which the caller writes anew), or shrinks there. By the size alone it is
 * known what for: an encapsulation, or an answer of our own. */
GLOBAL int room_in_front(struct __sk_buff *skb, int delta)
{
	enum { HEADERS = sizeof(struct udp) + sizeof(struct tunnel) };
	u64 flags = 0;

	if (!delta)
		return 0;
	if (delta == -(int)(sizeof(struct ipv4) + HEADERS))
		flags = ROOM_ENCAP_V4 | ROOM_ENCAP_UDP;
	else if (delta == -(int)(sizeof(struct ipv6) + HEADERS))
		flags = ROOM_ENCAP_V6 | ROOM_ENCAP_UDP;
	else if (delta > 0)
		flags = decapsulation(skb, delta);
	return skb_adjust_room(skb, -delta, ROOM_MAC, flags);
}

/* Made up by the daemon: as at XDP, but these frames are marked as buffers are. */
INLINE int is_question(const struct __sk_buff *skb)
{
	return skb->mark == QUESTION;
}

/* Segments of one connection that the kernel has put together: each of them fits, by the clamp of the MSS. */
INLINE int is_bundle(const struct __sk_buff *skb)
{
	return skb->gso_size != 0;
}

#define rewrite_destination rewrite_bytes
#include "nat.h"
#undef rewrite_destination

/* Where the card has summed the packet, that sum must know the new address. (IPv6 has no header checksum to take it
 * up; there the sum stays what it was.) */
GLOBAL int follow_sum(struct __sk_buff *skb, be32 from, be32 to)
{
	return csum_update(skb, csum_diff(&to, sizeof(to), &from, sizeof(from), 0)) < 0;
}

INLINE int rewrite_destination(struct __sk_buff *skb, struct packet *p, const struct ip *pod, be16 port)
{
	int action = rewrite_bytes(skb, p, pod, port);

	if (!p->v6 && action == XDP_PASS)
		follow_sum(skb, p->t.vip.word[3], pod->word[3]);
	return action;
}

#include "ironcast.bpf.c"

/* Headers stand in the linear part, and this buffer is ours to write to. */
enum { HEADERS_MOST = 256 };

SEC("classifier")
int ironcast_in(struct __sk_buff *skb)
{
	u32 length = skb->len;

	if (skb_pull(skb, length < HEADERS_MOST ? length : HEADERS_MOST))
		return TCX_NEXT;
	int action = handle(skb);
	switch (action) {
	case XDP_PASS:
		return TCX_NEXT;
	case XDP_TX:
		return redirect(skb->ifindex, 0);
	case XDP_DROP:
	case XDP_ABORTED:
		return TCX_DROP;
	}
	return action;
}
