/* A layer of runtime values as it comes in messages: flat keys and texts. Config thread, or main
 * before others start. Spec: service.runtime.v3.Runtime, bootstrap.v3.RuntimeLayer.static_layer. */
#ifndef SLUICE_CONFIG_RUNTIME_VALUES_H
#define SLUICE_CONFIG_RUNTIME_VALUES_H

#include "proxy/base/diag.h"

struct runtime_value {
    sv key, text; /* "a.b"; text as runtime_layer_set() takes it */
};
struct runtime_values {
    const struct runtime_value *v;
    unsigned n;
};
/* struct_msg: google.protobuf.Struct, NULL: empty. {"a": {"b": 1}} is a.b; an object with a
 * "numerator" is a fraction. Nulls, lists and too many or too deep values are errors, in Envoy's
 * words. Memory is the arena's. */
bool runtime_values_compile(struct arena *a, const void *struct_msg, struct runtime_values *out,
                            struct diag *d);

#endif
