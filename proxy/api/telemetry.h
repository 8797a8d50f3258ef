/* What filters that report need beyond the stream's own facts: filter state, the host's metadata,
 * response flags as text, names of their own in exports. Threads: as told there. */
#ifndef SLUICE_API_TELEMETRY_H
#define SLUICE_API_TELEMETRY_H

#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"
#include "proxy/observe/stream_info.h"
#include "proxy/stats/stats.h"
#include "proxy/stats/stats_config.h"

#endif
