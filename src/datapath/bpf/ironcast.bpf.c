/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path: see docs/datapath.md. One program for packets that come in on an uplink, one for replies, and two
 * that `bypass` puts between the uplink and the pods. tcx.bpf.c includes this file for the same path without XDP
 * (AT_TCX). */
#include "choose.h"
#include "clamp.h"
#include "errors.h"

#ifndef AT_TCX
#include "bypass.h"
#include "plain.h"

/* Several segments in one buffer, which are cut up behind us. XDP sees none. */
INLINE int is_bundle(const struct xdp_md *ctx)
{
	return 0;
}
#endif

/* The way to the node does not take it whole: say so to the sender, or let kube-proxy's way fragment it. */
INLINE int too_big(struct xdp_md *ctx, const struct packet *p, u32 mtu)
{
	if (p->outer)
		return drop(R_DROP_UNREACHABLE);
	if (!p->whole)
		return pass(R_PASS_TOO_BIG);
	return p->v6 ? answer_too_big_v6(ctx, p->l3, mtu) : answer_too_big_v4(ctx, p->l3, mtu);
}

INLINE int forward(struct xdp_md *ctx, const struct tables *t, const struct packet *p, const struct outside *o)
{
	const struct node *n = find_node(t, o->onward.node);

	/* A node without our programs: kube-proxy's way is the one that works. */
	if (unlikely(!n))
		return p->outer ? drop(R_DROP_UNREACHABLE) : pass(R_PASS_UNREACHABLE);
	u32 over = n->family == 4 ? OVER_V4 : OVER_V6;
	if (unlikely(p->length + over > n->mtu) && !is_bundle(ctx))
		return too_big(ctx, p, n->mtu - over);
	if (unlikely(o->onward.asked && !is_fresh(p)))
		count(o->onward.final ? R_RETURNED : R_CHAINED);
	return send_encapsulated(ctx, p->l3, n, o);
}

/* What a client begins is a handshake until the pod has said that it knows it; of datagrams nobody says anything. */
INLINE int remember(const struct tuple *t, int shares, const struct ip *pod, be16 port)
{
	return t->protocol == IP_TCP ? remember_handshake(t, shares, pod, port) : remember_flow(t, pod, port);
}

INLINE int deliver(struct xdp_md *ctx, const struct tables *t, const struct service *s, struct packet *p,
		   const struct verdict *v)
{
	if (p->outer) {
		int action = take_outer_off(ctx, p);
		if (action != PARSED)
			return action;
		count(R_DECAPSULATED);
	}
	if (unlikely(p->icmp))
		return rewrite_error(ctx, p, v->pod, v->port);
	if (unlikely(p->flags & (TCP_SYN | TCP_FIN | TCP_RST) || v->remember) && !is_question(ctx)) {
		if ((is_fresh(p) || v->remember) && remember(&p->t, s->flags & SERVICE_SHARES, v->pod, v->port))
			return drop(R_DROP_COLLISION);
		if (!is_fresh(p) && p->flags & (TCP_FIN | TCP_RST))
			note_end(&p->t);
	}
	int action = rewrite_destination(ctx, p, v->pod, v->port);
#ifdef AT_TCX
	return action;
#else
	return action == XDP_PASS ? pass_marked(ctx, t) : action;
#endif
}

INLINE int refuse(struct service_counters *n, u32 reason)
{
	if (n)
		n->refused++;
	return drop(reason);
}

/* A packet to a port of a VIP: who gets it, and there it goes. */
INLINE int serve(struct xdp_md *ctx, const struct tables *t, struct packet *p, const struct service *s,
		 const struct arrival *a)
{
	struct choice answer;
	struct verdict v = {};
	struct service_counters *n = counters_of(s);
	u32 hash = flow_hash(t->config.flow_key, &p->t, p->v6, s->flags & SERVICE_AFFINITY);
	u64 slot = find_slot(s, hash);

	int step = choose(&t->config, s, slot, p, a, &answer, &v);
	if (unlikely(v.stale) && !is_question(ctx))
		forget_flow(&p->t);
	switch (step) {
	case DELIVER:
		if (n) {
			n->delivered++;
			n->bytes += p->length;
		}
		return deliver(ctx, t, s, p, &v);
	case FORWARD:
		if (n) {
			if (a->first)
				n->encapsulated++;
			else
				n->chained++;
			n->bytes += p->length;
		}
		return forward(ctx, t, p,
			       &(struct outside){
				       .onward = v.onward,
				       .hash = hash,
				       .length = p->length,
				       .tos = p->tos,
			       });
	}
	return refuse(n, slot ? R_DROP_HOPS : R_DROP_NO_BACKEND);
}

