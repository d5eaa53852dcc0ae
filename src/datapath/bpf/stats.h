/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "maps.h"

INLINE void count(u32 reason)
{
	u64 *n = map_lookup(&counters, &reason);
	if (n)
		*n += 1;
}

INLINE int drop(u32 reason)
{
	count(reason);
	return XDP_DROP;
}

INLINE int pass(u32 reason)
{
	count(reason);
	return XDP_PASS;
}

INLINE struct service_counters *counters_of(const struct service *s)
{
	u32 at = s->counters;
	return map_lookup(&service_counters, &at);
}
