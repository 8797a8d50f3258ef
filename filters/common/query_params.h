/* The parameters of a request's query as an ordered map that filters may change.
 * Threads: worker-local; all memory is the arena given. Names and values are kept as they are,
 * never decoded. */
#ifndef SLUICE_FILTERS_COMMON_QUERY_PARAMS_H
#define SLUICE_FILTERS_COMMON_QUERY_PARAMS_H

#include "proxy/base/arena.h"

struct query_param {
    sv name, value;
};
struct query_params {
    struct arena *arena;
    struct query_param *v; /* ascending by name, those of one name as they came */
    unsigned n, cap;
};
void query_params_parse(struct query_params *q, sv path, struct arena *a);
bool query_params_has(const struct query_params *q, sv name);
void query_params_remove(struct query_params *q, sv name);
void query_params_add(struct query_params *q, sv name, sv value); /* behind those of its name */
void query_params_set(struct query_params *q, sv name, sv value); /* in place of them */
/* `path` with these parameters as its query. */
sv query_params_path(const struct query_params *q, sv path);
/* May it stand in a query as it is? */
bool query_param_is_encoded(sv text);

#endif
