/* SPDX-License-Identifier: Apache-2.0 */
/* The maps. Everything that the stateless half reads is an array: those look-ups are inlined. */
#pragma once
#include "types.h"

#define ARRAY(name, valuetype, n)                 \
	struct {                                  \
		MAP_UINT(type, MAP_ARRAY);        \
		MAP_UINT(map_flags, MAP_MMAPABLE); \
		MAP_UINT(max_entries, n);         \
		MAP_TYPE(key, u32);               \
		MAP_TYPE(value, valuetype);       \
	} name SEC(".maps")

#define LRU(name, keytype, valuetype, n)     \
	struct {                             \
		MAP_UINT(type, MAP_LRU_HASH); \
		MAP_UINT(max_entries, n);    \
		MAP_TYPE(key, keytype);      \
		MAP_TYPE(value, valuetype);  \
	} name SEC(".maps")

#define PERCPU(name, valuetype, n)               \
	struct {                                 \
		MAP_UINT(type, MAP_PERCPU_ARRAY); \
		MAP_UINT(max_entries, n);        \
		MAP_TYPE(key, u32);              \
		MAP_TYPE(value, valuetype);      \
	} name SEC(".maps")

ARRAY(tables, struct tables, 1);
ARRAY(slots, u64, SLOTS);
ARRAY(backends, struct backend, BACKENDS);

/* Not to be mapped, but so its lines are those of the cache. */
ARRAY(handshakes, struct handshakes, HANDSHAKE_BUCKETS);
LRU(replies, struct flow_key, struct flow, FLOWS);
LRU(flows, struct flow_key, struct flow, FLOWS);
/* The same two for UDP. Anybody's datagram is a new flow: they must push no connection out. */
LRU(answers, struct flow_key, struct flow, FLOWS);
LRU(datagrams, struct flow_key, struct flow, FLOWS);
LRU(fragments, struct fragment_key, struct flow, FRAGMENTS);

PERCPU(rings, struct rings, 1);
PERCPU(counters, u64, REASONS);
PERCPU(service_counters, struct service_counters, SERVICES);

INLINE const struct tables *the_tables(void)
{
	u32 zero_key = 0;
	return map_lookup(&tables, &zero_key);
}

INLINE const struct bank *bank_of(const struct tables *t)
{
	return &t->bank[t->config.seed & 1];
}
