/* SPDX-License-Identifier: Apache-2.0 */
/* The harness of benches/datapath.rs and of the lab's throughput: makes the frame what it was (the test loop does not),
 * gives it the next flow, and goes on with the program under test or sends it. Not part of the packet path. */
#include "kernel.h"

enum { HEAD = 74, FLOW_PORT_BITS = 14, MAP_PROG_ARRAY = 3 };

struct bench {
	u64 head[10]; /* Ethernet, IP, TCP; the last 6 bytes are not written */
	u32 length;   /* of the frame */
	u32 flows;
	u32 next;
	u32 v6;
	u32 twice; /* moves the head there and back: what restoring costs */
	u32 interface; /* frames are sent by this one */
	u64 ended;     /* frames that reached their end */
};
SAME_SIZE(struct bench, 112);

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct bench);
} bench_state SEC(".maps");

struct {
	MAP_UINT(type, MAP_PROG_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_UINT(key_size, 4);
	MAP_UINT(value_size, 4);
} bench_target SEC(".maps");

static long (*const tail_call)(void *ctx, void *map, u32 index) = (void *)12;

INLINE struct bench *the_state(void)
{
	u32 key = 0;
	return map_lookup(&bench_state, &key);
}

/* The head as it was, with the next flow. The identification of IPv4 takes up what the address changes in the sum. */
INLINE int next_frame(struct xdp_md *ctx, struct bench *b)
{
	long grown = ((long)ctx->data_end - (long)ctx->data) - (long)b->length;
	if (grown && xdp_adjust_head(ctx, grown))
		return 0;
	if (b->twice && (xdp_adjust_head(ctx, -36) || xdp_adjust_head(ctx, 36)))
		return 0;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + HEAD > end)
		return 0;
	copy(data, b->head, 72);
	u32 n = b->next + 1 < b->flows ? b->next + 1 : 0;
	b->next = n;
	be16 port = htons(1024 + (n & ((1 << FLOW_PORT_BITS) - 1)));
	u8 host = n >> FLOW_PORT_BITS;
	if (b->v6) {
		*(u8 *)(data + 14 + 23) = host;
		*(be16 *)(data + 14 + 40) = port;
	} else {
		*(u8 *)(data + 14 + 5) = 255 - host;
		*(u8 *)(data + 14 + 15) = host;
		*(be16 *)(data + 14 + 20) = port;
	}
	return 1;
}

SEC("xdp.frags")
int bench_run(struct xdp_md *ctx)
{
	struct bench *b = the_state();

	if (!b || !next_frame(ctx, b))
		return XDP_ABORTED;
	tail_call(ctx, &bench_target, 0);
	return XDP_DROP;
}

/* For live frames: to the interface. */
SEC("xdp.frags")
int bench_send(struct xdp_md *ctx)
{
	struct bench *b = the_state();

	return b && next_frame(ctx, b) ? redirect(b->interface, 0) : XDP_ABORTED;
}

/* Where frames end, and are counted: on one CPU, so that nothing need be atomic. */
SEC("xdp.frags")
int bench_end(struct xdp_md *ctx)
{
	struct bench *b = the_state();

	if (b)
		b->ended++;
	return XDP_DROP;
}

/* What sending a frame back costs a node before it does anything with it. */
SEC("xdp.frags")
int bench_back(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data, was;

	if ((void *)(eth + 1) > end)
		return XDP_ABORTED;
	was = *eth;
	copy(eth->to, was.from, sizeof(eth->to));
	copy(eth->from, was.to, sizeof(eth->from));
	return XDP_TX;
}

SEC("classifier")
int bench_end_at_pod(struct __sk_buff *skb)
{
	struct bench *b = the_state();

	if (b)
		b->ended++;
	return TCX_DROP;
}

/* An empty program: what the call of any program costs in this harness. */
SEC("xdp.frags")
int bench_nothing(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char licence[] SEC("license") = "Apache-2.0";
