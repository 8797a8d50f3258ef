/* Growable array: VEC(struct foo) v = {0}; *vec_push(&v) = …; v.p[i], v.n; vec_fini(&v). */
#ifndef SLUICE_BASE_VEC_H
#define SLUICE_BASE_VEC_H

#include <string.h>

#include "proxy/base/check.h"
#include "proxy/base/mem.h"

#define VEC(type)      \
    struct {           \
        type *p;       \
        size_t n, cap; \
    }

void *vec_grow(void *p, size_t *cap, size_t need, size_t item_bytes);

/* A named vector type, for struct members that are passed around. */
#define VEC_TYPE(name, type) \
    struct name {            \
        type *p;             \
        size_t n, cap;       \
    };

#define vec_reserve(v, need)                                                                       \
    ((void)((v)->cap >= (need) ? 0                                                                 \
                               : ((v)->p = (__typeof__((v)->p))vec_grow((v)->p, &(v)->cap, (need), \
                                                                        sizeof(*(v)->p)),          \
                                  0)))
/* Pointer to a new zeroed last item; earlier item pointers are invalid after it. */
#define vec_push(v)                                  \
    ({                                               \
        vec_reserve((v), (v)->n + 1);                \
        memset(&(v)->p[(v)->n], 0, sizeof(*(v)->p)); \
        &(v)->p[(v)->n++];                           \
    })
#define vec_pop(v) ((v)->p[--(v)->n])
/* Remove item i: order kept / last item moved into its place. */
#define vec_remove(v, i)                                                             \
    do {                                                                             \
        memmove(&(v)->p[(i)], &(v)->p[(i) + 1], ((v)->n - (i)-1) * sizeof(*(v)->p)); \
        (v)->n--;                                                                    \
    } while (0)
#define vec_swap_remove(v, i) ((v)->p[(i)] = (v)->p[--(v)->n])
#define vec_clear(v) ((v)->n = 0)
#define vec_fini(v)            \
    do {                       \
        xfree((v)->p);         \
        (v)->p = NULL;         \
        (v)->n = (v)->cap = 0; \
    } while (0)

#endif
