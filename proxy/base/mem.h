/* Heap allocation. We do not test out-of-memory paths: xalloc aborts, and input is bounded everywhere.
 * Only base/ calls malloc and free directly. */
#ifndef SLUICE_BASE_MEM_H
#define SLUICE_BASE_MEM_H

#include <stddef.h>

void *xalloc(size_t n);                             /* uninitialised, never NULL, n may be 0 */
void *xcalloc(size_t n, size_t size);               /* zeroed, overflow-checked */
void *xrealloc(void *p, size_t n);                  /* p may be NULL */
void *xreallocarray(void *p, size_t n, size_t size); /* overflow-checked */
void xfree(void *p);                                /* NULL is fine */
void *xmemdup(const void *p, size_t n);
char *xstrdup(const char *s);

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))
#define xnew_array(type, n) ((type *)xcalloc((n), sizeof(type)))

/* Give unused heap pages back to the system (malloc_trim); used after large updates and by /memory. */
void mem_trim(void);

#endif
