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

ARRAY(config, struct config, 1);
ARRAY(address_buckets, struct bucket, 2 << ADDRESS_BUCKETS_LOG2);
ARRAY(addresses, struct address, 2 * ADDRESSES);
ARRAY(service_buckets, struct bucket, 2 << SERVICE_BUCKETS_LOG2);
ARRAY(services, struct service, 2 * SERVICES);
ARRAY(slots, u64, SLOTS);
ARRAY(backends, struct backend, BACKENDS);
ARRAY(nodes, struct node, 2 * NODES);

LRU(syns, struct flow_key, struct flow, SYNS);
LRU(replies, struct flow_key, struct flow, FLOWS);
LRU(flows, struct flow_key, struct flow, FLOWS);
LRU(fragments, struct fragment_key, struct flow, FRAGMENTS);

PERCPU(counters, u64, REASONS);
PERCPU(service_counters, struct service_counters, SERVICES);

INLINE struct config *the_config(void)
{
	u32 zero_key = 0;
	return map_lookup(&config, &zero_key);
}
