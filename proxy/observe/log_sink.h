/* Where access logs go: one sink per file, with a buffer per thread, written out by a flush thread
 * of its own, so that neither a worker nor main ever waits for a disk.
 * Threads: append on any thread that has an index; the rest as told at each function.
 * Spec: Envoy's AccessLogManager, --file-flush-interval-msec, /reopen_logs. */
#ifndef SLUICE_OBSERVE_LOG_SINK_H
#define SLUICE_OBSERVE_LOG_SINK_H

#include "proxy/base/buf.h"
#include "proxy/base/diag.h"

struct stats_store;
struct log_sink;

#define LOG_BUFFER_BYTES (64u * 1024) /* handed over when it holds this much */
/* waiting for the disk, per sink: past it lines are dropped and counted */
#define LOG_QUEUE_BYTES_MAX (16u * 1024 * 1024)
#define LOG_LINE_BYTES_MAX (1024u * 1024)

/* Start the flush thread. threads: how many thread indices append. interval_ms:
 * --file-flush-interval-msec. Once, main. */
void log_sinks_start(unsigned threads, unsigned interval_ms, struct stats_store *stats);
/* Write everything out, end the thread. Sinks must not be appended to any more. Main. */
void log_sinks_stop(void);
/* Reopen all files (SIGUSR1, POST /reopen_logs); happens on the flush thread soon. Any thread. */
void log_sinks_reopen(void);
/* Write out what is buffered now, and wait for it. Any thread; for tests and shutdown. */
void log_sinks_flush(void);
/* Bring filesystem.* up to date; main, before each stats flush and before stats are shown. */
void log_sinks_publish_stats(unsigned thread);

/* The sink of a path, opened when it is new; returns a ref. NULL: error added. Any thread, cold. */
struct log_sink *log_sink_get(sv path, struct diag *d);
struct log_sink *log_sink_stdout(void); /* refs, too */
struct log_sink *log_sink_stderr(void);
/* The last unref writes out what is buffered and closes, on the flush thread. */
void log_sink_unref(struct log_sink *s);
/* Append a line (all of it, or nothing when the queue is full). `line` is unchanged. thread: this
 * thread's index. */
void log_sink_append(struct log_sink *s, unsigned thread, const struct buf *line);

#endif
