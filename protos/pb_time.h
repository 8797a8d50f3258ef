/* google.protobuf.Duration and Timestamp as JSON text. Threads: any. */
#ifndef SLUICE_PROTOS_PB_TIME_H
#define SLUICE_PROTOS_PB_TIME_H

#include "proxy/base/sv.h"

#define PB_DURATION_SECONDS_MAX 315576000000LL    /* about 10,000 years */
#define PB_TIMESTAMP_SECONDS_MIN (-62135596800LL) /* 0001-01-01T00:00:00Z */
#define PB_TIMESTAMP_SECONDS_MAX 253402300799LL   /* 9999-12-31T23:59:59Z */
#define PB_TIME_TEXT_MAX 48

/* Seconds and nanoseconds; of a negative duration both are ≤ 0, of a timestamp nanos is
 * 0…999,999,999. */
struct pb_time {
    int64_t seconds;
    int32_t nanos;
};

/* "1.5s" with at most 9 decimals. NULL, or what is wrong with it. */
const char *pb_duration_parse(sv text, struct pb_time *out);
/* RFC 3339 with Z or an offset. NULL, or what is wrong with it. */
const char *pb_timestamp_parse(sv text, struct pb_time *out);
/* The values JSON may say: seconds within 10,000 years, the sign of both the same, nanos below a
 * second. */
bool pb_duration_is_valid(struct pb_time t);
/* Into `out`; decimals come in threes. Returns the length. Out-of-range values are written as they
 * are. */
size_t pb_duration_format(struct pb_time t, char out[static PB_TIME_TEXT_MAX]);
size_t pb_timestamp_format(struct pb_time t, char out[static PB_TIME_TEXT_MAX]);

#endif
