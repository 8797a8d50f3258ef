/* Runtime: layered key/value flags, published as one immutable map; reading takes an atomic load
 * and a hash lookup.
 * Threads: layers are edited and published by one thread (main); values are read by any.
 * Spec: bootstrap LayeredRuntime, Envoy's Runtime::Snapshot. Not here: where layers come from
 * (server/runtime.c). */
#ifndef SLUICE_BASE_RUNTIME_H
#define SLUICE_BASE_RUNTIME_H

#include "proxy/base/buf.h"
#include "proxy/base/sv.h"

/* --- reading: any thread, lock-free but right after a publish --- */
uint64_t runtime_u64(sv key, uint64_t dflt); /* dflt: not set, or not a whole number ≥ 0 */
double runtime_double(sv key, double dflt);
bool runtime_bool(sv key, bool dflt);
/* Does `random` fall under the fraction set for the key (a number is a percentage), or else
 * numerator/denominator? */
bool runtime_fraction(sv key, uint32_t numerator, uint32_t denominator, uint64_t random);
/* Is any key set that begins with `prefix`? For features whose keys carry names: skip building the
 * key when not. */
bool runtime_has_prefix(sv prefix);
/* NUL-terminated copy of the final value; false: not set */
bool runtime_text(sv key, char *out, size_t out_n);
/* Drop this thread's hold on the map it read last (thread end; done by itself for threads that
 * exit). */
void runtime_thread_release(void);

/* --- layers: the owner thread --- */
#define RUNTIME_KEYS_MAX 100000 /* per layer */
struct runtime_layer;
struct runtime_layer *runtime_layer_new(sv name);
void runtime_layer_free(struct runtime_layer *l);
sv runtime_layer_name(const struct runtime_layer *l);
/* Value as text: a number, true/false, {"numerator":1,"denominator":"TEN_THOUSAND"}, or anything
 * else (kept as a string).
 * False: RUNTIME_KEYS_MAX reached. */
bool runtime_layer_set(struct runtime_layer *l, sv key, sv text);
bool runtime_layer_remove(struct runtime_layer *l, sv key);
void runtime_layer_clear(struct runtime_layer *l);
size_t runtime_layer_count(const struct runtime_layer *l);

/* Merge the layers, the later wins, and make that what readers see. Layers stay the caller's and
 * may be edited on. */
void runtime_publish(struct runtime_layer *const *layers, unsigned n);
/* For the runtime.num_keys and runtime.num_layers gauges. */
size_t runtime_keys(void);
unsigned runtime_layers(void);
/* GET /runtime: {"layers":[…],"entries":{key:{"layer_values":[…],"final_value":…}}}, keys
 * ascending, as of the publish. */
void runtime_write_json(struct buf *out);

#endif