/* A packet to a VIP, its IP header parsed. */
INLINE int to_vip(struct xdp_md *ctx, const struct tables *t, struct packet *p, const struct address *vip,
		  const struct arrival *a)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u8 protocol = p->t.protocol;
	int action, echo = 0;

	if (likely(protocol == IP_TCP || protocol == IP_UDP)) {
		action = parse_l4(data, end, p);
	} else if (protocol == (p->v6 ? IP_ICMPV6 : IP_ICMP)) {
		action = parse_icmp(data, end, p, &echo);
		if (action == PARSED && echo)
			return a->first ? answer_echo(ctx, p->l3, p->l4, p->v6) : drop(R_DROP_ICMP);
	} else if (protocol == IP_SCTP && a->first) {
		be16 *ports = data + bounded(p->l4);
		if ((void *)(ports + 2) > end)
			return drop(R_DROP_MALFORMED);
		return find_service(t, vip, p->v6, ports_of(protocol, ports[1])) ? pass(R_PASS_PROTOCOL)
											: drop(R_DROP_PROTOCOL);
	} else {
		return drop(R_DROP_PROTOCOL);
	}
	if (unlikely(action != PARSED))
		return action;
	const struct service *s = find_service(t, vip, p->v6, ports_of(p->t.protocol, p->t.vip_port));
	if (unlikely(!s))
		return drop(R_DROP_UNKNOWN_PORT);
	if (unlikely(s->flags & SERVICE_PASS))
		return a->first ? pass(R_PASS_FOREIGN) : drop(R_DROP_UNREACHABLE);
	return serve(ctx, t, p, s, a);
}

/* What an incoming frame turned out to be: a parsed packet to this VIP, or an action. */
struct found {
	const struct address *vip;
	struct arrival a;
	struct packet p;
};

INLINE int parse_ip(const struct tables *t, void *data, void *end, struct found *f)
{
	struct ipv4 *ip = data + bounded(f->p.l3);
	int action;

	if ((void *)(ip + 1) > end)
		return drop(R_DROP_MALFORMED);
	if (ip->version_ihl >> 4 == 6) {
		action = parse_v6(data, end, &f->p);
		f->vip = find_v6(t, f->p.t.vip.word);
	} else {
		action = parse_v4(data, end, &f->p);
		f->vip = find_v4(t, f->p.t.vip.word[3]);
	}
	return action;
}

/* From another node: our header is read, and the packet inside must be for a VIP. */
INLINE int open_tunnel(const struct tables *t, void *data, void *end, u32 at, const struct address *from,
		       struct found *f)
{
	struct tunnel *tunnel = data + at;

	if (!from || !(from->kind & KIND_NODE))
		return drop(R_DROP_SPOOFED);
	if ((void *)(tunnel + 1) > end)
		return drop(R_DROP_MALFORMED);
	u64 head = tunnel->head;
	u32 hops = head >> 8 & 15, flags = head >> 12 & 15;
	if ((u8)head != VERSION)
		return drop(R_DROP_HEADER);
	if (unlikely(flags && flags != TUNNEL_FINAL && flags != TUNNEL_RING))
		return flags == TUNNEL_PROBE ? PROBED : flags == TUNNEL_ANSWER ? XDP_PASS : drop(R_DROP_HEADER);
	if (hops > HOPS_MAX)
		return drop(R_DROP_HOPS);
	f->a.first = 0;
	f->a.hops = hops;
	f->a.final = flags == TUNNEL_FINAL;
	f->a.ring = flags == TUNNEL_RING;
	f->a.asked = head >> 16;
	f->p.outer = f->p.l3;
	f->p.l3 = at + sizeof(*tunnel);
	/* What would be passed as it is (a fragment, an option) has no business in a tunnel. */
	if (parse_ip(t, data, end, f) != PARSED)
		return XDP_DROP;
	if (!f->vip || !(f->vip->kind & KIND_VIP))
		return drop(R_DROP_SPOOFED);
	return PARSED;
}

INLINE int is_tunnel(const struct udp *udp, const void *end)
{
	return (const void *)(udp + 1) <= end && udp->to == htons(PORT);
}

INLINE int on_v4(const struct tables *t, void *data, void *end, struct found *f)
{
	struct ipv4 *ip = data + f->p.l3;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	f->vip = find_v4(t, ip->to);
	if (likely(!f->vip))
		return XDP_PASS;
	if (f->vip->kind & KIND_VIP)
		return parse_v4(data, end, &f->p);
	if (!(f->vip->kind & KIND_SELF) || ip->protocol != IP_UDP || ip->version_ihl != 0x45 ||
	    ip->fragment & htons(FRAGMENT_MORE | FRAGMENT_OFFSET) || !is_tunnel((void *)(ip + 1), end))
		return XDP_PASS;
	return open_tunnel(t, data, end, f->p.l3 + sizeof(*ip) + sizeof(struct udp), find_v4(t, ip->from), f);
}

INLINE int on_v6(const struct tables *t, void *data, void *end, struct found *f)
{
	struct ipv6 *ip = data + f->p.l3;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	f->vip = find_v6(t, ip->to);
	if (likely(!f->vip))
		return XDP_PASS;
	if (f->vip->kind & KIND_VIP)
		return parse_v6(data, end, &f->p);
	if (!(f->vip->kind & KIND_SELF) || ip->next != IP_UDP || !is_tunnel((void *)(ip + 1), end))
		return XDP_PASS;
	return open_tunnel(t, data, end, f->p.l3 + sizeof(*ip) + sizeof(struct udp), find_v6(t, ip->from), f);
}

/* What happens to an incoming frame: an enum xdp_action, or what redirect() says. */
INLINE int handle(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct tables *t = the_tables();
	struct found f = {.a.first = 1};
	be16 protocol = 0;
	int action;

	f.p.l3 = parse_ethernet(data, end, &protocol);
	if (unlikely(!t || !f.p.l3))
		return XDP_PASS;
	if (protocol == htons(ETH_IPV4))
		action = on_v4(t, data, end, &f);
	else if (protocol == htons(ETH_IPV6))
		action = on_v6(t, data, end, &f);
	else
		return XDP_PASS;
	if (unlikely(action == PROBED))
		return answer_probe(ctx, f.p.l3, protocol == htons(ETH_IPV6));
	if (action != PARSED)
		return action;
	/* Nothing is added; but from here on the verifier takes the offsets of all ways here for the same, and does not
	 * follow what comes once for each: it loads in half the time. */
	u32 nothing = t->config.nothing;
	f.p.l3 = (f.p.l3 + nothing) & 0x7ff;
	f.p.l4 = (f.p.l4 + nothing) & 0x7ff;
	f.p.outer = (f.p.outer + nothing) & 0x7ff;
	return to_vip(ctx, t, &f.p, f.vip, &f.a);
}

#ifndef AT_TCX
/* Any packet, from the first byte on. */
GLOBAL int general(struct xdp_md *ctx)
{
	return handle(ctx);
}

SEC("xdp.frags")
int ironcast_in(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct tables *t = the_tables();
	struct ethernet *eth = data;
	int action;

	if (!t || (void *)(eth + 1) > end)
		return XDP_PASS;
	if (likely(eth->protocol == htons(ETH_IPV4)))
		action = plain_v4(ctx, t, data, end);
	else if (eth->protocol == htons(ETH_IPV6))
		action = plain_v6(ctx, t, data, end);
	else if (eth->protocol == htons(ETH_VLAN) || eth->protocol == htons(ETH_QINQ))
		action = NOT_PLAIN;
	else
		return XDP_PASS;
	return likely(action != NOT_PLAIN) ? action : general(ctx);
}
#endif

SEC("classifier")
int ironcast_out(struct __sk_buff *skb)
{
	const struct tables *t = the_tables();
	const struct address *from;
	struct reply r = {};
	struct flow f;

	from = t ? source_of(skb, t, &r) : NULL;
	if (likely(!from || !(from->kind & (KIND_POD | KIND_SELF))))
		return TCX_NEXT;
	if (unlikely(r.protocol == (r.v6 ? IP_ICMPV6 : IP_ICMP)))
		return translate_error(skb, r.l3, r.l4, r.v6);
	if (!(from->kind & KIND_POD) || !reply_of(skb, &r, &f))
		return TCX_NEXT;
	return translate(skb, t, &r, &f) ? TCX_NEXT : TCX_DROP;
}

#ifndef AT_TCX
SEC("classifier")
int ironcast_to_pod(struct __sk_buff *skb)
{
	return hand_to_pod(skb);
}

SEC("classifier")
int ironcast_from_pod(struct __sk_buff *skb)
{
	return answer_for_pod(skb);
}
#endif

char licence[] SEC("license") = "Apache-2.0";
